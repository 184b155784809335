"""Lines of LMDBs as training samples: the checks before training starts, samples, and batches of pieces.

LineReader -> LineDataset -> Sample -> collate -> Batch
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..ctc import required_columns
from ..data.reader import LineReader
from ..errors import DataError, ImageError, LabelError, LmdbError, OcrError
from ..geometry import CHUNKED, COLUMN_WIDTH, Layout, kept_columns, scaled_width
from ..image import image_size, line_canvas, load_image
from ..vocab import Vocabulary, described, fold_full_width

FIRST_KEYS = 5  # number of culprits named in a message


@dataclass(frozen=True)
class Sample:
    """A line ready for the network: `grey` float32 (inked, 32, W) in [0, 1] of `chunks` pieces, and its label."""

    grey: np.ndarray
    chunks: int
    ids: list[int]
    label: str  # as stored in the LMDB


@dataclass(frozen=True)
class BadSample:
    """A record that could not be read; `reason` names the LMDB and the key."""

    reason: str


@dataclass(frozen=True)
class Batch:
    """B lines as pieces of one or several widths, with P columns in total.

    pieces: float32 (N, 1, 32, W), one tensor for each width, whose columns (N, W / 4) are numbered consecutively;
    columns: int64 (B, T), indices of the P columns that make up each line, 0 after its end;
    lengths: int64 (B,); ids and labels: B entries; bad: records left out of this batch.
    """

    pieces: tuple[Tensor, ...]
    columns: Tensor
    lengths: Tensor
    ids: list[list[int]]
    labels: list[str]
    bad: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """The same with its pieces in pinned memory; PyTorch's DataLoader calls this method by its name."""
        return replace(self, pieces=tuple(piece.pin_memory() for piece in self.pieces))


class LineDataset(Dataset):
    """The lines of several readers, in order. Raises LmdbError, with path and key, for one that cannot be read."""

    def __init__(
        self,
        readers: Sequence[LineReader],
        vocabulary: Vocabulary,
        *,
        augment: float = 0.0,
        seed: int = 0,
        on_bad_sample: str = "error",
        unknown: str = "error",
        rehearsed: Sequence[LineReader] = (),
        layout: Layout = CHUNKED,
    ) -> None:
        """`augment`: strength, 0 for none, 1 for `train.augment`.

        `unknown` is "error", or "omit" to leave characters outside the vocabulary out of `ids` (for evaluation).
        `rehearsed`: LMDBs to rehearse, whose lines come after those of `readers`.
        `layout`: how the network expects lines.
        """
        self.readers, self.vocabulary, self.unknown = [*readers, *rehearsed], vocabulary, unknown
        self.rehearsed, self.layout = len(rehearsed), layout
        self.augment, self.seed, self.on_bad_sample = augment, seed, on_bad_sample
        self.epoch = 0
        self.indices = [(r, i) for r, reader in enumerate(self.readers) for i in range(len(reader))]

    def __len__(self) -> int:
        return len(self.indices)

    def own_lines(self) -> np.ndarray:
        """Indices of the lines of the training set, int64 (n,)."""
        return np.flatnonzero(~self._is_rehearsed())

    def rehearsed_lines(self) -> np.ndarray:
        """Indices of the rehearsed lines, int64 (m,)."""
        return np.flatnonzero(self._is_rehearsed())

    def _is_rehearsed(self) -> np.ndarray:
        first = len(self.readers) - self.rehearsed
        return np.fromiter((reader >= first for reader, _ in self.indices), bool, len(self.indices))

    def key(self, index: int) -> str:
        """The LMDB and the key of a line, or its data set and row, for messages."""
        reader, record = self.indices[index]
        return self.readers[reader].key(record)

    def label(self, index: int) -> str:
        reader, record = self.indices[index]
        return self.readers[reader].label(record)

    def folded_label(self, index: int) -> str:
        """The label as used in training; '' if it cannot be read and bad samples are skipped (and reported later)."""
        try:
            return fold_full_width(self.label(index))
        except DataError:
            if self.on_bad_sample == "skip":
                return ""
            raise

    def image_bytes(self, index: int) -> bytes:
        reader, record = self.indices[index]
        return self.readers[reader].image_bytes(record)

    def without(self, dropped: set[int]) -> "LineDataset":
        """The same lines without those at the indices `dropped`."""
        kept = copy.copy(self)
        kept.indices = [pair for index, pair in enumerate(self.indices) if index not in dropped]
        return kept

    def __getitem__(self, index: int) -> Sample | BadSample:
        try:
            rgb = self._image(index)
            label = self.label(index)
            canvas = line_canvas(rgb, self.layout)
        except (ImageError, DataError) as error:
            reason = str(error) if isinstance(error, DataError) else f"{self.key(index)}: {error}"
            if self.on_bad_sample == "skip":
                return BadSample(reason)
            raise LmdbError(f"{reason}; correct the record, or set train.on_bad_sample to 'skip'") from error
        return Sample(canvas.piece_array(), canvas.chunks, self._encode(label), label)

    def _encode(self, label: str) -> list[int]:
        folded = fold_full_width(label)
        if self.unknown == "omit":
            outside = set(self.vocabulary.unknown(folded))
            folded = "".join(character for character in folded if character not in outside)
        return self.vocabulary.encode(folded)

    def _image(self, index: int) -> np.ndarray:
        rgb = load_image(self.image_bytes(index))
        if not self.augment:
            return rgb
        from .augment import augment

        random = np.random.default_rng((self.seed, self.epoch, index))  # the same in any worker process
        return np.repeat(augment(rgb[:, :, 1], random, self.augment)[:, :, None], 3, axis=2)


def unknown_characters(dataset: LineDataset) -> tuple[Counter, dict[str, list[int]]]:
    """Characters of the folded labels that the vocabulary lacks: their counts, and the lines that hold each."""
    counts: Counter = Counter()
    lines: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        label = dataset.folded_label(index)
        for character in dataset.vocabulary.unknown(label):
            counts[character] += label.count(character)
            lines.setdefault(character, []).append(index)
    return counts, lines


def describe_unknown(dataset: LineDataset, counts: Counter, lines: dict[str, list[int]]) -> str:
    """One row per character: the character, its count, the first keys."""
    return "\n".join(
        f"  {described(character)} {count} times, first at "
        + ", ".join(dataset.key(index) for index in lines[character][:FIRST_KEYS])
        for character, count in counts.most_common()
    )


def blank_labels(dataset: LineDataset) -> list[int]:
    """Lines whose label is empty or consists only of spaces."""
    return [index for index in range(len(dataset)) if not dataset.folded_label(index).strip()]


def unalignable(dataset: LineDataset) -> list[int]:
    """Lines whose label needs more columns than the line has (labels must not hold unknown characters)."""
    bad = []
    for index in range(len(dataset)):
        needed = required_columns(dataset.vocabulary.encode(dataset.folded_label(index)))
        if needed > dataset.layout.columns(0) and needed > _columns(dataset, index):
            bad.append(index)
    return bad


def _columns(dataset: LineDataset, index: int) -> int:
    """Number of columns of a line's canvas, from the header of its image only."""
    try:
        return dataset.layout.columns(scaled_width(*image_size(dataset.image_bytes(index))))
    except OcrError:  # reported when the record is read
        return dataset.layout.columns(dataset.layout.longest)


def refuse_or_drop_unalignable(dataset: LineDataset, action: str) -> tuple[LineDataset, list[str]]:
    """The alignable lines and the keys of the others. Raises LabelError if there are any and `action` is "error"."""
    bad = unalignable(dataset)
    keys = [dataset.key(index) for index in bad]
    if bad and action == "error":
        raise LabelError(
            f"{len(bad)} labels need more columns than their lines have (one per character, one more "
            f"between equal neighbours): {', '.join(keys[:FIRST_KEYS])}; correct them, or set "
            "train.unalignable to 'drop'"
        )
    return (dataset.without(set(bad)) if bad else dataset), keys


def collate(samples: Sequence[Sample | BadSample], *, skip_padding: bool) -> Batch:
    """Samples to a batch. With `skip_padding` all lines share one padding chunk, otherwise each gets its own."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    pieces, rows, first = [], {}, 0
    for width in sorted({sample.grey.shape[2] for sample in good}):
        alike = [index for index, sample in enumerate(good) if sample.grey.shape[2] == width]
        grey, places = _placed([good[index] for index in alike], skip_padding)
        numbers = first + np.arange(len(grey) * (width // COLUMN_WIDTH)).reshape(len(grey), -1)  # of columns
        for index, own in zip(alike, places):
            rows[index] = np.concatenate([numbers[place][kept_columns(i, len(own))] for i, place in enumerate(own)])
        pieces.append(torch.from_numpy(grey[:, None]))
        first += numbers.size
    lengths = [len(rows[index]) for index in range(len(good))]
    columns = np.zeros((len(good), max(lengths, default=0)), np.int64)
    for index, length in enumerate(lengths):
        columns[index, :length] = rows[index]
    return Batch(
        pieces=tuple(pieces),
        columns=torch.from_numpy(columns),
        lengths=torch.tensor(lengths, dtype=torch.int64),
        ids=[sample.ids for sample in good],
        labels=[sample.label for sample in good],
        bad=[sample.reason for sample in samples if isinstance(sample, BadSample)],
    )


def _placed(samples: Sequence[Sample], skip_padding: bool) -> tuple[np.ndarray, list[list[int]]]:
    """The pieces of samples of one width, float32 (N, 32, W), and the indices of those that make up each sample."""
    grey = [sample.grey for sample in samples]
    places, start, used = [], 0, sum(map(len, grey))
    black = np.zeros((1, *grey[0].shape[1:]), np.float32)
    shared_padding = None
    for sample in samples:
        own = list(range(start, start + len(sample.grey)))
        start += len(sample.grey)
        while len(own) < sample.chunks:
            if shared_padding is None or not skip_padding:
                grey.append(black)
                shared_padding, used = used, used + 1
            own.append(shared_padding)
        places.append(own)
    return np.concatenate(grey), places
