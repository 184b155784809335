"""Scripts in processes of their own, with connections beyond loopback blocked and the names asked for listed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
MARK = "ANSWER "
PREAMBLE = f"""
import json, os, socket, sys
ATTEMPTS, VALUES = [], json.loads(sys.argv[1])

def _is_loopback(host):
    return host is None or str(host) == "localhost" or str(host).startswith("127.")

def _guarded(function, host_of):
    def guarded(*arguments, **keywords):
        host = host_of(*arguments)
        if not _is_loopback(host):
            ATTEMPTS.append(str(host))
            raise socket.gaierror(f"blocked: {{host}}")
        return function(*arguments, **keywords)
    return guarded

socket.socket.connect = _guarded(socket.socket.connect, lambda s, a: a[0] if isinstance(a, tuple) else "127.")
socket.getaddrinfo = _guarded(socket.getaddrinfo, lambda host, *_: host)

def answer(**values):
    print("\\n{MARK}" + json.dumps(values | {{"attempts": ATTEMPTS}}))
"""


def fresh(script: str, cwd: Path, *, environment: dict[str, str] | None = None, **values: Any) -> dict[str, Any]:
    """Run `script`, which finds `values` in VALUES, and return what it gave to `answer`, `attempts` and `stderr`."""
    environment = {
        **os.environ,
        "MODELSCOPE_LOG_LEVEL": "40",
        "OMP_NUM_THREADS": "1",  # for networks as small as these, threads only wait for each other
        "MODELSCOPE_CACHE": str(cwd / "cache"),
        **(environment or {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, json.dumps(values, default=str)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        timeout=500,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert done.returncode == 0 and answers, f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return json.loads(answers[-1].removeprefix(MARK)) | {"stderr": done.stderr}
