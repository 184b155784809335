"""Append a line to an existing LMDB, or start a new one with it.

Each line is one transaction, flushed to disk before `append_record` returns: after a kill, a crash or a full disk the
LMDB is intact, with or without that line. Of the existing records only `num-samples` is rewritten.
Several processes may append to one LMDB: lmdb's own lock file makes them take turns.
"""

import os
import secrets
import threading
from pathlib import Path

import lmdb

from ..data.record import BadRecord, Record
from ..errors import LmdbError
from .build import sample_of
from .open import absolute, data_file
from .resumable import ResumableWriter, Sample
from .store import COUNT_KEY, VALIDATE, LmdbReader

_LEAST_MAP_SIZE = 64 * 2**20  # bytes; the file takes only what it needs
_turn = threading.Lock()  # lmdb refuses to open the same files twice in a process


def append_record(path: str | os.PathLike[str], record: Record) -> int:
    """Append `record` to the LMDB folder `path`, which is created if it does not exist.

    Image and label are checked and stored as in `lmdb.build`.

    Returns:
        The number of samples that the LMDB now holds.

    Raises:
        ImageError, LabelError, DataError: The record is not a valid sample.
        LmdbError: `path` is not an intact LMDB of lines, is being read by this process, or cannot be written.
    """
    outcome = sample_of(record)
    if isinstance(outcome, BadRecord):
        raise outcome.error
    _, sample = outcome
    target = Path(absolute(path))
    with _turn:
        return _add(target, sample) if os.path.lexists(target) else _begin(target, sample)


def _begin(target: Path, sample: Sample) -> int:
    with ResumableWriter(target, secrets.token_hex(8)) as writer:  # discards remains of a crash
        writer.add(sample)
        writer.finish()
    return 1


def _add(target: Path, sample: Sample) -> int:
    len(LmdbReader(target))  # raises if it is not intact; no reference is kept
    try:
        size = max(_LEAST_MAP_SIZE, 2 * os.path.getsize(data_file(os.fspath(target))) + 2 * len(sample.image))
        with lmdb.open(os.fsencode(target), subdir=target.is_dir(), map_size=size) as environment:
            with environment.begin(write=True) as transaction:
                count = int(transaction.get(COUNT_KEY.encode("ascii"), b""))  # may have grown meanwhile
                for key, value in sample.records(count):
                    if not transaction.put(key.encode("ascii"), value, overwrite=False):
                        raise LmdbError(f"{target}: holds key {key} beyond its {count} samples; {VALIDATE}")
                transaction.put(COUNT_KEY.encode("ascii"), str(count + 1).encode("ascii"))
            return count + 1
    except (lmdb.Error, OSError) as error:
        if "already open" in str(error):
            raise LmdbError(f"{target}: this process is reading it; close its readers first") from error
        raise LmdbError(
            f"{target}: cannot be written ({error}); free some space, or correct the permissions; it is unchanged"
        ) from error
