"""ONNX files: what the model card's snippet reads from them, what Recognizer does, and that a bad one is never left."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, random_texts, render, weaken_positions
from fresh import fresh
from modelscope.exporters import Exporter
from modelscope.models import Model

from ms_ocr_handwritten import Recognizer, export
from ms_ocr_handwritten.backends.onnx import made_from
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import BackendError, CheckpointError
from ms_ocr_handwritten.image import line_canvas, load_image, rgb_pieces
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx
from ms_ocr_handwritten.onnx.metadata import read_metadata


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture
def network(model_dir):
    files = ModelDir.open(model_dir)
    return load_network(files.configuration.network, files.require_weights())


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory) -> Path:
    """A directory with model.onnx in place of the weights."""
    folder = tmp_path_factory.mktemp("exported")
    files = Exporter.from_model(Model.from_pretrained(str(model_dir))).export_onnx(output_dir=str(folder))
    assert files == {"model": str(folder / "model.onnx")}
    assert os.listdir(folder) == ["model.onnx"]
    for name in ("configuration.json", "vocab.txt"):
        shutil.copy(model_dir / name, folder)
    return folder


def card_session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def card_text(logits: np.ndarray) -> str:
    """Greedy decoding as the card's snippet writes it: ids from 2 are the lines of vocab.txt, id 1 is unused."""
    labels, text, last = dict(enumerate(ALPHABET, start=2)), "", 0
    for id in logits.argmax(-1).tolist():
        if id not in (last, 0):
            text += labels.get(id, "")
        last = id
    return text


# ------------------------------------------------------------------ what others read


def test_the_cards_snippet_reads_our_text(model_dir, exported):
    session, recognizer = card_session(exported), Recognizer.from_pretrained(model_dir, "torch", "fp32")
    for text in random_texts(6, 8):
        chunks = rgb_pieces(load_image(render(text)))
        assert chunks.shape == (3, 3, 32, 300)
        (logits,) = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: chunks})
        assert logits.shape == (1, 201, len(ALPHABET) + 2)
        assert card_text(logits[0]) == recognizer.read(render(text)).text


def test_several_lines_and_any_number_of_chunks(network, exported):
    session = card_session(exported)
    random = np.random.default_rng(0)
    for chunks in (1, 3, 4, 12):
        images = random.random((chunks, 3, 32, 300), np.float32)
        logits, ids, log_probs = session.run(None, {"images": images})
        with torch.inference_mode():
            each = torch.stack(
                [
                    network.classify(network.encode((one[:1] * 0.2989 + one[1:2] * 0.5870 + one[2:] * 0.1140)[None]))[0]
                    for one in torch.from_numpy(images)
                ]
            )
            expected = each.log_softmax(-1).max(-1)
        assert logits.shape == (chunks // 3, 201, len(ALPHABET) + 2)
        assert ids.dtype == np.int64 and (ids == expected.indices.numpy()).all()
        np.testing.assert_allclose(log_probs, expected.values, atol=1e-4)
        for line in range(chunks // 3):
            a, b, c = each[3 * line : 3 * line + 3].numpy()
            np.testing.assert_allclose(logits[line], np.concatenate([a[:69], b[6:69], c[6:]]), atol=1e-3)


def test_upstreams_keyword_for_the_shape_is_taken(model_dir, tmp_path):
    exporter = Exporter.from_model(str(model_dir))
    assert exporter.export_onnx(input_shape=(3, 3, 32, 300), output_dir=str(tmp_path / "new"), opset=18) == {
        "model": str(tmp_path / "new" / "model.onnx")
    }
    for shape in ((1, 3, 32, 640), (3, 300)):
        with pytest.raises(BackendError, match=r"input_shape is .*reads \(3, 3, 32, 300\)"):
            exporter.export_onnx(input_shape=shape, output_dir=str(tmp_path))
    with pytest.raises(TypeError, match="outputs"):
        exporter.export_onnx(output_dir=str(tmp_path), outputs="elsewhere")


def test_exporting_leaves_the_network_as_it_is(network, tmp_path):
    network.train().double()
    export_onnx(network, tmp_path / "model.onnx")
    assert network.training and network.vitstr.head.weight.dtype == torch.float64


def test_the_first_of_equal_classes_is_read(network, tmp_path):
    with torch.no_grad():
        network.vitstr.head.weight.zero_()
        network.vitstr.head.bias.copy_(torch.tensor([0.0, 1.0] * (len(network.vitstr.head.bias) // 2)))
    session = onnxruntime.InferenceSession(str(export_onnx(network, tmp_path / "model.onnx")))
    logits, ids, log_probs = session.run(None, {"images": np.zeros((3, 3, 32, 300), np.float32)})
    assert (logits.argmax(-1) == 1).all() and (ids == 1).all()
    np.testing.assert_allclose(log_probs, 1 - np.log((1 + np.e) * logits.shape[-1] / 2), rtol=1e-6)


# ------------------------------------------------------------------ of which weights


@pytest.fixture
def own_dir(model_dir, tmp_path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "own"))


def test_the_documented_exporter_says_of_which_weights_its_file_is(own_dir):
    """Another epoch copied over them: never read with the old network without a word."""
    Exporter.from_model(Model.from_pretrained(str(own_dir))).export_onnx(output_dir=str(own_dir))
    assert read_metadata(own_dir / "model.onnx").keys() == metadata_of_the_command(own_dir).keys()
    assert Recognizer.from_pretrained(own_dir, "onnxruntime").read(render("ab")).text
    weights = torch.load(own_dir / "pytorch_model.pt")
    weights["recognizer.vitstr.head.bias"] += torch.arange(len(ALPHABET) + 2)
    torch.save(weights, own_dir / "pytorch_model.pt")
    with pytest.raises(CheckpointError, match="was made from other weights than pytorch_model.pt beside it"):
        Recognizer.from_pretrained(own_dir, "onnxruntime")
    assert Recognizer.from_pretrained(own_dir).backend == "torch"


def metadata_of_the_command(folder: Path) -> dict[str, str]:
    path = folder.parent / "command.onnx"
    CliRunner().invoke(main, ["export", "onnx", "--model", str(folder), "--out", str(path)], catch_exceptions=False)
    return read_metadata(path)


def test_a_network_that_was_changed_is_not_taken_for_that_of_its_file(own_dir, caplog):
    model = Model.from_pretrained(str(own_dir))
    with torch.no_grad():
        model.recognizer.vitstr.head.bias[3] += 1
    Exporter.from_model(model).export_onnx(output_dir=str(own_dir))
    assert "its weights differ from those of the exported network" in caplog.text
    assert made_from(own_dir / "model.onnx", own_dir / "pytorch_model.pt") is False
    with pytest.raises(CheckpointError, match="was made from other weights"):
        Recognizer.from_pretrained(own_dir, "onnxruntime")


# ------------------------------------------------------------------ half weights


def test_half_weights_of_a_half_network_lose_nothing(network, tmp_path):
    network.half().float()
    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"
    export_onnx(network, whole)
    export_onnx(network, half, half_weights=True)
    assert 0.5 * whole.stat().st_size < half.stat().st_size < 0.62 * whole.stat().st_size  # the graph itself is small
    images = np.random.default_rng(0).random((6, 3, 32, 300), np.float32)
    sessions = [onnxruntime.InferenceSession(str(path)) for path in (whole, half)]
    for session in sessions:
        assert [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())] == [
            ("images", "tensor(float)"),
            ("logits", "tensor(float)"),
            ("chunk_ids", "tensor(int64)"),
            ("chunk_log_probs", "tensor(float)"),
        ]
    for one, other in zip(*(session.run(None, {"images": images}) for session in sessions)):
        np.testing.assert_array_equal(one, other)


def test_half_weights_that_lose_too_much_are_refused(network, tmp_path):
    export_onnx(network, tmp_path / "rounded.onnx", half_weights=True)  # no values of float16, but near enough
    with torch.no_grad():
        network.vitstr.head.bias[5] = 1e5  # float16 ends at 65504
    with pytest.raises(BackendError, match="differs from PyTorch's.*not kept. To remedy it, export without half"):
        export_onnx(network, tmp_path / "infinite.onnx", half_weights=True)
    assert os.listdir(tmp_path) == ["rounded.onnx"]
    export_onnx(network, tmp_path / "infinite.onnx")


def test_a_network_that_gives_no_numbers_is_refused(network, tmp_path):
    with torch.no_grad():
        network.vitstr.head.bias[5] = float("nan")
    with pytest.raises(BackendError, match="differs from PyTorch's by nan"):
        export_onnx(network, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------ where it came from


def test_the_command_writes_down_its_weights_and_version(model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    path, weights = folder / "model.onnx", folder / "pytorch_model.pt"
    arguments = ["export", "onnx", "--model", str(folder), "--half-weights"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.output) == (0, f"{path}: {path.stat().st_size} bytes, opset 17\n")
    assert made_from(path, weights)
    assert read_metadata(path)["ms_ocr_handwritten.version"] == importlib.metadata.version("ms_ocr_handwritten")
    saved = torch.load(weights, weights_only=True)
    saved["recognizer.vitstr.head.bias"][5] += 0.5
    torch.save(saved, weights)  # as if another epoch were copied over them
    assert not made_from(path, weights)
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0
    assert made_from(path, weights)


def test_a_file_that_was_not_told_its_weights_does_not_say(network, model_dir, tmp_path):
    assert made_from(export_onnx(network, tmp_path / "model.onnx"), model_dir / "pytorch_model.pt") is None


# ------------------------------------------------------------------ what Recognizer reads

WITHOUT_TORCH = """
sys.modules["modelscope"] = None
from ms_ocr_handwritten import Recognizer
recognizer = Recognizer.from_pretrained(VALUES["directory"], backend="onnxruntime", threads=1)
automatic = Recognizer.from_pretrained(VALUES["directory"])
line = recognizer.read(VALUES["image"])
answer(text=line.text, score=line.score, chosen=[automatic.backend, automatic.precision], torch="torch" in sys.modules)
"""


def test_a_directory_without_weights_reads_without_torch(model_dir, exported, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "line.png"), render("b4d"))
    got = fresh(WITHOUT_TORCH, tmp_path, directory=exported, image=tmp_path / "line.png")
    line = Recognizer.from_pretrained(model_dir, "torch", "fp32").read(render("b4d"))
    assert (got["text"], got["chosen"], got["torch"]) == (line.text, ["onnxruntime", "fp32"], False)
    assert got["score"] == pytest.approx(line.score, rel=1e-3)


def test_options_that_a_backend_lacks_are_refused(model_dir, exported):
    with pytest.raises(BackendError, match="'bf16' is not available with backend 'onnxruntime'"):
        Recognizer.from_pretrained(exported, "onnxruntime", "bf16")
    with pytest.raises(BackendError, match="threads is for .*'onnxruntime'"):
        Recognizer.from_pretrained(model_dir, threads=2)
    with pytest.raises(CheckpointError, match="holds no model.onnx; make one with `ms-ocr export"):
        Recognizer.from_pretrained(model_dir, "onnxruntime")


def test_a_damaged_file_is_named(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="copy/model.onnx: truncated or not an ONNX file"):
        Recognizer.from_pretrained(folder)


def test_padding_is_computed_once_and_follows_the_weights(network, model_dir):
    """A network that is trained on after it was read with: the columns kept of its padding are not stale."""
    vocabulary = ModelDir.open(model_dir).vocabulary
    recognizer = Recognizer.from_network(network, vocabulary)
    before = recognizer.read(render("ab")).text
    with torch.no_grad():
        network.vitstr.head.bias += torch.randn(network.vitstr.head.bias.shape, generator=torch.manual_seed(1)) * 20
    after = recognizer.read(render("ab")).text
    assert after == Recognizer.from_network(network, vocabulary).read(render("ab")).text != before
    assert line_canvas(load_image(render("ab"))).piece_array().shape[0] == 1  # two of three chunks were padding


# ------------------------------------------------------------------ refusals


def test_a_file_that_differs_is_not_kept(network, tmp_path, monkeypatch):
    """The network changes between writing and checking: what a faulty exporter or runtime would look like."""
    path = tmp_path / "out" / "model.onnx"
    write = export._write

    def write_and_corrupt(network, *arguments):
        write(network, *arguments)
        with torch.no_grad():
            network.vitstr.head.bias[5] += 0.5

    monkeypatch.setattr(export, "_write", write_and_corrupt)
    with pytest.raises(BackendError, match="differs from PyTorch's by .*it was not kept"):
        export_onnx(network, path)
    assert os.listdir(path.parent) == []
    path.write_bytes(b"the old one")
    with pytest.raises(BackendError, match="differs"):
        export_onnx(network, path)
    assert os.listdir(path.parent) == ["model.onnx"] and path.read_bytes() == b"the old one"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_before_anything_is_written(network, exported, tmp_path, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(BackendError, match=rf"needs the package {package}; `pip install ms_ocr_handwritten\[onnx\]`"):
        export_onnx(network, tmp_path / "out" / "model.onnx")
    assert os.listdir(tmp_path) == []
    if package == "onnxruntime":
        with pytest.raises(BackendError, match="needs the package onnxruntime"):
            Recognizer.from_pretrained(exported)


def test_an_opset_that_fails_leaves_nothing(network, tmp_path, capfd):
    for opset in (9, 13, 99):
        with pytest.raises(BackendError, match=f"opset {opset}.*try 17"):
            export_onnx(network, tmp_path / "model.onnx", opset)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().out == ""  # PyTorch prints its graph where it cannot write it


def test_a_network_with_dropout_is_exported_as_it_reads(tmp_path):
    """PyTorch's exporter puts a module back into its former mode: in training mode, dropout would spoil the check."""
    folder = make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "dropout": 0.5})
    files = ModelDir.open(folder)
    network = load_network(files.configuration.network, files.require_weights()).train()
    path = export_onnx(network, tmp_path / "model.onnx")
    assert network.training  # the caller's own stays as it is
    assert export.check_onnx(network.eval(), path) < 1e-5
