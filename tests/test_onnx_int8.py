"""int8: near to fp32, accepted or refused by what both read, and nothing left of what was refused."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render, weaken_positions
from fresh import fresh
from test_cli_recognize import always_a  # noqa: F401  (a fixture)

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.backends.onnx import INT8_SINCE, made_from, open_onnx
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import QuantizationError
from ms_ocr_handwritten.geometry import CHUNKED
from ms_ocr_handwritten.image import LineCanvas, line_canvas, load_image
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.metrics import Counts
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx
from ms_ocr_handwritten.onnx.int8 import quantize_onnx
from ms_ocr_handwritten.onnx.metadata import read_metadata

pytestmark = pytest.mark.skipif(
    tuple(map(int, version("onnxruntime").split(".")[:2])) < INT8_SINCE,
    reason="such an onnxruntime is refused: test_onnx_metadata.py",
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """Random weights, and the same network as model.onnx; its texts hang by threads."""
    folder = weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))
    files = ModelDir.open(folder)
    export_onnx(load_network(files.configuration.network, files.require_weights()), folder / "model.onnx")
    return folder


def canvases(count: int, seed: int = 0) -> list[LineCanvas]:
    return [line_canvas(load_image(render(text))) for text in random_texts(count, 30, seed)]


def ms_ocr(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="ms-ocr")


class Verdicts:
    """A score that does not read: so many errors in fp32, so many in int8, of 10,000 characters in two sets."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.asked = list(errors), []

    def __call__(self, backend) -> dict[str, Counts]:
        self.asked.append((backend.name, backend.precision))
        return {
            "here/a": Counts(lines=5, characters=4000, substitutions=self.errors.pop(0)),
            "here/b": Counts(lines=9, characters=6000),
        }


# ------------------------------------------------------------------ what is written


@pytest.fixture(scope="module")
def quantized(model_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model_int8.onnx"
    quantize_onnx(model_dir / "model.onnx", path, canvases(20), Verdicts(0, 0))
    return path


def test_columns_are_near_to_those_of_fp32(model_dir, quantized):
    lines = canvases(20, seed=1)
    whole, small = (open_onnx(path, 1) for path in (model_dir / "model.onnx", quantized))
    assert (whole.precision, small.precision) == ("fp32", "int8")
    same, differences = [], []
    for (ids, log_probs, _), (expected_ids, expected_log_probs, _) in zip(
        small.read(lines), whole.read(lines), strict=True
    ):
        same.extend(ids == expected_ids)
        differences.extend(abs(log_probs - expected_log_probs))
    assert np.mean(same) > 0.9
    assert 0.001 < np.median(differences) < 0.1


def test_a_line_reads_alike_whatever_is_read_beside_it(quantized):
    """Ranges of the batch at hand, as dynamic quantisation takes them, would not give that."""
    backend, lines = open_onnx(quantized, 1), canvases(8, seed=2)
    for line, (ids, log_probs, _) in zip(lines, backend.read(lines), strict=True):
        ((alone_ids, alone_log_probs, _),) = backend.read([line])
        np.testing.assert_array_equal(ids, alone_ids)
        np.testing.assert_allclose(log_probs, alone_log_probs, atol=1e-5)


def test_all_products_with_weights_are_int8(quantized):
    graph = onnx.load(quantized).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    factors = [[makers.get(name) for name in node.input[:2]] for node in products]
    quantised = [pair for pair in factors if all(node and node.op_type == "DequantizeLinear" for node in pair)]
    linear = 2 * 4 + 3 + 4 + 1  # pointwise of four blocks, halvings, one block's qkv, proj, fc1, fc2, and the head
    assert (len(quantised), len(products)) == (linear, linear + 2)  # two of attention have no weights
    for _, weights in quantised:
        stored = constants[weights.input[0]]
        assert stored.data_type == onnx.TensorProto.INT8 and constants[weights.input[1]].dims[0] in stored.dims
        assert max(map(abs, onnx.numpy_helper.to_array(stored).ravel().tolist())) <= 64
    quantised_values = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert not quantised_values & {node.output[0] for node in products}  # sums stay as precise as they are


def test_half_weights_give_the_same_file(model_dir, tmp_path):
    files = ModelDir.open(model_dir)
    network = load_network(files.configuration.network, files.require_weights()).half().float()
    outputs = []
    for half in (False, True):
        export_onnx(network, tmp_path / "model.onnx", half_weights=half)
        quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", canvases(4), Verdicts(0, 0))
        outputs.append(open_onnx(tmp_path / "int8.onnx", 1).read(canvases(3, seed=1)))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one[:2], other[:2])


# ------------------------------------------------------------------ accepted or refused


def test_just_under_the_limit_is_accepted_and_written_down(model_dir, tmp_path):
    score = Verdicts(100, 119)
    comparison = quantize_onnx(model_dir / "model.onnx", tmp_path / "int8.onnx", iter(canvases(3)), score)
    assert score.asked == [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    assert comparison.difference == pytest.approx(0.0019)
    metadata = read_metadata(tmp_path / "int8.onnx")
    assert metadata["ms_ocr_handwritten.calibration_lines"] == "3"
    assert json.loads(metadata["ms_ocr_handwritten.evaluation"]) == [
        {"set": "a", "lines": 5, "characters": 4000, "cer_fp32": 0.025, "cer_int8": 0.02975},
        {"set": "b", "lines": 9, "characters": 6000, "cer_fp32": 0.0, "cer_int8": 0.0},
    ]


def test_over_the_limit_it_is_refused_and_what_was_there_stays(model_dir, tmp_path):
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(QuantizationError) as error:
        quantize_onnx(model_dir / "model.onnx", out, canvases(3), Verdicts(100, 121))
    assert str(error.value) == (
        f"{model_dir / 'model.onnx'}: its CER is 1.00 % in fp32 and 1.21 % in int8, +0.21 points, of which less than "
        "0.2 are accepted (here/a 2.50 % in fp32 and 3.02 % in int8; here/b 0.00 % in fp32 and 0.00 % in int8); "
        "nothing was written. Calibrate with more lines like these, or keep fp32"
    )
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [(out, b"mine")]


def test_what_cannot_be_measured_or_calibrated_is_refused(model_dir, quantized, tmp_path):
    def unused():
        raise AssertionError("calibrated in vain")
        yield

    def few(backend):
        return {"few": Counts(lines=1, characters=999)}

    source, out = model_dir / "model.onnx", tmp_path / "out.onnx"
    with pytest.raises(QuantizationError, match="hold 999 characters, on which 0.2 points of CER cannot be"):
        quantize_onnx(source, out, unused(), few)
    with pytest.raises(QuantizationError, match="there are no lines to calibrate with"):
        quantize_onnx(source, out, [], Verdicts(0, 0))
    files = ModelDir.open(model_dir)
    torch.onnx.export(
        load_network(files.configuration.network, files.require_weights()),
        (torch.rand(3, 3, 32, 300),),
        str(tmp_path / "logits.onnx"),
        dynamo=False,
        opset_version=17,
    )
    for other in (quantized, tmp_path / "logits.onnx"):
        with pytest.raises(QuantizationError, match="not an fp32 file of this package; make one with `ms-ocr export"):
            quantize_onnx(other, out, canvases(1), Verdicts(0, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["logits.onnx"]


# ------------------------------------------------------------------ the command


@pytest.fixture
def sets(tmp_path, monkeypatch) -> None:
    """The working directory: lines/ is an LMDB of 110 lines whose labels hold ten characters, the first of them a."""
    monkeypatch.chdir(tmp_path)
    write_lmdb("lines", [(png(render("a" * (1 + number % 9))), "a" + 9 * "b") for number in range(110)])


def test_the_command_writes_a_file_that_reads(always_a, sets):  # noqa: F811
    assert ms_ocr("export", "onnx", "--model", always_a).exit_code == 0
    arguments = ("export", "int8", "--model", always_a, "--calibrate", "lines", "--evaluate", "lines", "--lines", 5)
    path = always_a / "model_int8.onnx"
    path.write_bytes(b"mine")
    result = ms_ocr(*arguments)
    assert (result.exit_code, result.stdout, path.read_bytes()) == (1, "", b"mine")
    assert "model_int8.onnx: exists already and is left as it is; give --force to replace it" in result.stderr

    result = ms_ocr(*arguments, "--force")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "lines  chars  CER fp32  CER int8  points  set",
        "  110   1100   90.00 %   90.00 %   +0.00  lines",
        "  110   1100   90.00 %   90.00 %   +0.00  all",
        f"{path}: {path.stat().st_size} bytes",
    ]
    assert read_metadata(path)["ms_ocr_handwritten.calibration_lines"] == "5"
    assert made_from(path, always_a / "pytorch_model.pt")
    recognizer = Recognizer(open_onnx(path, 1), ModelDir.open(always_a).vocabulary)
    assert (recognizer.precision, recognizer.read(render("b")).text) == ("int8", "a")


def test_a_model_whose_texts_change_is_refused(model_dir, tmp_path):
    """Labelled with what fp32 reads, a random network makes no error then, and many in int8."""
    recognizer = Recognizer.from_pretrained(model_dir, "onnxruntime", "fp32")
    images = [render(text) for text in random_texts(30, 30)]
    write_lmdb(tmp_path / "lines", [(png(image), recognizer.read(image).text) for image in images])
    result = ms_ocr(
        "export",
        "int8",
        "--model",
        model_dir,
        "--calibrate",
        tmp_path / "lines",
        "--evaluate",
        tmp_path / "lines",
        "--out",
        tmp_path / "int8.onnx",
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "model.onnx: its CER is 0.00 % in fp32 and " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_the_command_needs_files_that_belong_together(always_a, sets):  # noqa: F811
    arguments = ("export", "int8", "--model", always_a, "--calibrate", "lines", "--evaluate", "lines")
    result = ms_ocr(*arguments)
    assert result.stderr == f"error: {always_a}: holds no model.onnx; make one with `ms-ocr export onnx`\n"
    assert ms_ocr("export", "onnx", "--model", always_a).exit_code == 0
    weights = torch.load(always_a / "pytorch_model.pt")
    torch.save(weights | {"recognizer.vitstr.head.bias": torch.rand(len(ALPHABET) + 2)}, always_a / "pytorch_model.pt")
    result = ms_ocr(*arguments)
    assert result.exit_code == 1 and not (always_a / "model_int8.onnx").exists()
    assert "model.onnx: was made from other weights than pytorch_model.pt beside it; export it again" in result.stderr


def test_lines_that_cannot_be_read_stop_it(always_a, sets):  # noqa: F811
    assert ms_ocr("export", "onnx", "--model", always_a).exit_code == 0
    write_lmdb("broken_image", [(b"no image", "a" * 10)])
    result = ms_ocr(
        "export",
        "int8",
        "--model",
        always_a,
        "--calibrate",
        "lines",
        "--evaluate",
        "lines",
        "--evaluate",
        "broken_image",
    )
    assert (result.exit_code, result.stdout) == (1, "") and result.stderr.endswith("\n1 of 111 could not be read\n")
    result = ms_ocr("export", "int8", "--model", always_a, "--calibrate", "broken_image", "--evaluate", "lines")
    assert result.stderr.startswith("error: broken_image/image-000000001: 8 encoded bytes: not a readable image")
    assert not list(always_a.glob("*int8*"))


def test_calibration_lines_are_spread_over_the_sets(tmp_path):
    from ms_ocr_handwritten.cli.evaluate import labelled_sources
    from ms_ocr_handwritten.cli.export import _lines_of

    widths = [[10, 20, 30, 40], [50, 60, 70, 80, 90, 100]]
    for number, of_set in enumerate(widths):
        write_lmdb(tmp_path / str(number), [(png(np.zeros((32, width), np.uint8)), "a") for width in of_set])
    both = [labelled_sources(str(tmp_path / str(number))) for number in (0, 1)]
    assert [line.width for line in _lines_of(both, 5, CHUNKED)] == [10, 30, 50, 70, 90]
    assert [line.width for line in _lines_of(both, 3, CHUNKED)] == [10, 40, 70]
    assert [line.width for line in _lines_of(both, 11, CHUNKED)] == [*widths[0], *widths[1]]


WITHOUT_TORCH = """
sys.modules["torch"] = sys.modules["modelscope"] = None
from ms_ocr_handwritten.cli import main
main(VALUES["arguments"], standalone_mode=False)
answer()
"""


def test_torch_is_not_needed(always_a, sets, tmp_path):  # noqa: F811
    assert ms_ocr("export", "onnx", "--model", always_a).exit_code == 0
    (always_a / "pytorch_model.pt").unlink()
    arguments = ["export", "int8", "--model", str(always_a), "--calibrate", "lines", "--evaluate", "lines"]
    assert fresh(WITHOUT_TORCH, tmp_path, arguments=arguments)["attempts"] == []
    assert read_metadata(always_a / "model_int8.onnx")["ms_ocr_handwritten.precision"] == "int8"
