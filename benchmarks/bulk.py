"""A soak test of `ms-ocr recognize --out`: synthetic lines in an LMDB, read by a process that is killed (kill -9) a few
times early on and resumed by --resume. Every line must occur once and in its place, and memory must stay flat.

    python benchmarks/bulk.py --lines 1000000 --kills 5 [--tiny] [--workers N] [--out lines.parquet]

--tiny reads with a small network of random weights, to test everything but the network. Memory is that of the process
and its workers without file pages (the LMDB is mapped, and its pages stay as long as nobody else needs them).
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.lmdb.store import image_key, write_lmdb

TINY = {  # as small as a network can be: it takes about a third of the time
    "num_classes": 40,
    "depths": [1, 1, 1, 1],
    "dims": [8, 8, 8, 8],
    "layer_scale": 1.0,
    "embed_dim": 8,
    "blocks": 1,
    "heads": 1,
    "dropout": 0.0,
}
PAUSE = 1.0  # s between memory readings
LIMIT = 5.0  # percent by which the peak of the last quarter may exceed that of the second


def drawn(count: int) -> Iterator[tuple[bytes, str]]:
    """Numbers in images of 28 px height, 20 to 150 px wide, as PNG, and as text."""
    for index in range(count):
        text = str(index % 10 ** (1 + index % 8))
        image = np.full((28, 8 + 17 * len(text)), 255, np.uint8)
        cv2.putText(image, text, (3, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 2)
        yield cv2.imencode(".png", image)[1].tobytes(), text


def tiny_model(folder: Path) -> Path:
    """A model directory with random weights."""
    import torch

    from ms_ocr_handwritten.config import Configuration
    from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
    from ms_ocr_handwritten.training.checkpoints import upstream_state_dict
    from ms_ocr_handwritten.vocab import Vocabulary

    raw = json.loads((Path(__file__).parent.parent / "configuration.json").read_text(encoding="utf-8"))
    raw["model"]["network"] = TINY
    folder.mkdir()
    (folder / "configuration.json").write_text(json.dumps(raw))
    Vocabulary(tuple(map(chr, range(0x4E00, 0x4E00 + TINY["num_classes"] - 2)))).save(folder / "vocab.txt")
    torch.manual_seed(0)
    torch.save(upstream_state_dict(ConvNextViT(Configuration.parse(raw).network)), folder / "pytorch_model.pt")
    return folder


def resident_mib(process: int) -> float:
    """Memory of a process and its children, shared memory counted once; 0 if they are gone."""
    try:
        kib = sum(
            int(row.split()[1])
            for row in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            if row.startswith("Pss_Anon:")
        )
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    return kib / 1024 + sum(map(resident_mib, map(int, children)))


def names(out: Path) -> Iterator[str]:
    """The names of the rows of all parts, in order."""
    for part in parts(out):
        if out.suffix == ".parquet":
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(part, columns=["path"])["path"].to_pylist()
        else:
            with open(part, encoding="utf-8") as rows:
                yield from (json.loads(row)["path"] for row in rows)


def run(command: list[str], is_time: Callable[[], bool] = lambda: False) -> tuple[int, list[tuple[float, float]]]:
    """Exit code, and repeated readings (s since the start, MiB); the process is killed once `is_time` is true."""
    start, readings = time.monotonic(), []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(PAUSE)
            readings.append((time.monotonic() - start, resident_mib(process.pid)))
            if is_time():
                process.kill()
    return process.returncode, readings


def parts(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{out.stem}-*{out.suffix}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--part-size", type=int, default=10_000)
    parser.add_argument("--out", default="lines.jsonl", help="name of the parts, .jsonl or .parquet")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, help="output folder [a temporary one]")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=told.folder) as temporary:
        folder = Path(temporary)
        source, out = folder / "lmdb", folder / "out" / told.out
        print(f"drawing {told.lines} lines", flush=True)
        write_lmdb(source, drawn(told.lines))
        command = [sys.executable, "-m", "ms_ocr_handwritten.cli", "recognize", str(source), "--out", str(out)]
        command += ["--resume", "--part-size", str(told.part_size), "--workers", str(told.workers)]
        if told.tiny:
            # random weights are always uncertain, so "auto" would compute each line again
            command += ["--model", str(tiny_model(folder / "model")), "--precision", "fp32"]
        moments, there = random.Random(0), 0
        for _ in range(told.kills):
            wanted, seconds = len(parts(out)) + 1, moments.uniform(0, 10)

            def is_time(wanted: int = wanted, seconds: float = seconds) -> bool:
                return len(parts(out)) >= wanted and time.time() - parts(out)[-1].stat().st_mtime >= seconds

            code, readings = run(command, is_time)
            there = len(parts(out))
            print(f"killed after {readings[-1][0]:.0f} s, {there} parts there", flush=True)
            if code != -signal.SIGKILL:
                raise SystemExit(f"ended with exit code {code} before it was killed; give more --lines")
        code, readings = run(command)
        expected = (f"{source}/{image_key(index)}" for index in range(told.lines))
        wrong = sum(name != wanted for name, wanted in zip(names(out), expected))
        count = sum(1 for _ in names(out))
        quarter = max(1, len(readings) // 4)
        seconds, lines = readings[-1][0], told.lines - there * told.part_size
        print(f"exit code {code}; {count} rows of {told.lines}, {wrong} out of place")
        print(f"the last run: {lines} lines in {seconds:.0f} s, {lines / seconds:.0f} a second with its start")
        print(f"MiB at most, by tenths: {by_tenths(readings)}")
        steady = readings[quarter : -max(2, len(readings) // 50)]  # until the first worker ends
        grown = np.polyfit(*zip(*steady), 1)[0] * seconds / lines * 100_000
        print(f"from the second quarter on {grown:+.2f} MiB for each 100,000 lines (least squares)")
        before, after = (max(mib for _, mib in part) for part in (readings[quarter : 2 * quarter], readings[-quarter:]))
        print(f"highest in the second quarter {before:.0f} MiB, in the last {after:.0f} ({after / before - 1:+.1%})")
        if code or wrong or count != told.lines or after > before * (1 + LIMIT / 100):
            raise SystemExit(1)


def by_tenths(readings: list[tuple[float, float]]) -> list[int]:
    end = readings[-1][0]
    tenths: list[list[float]] = [[] for _ in range(10)]
    for spent, mib in readings:
        tenths[min(9, int(10 * spent / end))].append(mib)
    return [round(max(tenth)) for tenth in tenths if tenth]


if __name__ == "__main__":
    main()
