"""Find where real lines can be cut: at spaces that a model reads where the label has them.

    python recipe/cuts.py MODEL_DIR REAL_LMDB OUT.json

OUT.json holds for each line the pairs (index in the label, px in a line HEIGHT px high) in order; `pretrain.py --cuts`
recombines the parts to new lines.
"""

import argparse
import difflib
import json
from pathlib import Path

import cv2
import numpy as np
from real_lines import Cut, scaled
from tqdm import tqdm

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.atomic import write_atomically
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.recognizer import Line
from ms_ocr_handwritten.vocab import fold_full_width


def cut_points(image: np.ndarray, line: Line, label: str) -> list[Cut]:
    """Each space where the line can be cut, in order.

    A space counts if the text read also has it between the same two characters. The cut is made where the pixel columns
    between these are lightest.
    """
    matches = difflib.SequenceMatcher(None, line.text, label, autojunk=False).get_matching_blocks()
    lightness = cv2.GaussianBlur(image.sum(0, keepdims=True, dtype=np.float32), (0, 0), 2)[0]
    points = []
    for read, written, size in matches:
        for k in range(1, size - 1):
            before, space, after = line.chars[read + k - 1 : read + k + 2]
            if space.character == " " and " " not in (before.character, after.character):
                low, high = (round((one.x0 + one.x1) / 2) for one in (before, after))
                points.append((written + k, low + int(lightness[low : high + 1].argmax())))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="directory of the model that finds the spaces")
    parser.add_argument("real", help="LMDB of real lines")
    parser.add_argument("out", help="JSON file to write", type=Path)
    arguments = parser.parse_args()
    reader = LmdbReader(arguments.real)
    images = [scaled(reader.image_bytes(index)) for index in range(len(reader))]
    lines = Recognizer.from_pretrained(arguments.model).read_many(images)
    cuts = [
        cut_points(image, line, fold_full_width(reader.label(index)))
        for index, (image, line) in enumerate(tqdm(zip(images, lines), total=len(images), disable=None))
    ]
    print(f"{sum(map(len, cuts))} cuts in {len(cuts)} lines")
    write_atomically(arguments.out, json.dumps(cuts).encode("utf-8"))


if __name__ == "__main__":
    main()
