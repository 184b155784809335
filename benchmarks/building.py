"""Speed and memory use of `ms-ocr lmdb build` when converting pages in CASIA's format to an LMDB.

python benchmarks/building.py [--pages 1000] [--threads 2]

The pages have ten lines of 1700 x 100 px, like those of HWDB 2, made from the repository's example of handwriting
with noise in the ink; all but twenty are links to these, to exclude the disk. Figures are lines per second of
wall-clock and of processor time; if the machine has other load, only the latter is meaningful.
"""

import argparse
import os
import resource
import struct
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.lmdb.build import BuildOptions, build_lmdb

LINES, HEIGHT, WIDTH, DIFFERENT = 10, 100, 1700, 20
PICTURE = Path(__file__).parent.parent / "examples" / "lines" / "chinese.png"


def line(seed: int) -> np.ndarray:
    """Ink of 0 to 254 on a background of 255, uint8 (100, 1700)."""
    grey = cv2.imread(str(PICTURE), cv2.IMREAD_GRAYSCALE)
    grey = cv2.resize(grey, (round(grey.shape[1] * HEIGHT / grey.shape[0]), HEIGHT))
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    noisy = np.minimum(grey + np.random.default_rng(seed).integers(0, 30, grey.shape), 254)
    ink = np.where(grey > level, 255, noisy).astype(np.uint8)
    return np.roll(np.tile(ink, (1, -(-WIDTH // ink.shape[1])))[:, :WIDTH], 37 * seed, axis=1)


def page(seed: int) -> bytes:
    label = "手写文本".encode("gbk") * 6
    head = struct.pack("<i8s20shhiii", 36, b"DGRL", b"GB", 2, 8, 3000, 2000, LINES)
    body = struct.pack("<i", len(label) // 2) + label + struct.pack("<iiii", 0, 0, HEIGHT, WIDTH)
    return head + b"".join(body + line(LINES * seed + number).tobytes() for number in range(LINES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder, "pages")
        pages.mkdir()
        for number in range(arguments.pages):
            file = pages / f"{number % 50:03d}-P{number:06d}.dgrl"
            if number < DIFFERENT:
                file.write_bytes(page(number))
            else:
                os.link(pages / f"{number % DIFFERENT:03d}-P{number % DIFFERENT:06d}.dgrl", file)
        peaks: list[int] = []

        def note(done: int, total: int | None) -> None:
            if done % max(1, arguments.pages * LINES // 5) == 0:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

        before, start = time.process_time(), time.perf_counter()
        report = build_lmdb(Path(folder, "lmdb"), pages, progress=note, options=BuildOptions(threads=arguments.threads))
        wall, processor = time.perf_counter() - start, time.process_time() - before
    each, rate = 1000 * processor / report.written, 2 * report.written / processor
    print(f"{report.written} lines: {report.written / wall:.0f} a second of the clock")
    print(f"{each:.2f} ms of the processor a line, which is {rate:.0f} lines a second on two idle cores")
    print(f"peak of memory so far, in fifths of the lines: {peaks} MiB")


if __name__ == "__main__":
    main()
