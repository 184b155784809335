"""Runs the cases that its standard input names, one a line (`kind number`), and answers each with a line of JSON.

A fake `gs` stands first in its PATH: a call of it is a finding, as is a thread or a child process that is left behind.
"""

import importlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

ADDRESS_SPACE = 12 * 2**30  # bytes; beyond it allocations fail, so that a bomb does not take the machine along


def memory(field: str) -> int:
    """KiB, of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(f"{field}:"))


def _own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name != "server"]


def run(kind: str, number: int, folder: Path) -> dict:
    from ms_ocr_handwritten.errors import OcrError

    case = importlib.import_module(f".{kind}", __package__).case(number, folder)
    threads, trace = len(_own_threads()), ""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
    before, cpu, start = memory("VmRSS"), time.process_time(), time.monotonic()
    try:
        case.attempt()
        outcome = "read"
    except OcrError:
        outcome = "refused"
    except BaseException as error:
        outcome, trace = f"untyped {type(error).__name__}", traceback.format_exc(limit=-6)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    if (folder / "gs-ran").exists():
        outcome = "Ghostscript ran"
    elif len(_own_threads()) > threads:
        outcome = f"threads left: {_own_threads()}"
    return {
        "name": case.name,
        "outcome": outcome,
        "expected": case.expected,
        "seconds": seconds,
        "cpu": cpu,
        "mib": (memory("VmHWM") - before) / 1024,
        "trace": trace,
    }


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    import ms_ocr_handwritten.image  # noqa: F401  (before the first case is measured)

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        kind, number = line.split()
        with tempfile.TemporaryDirectory(prefix="ms-ocr-fuzz.") as name:
            gs = Path(name) / "gs"
            gs.write_text(f"#!/bin/sh\ntouch {name}/gs-ran\n", encoding="ascii")
            gs.chmod(0o755)
            path, os.environ["PATH"] = os.environ["PATH"], f"{name}:{os.environ['PATH']}"
            try:
                answer = run(kind, int(number), Path(name))
            finally:
                os.environ["PATH"] = path
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
