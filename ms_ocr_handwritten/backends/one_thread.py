"""A backend that computes in one thread, whichever threads call it.

PyTorch uses OpenMP, which keeps a team of threads for each calling thread, and lets them sleep more once there are more
threads than cores: on two cores a line took twice as long from the second team on.
"""

from collections.abc import Sequence
from concurrent.futures import Executor

from ..decoding.candidates import Candidates, Wanted
from ..image import LineCanvas
from .base import Backend, ColumnPath, Pending


class OneThread(Backend):
    """Runs `backend` in `thread`, the single-threaded executor that opened it."""

    def __init__(self, backend: Backend, thread: Executor) -> None:
        self._backend, self._thread = backend, thread
        self.name, self.precision, self.layout = backend.name, backend.precision, backend.layout
        self.width_per_batch = backend.width_per_batch

    @property
    def asynchronous(self) -> bool:
        return True

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        return self._thread.submit(lambda: self._backend.begin(lines).result())

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        return self._thread.submit(lambda: self._backend.begin_candidates(lines, wanted).result())

    def reopened(self) -> Backend:
        return self._backend.reopened()
