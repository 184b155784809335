"""Lines of pen trajectories as samples, and LMDBs of them for model selection.

python recipe/pen_lines.py dev.jsonl.xz OUT_LMDB --kind word --lines 600 --seed 1
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset

from ms_ocr_handwritten.ctc import required_columns
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.synth.line import Settings
from ms_ocr_handwritten.synth.unipen import KINDS, PenLines
from ms_ocr_handwritten.training.dataset import Sample
from ms_ocr_handwritten.vocab import Vocabulary, fold_full_width

SETTINGS = Settings(max_width=CHUNK_WIDTH, degrade=0.7)  # of the training lines


ALONE = 0.3  # share of the chunks with one line and nothing after it
LEAST_ROOM = 60  # px; smaller remainders stay empty


class PenSamples(Dataset):
    """Chunks of lines side by side, endlessly; number k is always the same for the same `seed`."""

    def __init__(self, pens: PenLines, vocabulary: Vocabulary, seed: int) -> None:
        self.pens, self.vocabulary, self.seed = pens, vocabulary, seed

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, 2, index))
        alone, grey, label, left = rng.random() < ALONE, np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32), "", 0
        while left <= CHUNK_WIDTH - LEAST_ROOM:
            image, text = self.pens.sample(rng, replace(SETTINGS, max_width=CHUNK_WIDTH - left))
            canvas, text = line_canvas(load_image(image)), fold_full_width(text)
            if not label and (alone or canvas.width > CHUNK_WIDTH - LEAST_ROOM):
                return Sample(canvas.piece_array(), canvas.chunks, self.vocabulary.encode(text), text)
            if (
                left + canvas.width > CHUNK_WIDTH
                or required_columns(self.vocabulary.encode(label + text)) > CHUNK_COLUMNS
            ):
                break
            grey[0, :, left : left + canvas.width] = canvas.grey[:, : canvas.width]
            label, left = label + text, left + canvas.width
        return Sample(grey, 1, self.vocabulary.encode(label), label)


def drawn(pens: PenLines, kind: str, lines: int, seed: int) -> Iterator[tuple[bytes, str]]:
    settings = Settings(max_width=600, degrade=0.5)
    for number in range(lines):
        image, label = pens.sample(np.random.default_rng((seed, number)), settings, {kind: 1.0})
        yield cv2.imencode(".png", image)[1].tobytes(), label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pens", help="pen trajectories, one JSON object a line, xz", type=Path)
    parser.add_argument("out", help="LMDB to write")
    parser.add_argument("--kind", choices=KINDS, default="words")
    parser.add_argument("--lines", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    pens = PenLines(arguments.pens)
    print(write_lmdb(arguments.out, drawn(pens, arguments.kind, arguments.lines, arguments.seed)), "lines")


if __name__ == "__main__":
    main()
