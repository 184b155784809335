"""LMDBs of lines, ours and others with the same keys: those of deep-text-recognition-benchmark and PaddleOCR.

Both use the same keys as ModelScope (num-samples, image-%09d, label-%09d, from 1) and store images and labels
unchanged. Folding happens when they are read: deep-text-recognition-benchmark folds to lower case and its alphabet,
PaddleOCR to its dictionary, ModelScope from full-width to half-width. So all three are copied unchanged.
"""

from pathlib import Path

from ..errors import LmdbError
from ..lmdb.store import SIDE_KEYS, LmdbReader
from .record import BadRecord, ReadOptions, Record, Records


def count(path: Path, options: ReadOptions) -> int:
    return len(LmdbReader(path))


def read(path: Path, options: ReadOptions) -> Records:
    reader = LmdbReader(path)
    for index in range(len(reader)):
        where = reader.key(index)
        try:
            image, label = reader.read(index)
            beside = {kind: reader.beside(index, kind) for kind in SIDE_KEYS}
        except LmdbError as error:
            yield BadRecord(where, error)
            continue
        beside["source"] = beside["source"] or f"{path.name}/{LmdbReader.image_key(index)}"
        yield Record(where=where, text=label, image=image, **beside)
