"""Readings as columns of rows, with the same types whatever a batch contains: '' and 0, never null.

Otherwise a batch without characters, or without errors, would have untyped columns, which cannot be concatenated with
those of other batches.
"""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, OcrError
from ..line import Line

if TYPE_CHECKING:
    import pyarrow


def columns_of(lines: "Iterable[Line | OcrError]", n_best: int) -> dict[str, list[Any]]:
    """`text`, `score`, `chars` and `error` of each line, and `alternatives` if `n_best` is more than 1."""
    columns: dict[str, list[Any]] = {name: [] for name in _names(n_best)}
    for line in lines:
        error = ""
        if isinstance(line, OcrError):
            if isinstance(line, ImageError):
                line.index = None  # the row shows its position
            error, line = str(line) or type(line).__name__, Line("", 0.0, ())
        columns["text"].append(line.text)
        columns["score"].append(float(line.score))
        columns["chars"].append([dict(vars(char)) for char in line.chars])
        columns["error"].append(error)
        if n_best > 1:
            columns["alternatives"].append([{"text": text, "log_probability": p} for text, p in line.alternatives])
    return columns


def _names(n_best: int) -> tuple[str, ...]:
    return ("text", "score", "chars", "error", *(("alternatives",) if n_best > 1 else ()))


@functools.cache
def arrow_types(n_best: int) -> "dict[str, pyarrow.DataType]":
    """The types of `columns_of` in Arrow and Parquet."""
    import pyarrow as pa

    number = pa.float64()
    char = pa.struct([("character", pa.string()), ("score", number), ("x0", number), ("x1", number)])
    types = {
        "text": pa.string(),
        "score": number,
        "chars": pa.list_(char),
        "error": pa.string(),
        "alternatives": pa.list_(pa.struct([("text", pa.string()), ("log_probability", number)])),
    }
    return {name: types[name] for name in _names(n_best)}
