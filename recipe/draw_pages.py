"""Draw the pages of examples/pages with the synthesiser, one hand per page.

python recipe/draw_pages.py INPUTS examples/pages    (INPUTS: output of `python -m ms_ocr_handwritten.synth.fetch`)
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.synth.line import LineSynthesizer

WIDTH, LEFT, TOP = 1240, 90, 80  # px
LINE, GAP = 46, 24  # px: height of a line, and space between two
ENGLISH = (
    "A page of text",
    "The lines of a page are found first,",
    "then each is cut out and straightened,",
    "and all of them are read together.",
    "What comes out is in reading order:",
    "from left to right, from top to bottom.",
    "Numbers such as 1905 and 32.50 too.",
)
CHINESE = (
    "春天来了",
    "山上的树都绿了,河里的水也清了。",
    "孩子们在学校里学习写字,",
    "老师说: 写得很好,再写一次。",
    "今天是星期三,明天我们去公园。",
    "大家都很高兴。",
)


def draw_page(synthesizer: LineSynthesizer, texts: tuple[str, ...], seed: int) -> np.ndarray:
    """Grey uint8 (H, W): the texts below each other, all drawn with the same random numbers, so in one hand."""
    page = np.full((2 * TOP + len(texts) * (LINE + GAP), WIDTH), 245, np.uint8)
    for index, text in enumerate(texts):
        line = synthesizer.draw(text, np.random.default_rng(seed)).image
        scale = min(LINE / line.shape[0], (WIDTH - 2 * LEFT) / line.shape[1])
        line = cv2.resize(line, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        top = TOP + index * (LINE + GAP)
        place = page[top : top + line.shape[0], LEFT : LEFT + line.shape[1]]
        np.minimum(place, line, out=place)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    synthesizer = LineSynthesizer(arguments.inputs, seed=0, max_width=4000, heights=(64,), degrade=0.0)
    for name, texts, seed in (("english", ENGLISH, 4), ("chinese", CHINESE, 2)):
        cv2.imwrite(
            str(arguments.out / f"{name}.jpg"), draw_page(synthesizer, texts, seed), [cv2.IMWRITE_JPEG_QUALITY, 80]
        )


if __name__ == "__main__":
    main()
