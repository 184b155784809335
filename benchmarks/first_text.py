"""From process start to the first text: wall time and peak memory of whole processes, run alternately.

One image, examples/lines/english.png. The builtin has no embedded model: it reads with random weights of the official
size, the others with the model they contain. Each program chooses its own number of threads.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clock import ratio
from images import EXAMPLES
from options import Options
from peers import official_model_dir
from report import Claim, Section, Table, progress

from ms_ocr_handwritten import default_model_dir

IMAGE = str(EXAMPLES / "english.png")
LAUNCH = [sys.executable, "-S", str(Path(__file__).parent / "launch.py")]
LEAN = "ours, onnxruntime"
PEER = "RapidOCR, recogniser alone"
RAPIDOCR = """
import sys
from rapidocr import RapidOCR
print(*RapidOCR()(sys.argv[1], use_det=False, use_cls=False).txts)
"""
BUILTIN = """
import sys
from modelscope.pipelines import pipeline
print(pipeline('ocr-recognition', model=sys.argv[2])(sys.argv[1])['text'])  # a list: its text may be empty
"""
COLUMNS = ("program", "first text, s", "peak memory, MiB", "time, RapidOCR / this", "memory, RapidOCR / this")


def run(options: Options) -> Section:
    with tempfile.TemporaryDirectory() as folder:
        recognize = [sys.executable, "-m", "ms_ocr_handwritten.cli", "recognize", IMAGE, "--backend"]
        runs, missing = _measure(
            {
                LEAN: [*recognize, "onnxruntime"],
                "ours, torch": [*recognize, "torch"],
                "ours, auto": [*recognize, "auto"],
                PEER: [sys.executable, "-c", RAPIDOCR, IMAGE],
                "ModelScope's builtin": [sys.executable, "-c", BUILTIN, IMAGE, official_model_dir(Path(folder))],
            },
            options.heavy_rounds,
        )
    rows, ratios = [], {}
    for name, measured in runs.items():
        figures = [[one[what] for one in measured] for what in ("seconds", "peak_mib")]
        others = [[one[what] for one in runs[PEER]] for what in ("seconds", "peak_mib")] if PEER in runs else None
        ratios[name] = [ratio(other, own) for other, own in zip(others, figures)] if others else [None, None]
        shown = [None, None] if name == PEER else ratios[name]
        rows.append((name, *map(statistics.median, figures), *shown))
    lean = ratios.get(LEAN, [None, None])
    claims = [
        Claim.at_least(f"first text, {what}: RapidOCR / {LEAN}", 1.0, found)
        for what, found in zip(("time", "memory"), lean)
    ]
    samples = {
        name: [{what: one[what] for what in ("seconds", "peak_mib")} for one in measured]
        for name, measured in runs.items()
    }
    return Section(
        [Table("From nothing to the first text, whole processes", COLUMNS, rows, "; ".join(missing))], claims, samples
    )


def _measure(commands: dict[str, list[str]], rounds: int) -> tuple[dict[str, list[dict]], list[str]]:
    """Each program's measurements by round, after an untimed one; and why the others gave no text."""
    runs: dict[str, list[dict]] = {}
    missing = []
    for name, command in commands.items():
        progress(f"first_text: {name}")
        first = _launch(command)
        if first["exit"] == 0 and first["output"]:
            runs[name] = []
        else:
            reason = (first["errors"].splitlines() or ["nothing said"])[-1]
            missing.append(f"{name}: no text, {reason.replace(default_model_dir(), 'the embedded model')}")
    for number in range(rounds):
        progress(f"first_text: round {number + 1} of {rounds}")
        for name, measured in runs.items():
            measured.append(_launch(commands[name]))
    return runs, missing


def _launch(command: list[str]) -> dict:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([*LAUNCH, *command], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)
