"""Running a generator in a separate process, because what it reads may end that process.

The child is a new interpreter: a fork could inherit any state from the parent's threads, and multiprocessing would
import the caller's script again.
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
    """The message says how the child ended."""


def events_of_child(generator: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Yield what `generator(*arguments)` yields in a child; events and arguments are pickled, `generator` is imported.

    Raises the generator's OcrError, or ChildDied if it ends in any other way than by being exhausted.
    """
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # C libraries print assertions there
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
