"""Writing an LMDB in one or several runs: an interrupted run is resumed by the next.

Everything is written to a hidden folder beside the target, which is renamed at the end, so the target appears only when
it is complete. The progress is stored in the same transactions as the samples. So after a kill, a crash or a full disk
the next run of the same build continues after the last transaction, and no record is stored twice or lost.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import lmdb

from ..atomic import naming_what_cannot_be_written
from ..errors import LmdbError
from .open import absolute
from .store import COUNT_KEY, image_key, label_key, put_records, refuse_existing, side_key

_BATCH_BYTES = 16 * 2**20  # bytes in one transaction, which is flushed to disk
_FIRST_MAP_SIZE = 64 * 2**20  # bytes; doubled whenever the map is full
_STATE_KEY = b"build"
_SKIPPED_KEY = "build-skipped-%09d"
_LOCK = "building.lock"


@dataclass(frozen=True)
class Sample:
    """An encoded image and its label; `beside` maps kinds of store.SIDE_KEYS to texts that are not empty."""

    image: bytes
    label: str
    beside: dict[str, str]

    def records(self, index: int) -> Iterator[tuple[str, bytes]]:
        """Keys and values of the records that store it as sample number `index` (from 0)."""
        yield image_key(index), self.image
        yield label_key(index), self.label.encode("utf-8")
        for kind, text in self.beside.items():
            yield side_key(kind, index), text.encode("utf-8", "replace")


@dataclass(frozen=True)
class SkippedSample:
    """A sample left out: `where` is file and record, `reason` the message of the error."""

    where: str
    reason: str


@dataclass
class _State:
    identity: str
    records: int = 0  # of the source, stored or left out
    samples: int = 0
    skipped: int = 0
    remarks: dict[str, Any] = field(default_factory=dict)


class ResumableWriter:
    """Writes the LMDB folder `path`; a context manager that keeps what is stored if the block raises.

    `identity` tells one build from another: an earlier run with the same identity is resumed, another one is
    discarded. Raises LmdbError if `path` exists, another process writes it, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike, identity: str) -> None:
        self.target = Path(absolute(path))
        refuse_existing(self.target)
        self.folder = self.target.with_name(f".{self.target.name}.building")
        self._batch: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._open(identity)
        self.resumed = self._state.records

    def _open(self, identity: str) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LmdbError(f"{self.target}: the folder cannot be created ({error}); check its parent") from error
        self._lock = _locked(self.folder / _LOCK, self.target)
        state = self._open_environment()
        if state is not None and state.identity != identity:
            self.environment.close()
            for name in ("data.mdb", "lock.mdb"):
                (self.folder / name).unlink(missing_ok=True)
            state = self._open_environment()
        self._state, self._stored = state or _State(identity), state is not None

    def _open_environment(self) -> _State | None:
        # Without lmdb's own lock file, as ours excludes others. Each commit is flushed, so its state is reliable.
        try:
            self.environment = lmdb.open(os.fsencode(self.folder), map_size=_FIRST_MAP_SIZE, lock=False)
            with self.environment.begin() as transaction:
                stored = transaction.get(_STATE_KEY)
        except lmdb.Error as error:
            raise LmdbError(f"{self.folder}: cannot be continued ({error}); remove it and build again") from error
        return None if stored is None else _State(**json.loads(stored))

    @property
    def records(self) -> int:
        """Number of records of the source processed so far, including earlier runs."""
        return self._state.records

    @property
    def samples(self) -> int:
        return self._state.samples

    @property
    def remarks(self) -> dict[str, Any]:
        """Anything that the build wants to store with the samples."""
        return self._state.remarks

    def add(self, sample: Sample) -> None:
        """Store the next record of the source as this sample."""
        for key, value in sample.records(self._state.samples):
            self._put(key, value)
        self._state.samples += 1
        self._next()

    def skip(self, skipped: SkippedSample) -> None:
        """Leave out the next record of the source."""
        self._put(_SKIPPED_KEY % self._state.skipped, json.dumps(asdict(skipped)).encode())
        self._state.skipped += 1
        self._next()

    def _put(self, key: str, value: bytes) -> None:
        self._batch.append((key.encode("ascii"), value))
        self._size += len(value)

    def _next(self) -> None:
        self._state.records += 1
        if self._size >= _BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Store what was added since the last commit, and the progress."""
        state = [(_STATE_KEY, json.dumps(asdict(self._state)).encode())]
        try:
            put_records(self.environment, self._batch + state)
        except (lmdb.Error, OSError) as error:
            raise LmdbError(
                f"{self.target}: cannot be written ({error}); free some space and build again, which continues from "
                f"what {self.folder} holds"
            ) from error
        self._batch, self._size = [], 0
        self._stored = True

    def skipped(self) -> tuple[SkippedSample, ...]:
        """All samples left out, including earlier runs."""
        self.commit()
        with self.environment.begin() as transaction:
            stored = (transaction.get((_SKIPPED_KEY % index).encode()) for index in range(self._state.skipped))
            return tuple(SkippedSample(**json.loads(one)) for one in stored if one is not None)

    def finish(self) -> None:
        """Complete the target and rename it into place. Raises LmdbError if no sample was added."""
        if self._state.samples == 0:
            self.discard()
            raise LmdbError(f"{self.target}: no sample was given, nothing is written")
        self.commit()
        with self.environment.begin(write=True) as transaction:
            for index in range(self._state.skipped):
                transaction.delete((_SKIPPED_KEY % index).encode())
            transaction.delete(_STATE_KEY)
            transaction.put(COUNT_KEY.encode("ascii"), str(self._state.samples).encode("ascii"))
        self._close()
        refuse_existing(self.target)
        (self.folder / _LOCK).unlink()
        os.rename(self.folder, self.target)

    def discard(self) -> None:
        """Delete what is stored."""
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close(self) -> None:
        self.environment.close()
        self._lock.close()

    def __enter__(self) -> "ResumableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stored:
            self._close()
        else:
            self.discard()


def _locked(path: Path, target: Path) -> BinaryIO:
    """Open and lock the file `path`; the lock is released when this process ends, in whatever way."""
    with naming_what_cannot_be_written(path):
        file = open(path, "ab")  # noqa: SIM115 (closed by the writer)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LmdbError(
            f"{target}: another process is building it ({error.strerror}); wait for it, or end it"
        ) from None
    return file
