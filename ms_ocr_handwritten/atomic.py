"""Files that appear whole or not at all: written beside their place, flushed to the disk, renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".saving"  # of hidden files that are being written


@contextmanager
def appearing_whole(path: Path) -> Iterator[str]:
    """A temporary name beside `path`, which becomes `path` if the block ends well and vanishes if it raises.

    A crash leaves the old file or the new one, and perhaps a hidden one that ends in TEMPORARY_SUFFIX.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent)
    os.close(descriptor)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        with open(temporary, "rb+") as file:  # Windows flushes only what it may write
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    with appearing_whole(path) as temporary:
        Path(temporary).write_bytes(data)
