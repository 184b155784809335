"""A generator that runs in a process of its own, because what it reads may end that process.

The child is a fresh interpreter rather than a fork, which threads of the parent could have left in any state, and
rather than one of multiprocessing, which would import the caller's script again.
"""

import importlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import OcrError


class ChildDied(Exception):
    """How it ended, for people."""


def events_of_child(generator: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """What `generator(*arguments)` yields in a child; events and arguments are pickled, `generator` is imported there.

    Raises what it raises of OcrError, and ChildDied if it ends in any other way than by coming to its end.
    """
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where assertions of C libraries go
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as child:
        assert child.stdin and child.stdout  # both are pipes
        try:
            pickle.dump((generator.__module__, generator.__qualname__, arguments), child.stdin)
            child.stdin.close()
            while True:
                kind, content = pickle.load(child.stdout)
                if kind == "event":
                    yield content
                elif kind == "error":
                    raise content
                else:
                    return
        except (EOFError, OSError, pickle.UnpicklingError):
            code = child.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildDied(name) from None
        finally:
            child.kill()


def main() -> None:
    sent, sys.stdout = sys.stdout.buffer, sys.stderr
    module, name, arguments = pickle.load(sys.stdin.buffer)
    last: tuple[str, Any] = ("end", None)
    try:
        for event in getattr(importlib.import_module(module), name)(*arguments):
            pickle.dump(("event", event), sent)
            sent.flush()
    except OcrError as error:
        last = ("error", error)
    pickle.dump(last, sent)
    sent.flush()


if __name__ == "__main__":
    main()
