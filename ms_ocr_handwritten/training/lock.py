"""One training per work_dir: a lock that the process holds, and that its death releases.

POSIX record locks: of this process, not of its children, gone with it (kill -9 and power cuts too), and passed on by
NFS servers. So on one machine two trainings never share a work_dir; from several machines on NFS they do not either,
unless it is mounted with `nolock` or `local_lock`. Where the file system has no locks, or the system is no POSIX one,
the training says so and goes on.
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

_held: set[str] = set()  # by this process, to which the system would give the same lock again
_guard = threading.Lock()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other trainings out of `folder` (there already) until the block ends.

    Raises:
        ConfigurationError: Another training holds it; its process is named.
        OutputError: The lock's file cannot be written.
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
            # While it is held: `_acquire` looks whether its file is still there. Windows removes no file that is open.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        _held.discard(str(path))


def _acquire(path: Path, folder: Path) -> int:
    """The descriptor of the locked file."""
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
        os.close(descriptor)  # the former holder has removed the file meanwhile: that lock keeps nobody out


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
