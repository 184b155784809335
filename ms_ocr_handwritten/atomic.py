"""Files that appear whole or not at all: written beside their place, flushed to the disk, renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OcrError, OutputError

TEMPORARY_SUFFIX = ".saving"  # of hidden files that are being written


@contextmanager
def appearing_whole(path: Path) -> Iterator[str]:
    """A temporary name beside `path`, which becomes `path` if the block ends well and vanishes if it raises.

    A crash leaves the old file or the new one, and perhaps a hidden one that ends in TEMPORARY_SUFFIX. Who may read
    the file is for the umask to say.

    Raises:
        OutputError: The disk is full or read-only, or something else stands in the way; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    with naming_what_cannot_be_written(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the umask
            yield str(temporary)
            with open(temporary, "rb+") as file:  # Windows flushes only what it may write
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`. Raises OutputError as `appearing_whole` does."""
    with appearing_whole(path) as temporary:
        Path(temporary).write_bytes(data)


@contextmanager
def naming_what_cannot_be_written(path: Path) -> Iterator[None]:
    """Turn the OSError of a block that writes `path` into an OutputError that names it."""
    try:
        yield
    except OcrError:  # of what the block read
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, correct the "
            "permissions, or choose another path; what was there before is unchanged"
        ) from error
