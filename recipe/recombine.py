"""New lines from parts of real ones: cut at spaces that a model reads where the label has them, joined to other parts.

    python recipe/recombine.py MODEL_DIR REAL_LMDB OUT_LMDB --lines N --seed S

A network that sees two thousand real lines again and again learns their texts by heart. The parts of a new line are of
different writers, on paper made as light as the first one's; each part keeps half of the gaps beside it.
"""

import argparse
import difflib

import cv2
import numpy as np
from tqdm import tqdm

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.image import load_image
from ms_ocr_handwritten.lmdb_store import LmdbReader, write_lmdb
from ms_ocr_handwritten.recognizer import Line

HEIGHT = 64  # px of the new lines
WIDEST = 900  # px; no part is added beyond
GAPS = 2, 14  # px of paper between two parts, beside what is left of the gaps where they were cut
PAPER = 75  # percentile of a part's greys that stands for its paper
MOST = 4  # parts in a row from one line

Part = tuple[np.ndarray, str]  # uint8 (HEIGHT, W) and its text


def cut_points(image: np.ndarray, line: Line, label: str) -> list[tuple[int, int]]:
    """(index in the label, x in px) of each space where the line can be cut, in order.

    A space counts where the text read has it too, between the same two characters. The cut is where the columns of px
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


def parts(image: np.ndarray, line: Line, label: str) -> list[Part]:
    """The parts of a line uint8 (HEIGHT, W) between its cuts; itself where there is no cut."""
    found, begin, left = [], 0, 0
    for end, right in [*cut_points(image, line, label), (len(label), image.shape[1])]:
        if right > left and label[begin:end].strip():
            found.append((image[:, left:right], label[begin:end].strip()))
        begin, left = end + 1, right
    return found


def recombine(pool: list[list[Part]], rng: np.random.Generator) -> Part:
    """A new line of runs of one to MOST parts of lines drawn from `pool`."""
    images, texts, paper = [], [], None
    enough = rng.uniform(0.3, 0.8) * WIDEST
    while not images or sum(image.shape[1] for image in images) < enough:
        source = pool[int(rng.integers(len(pool)))]
        start = int(rng.integers(len(source)))
        for image, text in source[start : start + int(rng.integers(1, MOST + 1))]:
            if images and sum(one.shape[1] for one in images) + image.shape[1] > WIDEST:
                break
            level = max(1.0, float(np.percentile(image, PAPER)))
            paper = paper or level
            if images:
                images.append(np.full((HEIGHT, int(rng.integers(*GAPS))), round(paper), np.uint8))
            images.append(np.clip(np.rint(image * (paper / level)), 0, 255).astype(np.uint8))
            texts.append(text)
    return np.concatenate(images, axis=1), " ".join(texts)


def scaled(encoded: bytes) -> np.ndarray:
    """The green of an image file, HEIGHT px high."""
    grey = load_image(encoded)[:, :, 1]
    width = max(1, round(grey.shape[1] * HEIGHT / grey.shape[0]))
    return cv2.resize(grey, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="directory of the model that finds the spaces")
    parser.add_argument("real", help="LMDB of real lines")
    parser.add_argument("out", help="LMDB to write")
    parser.add_argument("--lines", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    reader = LmdbReader(arguments.real)
    images = [scaled(reader.image_bytes(index)) for index in range(len(reader))]
    lines = Recognizer.from_pretrained(arguments.model).read_many(images)
    pool = [parts(image, line, reader.label(index))
            for index, (image, line) in enumerate(tqdm(zip(images, lines), total=len(images), disable=None))]
    print(f"{sum(map(len, pool))} parts of {len(pool)} lines")
    rng = np.random.default_rng(arguments.seed)
    drawn = (recombine(pool, rng) for _ in range(arguments.lines))
    write_lmdb(arguments.out, ((cv2.imencode(".png", image)[1].tobytes(), text) for image, text in drawn))


if __name__ == "__main__":
    main()
