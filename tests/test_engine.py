"""The engine: batches of chunks from lines of any width, order, errors in their place, how far it looks ahead."""

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.backends import automatic_backend, check, gpu_possible, precision
from ms_ocr_handwritten.backends.base import WIDTH_PER_BATCH
from ms_ocr_handwritten.backends.pytorch import automatic_precision, best_columns
from ms_ocr_handwritten.errors import BackendError, CheckpointError, ImageError
from ms_ocr_handwritten.geometry import CHUNKED, WHOLE
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets import packed
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx

WIDTHS = [40, 800, 252, 2000, 253, 100, 504, 505, 33, 1500, 640, 252]  # px at 32 px height
CHUNKS = [1, 3, 1, 8, 2, 1, 2, 3, 1, 6, 3, 1]  # with ink: every 252 px, but 804 px are 3


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK)


@pytest.fixture
def recognizer(model_dir):
    return Recognizer.from_pretrained(model_dir, precision="fp32")


def images(widths):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (32, width, 3), np.uint8) for width in widths]


CHUNKS_PER_BATCH = WIDTH_PER_BATCH // 300


@pytest.fixture
def computed(recognizer, monkeypatch) -> list[list[int]]:
    """The inked chunks of the lines of each group that the backend computes."""
    groups, begin = [], recognizer._backend.begin
    monkeypatch.setattr(
        recognizer._backend, "begin", lambda lines: groups.append([line.inked for line in lines]) or begin(lines)
    )
    return groups


def test_lines_of_all_widths_share_batches_of_chunks(recognizer, computed):
    lines = images(WIDTHS * 3)
    got = list(recognizer.read_many(lines))
    assert [chunks for group in computed for chunks in group] == CHUNKS * 3
    assert all(
        sum(group) <= CHUNKS_PER_BATCH < sum(group) + after[0] or sum(group) == CHUNKS_PER_BATCH
        for group, after in zip(computed, computed[1:])
    )
    assert [line.text for line in got] == [recognizer.read(line).text for line in lines]


def test_no_group_has_more_lines_than_asked_for(recognizer, computed):
    list(recognizer.read_many(images(WIDTHS), batch_size=2))
    assert [len(group) for group in computed] == [2] * 6


def test_what_cannot_be_read_keeps_its_place(recognizer):
    first, second = images([100, 300])
    got = list(recognizer.read_many([b"?", first, b"!", second, b"."], errors="yield"))
    assert [str(item).split(":")[0] if isinstance(item, ImageError) else item.text for item in got] == [
        "image 0",
        recognizer.read(first).text,
        "image 2",
        recognizer.read(second).text,
        "image 4",
    ]


def test_the_lines_before_an_unreadable_one_are_given_out(recognizer):
    first, second, third = images([100, 300, 60])
    lines = recognizer.read_many([first, second, b"no image", third])
    assert [next(lines).text, next(lines).text] == [recognizer.read(first).text, recognizer.read(second).text]
    with pytest.raises(ImageError, match="8 encoded bytes"):
        next(lines)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_looks_one_batch_ahead_and_stops_when_closed(recognizer, batch_size):
    taken = []
    lines = recognizer.read_many((taken.append(1) or image for image in images([50] * 40)), batch_size)
    assert not taken
    next(lines)
    assert len(taken) == 2 * batch_size
    lines.close()
    assert len(taken) == 2 * batch_size


@pytest.fixture
def aside(tmp_path, monkeypatch):
    """A recogniser that believes its lines to be computed by someone else meanwhile, as a GPU's are."""
    folder = make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    export_onnx(
        load_network(ModelDir.open(folder).configuration.network, folder / "pytorch_model.pt"), folder / "model.onnx"
    )
    recognizer = Recognizer.from_pretrained(folder, "onnxruntime")
    monkeypatch.setattr(type(recognizer._backend), "asynchronous", True)
    return recognizer


def test_the_next_group_is_begun_before_one_is_given_out(aside, monkeypatch):
    begin, events = aside._backend.begin, []

    class Noted:
        def __init__(self, lines):
            events.append(f"begun {len(lines)}")
            self.lines, self.pending = lines, begin(lines)

        def result(self):
            events.append(f"given out {len(self.lines)}")
            return self.pending.result()

    monkeypatch.setattr(aside._backend, "begin", Noted)
    lines = images([100, 300, 60, 50, 800])
    texts = [line.text for line in aside.read_many(lines, batch_size=2)]
    assert events == ["begun 2", "begun 2", "given out 2", "begun 1", "given out 2", "given out 1"]
    monkeypatch.undo()
    assert texts == [aside.read(line).text for line in lines]


def test_a_group_that_is_begun_is_given_out_before_an_unreadable_image(aside):
    first, second, third = images([100, 300, 60])
    lines = aside.read_many([first, second, b"no image", third], batch_size=1)
    assert [next(lines).text, next(lines).text] == [aside.read(first).text, aside.read(second).text]
    with pytest.raises(ImageError, match="8 encoded bytes"):
        next(lines)
    got = list(aside.read_many([b"?", first, b"!", b"!", second], batch_size=2, errors="yield"))
    assert [isinstance(item, ImageError) for item in got] == [True, False, True, True, False]


def test_it_looks_two_batches_ahead_of_one_that_is_computed_aside(aside):
    taken = []
    lines = aside.read_many((taken.append(1) or image for image in images([50] * 40)), 3)
    next(lines)
    assert len(taken) == 3 * 3


def test_an_error_of_the_callers_own_iterator_reaches_him(recognizer):
    def broken():
        yield images([50])[0]
        raise KeyError("page 7")

    with pytest.raises(KeyError, match="page 7"):
        list(recognizer.read_many(broken()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_best_columns_are_those_of_the_plain_formula(dtype):
    logits = (torch.randn(3, 75, 500, generator=torch.Generator().manual_seed(0)) * 8).to(dtype)
    logits[0, 5, [7, 300]] = 100.0  # a tie: the first counts, as numpy's and upstream's argmax have it
    ids, log_probs, _ = best_columns(logits)
    expected = logits.double().numpy() - np.logaddexp.reduce(logits.double().numpy(), axis=-1, keepdims=True)
    assert (ids.numpy() == expected.argmax(-1)).all() and ids[0, 5] == 7
    np.testing.assert_allclose(log_probs.numpy(), expected.max(-1), atol=1e-5)


def test_precisions_that_a_backend_lacks_are_refused(model_dir):
    with pytest.raises(BackendError, match="'int8' is not available with backend 'torch', which offers 'fp32', 'bf16'"):
        check("torch", "int8")
    with pytest.raises(BackendError, match="'bf16' is not available with backend 'onnxruntime'"):
        check("onnxruntime", "bf16")
    with pytest.raises(BackendError, match="'fp16' needs a GPU with backend 'torch'"):
        Recognizer.from_pretrained(model_dir, "torch", "fp16", device="cpu")


@pytest.mark.parametrize(
    "bf16, packs, chosen",
    [(151, True, "bf16+fp32"), (149, True, "fp32"), (90, True, "fp32"), (900, False, "fp32")],
)
def test_automatic_precision_is_bf16_where_that_is_half_as_fast_again(model_dir, monkeypatch, bf16, packs, chosen):
    monkeypatch.setattr(precision, "gemm_rates", lambda: {"bf16": bf16, "fp32": 100})
    monkeypatch.setattr(packed, "available", lambda dtype: packs)
    assert automatic_precision(torch.device("cpu"), CHUNKED) == chosen
    assert automatic_precision(torch.device("cpu"), WHOLE) == "fp32"
    assert Recognizer.from_pretrained(model_dir, "torch", device="cpu").precision == chosen


def test_the_rates_are_those_of_this_processor():
    rates = precision.gemm_rates()
    assert list(rates) == ["fp32", "bf16"] and all(0.1 < rate < 1e5 for rate in rates.values())  # GFLOP/s


def test_automatic_backend_reads_onnx_only_if_it_was_made_from_these_weights(tmp_path, monkeypatch):
    folder = make_model_dir(tmp_path, ALPHABET, scale=3.0, **TINY_NETWORK)
    model = ModelDir.open(folder)
    lean = "torch" if gpu_possible() else "onnxruntime"

    def chosen(precision="auto", device=None, torch_imported=False):
        return automatic_backend(model, precision, device, torch_imported)[0]

    assert chosen() == "torch"  # there is no model.onnx
    network = load_network(model.configuration.network, model.weights)
    export_onnx(network, folder / "model.onnx")
    assert chosen() == "torch"  # it does not say what it was made from
    export_onnx(network, folder / "model.onnx", weights=model.weights)
    assert chosen() == lean
    assert chosen(device="cpu") == "onnxruntime"
    assert [chosen("bf16"), chosen(device="gpu")] == ["torch"] * 2
    for capability, backend in (("AVX2", "onnxruntime"), ("AVX512", "torch"), ("DEFAULT", "torch")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert chosen(device="cpu", torch_imported=True) == backend
        on_gpu = "torch" if torch.cuda.is_available() else backend
        assert chosen(torch_imported=True) == chosen(device="gpu", torch_imported=True) == on_gpu
    assert chosen("int8") == "onnxruntime"
    weights = torch.load(model.weights)
    torch.save({name: value + 1 for name, value in weights.items()}, model.weights)  # another epoch was copied here
    assert chosen() == "torch"
    with pytest.raises(CheckpointError, match="was made from other weights than pytorch_model.pt beside it"):
        Recognizer.from_pretrained(folder, "onnxruntime")
    model.weights.unlink()
    assert chosen() == "onnxruntime"
