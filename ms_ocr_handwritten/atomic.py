"""Atomic file writes: into a temporary file in the same folder, flushed to disk, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OcrError, OutputError

TEMPORARY_SUFFIX = ".saving"  # of the hidden files being written


@contextmanager
def appearing_whole(path: Path) -> Iterator[str]:
    """Yield a temporary name in the folder of `path`; it is renamed to `path` on success and deleted on an exception.

    A crash leaves the old or the new file, and perhaps a hidden one that ends in TEMPORARY_SUFFIX. The file's
    permissions follow the umask.

    Raises:
        OutputError: The file cannot be written, for instance on a full or read-only disk; the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    with naming_what_cannot_be_written(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # minus the umask
            yield str(temporary)
            with open(temporary, "rb+") as file:  # Windows flushes only files opened for writing
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically. Raises OutputError as `appearing_whole` does."""
    with appearing_whole(path) as temporary:
        Path(temporary).write_bytes(data)


@contextmanager
def naming_what_cannot_be_written(path: Path) -> Iterator[None]:
    """Turn an OSError in a block that writes `path` into an OutputError that names it."""
    try:
        yield
    except OcrError:  # from reading its input
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, correct the "
            "permissions, or choose another path; what was there before is unchanged"
        ) from error
