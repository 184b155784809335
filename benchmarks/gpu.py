"""For a GPU that is available for minutes: checks its results, times training and reading, and profiles both.

    python benchmarks/gpu.py [--json FILE] [--only checks,kernels,training,reading,profiles] [--device cpu] [--quick]

Training steps are timed many at a time, without synchronising the device in between, as in a real training; the
builtin synchronises by itself. The most important parts run first: what is printed stays if the time ends. With --quick
all parts run on the embedded model in little time, to test the script itself. Exits with 1 if a check fails.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "40")

import cv2
import numpy as np
import torch
from facts import has_bf16, machine
from floor import chunk_flop
from images import CHUNK_WIDTHS, inked, mixed
from kernels import TOLERANCE, depthwise_table
from learners import BuiltinLearner, OwnLearner, write_lines
from peers import Builtin, Missing, OwnPipeline, official_model_dir
from report import Table, facts_table, progress
from tiles import IDS, TILES, tile_line

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.image import loading
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.model_dir import ModelDir

PARTS = ("checks", "kernels", "training", "reading", "profiles")
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}  # of the first loss, relative
COMPILED = ("default", "reduce-overhead")  # modes of torch.compile; the latter records CUDA graphs, too
LOADERS = (4, 8, 16)  # threads that make canvases of JPEG files
KERNELS = 15  # rows of a profile


class Run:
    """The measurements, with their device and sizes."""

    def __init__(self, device: str, quick: bool, folder: Path) -> None:
        self.device, self.quick, self.folder = device, quick, folder
        self.precisions = ["fp32", *(["bf16"] if has_bf16(device) else [])]
        self.figures: dict[str, Any] = {}
        self.failed: list[str] = []
        self.learns = default_model_dir() if quick else official_model_dir(folder / "learns", reads=False)
        self.reads = default_model_dir() if quick else official_model_dir(folder / "reads")
        self.batches, self.rounds, self.curve = ((1, 2), 1, 2) if quick else ((16, 64, 256), 3, 300)
        self.lines = 4 if quick else 512
        self.random = np.random.default_rng(0)

    # ------------------------------------------------------------------ checks

    def checks(self) -> None:
        """The first loss in each precision, the loss curve of two seeds, the texts of `auto`."""
        lmdb = self._tiles_lmdb()
        losses = {}
        for precision in self.precisions:
            learner = self._learner(lmdb, precision, 0)
            learner.take(min(16, self.batches[-1]))
            losses[precision] = learner.loss()
        for precision, loss in losses.items():
            error = abs(loss / losses["fp32"] - 1)
            self._check(f"first loss, {precision}", error <= LOSS_TOLERANCE[precision], f"{loss:.5f}")
        ends = {
            precision: [self._end_of_curve(lmdb, precision, seed) for seed in (0, 1)] for precision in self.precisions
        }
        spread = abs(ends["fp32"][0] - ends["fp32"][1])
        for precision, (one, other) in ends.items():
            near = abs((one + other) / 2 - sum(ends["fp32"]) / 2) <= max(spread, 0.02 * ends["fp32"][0])
            shown = f"{one:.4f}, {other:.4f} (seeds 0 and 1 of fp32 are {spread:.4f} apart)"
            self._check(f"loss after {self.curve} steps, {precision}", near, shown)
        self._check_texts()

    def _end_of_curve(self, lmdb: str, precision: str, seed: int) -> float:
        """The mean loss of the last sixth of the curve."""
        learner = self._learner(lmdb, precision, seed)
        learner.take(min(16, self.batches[-1]), seed)
        losses = []
        for _ in range(self.curve):
            learner.step()
            losses.append(learner.training.losses.look())
        self.figures[f"curve, {precision}, seed {seed}"] = losses
        return float(np.mean(losses[-max(1, self.curve // 6) :]))

    def _check_texts(self) -> None:
        lines = mixed(self.lines, self.random)
        recognizer = partial(Recognizer.from_pretrained, self.reads, "torch", device=self.device)
        exact = [line.text for line in recognizer(precision="fp32").read_many(lines)]
        for precision in ("auto", *self.precisions[1:], "bf16+fp32"):
            reader = recognizer(precision=precision)
            differ = sum(line.text != text for line, text in zip(reader.read_many(lines), exact))
            few = differ <= max(1, len(lines) // 1000) or precision not in ("auto", "bf16+fp32")
            shown = f"{differ} of {len(lines)} ({reader.precision})"
            self._check(f"texts unlike fp32's, {precision}", few, shown)

    def _check(self, what: str, passed: bool, shown: str) -> None:
        print(f"{'passed' if passed else 'FAILED'}  {what}: {shown}", flush=True)
        self.figures[what] = shown
        if not passed:
            self.failed.append(what)

    # ------------------------------------------------------------------ kernels

    def kernels(self) -> None:
        """Depthwise convolutions in PyTorch and in Triton, and whether the results agree."""
        sizes = (2, 1) if self.quick else (1024, 20)  # chunks, calls timed together
        device = "cuda" if self.device == "gpu" else self.device
        table, errors = depthwise_table(*sizes, self.rounds, device, self._seconds)
        for name, error in errors.items():
            self._check(f"depthwise, {name}", error <= TOLERANCE, f"{error:.1e} of float64")
        self._show(table)

    # ------------------------------------------------------------------ training

    def training(self) -> None:
        """Lines per second by batch size; the throughput of the chip, and memory."""
        rows = []
        for name, width in (("three chunks", CHUNK_WIDTHS[3]), ("mixed widths", None)):
            count = max(self.batches)
            images = mixed(count, self.random) if width is None else [tile_line(width, self.random)] * count
            lmdb = self.folder / name.replace(" ", "_")
            if self.quick:
                self._write_lines(lmdb, images)
            else:
                write_lines(lmdb, images)
            peer = self._builtin_learner(lmdb, images)
            builtin = self._lines_per_second(peer, self.batches[0]) if peer else None
            if builtin:
                rows.append((name, "builtin", self.batches[0], builtin, 1.0, None, None))
            modes = COMPILED if self.device == "gpu" else ()  # minutes on a CPU
            kinds = [(self.precisions[-1], mode) for mode in modes]
            for precision, compile in (*kinds, *((precision, None) for precision in reversed(self.precisions))):
                learner = self._learner(str(lmdb), precision, 0, compile=compile)
                for batch in self.batches:
                    if self.device == "gpu":
                        torch.cuda.reset_peak_memory_stats()
                    found = self._lines_per_second(learner, batch)
                    flop = 3 * chunk_flop(self._configuration()) * sum(map(inked, images)) / len(images)
                    memory = torch.cuda.max_memory_allocated() / 2**30 if self.device == "gpu" else None
                    faster = found / builtin if builtin else None
                    rows.append((name, learner.name, batch, found, faster, found * flop / 1e12, memory))
        columns = ("lines", "learner", "batch", "lines/s", "ours / builtin", "TFLOP/s", "peak memory, GiB")
        self._show(Table("Training, loading and all", columns, rows))

    def _lines_per_second(self, learner: Any, batch: int) -> float:
        learner.take(batch)
        steps = 1 if self.quick else max(8, 512 // batch)
        for _ in range(1 if self.quick else 4):
            learner.step()
        seconds = [self._seconds(lambda: [learner.step() for _ in range(steps)]) for _ in range(self.rounds)]
        return batch * steps / float(np.median(seconds))

    def _builtin_learner(self, lmdb: Path, images: list[np.ndarray]) -> BuiltinLearner | None:
        if self.quick:  # the embedded model is not one of the builtin's
            return None
        own = lmdb.with_name(f"{lmdb.name}_builtin")
        write_lines(own, images)
        try:
            return BuiltinLearner(self.learns, str(own), self.device)
        except Missing as error:
            progress(str(error))
            return None

    # ------------------------------------------------------------------ reading

    def reading(self) -> None:
        """Lists and single lines beside the builtin; long lists by `batch_size`, and from JPEG."""
        readers: list[Any] = [
            OwnPipeline(self.reads, self.device, precision) for precision in ("auto", *self.precisions)
        ]
        if not self.quick:
            try:
                readers.insert(0, Builtin(self.reads, self.device))
                readers[0].choose_batch_size(mixed(32, self.random))
            except Missing as error:
                progress(str(error))
        rows = []
        for name, width in (("one chunk", CHUNK_WIDTHS[1]), ("mixed widths", None), ("three chunks", CHUNK_WIDTHS[3])):
            some = self.lines if self.quick else 200
            images = mixed(some, self.random) if width is None else [tile_line(width, self.random) for _ in range(some)]
            rows += self._in_turn(f"list of {some}, {name}", readers, lambda reader: reader.many, [images], len(images))
            if width:
                rows += self._in_turn(f"one line, {name}", readers, lambda reader: reader.one, images[:10], 1)
        self._show(Table("Reading", ("lines", "reader", "ms a line", "builtin / ours"), rows))
        self._show(self._long_lists())

    def _in_turn(
        self, name: str, readers: list[Any], way: Callable, given: list, lines: int
    ) -> list[tuple[str, str, float, float | None]]:
        """Rows of a table: all `given` by each of the readers, round after round; the first is the builtin or ours."""
        times: dict[str, list[float]] = {reader.name: [] for reader in readers}
        for number in range(self.rounds + 1):
            for reader in readers:
                spent = self._seconds(lambda way=way, reader=reader: [way(reader)(one) for one in given])
                if number:
                    times[reader.name].append(1000 * spent / len(given) / lines)
        found = {reader: float(np.median(spent)) for reader, spent in times.items()}
        peer = found.get(Builtin.name)
        return [
            (name, reader, ms, peer / ms if peer and reader != Builtin.name else None) for reader, ms in found.items()
        ]

    def _long_lists(self) -> Table:
        images = mixed(self.lines if self.quick else 2000, self.random)
        jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
        chunks, rows = sum(map(inked, images)), []
        for precision in ("auto", *self.precisions):
            reader = Recognizer.from_pretrained(self.reads, "torch", precision, device=self.device)
            ways = [(32, "arrays", images, loading.LOADERS), (512, "arrays", images, loading.LOADERS)]
            for batch, kind, given, loaders in (*ways, *((512, "JPEG", jpegs, loaders) for loaders in LOADERS)):
                read = partial(self._read, reader, given, batch)
                with mock.patch.object(loading, "LOADERS", loaders):
                    read()
                    seconds = float(np.median([self._seconds(read) for _ in range(self.rounds)]))
                name = f"{precision} ({reader.precision})"
                rows.append((name, kind, loaders, batch, 1000 * seconds / len(images), chunks / seconds))
        columns = ("precision", "from", "threads", "batch_size", "ms a line", "chunks/s")
        return Table(f"{len(images)} lines", columns, rows)

    @staticmethod
    def _read(reader: Recognizer, given: list, batch: int) -> None:
        for _ in reader.read_many(given, batch_size=batch):
            pass

    # ------------------------------------------------------------------ profiles

    def profiles(self) -> None:
        """Device time by kernel and host time by function, for training steps and for a list."""
        lmdb = self._tiles_lmdb()
        learner = self._learner(lmdb, self.precisions[-1], 0)
        learner.take(self.batches[-2])
        self._profile("training, two steps", lambda: (learner.step(), learner.step()))
        images = mixed(self.lines, self.random)
        reader = Recognizer.from_pretrained(self.reads, "torch", "auto", device=self.device)
        self._profile(f"reading, {len(images)} lines", partial(self._read, reader, images, 128))

    def _profile(self, what: str, task: Callable[[], object]) -> None:
        task()
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device == "gpu":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler:
            seconds = self._seconds(task)
        kinds = ("self_device_time_total", "self_cpu_time_total") if self.device == "gpu" else ("self_cpu_time_total",)
        for kind in kinds:
            averages = sorted(profiler.key_averages(), key=lambda one: -getattr(one, kind))[:KERNELS]
            rows = [(one.key[:80], one.count, getattr(one, kind) / 1000) for one in averages]
            self._show(Table(f"{what}: {kind}, {1000 * seconds:.1f} ms by the clock", ("what", "calls", "ms"), rows))

    # ------------------------------------------------------------------ shared

    def _learner(self, lmdb: str, precision: str, seed: int, compile: str | None = None) -> OwnLearner:
        work_dir = self.folder / f"work_{precision}_{seed}"
        return OwnLearner(self.learns, lmdb, precision, work_dir, self.device, seed=seed, compile=compile)

    def _tiles_lmdb(self) -> str:
        """Lines of tiles with learnable labels: one character per tile."""
        path = self.folder / "tiles"
        if not path.exists():
            tiles = [self.random.integers(0, len(TILES), int(self.random.integers(3, 23))) for _ in range(self.lines)]
            characters = self._characters()
            write_lmdb(
                path,
                [
                    (_png(np.concatenate(TILES[line], axis=1)), "".join(characters[tile] for tile in line))
                    for line in tiles
                ],
            )
        return str(path)

    def _write_lines(self, path: Path, images: list[np.ndarray]) -> None:
        """As `write_lines`, with characters of the embedded model."""
        write_lmdb(path, [(_png(image), "".join(self._characters()[:5])) for image in images])

    def _characters(self) -> list[str]:
        """One character per tile, from the vocabulary of the trained model."""
        vocabulary = ModelDir.open(self.learns).vocabulary
        return [vocabulary.decode([index]) for index in IDS]

    def _configuration(self) -> Any:
        return ModelDir.open(self.learns).configuration.network

    def _seconds(self, task: Callable[[], object]) -> float:
        """Wall time of a task, including all the work it started on the device."""
        if self.device == "gpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        task()
        if self.device == "gpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def _show(self, table: Table) -> None:
        print(f"\n{table.text(markdown=False)}", flush=True)
        self.figures[table.title] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="the embedded model and few lines, to test the script")
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: {', '.join(sorted(unknown))} unknown; of {', '.join(PARTS)}")
    if options.device == "gpu" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU; --device cpu --quick tries the script without one")
    torch.backends.cudnn.allow_tf32 = False  # otherwise fp32 is not really fp32
    print(facts_table(machine(torch.get_num_threads(), options.device)).text(markdown=False), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options.device, options.quick, Path(folder))
        for part in options.only:
            start = time.perf_counter()
            getattr(run, part)()
            progress(f"{part}: {time.perf_counter() - start:.0f} s")
            if options.json:
                options.json.write_text(json.dumps(run.figures, indent=1), encoding="utf-8")
    if run.failed:
        sys.exit(f"failed: {'; '.join(run.failed)}")


if __name__ == "__main__":
    main()
