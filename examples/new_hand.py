"""Draw lines in a hand that the model has not seen, to fine-tune on some of them and test on the others.

    pip install ".[synth]"
    python examples/new_hand.py FONT OUT_DIR [--text LICENSE] [--lines 280] [--held-out 100]

FONT is a handwriting font (TTF, OTF or WOFF2), TEXT any text file that provides the words. Creates the LMDBs
OUT_DIR/train and OUT_DIR/test. For scans of a real hand, use `ms-ocr lmdb build` instead.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.synth.glyphs import read_fonts
from ms_ocr_handwritten.synth.line import Settings, draw_in_hand
from ms_ocr_handwritten.synth.writer import draw_style

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("font", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--text", type=Path, default=Path(__file__).parent.parent / "LICENSE")
parser.add_argument("--lines", type=int, default=280)
parser.add_argument("--held-out", type=int, default=100)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

words = arguments.text.read_text(encoding="utf-8").split()
hand = read_fonts([arguments.font], tuple(sorted(set("".join(words)))))
words = [word for word in words if all(character in hand for character in word)]
rng = np.random.default_rng(arguments.seed)
style = draw_style(rng)  # one writer: slant, pen and spacing stay the same


def draw(count: int):
    """Lines of three to six consecutive words, as (PNG bytes, label)."""
    for _ in range(count):
        start = int(rng.integers(len(words) - 6))
        label = " ".join(words[start : start + int(rng.integers(3, 7))])
        line = draw_in_hand(label, hand, style, Settings(max_width=756, degrade=0.5), rng)
        yield cv2.imencode(".png", line.image)[1].tobytes(), line.text


for name, count in (("train", arguments.lines), ("test", arguments.held_out)):
    print(f"{arguments.out / name}: {write_lmdb(arguments.out / name, draw(count))} lines")
