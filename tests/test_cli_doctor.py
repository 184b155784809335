"""`ms-ocr doctor`: its table and its verdict agree with what the recogniser does."""

import re

import pytest
from click.testing import CliRunner
from conftest import ALPHABET, TINY_NETWORK, make_model_dir

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx


def doctor(*arguments: object):
    return CliRunner().invoke(main, ["doctor", "--rounds", "1", *map(str, arguments)], prog_name="ms-ocr")


def test_it_says_what_auto_takes_and_measures_what_works(tmp_path):
    folder = make_model_dir(tmp_path, ALPHABET, scale=3.0, **TINY_NETWORK)
    files = ModelDir.open(folder)
    export_onnx(load_network(files.configuration.network, files.weights), folder / "model.onnx")
    result = doctor("--model", folder)
    assert (result.exit_code, result.stderr) == (0, "")
    automatic = Recognizer.from_pretrained(folder)
    assert f"auto, with torch imported: backend '{automatic.backend}', precision '{automatic.precision}' (" in (
        result.stdout
    )
    measured = re.findall(r"^(torch|onnxruntime|openvino) +(\w+) +([\d.]+) +([\d.]+)$", result.stdout, re.M)
    assert {("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32")} <= {row[:2] for row in measured}
    assert all(float(value) > 0 for row in measured for value in row[2:])
    assert f"not here: onnxruntime int8: {folder}: holds no model_int8.onnx; make one with `ms-ocr export int8`" in (
        result.stdout
    )


def test_a_directory_that_nothing_reads_is_an_error(tmp_path):
    folder = make_model_dir(tmp_path, ALPHABET, **TINY_NETWORK)
    (folder / "pytorch_model.pt").unlink()
    result = doctor("--model", folder)
    assert result.exit_code == 1
    assert f"torch fp32: {folder}: holds no pytorch_model.pt; download the model again" in result.stdout


@pytest.mark.parametrize("missing", ["configuration.json", "vocab.txt"])
def test_a_directory_without_its_files_is_named(tmp_path, missing):
    folder = make_model_dir(tmp_path, ALPHABET, **TINY_NETWORK)
    (folder / missing).unlink()
    result = doctor("--model", folder)
    assert result.exit_code == 1 and str(folder / missing) in result.stderr
