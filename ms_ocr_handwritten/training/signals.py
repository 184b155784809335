"""SIGTERM and Ctrl-C: a training saves its state after the step at work, then ends; the second one ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

HANDLED = (signal.SIGTERM, signal.SIGINT)
GRACE = 5  # seconds that a worker process goes on after SIGTERM, so that the step at work gets its batch


class StopSignals:
    """A block in which SIGTERM and SIGINT are handled so. In other threads than the main one nothing is changed."""

    def __init__(self) -> None:
        self.received: int | None = None  # the signal that asks to end
        self._deferred, self._process = False, os.getpid()
        self._former: dict[int, Any] = {}  # handlers

    def __enter__(self) -> "StopSignals":
        for number in HANDLED:
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: the process that it works for decides
            return
        self.received = number
        self._restore()  # so that the next one acts as ever
        if not self._deferred:
            self.end()
        name = signal.Signals(number).name
        message = f"\n{name}: saving after this step, then ending; press or send again to end at once\n"
        os.write(2, message.encode())  # a print could meet another one at work

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Until the block ends, a signal is only noted, for the block to save what it has; then it ends the program."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def end(self) -> None:
        """End the program as the signal asks. Raises KeyboardInterrupt or SystemExit (128 + the signal's number)."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.received or 0))


def outlive_the_signal() -> None:
    """In a worker process: leave Ctrl-C to the parent, and end a while after SIGTERM only."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
