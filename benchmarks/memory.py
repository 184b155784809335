"""Whether memory grows: many lines of varied width through one recogniser, in a separate process.

The lines have one to four chunks and are generated lazily; the model is the embedded one. The last reading
may be at most 5 % above that after the first 1,000 lines.

    python benchmarks/memory.py LINES THREADS      the process: one JSON pair (lines, MiB) per 1,000 lines
"""

import json
import subprocess
import sys

from options import Options
from report import Claim, Section, Table, progress

STEP = 1000  # lines between two readings
LIMIT = 5.0  # percent
SHOWN = 8  # rows of the table; all readings are in the JSON file


def run(options: Options) -> Section:
    count = max(options.lines // STEP, 2) * STEP
    command = [sys.executable, __file__, str(count), str(options.threads)]
    readings = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for row in process.stdout:
            readings.append(json.loads(row))
            progress(f"memory: {readings[-1][0]} lines, {readings[-1][1]:.0f} MiB")
    if process.returncode or len(readings) * STEP != count:
        raise SystemExit(
            f"memory: the reading process ended with exit code {process.returncode} after "
            f"{len(readings) * STEP} of {count} lines"
        )
    first = readings[0][1]
    growth = [(lines, mib, 100 * (mib / first - 1)) for lines, mib in readings]
    every = -(-len(growth) // SHOWN)
    rows = [growth[0], *growth[every - 1 : -1 : every][every == 1 :], growth[-1]]
    table = Table(
        "Memory of one recogniser, lines of one to four chunks",
        ("lines read", "resident, MiB", "growth since the first 1,000, %"),
        rows,
    )
    claim = Claim.at_most(f"growth of memory up to {count} lines, %", LIMIT, growth[-1][2], required=True)
    return Section([table], [claim], {"readings": readings})


def read_lines(count: int, threads: int) -> None:
    import torch
    from facts import resident_mib
    from images import endless_lines

    from ms_ocr_handwritten import Recognizer, default_model_dir

    torch.set_num_threads(threads)
    recognizer = Recognizer.from_pretrained(default_model_dir(), "torch", device="cpu")
    for done, _ in enumerate(recognizer.read_many(endless_lines(count)), start=1):
        if done % STEP == 0:
            print(json.dumps((done, resident_mib())), flush=True)


if __name__ == "__main__":
    read_lines(*map(int, sys.argv[1:]))
