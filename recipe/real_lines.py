"""Real lines, endlessly: whole ones, and new ones recombined from parts of several, augmented each time.

A network that sees two thousand real lines again and again memorises their texts. The parts of a new line are from
different writers, on paper lightened or darkened to match the first one; each part keeps half of the adjacent gaps.
"""

import cv2
import numpy as np
from torch.utils.data import Dataset

from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.training.augment import augment
from ms_ocr_handwritten.training.dataset import Sample
from ms_ocr_handwritten.vocab import Vocabulary, fold_full_width

HEIGHT = 64  # px of the lines
WIDEST = 900  # px; no part is added beyond this
GAPS = 2, 14  # px of paper between two parts, in addition to the remaining gaps at the cuts
PAPER = 75  # percentile of a part's greys that is taken as its paper
MOST = 4  # consecutive parts from one line
WHOLE = 0.4  # share of whole real lines; the others are recombined from parts

Part = tuple[np.ndarray, str]  # uint8 (HEIGHT, W) and its text
Cut = tuple[int, int]  # for a line: index of a space in its label, px in a line HEIGHT px high


def scaled(encoded: bytes) -> np.ndarray:
    """The green channel of an image file, HEIGHT px high."""
    grey = load_image(encoded)[:, :, 1]
    width = max(1, round(grey.shape[1] * HEIGHT / grey.shape[0]))
    return cv2.resize(grey, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def parts(image: np.ndarray, label: str, cuts: list[Cut]) -> list[Part]:
    """The parts of a line uint8 (HEIGHT, W) between its cuts; the line itself if there is no cut."""
    found, begin, left = [], 0, 0
    for end, right in [*cuts, (len(label), image.shape[1])]:
        if right > left and label[begin:end].strip():
            found.append((image[:, left:right], label[begin:end].strip()))
        begin, left = end + 1, right
    return found


def recombine(pool: list[list[Part]], rng: np.random.Generator) -> Part:
    """A new line from runs of one to MOST parts of lines in `pool`."""
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


class RealLines(Dataset):
    """Samples number `start` to `stop` - 1 of an endless sequence, augmented with `strength`; reproducible by `seed`.

    cuts: for each line of `reader`, as found by cuts.py; None uses whole lines only. Whole lines are reshuffled in
    every pass.
    """

    def __init__(
        self,
        reader: LmdbReader,
        vocabulary: Vocabulary,
        cuts: list[list[Cut]] | None,
        start: int,
        stop: int,
        seed: int,
        strength: float,
    ) -> None:
        self.lines = [
            (scaled(reader.image_bytes(index)), fold_full_width(reader.label(index))) for index in range(len(reader))
        ]
        self.pool = None if cuts is None else [parts(*line, own) for line, own in zip(self.lines, cuts, strict=True)]
        self.vocabulary, self.start, self.stop, self.seed, self.strength = vocabulary, start, stop, seed, strength

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Sample:
        index += self.start
        rng = np.random.default_rng((self.seed, index))
        if self.pool is None or rng.random() < WHOLE:
            round_, place = divmod(index, len(self.lines))
            order = np.random.default_rng((self.seed, 0, round_)).permutation(len(self.lines))
            image, label = self.lines[order[place]]
        else:
            image, label = recombine(self.pool, rng)
        canvas = line_canvas(load_image(augment(image, rng, self.strength)))
        return Sample(canvas.piece_array(), canvas.chunks, self.vocabulary.encode(label), label)
