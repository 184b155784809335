"""SIGTERM and Ctrl-C: a training saves its state after the current step, then ends; a second one ends it at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

HANDLED = (signal.SIGTERM, signal.SIGINT)
GRACE = 5  # seconds that a worker process lives on after SIGTERM, so that the current step gets its batch


class StopSignals:
    """A context in which SIGTERM and SIGINT are handled like this. It does nothing outside the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None  # the signal to end
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
        if os.getpid() != self._process:  # a forked worker: its parent decides
            return
        self.received = number
        self._restore()  # so that the next one acts as usual
        if not self._deferred:
            self.end()
        name = signal.Signals(number).name
        message = f"\n{name}: saving after this step, then ending; press or send again to end at once\n"
        os.write(2, message.encode())  # print is not reentrant

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only record a signal until the block ends, so that the block can save its state before calling `end`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def end(self) -> None:
        """End the program. Raises KeyboardInterrupt for SIGINT, else SystemExit (128 + the signal's number)."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.received or 0))


def outlive_the_signal() -> None:
    """In a worker process: leave Ctrl-C to the parent, and end only some seconds after SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
