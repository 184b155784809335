"""Cases that do what no case may, for the test of the runner itself."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from .case import REFUSED, Case


def _spin() -> None:
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass


def case(number: int, folder: Path) -> Case:
    ended = threading.Event()
    name, attempt, expected = (
        ("dies", lambda: os.kill(os.getpid(), signal.SIGSEGV), None),
        ("raises", lambda: {}["key"], None),
        ("calls gs", lambda: subprocess.run(["gs"], check=True), None),
        ("reads", lambda: None, REFUSED),
        ("takes memory", lambda: b"1" * (600 * 2**20), None),
        ("leaves a thread", lambda: threading.Thread(target=ended.wait, args=(9,), daemon=True).start(), None),
        ("takes time", _spin, None),
    )[number]
    return Case(name, attempt, expected)
