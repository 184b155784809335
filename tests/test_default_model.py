"""The embedded model: it is in the package, and reads the README's example lines through each way of reading."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from fresh import fresh

import ms_ocr_handwritten
from ms_ocr_handwritten.backends.onnx import made_from
from ms_ocr_handwritten.model_dir import ModelDir

LINES = {"english.png": "the weather is fine today", "chinese.png": "今天天气很好"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_reads_the_example_lines(precision):
    recognizer = ms_ocr_handwritten.Recognizer.from_pretrained(
        ms_ocr_handwritten.default_model_dir(), precision=precision
    )
    assert {name: recognizer.read(ROOT / "examples" / "lines" / name).text for name in LINES} == LINES


def test_the_pipeline_reads_them_offline(blocked_network):
    from modelscope.pipelines import pipeline

    read = pipeline("ocr-recognition", model=ms_ocr_handwritten.default_model_dir())
    assert [read(str(ROOT / "examples" / "lines" / name))["text"] for name in LINES] == [
        [text] for text in LINES.values()
    ]
    assert blocked_network == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_command_prints_what_the_readme_says(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    command, output = re.search(r"<!-- recognise command -->\n```bash\n(.*?)```\n```\n(.*?)```", text, re.S).groups()
    arguments = command.strip().rpartition("&& ms-ocr ")[2].split()
    done = subprocess.run(
        [sys.executable, "-m", "ms_ocr_handwritten.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == output


def test_weights_are_small_and_fit_the_vocabulary():
    files = ModelDir.open(ms_ocr_handwritten.default_model_dir())
    assert Path(files.weights).stat().st_size <= 13_000_000
    assert files.configuration.network.num_classes == files.vocabulary.classes


LEAN = """
import sys
from ms_ocr_handwritten import Recognizer, default_model_dir
reader = Recognizer.from_pretrained(default_model_dir(), device="cpu")
texts = [reader.read(path).text for path in VALUES["paths"]]
answer(texts=texts, backend=reader.backend, torch="torch" in sys.modules, modelscope="modelscope" in sys.modules)
"""


def test_it_reads_through_onnx_without_torch(tmp_path):
    files = ModelDir.open(ms_ocr_handwritten.default_model_dir())
    assert made_from(files.onnx, files.weights)
    got = fresh(LEAN, tmp_path, paths=[ROOT / "examples" / "lines" / name for name in LINES])
    assert (got["texts"], got["backend"]) == (list(LINES.values()), "onnxruntime")
    assert not got["torch"] and not got["modelscope"]
