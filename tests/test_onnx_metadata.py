"""What an ONNX file says of itself, against the onnx package's own reading; which weights it was made from."""

import hashlib
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ms_ocr_handwritten import default_model_dir
from ms_ocr_handwritten.backends.onnx import made_from, open_onnx
from ms_ocr_handwritten.errors import BackendError
from ms_ocr_handwritten.onnx.metadata import PRECISION_KEY, WEIGHTS_KEY, read_metadata


def write_model(path: Path, metadata: dict[str, str]) -> Path:
    """A file with every kind of field that ModelProto has: numbers, texts, a graph with weights, operator sets."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1000], [0.5] * 1000)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
    model = helper.make_model(
        helper.make_graph([node], "g", [value], [output], [weights]),
        model_version=2**40,
        producer_name="tests",
        doc_string="text " * 100,
    )
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("metadata", [{}, {"a": ""}, {"key": "value", "\u624b": "\u5199 " * 500, "": "nameless"}])
def test_metadata_are_those_that_onnx_reads(tmp_path, metadata):
    path = write_model(tmp_path / "model.onnx", metadata)
    assert read_metadata(path) == {one.key: one.value for one in onnx.load(path).metadata_props} == metadata


def test_what_is_no_onnx_file_has_none(tmp_path):
    whole = write_model(tmp_path / "model.onnx", {"key": "value"}).read_bytes()
    for content in (b"", b"PK\x03\x04 a zip file", b"\0" * 5000, b"\xff" * 5000, whole[:100], whole[:-3], b"{}\n"):
        (tmp_path / "other").write_bytes(content)
        assert read_metadata(tmp_path / "other") == {}
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "none")


def test_made_from_asks_for_the_very_bytes(tmp_path):
    (tmp_path / "weights").write_bytes(b"weights" * 300_000)
    digest = hashlib.sha256(b"weights" * 300_000).hexdigest()
    path = write_model(tmp_path / "model.onnx", {WEIGHTS_KEY: digest})
    assert made_from(path, tmp_path / "weights")
    assert not made_from(write_model(tmp_path / "silent.onnx", {"key": digest}), tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"weights" * 299_999 + b"Weights")
    assert not made_from(path, tmp_path / "weights")


def test_int8_is_read_by_no_onnxruntime_that_reads_it_wrongly(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    for name in ("model.onnx", "pytorch_model.pt"):
        shutil.copy(Path(default_model_dir()) / name, tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    helper.set_model_props(model, {PRECISION_KEY: "int8"})
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.4")
    with pytest.raises(BackendError, match=r"model.onnx: onnxruntime 1\.24\.4 .*1\.25 or newer.*precision='fp32'"):
        open_onnx(tmp_path / "model.onnx", 1)
    monkeypatch.setattr(onnxruntime, "__version__", "1.25.0")
    assert open_onnx(tmp_path / "model.onnx", 1).precision == "int8"
