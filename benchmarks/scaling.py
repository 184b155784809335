"""How our time grows with the number of lines, with their width, and with the batch: official size, default settings.

Each row of a table is measured in every round, so that drift of the machine affects all rows alike.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from clock import Timing, seconds
from options import Options
from peers import official_model_dir
from report import Section, Table, progress
from tiles import tile_line

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.geometry import CHUNK_STEP

COUNTS = (1, 8, 64, 256)  # lines of two chunks, in batches of 32
CHUNKS = range(1, 9)  # per line; 16 lines each
BATCHES = (1, 4, 16, 64)  # lines per batch; 64 lines of two chunks
WIDE, MANY = 16, 64


def run(options: Options) -> Section:
    with tempfile.TemporaryDirectory() as folder:
        recognizer = Recognizer.from_pretrained(official_model_dir(Path(folder)), device=options.device)
    random = np.random.default_rng(0)
    two = [tile_line(2 * CHUNK_STEP, random) for _ in range(max(COUNTS))]
    wide = {chunks: [tile_line(chunks * CHUNK_STEP, random) for _ in range(WIDE)] for chunks in CHUNKS}

    def reading(images: list[np.ndarray], batch_size: int) -> Callable[[], list]:
        return lambda: list(recognizer.read_many(images, batch_size))

    counts = _measure("lines", {n: (n, reading(two[:n], 32)) for n in COUNTS}, options)
    widths = _measure("width", {n: (WIDE, reading(images, WIDE)) for n, images in wide.items()}, options)
    batches = _measure("batch", {n: (MANY, reading(two[:MANY], n)) for n in BATCHES}, options)
    chosen = f"{recognizer.backend}, {recognizer.precision}"
    return Section(
        [
            Table(f"Ours ({chosen}), by the number of lines", ("lines of two chunks", "ms a line"), _rows(counts)),
            Table(
                f"Ours ({chosen}), by width",
                ("chunks of a line", "ms a line", "ms a chunk"),
                [(chunks, timing.median, timing.median / chunks) for chunks, timing in widths.items()],
            ),
            Table(f"Ours ({chosen}), by batch size", ("lines at a time", "ms a line"), _rows(batches)),
        ],
        samples={
            name: {size: timing.ms for size, timing in measured.items()}
            for name, measured in (("lines", counts), ("width", widths), ("batch", batches))
        },
    )


def _measure(name: str, tasks: dict[int, tuple[int, Callable[[], list]]], options: Options) -> dict[int, Timing]:
    """Milliseconds per line of each task, (lines, function that reads them), after an untimed round."""
    timings = {size: Timing() for size in tasks}
    for number in range(options.heavy_rounds + 1):
        progress(f"scaling: {name}, round {number} of {options.heavy_rounds}")
        for size, (lines, read) in tasks.items():
            duration, _ = seconds(read)
            if number:
                timings[size].ms.append(1000 * duration / lines)
    return timings


def _rows(timings: dict[int, Timing]) -> list[tuple]:
    return [(size, timing.median) for size, timing in timings.items()]
