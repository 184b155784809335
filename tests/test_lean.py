"""A lean installation: lines are read with onnxruntime where neither torch nor ModelScope is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import ms_ocr_handwritten
from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.errors import BackendError, HubError
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.plugin.hub import INSTEAD

LINES = [ROOT / "examples" / "lines" / name for name in ("english.png", "chinese.png")]
NAMED = re.search(r"^pip install (numpy .*)$", (ROOT / "docs" / "read.md").read_text(encoding="utf-8"), re.MULTILINE)
IMPORTED = {"opencv-python-headless": "cv2", "Pillow": "PIL"}  # where it is not the package's own name
INSTALLED = f"INSTALLED = {[IMPORTED.get(package, package) for package in NAMED[1].split()]}"
START = f"""{INSTALLED}
import sys
from importlib.machinery import PathFinder

class Lean(PathFinder):
    '''Of all installed packages, finds those that docs/read.md names, and this one.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = path or name in (*INSTALLED, "ms_ocr_handwritten", *sys.stdlib_module_names)
        return super().find_spec(name, path, target) if found else None

    @staticmethod
    def find_distributions(*arguments):
        return iter(())

sys.meta_path = [Lean if finder is PathFinder else finder for finder in sys.meta_path]
sys.path += [sys.argv.pop(1) for _ in range(2)]
"""
READ = """
import json
from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.errors import BackendError, HubError
recognizer = Recognizer.from_pretrained(default_model_dir())
lines = [(line.text, line.score) for line in recognizer.read_many(sys.argv[1:])]
told = []
for directory, backend in ((default_model_dir(), "torch"), ("owner/name", "auto")):
    try:
        Recognizer.from_pretrained(directory, backend)
    except (BackendError, HubError) as error:
        told.append([type(error).__name__, str(error)])
absent = []
for name in ("torch", "modelscope", "datasets", "transformers", "lmdb", "onnx"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        absent.append(name)
print(json.dumps([recognizer.backend, lines, told, absent]))
"""
COMMAND = "from ms_ocr_handwritten.cli import main; main(prog_name='ms-ocr')"


def lean(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run in a process that begins with the standard library alone (-I -S)."""
    folders = [Path(np.__file__).parent.parent, Path(ms_ocr_handwritten.__file__).parent.parent]
    command = [sys.executable, "-I", "-S", "-B", "-c", START + script, *folders, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8", check=False)


def test_lines_are_read():
    done = lean(READ, *LINES)
    assert done.returncode == 0, done.stderr
    backend, lines, told, absent = json.loads(done.stdout)
    expected = Recognizer.from_pretrained(default_model_dir(), "onnxruntime").read_many(LINES)
    assert (backend, lines) == ("onnxruntime", [[line.text, pytest.approx(line.score)] for line in expected])
    assert told == [
        [BackendError.__name__, "backend 'torch' needs the package torch; `pip install torch`, or use 'onnxruntime'"],
        [
            HubError.__name__,
            f"owner/name: no such directory; for an id of the hub, `pip install modelscope`, {INSTEAD}",
        ],
    ]
    assert absent == ["torch", "modelscope", "datasets", "transformers", "lmdb", "onnx"]


def test_the_command_reads_and_names_what_is_missing_for_more(tmp_path):
    done = lean(COMMAND, "recognize", LINES[0])
    assert (done.returncode, done.stdout) == (0, "the weather is fine today\n"), done.stderr
    write_lmdb(tmp_path / "lines", [(LINES[0].read_bytes(), "x")])
    done = lean(COMMAND, "recognize", tmp_path / "lines")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: this command needs the package lmdb, which is missing; `pip install lmdb`\n"
    done = lean(COMMAND.replace("import main;", "import main; sys.modules['cv2'] = None;"), "recognize", LINES[0])
    assert done.stderr == (
        "error: this command needs the package opencv-python, which is missing; `pip install opencv-python`\n"
    )


def test_the_doctor_says_what_is_missing():
    done = lean(COMMAND, "doctor", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "torch        missing (reading pytorch_model.pt, training)" in done.stdout
    assert "not here: torch fp32: backend 'torch' needs the package torch" in done.stdout
    assert "auto, without: backend 'onnxruntime', precision 'fp32' (torch is not installed)" in done.stdout
