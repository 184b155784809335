"""Training with the official size: ModelScope's builtin and this package, the same weights, the same lines.

Lines of three chunks, and of mixed widths, for which the builtin computes three chunks each. Alternating steps, after
one pass over all batches (oneDNN compiles kernels for each new number of chunks): lines per second, including data
loading and optimiser. The losses of the first batch, without dropout, must be equal in fp32; else the
run stops. The memory per line is the difference between the peaks of a batch and of half of it, divided by the
difference in lines, each in its own process.

    python benchmarks/training.py KIND MODEL_DIR FOLDER BATCH DEVICE THREADS     that process: prints MiB per line
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from clock import Timing, ratio, seconds
from facts import has_bf16, peak_resident_mib
from images import CHUNK_WIDTHS, mixed
from learners import Learner, make_learner, write_lines
from options import Options
from peers import official_model_dir, those_there_are
from report import Claim, Section, Table, progress
from tiles import tile_line

STEPS = 4  # batches in the LMDB
LOSS_TOLERANCE = 1e-4  # relative, fp32
PROMISED = 4.0  # lines per second, ours / builtin
COLUMNS = ("lines", "learner", "lines/s", "ours / builtin", "loss of the first batch", "memory a line, MiB")


def run(options: Options) -> Section:
    count, random = STEPS * options.batch, np.random.default_rng(0)
    images = {
        "three chunks": [tile_line(CHUNK_WIDTHS[3], random) for _ in range(count)],
        "mixed widths": mixed(count, random),
    }
    rows, claims, samples, missing = [], [], {}, []
    for lines, drawn in images.items():
        with tempfile.TemporaryDirectory() as folder:
            timings, row, missing = _measure(lines, drawn, Path(folder), options)
        rows += row
        samples[lines] = {name: timing.ms for name, timing in timings.items()}
        claims.append(
            Claim.at_least(
                f"training, {lines}, {list(timings)[-1]}: lines a second, ours / builtin", PROMISED, row[-1][3]
            )
        )
    title = f"Training, official size, batches of {options.batch}"
    return Section([Table(title, COLUMNS, rows, "; ".join(missing))], claims, {"ms a line": samples})


def _measure(
    lines: str, images: list[np.ndarray], folder: Path, options: Options
) -> tuple[dict[str, Timing], list[tuple], list[str]]:
    """Timings by learner, rows of the table, missing learners."""
    kinds = ["builtin", "fp32", *(["bf16"] if has_bf16(options.device) else [])]
    model_dir = official_model_dir(folder / "model", reads=False)
    for lmdb in ("theirs", "ours"):
        write_lines(folder / lmdb, images)
    learners, missing = those_there_are(
        [partial(make_learner, kind, model_dir, folder, options.device) for kind in kinds]
    )
    kinds = kinds[len(kinds) - len(learners) :]  # only the builtin can be missing
    losses = _first_losses(learners, options.batch)
    if "builtin" in kinds:
        _check_equal(losses[0], losses[1])
    timings = _in_turn(learners, options)
    memory = [_memory_per_line(kind, model_dir, folder, options) for kind in kinds]
    peer = timings[0] if "builtin" in kinds else None
    faster = [ratio(peer.ms, timing.ms) if peer and timing is not peer else None for timing in timings]
    rows = [
        (lines, learner.name, 1000 / timing.median, quotient, f"{loss:.5f}", mib)
        for learner, timing, quotient, loss, mib in zip(learners, timings, faster, losses, memory)
    ]
    return {learner.name: timing for learner, timing in zip(learners, timings)}, rows, missing


def _first_losses(learners: list[Learner], batch: int) -> list[float]:
    losses = []
    for learner in learners:
        learner.take(batch)
        losses.append(learner.loss())
        learner.take(batch)
    return losses


def _check_equal(theirs: float, ours: float) -> None:
    if abs(theirs - ours) > LOSS_TOLERANCE * abs(theirs):
        raise SystemExit(
            f"training: with the same weights and lines the builtin's loss is {theirs}, ours in fp32 {ours}"
        )


def _in_turn(learners: list[Learner], options: Options) -> list[Timing]:
    """Milliseconds per line of each learner's steps, without the first STEPS."""
    timings = [Timing() for _ in learners]
    for number in range(STEPS + options.heavy_rounds):
        progress(f"training: step {number + 1} of {STEPS} + {options.heavy_rounds}")
        for learner, timing in zip(learners, timings):
            duration, _ = seconds(learner.step)
            if number >= STEPS:
                timing.ms.append(1000 * duration / options.batch)
    return timings


def _memory_per_line(kind: str, model_dir: str, folder: Path, options: Options) -> float:
    progress(f"training: memory, {kind}")
    command = [
        sys.executable,
        __file__,
        kind,
        model_dir,
        str(folder),
        str(options.batch),
        options.device,
        str(options.threads),
    ]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def print_memory_per_line(kind: str, model_dir: str, folder: str, batch: str, device: str, threads: str) -> None:
    import torch

    torch.set_num_threads(int(threads))
    learner, peaks = make_learner(kind, model_dir, Path(folder), device), []
    for lines in (int(batch) // 2, int(batch)):
        learner.take(lines)
        for _ in range(2):  # the very first step creates the optimiser's state
            learner.step()
        peaks.append(torch.cuda.max_memory_allocated() / 2**20 if device == "gpu" else peak_resident_mib())
    print((peaks[1] - peaks[0]) / (int(batch) // 2))


if __name__ == "__main__":
    print_memory_per_line(*sys.argv[1:])
