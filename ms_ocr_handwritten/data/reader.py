"""Random access to lines, whatever holds them: the interface that training needs of an LMDB, rows, or a selection."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..lmdb.store import LmdbReader
from .rows import DatasetReader, is_dataset


class LineReader(Protocol):
    """`len` lines. `path` identifies them all: readers of different lines have different paths. Can be pickled."""

    path: str

    def __len__(self) -> int: ...

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a line. Raises DataError naming the record."""
        ...

    def label(self, index: int) -> str:
        """The label of a line, not folded. Raises DataError naming the record."""
        ...

    def key(self, index: int) -> str:
        """The record name of a line, for messages."""
        ...


def line_reader(source: Any) -> LineReader:
    """The lines of an LMDB's path, a `datasets.Dataset` or an MsDataset around one; a reader is returned unchanged.

    Raises LmdbError or DataError.
    """
    if isinstance(source, (str, os.PathLike)):
        return LmdbReader(source)
    return DatasetReader(source) if is_dataset(source) else source


class SelectedLines:
    """Selected lines of several readers, in any order; a LineReader."""

    def __init__(self, readers: Sequence[LineReader], indices: Sequence[int] | np.ndarray) -> None:
        """`indices`: into the concatenated lines of all readers. Raises IndexError."""
        self._readers = list(readers)
        self._ends = np.cumsum([len(reader) for reader in readers])
        self._indices = np.asarray(indices, np.int64)
        there = int(self._ends[-1])
        wrong = self._indices[(self._indices < 0) | (self._indices >= there)]
        if wrong.size:
            raise IndexError(f"{readers[0].path}: no line {wrong[0]}, there are {there} (0 to {there - 1})")
        digest = hashlib.sha256(self._indices.tobytes()).hexdigest()[:8]
        self.path = f"{', '.join(reader.path for reader in readers)} ({len(self._indices)} lines, {digest})"

    def __len__(self) -> int:
        return len(self._indices)

    def image_bytes(self, index: int) -> bytes:
        reader, record = self._place(index)
        return reader.image_bytes(record)

    def label(self, index: int) -> str:
        reader, record = self._place(index)
        return reader.label(record)

    def key(self, index: int) -> str:
        reader, record = self._place(index)
        return reader.key(record)

    def _place(self, index: int) -> tuple[LineReader, int]:
        line = int(self._indices[index])
        number = int(np.searchsorted(self._ends, line, side="right"))
        return self._readers[number], line - (int(self._ends[number - 1]) if number else 0)
