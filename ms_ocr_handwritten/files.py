"""Files by path, where a path may name a pipe, a device, or a file of the kernel that never ends."""

import os
import stat


class NotRegularError(OSError):
    """The path leads to something else than a file on a disk; the message names what."""


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """The first `most` bytes of a regular file, without waiting for anybody. Raises OSError, NotRegularError too."""
    check_regular(path)  # before opening, which waits for a pipe's other end, and rewinds tapes
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        return file.read(min(most, check_regular(path, os.fstat(descriptor))))  # the kernel's own files say 0


def check_regular(path: str | os.PathLike[str], status: os.stat_result | None = None) -> int:
    """The size of a regular file in bytes. Raises OSError, NotRegularError too; opens nothing."""
    status = status or os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise NotRegularError("a directory")
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError("no regular file")
    return status.st_size


def current_folder() -> str:
    """The working directory for messages, also where it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return "a working directory that no longer exists"
