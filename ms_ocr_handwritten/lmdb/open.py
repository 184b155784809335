"""Opening an LMDB for reading, once per process and file, also across forks.

lmdb refuses to open the same files twice in one process, and an open environment must not be used across a fork.
So all readers of a process share one environment per file, and a forked child opens its own.
"""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from ..errors import LmdbError

LEAST_RECORD = 16  # bytes that a record takes in a page at least: a pointer, a header, a key


class SharedEnvironment:
    """An open environment and, once a reader has checked it, its number of samples.

    It stays open while this object is referenced; get it from `shared_environment` and do not copy the field.
    """

    def __init__(self, environment: lmdb.Environment, file: str) -> None:
        self.environment = environment
        self.pid = os.getpid()
        self.count: int | None = None
        self._descriptor = os.open(file, os.O_RDONLY)  # of this file, even if another one takes its name
        self._size = os.fstat(self._descriptor).st_size
        weakref.finalize(self, os.close, self._descriptor)
        self._ended = threading.Condition()  # notified when a transaction ends
        self._transactions = 0

    def get(self, key: str, path: str) -> bytes | None:
        """The value of `key`, None if it is missing. Raises LmdbError, naming `path`, if the LMDB is damaged."""
        try:
            # Reading a page beyond the file's end kills the process; the file may have been truncated since opening.
            if os.fstat(self._descriptor).st_size < self._size:
                raise LmdbError(f"{path}: was truncated while it was open; copy or build the LMDB again")
            with self.reading() as transaction:
                value = transaction.get(key.encode("ascii"))
                return None if value is None else bytes(value)
        except (lmdb.Error, OSError) as error:
            raise LmdbError(f"{path}: key {key} cannot be read ({error}); copy or build the LMDB again") from error

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """A read transaction; remaps the file first if another process has made it outgrow the map."""
        with self._ended:
            try:
                transaction = self.environment.begin()
            except lmdb.MapResizedError:
                self._ended.wait_for(lambda: not self._transactions)  # their pages would be unmapped
                self.environment.set_mapsize(0)  # the size declared in the file
                self._size = os.fstat(self._descriptor).st_size
                transaction = self.environment.begin()
            self._transactions += 1
        try:
            with transaction:
                yield transaction
        finally:
            with self._ended:
                self._transactions -= 1
                self._ended.notify_all()

    @property
    def most_records(self) -> int:
        """Upper bound on the number of records, by the file's size and its header."""
        with self._ended:  # so that nobody remaps the file meanwhile
            return min(self._size // LEAST_RECORD, int(self.environment.stat()["entries"]))


def shared_environment(path: str) -> SharedEnvironment:
    """This process's only environment for the LMDB `path`, a folder or a file.

    Raises LmdbError if the path holds no LMDB, a truncated one, or one opened by other code of the process.
    """
    file = data_file(path)
    status = os.stat(file)
    registry = _registries.setdefault(os.getpid(), _ProcessRegistry())
    return registry.shared((status.st_dev, status.st_ino), path, file)


class _ProcessRegistry:
    """The open environments of one process, by (device, inode) of the data file, which lmdb itself uses as identity.

    The environments are held here and closed only under the lock. If they were left to the garbage collector, a
    thread could request one after its last holder is gone but before it is closed, and lmdb would refuse.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], tuple[lmdb.Environment, weakref.ref[SharedEnvironment]]] = {}

    def shared(self, identity: tuple[int, int], path: str, file: str) -> SharedEnvironment:
        with self._lock:
            environment, holder = self._open.get(identity, (None, _nobody))
            shared = holder()
            if shared is None:
                if environment is None:
                    _close_inherited(identity)
                    environment = _open_environment(path, file)
                shared = SharedEnvironment(environment, file)
                self._open[identity] = (environment, weakref.ref(shared, self._close_unused))
            return shared

    def close(self, identity: tuple[int, int]) -> None:
        """Close the environment of `identity`, if there is one."""
        environment, _ = self._open.pop(identity, (None, _nobody))
        if environment is not None:
            environment.close()

    def _close_unused(self, _: object) -> None:
        # The garbage collector may call this in the middle of `shared`, which must not deadlock. What stays open then
        # is reused, or closed with the next one.
        if self._lock.acquire(blocking=False):
            try:
                for identity in [identity for identity, (_, holder) in self._open.items() if holder() is None]:
                    self.close(identity)
            finally:
                self._lock.release()


# By process id, so that a forked child has its own registry and lock; the parent's lock may be held forever.
_registries: dict[int, _ProcessRegistry] = {}


def _nobody() -> None:
    return None


def _close_inherited(identity: tuple[int, int]) -> None:
    """Close this process's copy of an environment inherited by a fork: lmdb would refuse to open it again."""
    for pid, registry in list(_registries.items()):
        if pid != os.getpid():
            registry.close(identity)


def absolute(path: str | os.PathLike[str]) -> str:
    """`os.path.abspath`. Raises LmdbError if the path is relative and the working directory no longer exists."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise LmdbError(f"{path}: the working directory no longer exists; give an absolute path") from error


def data_file(path: str) -> str:
    """The data file of the LMDB `path` (a folder or a file). Raises LmdbError if there is none."""
    file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    if os.path.isfile(file):
        return file
    if file == path:
        raise LmdbError(f"{path}: no such file or folder; give the folder that holds data.mdb")
    raise LmdbError(
        f"{path}: the folder holds no data.mdb, so it is not an LMDB; give the folder that does, or make one with "
        "`ms-ocr lmdb build`"
    )


def _open_environment(path: str, file: str) -> lmdb.Environment:
    if os.path.getsize(file) == 0:
        raise LmdbError(f"{path}: {os.path.basename(file)} is empty; copy or build the LMDB again")
    try:  # a path in bytes, since lmdb does not accept str that is not valid UTF-8
        environment = lmdb.open(
            os.fsencode(file), subdir=False, readonly=True, lock=False, readahead=False, meminit=False
        )
    except lmdb.InvalidError as error:
        raise LmdbError(f"{path}: not an LMDB ({error}); build one with `ms-ocr lmdb build`") from error
    except (lmdb.Error, OSError) as error:
        message = f"{path}: cannot be opened ({error})"
        if "already open" in str(error):
            message += "; close the lmdb.Environment that other code of this process holds, or read through LmdbReader"
        raise LmdbError(message) from error
    try:
        _check_size(environment, path, file)
    except LmdbError:
        environment.close()
        raise
    return environment


def _check_size(environment: lmdb.Environment, path: str, file: str) -> None:
    """Raise LmdbError if the file is shorter than its pages: reading past its end would kill the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = os.path.getsize(file)
    if size < needed:
        raise LmdbError(f"{path}: truncated, {size} bytes of {needed} are there; copy or build the LMDB again")
