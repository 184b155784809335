"""One training per work_dir: a lock held by the process and released when it dies.

It uses POSIX record locks, which belong to this process but not its children, are released when it ends (also by
kill -9 or a power cut), and are supported by NFS servers. So two trainings never share a work_dir on one machine, nor
on several machines over NFS, unless it is mounted with `nolock` or `local_lock`. If the file system has no locks, or
the system is not POSIX, the training prints a notice and continues.
"""

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..atomic import naming_what_cannot_be_written
from ..errors import ConfigurationError

LOCK_FILE = ".training.lock"
_IN_USE = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_held: set[str] = set()  # by this process, to which the system would grant the same lock again
_guard = threading.Lock()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder`, which must exist, against other trainings until the block ends.

    Raises:
        ConfigurationError: Another training holds the lock; its process is named.
        OutputError: The lock file cannot be written.
    """
    path = folder.resolve() / LOCK_FILE
    with _guard:
        if str(path) in _held:
            raise _in_use(folder, "in this process")
        _held.add(str(path))
    try:
        descriptor = _acquire(path, folder)
        try:
            yield
        finally:
            # Still holding the lock: `_acquire` checks that its file still exists. Windows cannot remove an open file.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        _held.discard(str(path))


def _acquire(path: Path, folder: Path) -> int:
    """Lock the file and return its descriptor."""
    while True:
        with naming_what_cannot_be_written(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, folder)
            if _is_file(path, descriptor):
                with naming_what_cannot_be_written(path):
                    os.truncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder removed the file meanwhile, so this lock excludes nobody


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:
        print(
            f"{folder}: this system has no file locks; make sure that no other training writes there", file=sys.stderr
        )
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _IN_USE:
            pid, _, host = os.read(descriptor, 300).decode("utf-8", "replace").strip().partition(" ")
            raise _in_use(folder, f"in process {pid or '(unnamed)'} on {host or 'this machine'}") from None
        if error.errno not in _UNSUPPORTED:
            raise
        print(
            f"{folder}: cannot be locked ({error.strerror}); make sure that no other training writes there",
            file=sys.stderr,
        )


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{folder}: another training is running there, {where}; wait until it ends, or name another work_dir"
    )
