"""Runs a command and prints its wall time, peak memory and output as JSON: `python -S launch.py COMMAND...`.

A small separate process, because a child's peak memory starts at what its parent held when it was forked.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=output, stderr=errors)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    output.seek(0)
    errors.seek(0)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_mib": usage.ru_maxrss * unit / 2**20,
                "exit": process.returncode,
                "output": output.read().decode(errors="replace").strip(),
                "errors": errors.read().decode(errors="replace").strip(),
            }
        )
    )
