"""OpenVINO computes what PyTorch does from the same ONNX files, without importing it."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, render, weaken_positions
from fresh import fresh
from test_recognisers import KINDS, SMALL, check_an_exported_file, make_dir

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.backends.openvino import open_openvino
from ms_ocr_handwritten.errors import BackendError, CheckpointError
from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx

openvino = pytest.importorskip("openvino", reason="an extra of its own; run this file by itself")

CLEAR = 1e-3  # of the greatest logit: by less than that, another runtime may take the second best class


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """Random weights, and the same network as model.onnx."""
    folder = weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))
    export_onnx(own_network(folder), folder / "model.onnx")
    return folder


def own_network(folder: Path) -> ConvNextViT:
    files = ModelDir.open(folder)
    return load_network(files.configuration.network, files.require_weights())


def columns(network: ConvNextViT, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By PyTorch: ids, log-probabilities, and where the best class is clear; (N, 75) each."""
    with torch.inference_mode():
        logits = network.classify(network.encode(torch.from_numpy(grey)[:, None]))
    best, two = logits.log_softmax(-1).max(-1), logits.topk(2).values
    clear = two[..., 0] - two[..., 1] > CLEAR * logits.abs().max()
    return best.indices.numpy(), best.values.numpy(), clear.numpy()


@pytest.mark.parametrize("half_weights", [False, True])
def test_columns_are_pytorchs_for_every_number_of_chunks(model_dir, tmp_path, half_weights):
    network = own_network(model_dir).half().float()
    path = export_onnx(network, tmp_path / "model.onnx", half_weights=half_weights)
    backend = open_openvino(path, "auto", 1)
    assert (backend.name, backend.precision) == ("openvino", "fp32")
    random = np.random.default_rng(0)
    for chunks in (1, 2, 3, 24, 1, 7):
        grey = random.random((chunks, 32, 300), np.float32)
        ids, log_probs, _ = backend.piece_columns(grey)
        expected_ids, expected_log_probs, clear = columns(network, grey)
        assert ids.dtype == np.int64 and clear.mean() > 0.9
        np.testing.assert_array_equal(ids[clear], expected_ids[clear])
        np.testing.assert_allclose(log_probs, expected_log_probs, atol=1e-4)


def test_bf16_is_computed_where_the_cpu_can_and_refused_elsewhere(model_dir):
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="'bf16' needs a CPU that computes with it, and this one does not; use"):
            open_openvino(model_dir / "model.onnx", "bf16", 1)
        return
    backend = open_openvino(model_dir / "model.onnx", "bf16", 1)
    assert backend.precision == "bf16"
    grey = np.random.default_rng(0).random((4, 32, 300), np.float32)
    log_probs = backend.piece_columns(grey).log_probs
    _, expected, _ = columns(own_network(model_dir), grey)
    differences = np.abs(log_probs - expected)
    assert differences.max() > 1e-4 and np.median(differences) < 0.05  # bf16 has 8 bits: it is rounded, and is near


def test_lines_read_as_with_onnxruntime(model_dir):
    """Short lines, whose padding is reused, and one of more than three chunks."""
    vocabulary = ModelDir.open(model_dir).vocabulary
    images = [render(text) for text in ("b4d", "a" * 20, "0123456789" * 9)]
    lines = list(Recognizer(open_openvino(model_dir / "model.onnx", "fp32", None), vocabulary).read_many(images))
    expected = list(Recognizer.from_pretrained(model_dir, "onnxruntime", "fp32").read_many(images))
    assert [line.text for line in lines] == [line.text for line in expected] and len({line.text for line in lines}) == 3
    assert [line.score for line in lines] == pytest.approx([line.score for line in expected], rel=1e-4)


def test_a_file_with_logits_alone_is_read_too(model_dir, tmp_path):
    """As ModelScope publishes it: one line at a time."""
    torch.onnx.export(
        own_network(model_dir),
        (torch.rand(3, 3, 32, 300),),
        str(tmp_path / "model.onnx"),
        input_names=["input"],
        output_names=["pred"],
        opset_version=17,
        dynamo=False,
    )
    canvases = [line_canvas(load_image(render(text))) for text in ("b4d", "0123456789" * 9)]
    published, ours = (
        open_openvino(folder / "model.onnx", "fp32", 1).read(canvases) for folder in (tmp_path, model_dir)
    )
    for path, expected in zip(published, ours, strict=True):
        assert (path.ids == expected.ids).mean() > 0.99  # but for ties
        np.testing.assert_allclose(path.log_probs, expected.log_probs, atol=1e-3)


def test_threads_share_one_backend(model_dir):
    backend = open_openvino(model_dir / "model.onnx", "fp32", 1)
    batches = [np.random.default_rng(seed).random((12, 32, 300), np.float32) for seed in range(12)]
    expected = [backend.piece_columns(batch)[1] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for got, alone in zip(pool.map(backend.piece_columns, batches), expected, strict=True):
            np.testing.assert_allclose(got[1], alone, atol=1e-5)


WITHOUT_TORCH = """
sys.modules["torch"] = sys.modules["modelscope"] = None
from pathlib import Path
import cv2
from ms_ocr_handwritten.backends.openvino import open_openvino
from ms_ocr_handwritten.image import line_canvas, load_image
folder = Path(VALUES["folder"])
backend = open_openvino(folder / "model.onnx", "fp32", 1)
((ids, _, _),) = backend.read([line_canvas(load_image(str(folder / "line.png")))])
answer(ids=ids.tolist(), onnxruntime="onnxruntime" in sys.modules)
"""


def test_neither_torch_nor_the_network_is_needed(model_dir, tmp_path):
    import cv2

    shutil.copy(model_dir / "model.onnx", tmp_path)
    cv2.imwrite(str(tmp_path / "line.png"), render("b4d"))
    got = fresh(WITHOUT_TORCH, tmp_path, folder=tmp_path)
    ((ids, _, _),) = open_openvino(model_dir / "model.onnx", "fp32", 1).read([line_canvas(load_image(render("b4d")))])
    assert got == {"ids": ids.tolist(), "onnxruntime": False, "attempts": [], "stderr": ""}


def test_what_is_missing_or_damaged_is_named(model_dir, tmp_path, monkeypatch):
    with pytest.raises(BackendError, match="'fp16' is not available with backend 'openvino', which offers 'auto', 'fp"):
        open_openvino(model_dir / "model.onnx", "fp16", None)
    (tmp_path / "model.onnx").write_bytes((model_dir / "model.onnx").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"/model.onnx: truncated or not an ONNX file; export or down"):
        open_openvino(tmp_path / "model.onnx", "fp32", None)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(BackendError, match=r"'openvino' needs the package openvino; `pip install ms_ocr_handwritten\["):
        open_openvino(model_dir / "model.onnx", "fp32", None)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_networks_that_take_lines_whole(tmp_path, kind):
    check_an_exported_file(make_dir(tmp_path / kind, kind, **SMALL[kind]), "openvino")
