"""Data sets of rows: Hugging Face `datasets` (saved to disk, in memory, from a cache by id), ModelScope's MsDataset,
and Parquet files. Columns `image` and `text` (and `writer`, `page`), or as specified.

An image is {"bytes", "path"} as stored by Hugging Face, encoded bytes, a path, a Pillow image or an array.
`DatasetReader` gives random access to such a data set, for training without an LMDB.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError, ImageError, OcrError
from ..image import load_image
from .record import BadRecord, Columns, ReadOptions, Record, Records, checked_text

if TYPE_CHECKING:
    import datasets
    import pyarrow

_BATCH = 64  # rows per read
SAVED = ("dataset_info.json", "dataset_dict.json")  # a folder written by `save_to_disk` contains one of them


class _DamagedError(DataError):
    """A whole file cannot be read."""


def is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in SAVED)


def is_dataset(source: object) -> bool:
    """Whether this is a data set of rows in memory: a `datasets.Dataset`, or a wrapper of one such as MsDataset."""
    return hasattr(source, "to_hf_dataset") or hasattr(source, "column_names")


def open_dataset(source: Any, subset: str = "") -> "datasets.Dataset":
    """The rows of a saved data set's folder, of an id in the cache of `datasets`, or of a data set in memory.

    Does not use the network. Raises DataError if there is none, or if it has several subsets and none is named.
    """
    import datasets

    if isinstance(source, Path):
        found = _load(source, subset)
    else:
        found = source.to_hf_dataset() if hasattr(source, "to_hf_dataset") else source
    if isinstance(found, dict):  # a DatasetDict is one
        if not subset and len(found) == 1:
            subset = next(iter(found))
        if subset not in found:
            asked = f"no {subset!r} is" if subset else "which is meant? These are"
            raise DataError(f"{source}: {asked} there: {', '.join(found)}; name one (--subset)")
        found = found[subset]
    if not isinstance(found, datasets.Dataset):
        raise DataError(
            f"{type(found).__name__}: not a data set with a known number of rows; load it without streaming"
        )
    return found


def _load(path: Path, subset: str) -> Any:
    import datasets

    try:
        if is_saved(path):
            return datasets.load_from_disk(os.fspath(path))
        from datasets.packaged_modules.cache.cache import Cache  # `load_dataset` would contact the hub first

        return Cache(dataset_name=path.name, repo_id=path.as_posix(), version="auto", hash="auto").as_dataset()
    except Exception as error:  # for a damaged or missing data set, `datasets` raises almost anything
        raise DataError(
            f"{path}: neither a data set saved to disk nor one in the cache of `datasets` ({error}); load it once with "
            "datasets.load_dataset while online"
        ) from error


def count(path: Path, options: ReadOptions) -> int:
    return len(open_dataset(path, options.subset))


def read(path: Path, options: ReadOptions) -> Records:
    return read_dataset(open_dataset(path, options.subset), options, str(path))


def read_dataset(dataset: "datasets.Dataset", options: ReadOptions, name: str) -> Records:
    """The rows of a data set, in order. Raises DataError for unsuitable columns."""
    found = options.columns.find(list(dataset.column_names), name)
    plain = _undecoded(dataset.select_columns(list(found.values())), found["image"])
    texts = _text_of(plain, found["text"])
    rows = (dict(zip(batch, values)) for batch in plain.iter(_BATCH) for values in zip(*batch.values()))
    yield from _records(rows, found, texts, name, options)


def count_parquet(path: Path, options: ReadOptions) -> int:
    import pyarrow
    import pyarrow.parquet

    total = 0
    for file in parquet_files(path):
        with suppress(pyarrow.ArrowException, OSError):  # reported when it is read
            total += pyarrow.parquet.read_metadata(file).num_rows
    return total


def parquet_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.parquet"))


def read_parquet(path: Path, options: ReadOptions) -> Records:
    """The rows of a Parquet file, or of all in a folder; a damaged file yields a BadRecord in place of its rows."""
    for file in parquet_files(path):
        try:
            with _open_parquet(file) as parquet:
                found = options.columns.find(parquet.schema_arrow.names, str(file))
                batches = parquet.iter_batches(_BATCH, columns=list(found.values()))
                rows = (row for batch in batches for row in batch.to_pylist())
                yield from _records(rows, found, str, str(file), options)
        except _DamagedError as error:
            yield BadRecord(str(file), error)


def read_images(file: Path, column: str = "") -> Iterator[Callable[[], str | bytes]]:
    """A function for each row of a Parquet file that returns its image: encoded bytes, a path or a URL.

    Args:
        column: that of the images; '' for a usual name.

    Raises:
        DataError: The file is damaged, or has no such column. The functions raise ImageError for rows without an image.
    """
    with _open_parquet(file) as parquet:
        name = Columns(image=column).find(parquet.schema_arrow.names, str(file), ("image",))["image"]
        for batch in parquet.iter_batches(_BATCH, columns=[name]):
            yield from (partial(_encoded, value) for value in batch.column(0))


def _encoded(value: Any) -> str | bytes:
    image = stored_image(value.as_py())
    if not isinstance(image, (str, bytes)):
        raise ImageError(f"an image as {type(image).__name__} is not read; give encoded bytes or a path")
    return image


@contextmanager
def _open_parquet(file: Path) -> "Iterator[pyarrow.parquet.ParquetFile]":
    """Raises _DamagedError, also within the block."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            yield parquet
    except (pyarrow.ArrowException, OSError) as error:
        raise _DamagedError(f"{file}: not a Parquet file, or a damaged one ({error}); copy it again") from error


def _records(
    rows: Iterable[dict[str, Any]],
    found: dict[str, str],
    text_of: Callable[[Any], str],
    name: str,
    options: ReadOptions,
) -> Records:
    for index, row in enumerate(rows):
        where = f"{name}: row {index}"
        try:
            image = _picture(row[found["image"]], options.image_root)
            text = _checked_text(row[found["text"]], found["text"], text_of)
        except OcrError as error:
            yield BadRecord(where, type(error)(f"{where}: {error}"))
            continue
        beside = {
            kind: str(row[found[kind]]) for kind in ("writer", "page") if kind in found and row[found[kind]] is not None
        }
        yield Record(where=where, text=text, image=image, source=_source(row[found["image"]], name, index), **beside)


def _source(value: Any, name: str, index: int) -> str:
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    return str(path or f"{Path(name).name}#{index}").replace("\\", "/")


def _picture(value: Any, root: Path | None) -> Path | bytes | np.ndarray:
    """A column's value converted to the image of a Record. Raises DataError."""
    value = stored_image(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return (root or Path()) / value
    if isinstance(value, Image.Image):
        return cv2.cvtColor(load_image(value), cv2.COLOR_RGB2BGR)
    if isinstance(value, (list, np.ndarray)):
        return _array(value)
    raise DataError(f"an image as {type(value).__name__} is not read; give encoded bytes, a path or an array")


def stored_image(value: Any) -> Any:
    """The bytes of an image stored by Hugging Face, or else its path; other values unchanged."""
    return value.get("bytes") or value.get("path") if isinstance(value, dict) else value


def bgr(array: np.ndarray) -> np.ndarray:
    """RGB or RGBA (H, W, 3 or 4) converted to BGR, as in OpenCV; other arrays unchanged."""
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return np.ascontiguousarray(array[:, :, [2, 1, 0, 3][: array.shape[2]]])
    return array


def _array(value: Any) -> np.ndarray:
    """Grey or BGR uint8, from the RGB of data sets."""
    array = bgr(np.asarray(value))
    rgb = load_image(array)
    return rgb[:, :, 0].copy() if array.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _undecoded(dataset: "datasets.Dataset", column: str) -> "datasets.Dataset":
    import datasets

    if isinstance(dataset.features.get(column), datasets.Image):
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset.with_format(None)


def _text_of(dataset: "datasets.Dataset", column: str) -> Callable[[Any], str]:
    """A function from a value of the column to its text: classes become their names."""
    import datasets

    feature = dataset.features.get(column)
    return feature.int2str if isinstance(feature, datasets.ClassLabel) else str


class DatasetReader:
    """Random access to the lines of a data set of rows; a `reader.LineReader`."""

    def __init__(self, dataset: Any, columns: Columns = Columns()) -> None:
        """`dataset`: a `datasets.Dataset`, or MsDataset around one. Raises DataError for others and bad columns."""
        rows = open_dataset(dataset)
        self.path = f"data set {rows._fingerprint} of {len(rows)} rows"
        self._found = columns.find(list(rows.column_names), self.path)
        self._images = _undecoded(rows.select_columns([self._found["image"]]), self._found["image"])
        self._texts = rows.select_columns([self._found["text"]]).with_format(None)
        self._text = _text_of(self._texts, self._found["text"])

    def __len__(self) -> int:
        return len(self._texts)

    def key(self, index: int) -> str:
        """The row, for messages."""
        return f"{self.path}: row {index}"

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a row. Raises DataError."""
        try:
            image = _picture(self._images[index][self._found["image"]], None)
            if isinstance(image, np.ndarray):
                return cv2.imencode(".png", image)[1].tobytes()
            return image.read_bytes() if isinstance(image, Path) else image
        except (OSError, DataError, ImageError) as error:
            raise DataError(f"{self.key(index)}: {error}") from error

    def label(self, index: int) -> str:
        """The text of a row. Raises DataError if it is not a text."""
        try:
            return _checked_text(self._texts[index][self._found["text"]], self._found["text"], self._text)
        except DataError as error:
            raise DataError(f"{self.key(index)}: {error}") from error


def _checked_text(value: Any, column: str, text_of: Callable[[Any], str]) -> str:
    checked_text(value, f"the column {column}")
    return text_of(value)
