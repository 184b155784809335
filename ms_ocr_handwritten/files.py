"""Safe access to regular files: a path may lead to a pipe, a device, or an endless file of the kernel."""

import os
import stat


class NotRegularError(OSError):
    """The path does not lead to a regular file; the message names what it leads to."""


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Read at most `most` bytes of a regular file, without ever blocking. Raises OSError, including NotRegularError."""
    check_regular(path)  # before opening, which would wait for a pipe's other end, or rewind a tape
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        return file.read(min(most, check_regular(path, os.fstat(descriptor))))  # files in /proc report 0


def check_regular(path: str | os.PathLike[str], status: os.stat_result | None = None) -> int:
    """The size of a regular file in bytes, without opening it. Raises OSError, including NotRegularError."""
    status = status or os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise NotRegularError("a directory")
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError("no regular file")
    return status.st_size


def current_folder() -> str:
    """The working directory for messages, even if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return "a working directory that no longer exists"
