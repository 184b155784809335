"""Reading and writing the LMDB format of line images and labels used by ModelScope's OCR training.

Keys: `num-samples` (decimal text), `image-%09d` (an encoded image file, unchanged) and `label-%09d` (UTF-8),
counted from 1. In Python the samples are counted from 0, as in a list.

Besides these, `lmdb.build` stores what is known of a sample's origin, as UTF-8: `source-%09d` (the name of its file,
and record within it), `writer-%09d` and `page-%09d`. `lmdb.split` uses them to hold out whole writers, pages or
folders. Other readers, including ModelScope's own, ignore these keys.

Source of the format: ModelScope `msdatasets/dataset_cls/custom_datasets/ocr_recognition_dataset.py`.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from ..errors import LmdbError
from .open import SharedEnvironment, absolute, data_file, shared_environment

COUNT_KEY = "num-samples"
SIDE_KEYS = ("source", "writer", "page")
VALIDATE = "run `ms-ocr lmdb validate` on it for the full list of problems"

_BATCH_BYTES = 16 * 2**20  # bytes of samples in one transaction; uncommitted ones are held in memory
_FIRST_MAP_SIZE = 64 * 2**20  # bytes; doubled whenever the map is full, the file takes only what it needs


def image_key(index: int) -> str:
    """Key of the image of sample `index`, counted from 0: `image-000000001` for 0."""
    return f"image-{index + 1:09d}"


def label_key(index: int) -> str:
    """Key of the label of sample `index`, counted from 0: `label-000000001` for 0."""
    return f"label-{index + 1:09d}"


def side_key(kind: str, index: int) -> str:
    """Key of the `kind` of origin of sample `index`, counted from 0: `writer-000000001` for 0."""
    return f"{kind}-{index + 1:09d}"


class LmdbReader:
    """The samples of one LMDB: `len(reader)`, `reader.read(index)`. Cheap to create, copy and pickle.

    `path` is the folder, or its data.mdb, or an LMDB that is a single file. Nothing is opened before the first
    read or `len`. Threads, forked and spawned workers may all use a reader; only the path is pickled.
    Raises LmdbError if the path holds no LMDB; and later, if it or a record breaks the format.
    """

    image_key = staticmethod(image_key)

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = absolute(path)
        self._shared: SharedEnvironment | None = None
        data_file(self.path)

    def __len__(self) -> int:
        """Number of samples, from `num-samples`; checked against the records on first use."""
        shared = self._open()
        if shared.count is None:
            shared.count = _checked_count(shared, self.path)
        return shared.count

    def read(self, index: int) -> tuple[bytes, str]:
        """Image file and label of sample `index`, 0 to len - 1. Raises IndexError outside, else LmdbError."""
        return self.image_bytes(index), self.label(index)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of sample `index`, as stored. Raises IndexError or LmdbError."""
        return self._value(index, image_key(index))

    def label(self, index: int) -> str:
        """The label of sample `index`, as stored. Raises IndexError or LmdbError (missing, not UTF-8)."""
        return decode_label(self._value(index, label_key(index)), self.path, label_key(index))

    def beside(self, index: int, kind: str) -> str:
        """The stored `kind`, one of SIDE_KEYS, of the sample's origin, '' if there is none. Raises LmdbError."""
        key = side_key(kind, index)
        value = self._open().get(key, self.path)
        return "" if value is None else decode_label(value, self.path, key)

    def key(self, index: int) -> str:
        """LMDB and key of a sample, for messages."""
        return f"{self.path} {image_key(index)}"

    def __getstate__(self) -> dict[str, str]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.path = state["path"]
        self._shared = None

    def __repr__(self) -> str:
        return f"LmdbReader({self.path!r})"

    def _value(self, index: int, key: str) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no sample {index}, there are {len(self)} (0 to {len(self) - 1})")
        value = self._open().get(key, self.path)
        if value is None:
            raise LmdbError(f"{self.path}: key {key} is missing; {VALIDATE}")
        return value

    def _open(self) -> SharedEnvironment:
        if self._shared is None or self._shared.pid != os.getpid():
            self._shared = shared_environment(self.path)
        return self._shared


def decode_label(value: bytes, path: str, key: str) -> str:
    """The text of a stored label. Raises LmdbError if it is not UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LmdbError(
            f"{path}: key {key} is not UTF-8 ({error.reason} at byte {error.start}); "
            "convert the labels to UTF-8 and build the LMDB again"
        ) from None


def stored_count(shared: SharedEnvironment, path: str) -> int:
    """The number in `num-samples`. Raises LmdbError if it is missing or not a count."""
    value = shared.get(COUNT_KEY, path)
    if value is None:
        raise LmdbError(
            f"{path}: key {COUNT_KEY} is missing, so this is not an LMDB of lines, or its writing was cut short; "
            "build it with `ms-ocr lmdb build`"
        )
    try:
        count = int(value)
    except ValueError:
        count = -1
    if count < 0:
        raise LmdbError(f"{path}: key {COUNT_KEY} holds {value[:40]!r}, which is not a count; {VALIDATE}")
    return count


def _checked_count(shared: SharedEnvironment, path: str) -> int:
    """`num-samples`, after checking it against the number of records and the last sample."""
    count = stored_count(shared, path)
    records = shared.most_records - 1
    if records < 2 * count:
        raise LmdbError(
            f"{path}: {COUNT_KEY} says {count} samples, which are {2 * count} records, "
            f"but {records} are there; {VALIDATE}"
        )
    for key in (image_key(count - 1), label_key(count - 1)):
        if count and shared.get(key, path) is None:
            raise LmdbError(f"{path}: {COUNT_KEY} says {count} samples, but key {key} is missing; {VALIDATE}")
    return count


def write_lmdb(path: str | os.PathLike, samples: Iterable[tuple[bytes, str]]) -> int:
    """Write `samples` (encoded image, label) as the LMDB folder `path`; returns their number.

    Everything is written to a hidden folder beside `path` that is renamed at the end, so `path` appears only when it is
    complete. Samples are stored as they are, unchecked (`lmdb.build` checks), with constant memory.
    Raises LmdbError if `path` exists, no sample is given, or one is not (non-empty bytes, text).
    """
    target = Path(absolute(path))
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise LmdbError(f"{target}: the folder cannot be created ({error}); check its parent") from error
    try:
        count = _write_folder(partial, samples, target)
        refuse_existing(target)
        os.rename(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, lmdb.Error):
            raise LmdbError(f"{target}: cannot be written ({error}); check the free space") from error
        raise
    return count


def refuse_existing(target: Path) -> None:
    """Raise LmdbError if `target` exists."""
    if os.path.lexists(target):
        raise LmdbError(f"{target}: exists already and is left as it is; choose another path, or move it away first")


def _write_folder(folder: Path, samples: Iterable[tuple[bytes, str]], target: Path) -> int:
    count = 0
    # No lock file and no flush per commit: the folder is private, and becomes visible only after a final flush.
    with lmdb.open(os.fsencode(folder), map_size=_FIRST_MAP_SIZE, lock=False, sync=False) as environment:
        for batch in _batches(_records(samples, target)):
            put_records(environment, batch)
            count += len(batch) // 2
        if count == 0:
            raise LmdbError(f"{target}: no sample was given, nothing is written")
        put_records(environment, [(COUNT_KEY.encode("ascii"), str(count).encode("ascii"))])
        environment.sync(True)
    return count


def _records(samples: Iterable[tuple[bytes, str]], target: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) pairs of the samples: image, label, image, label ..."""
    for index, (image, label) in enumerate(samples):
        if not isinstance(image, bytes) or not image or not isinstance(label, str):
            raise LmdbError(
                f"{target}: sample {index} is ({type(image).__name__}, {type(label).__name__}); "
                "expected (bytes of an image file, not empty; str)"
            )
        try:
            encoded = label.encode("utf-8")
        except UnicodeEncodeError as error:
            raise LmdbError(f"{target}: label {label!r} of sample {index} cannot be UTF-8 ({error.reason})") from None
        yield image_key(index).encode("ascii"), image
        yield label_key(index).encode("ascii"), encoded


def _batches(records: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Batches of whole samples (record pairs) of about _BATCH_BYTES."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for image in records:
        label = next(records)
        batch += [image, label]
        size += len(image[1]) + len(label[1])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def put_records(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Store `batch` in one transaction; if the map is full, double it and store the whole batch again."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
