"""CRNN and LightweightEdge: values and texts of ModelScope's builtin, and all that a ConvNextViT can do as well."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ALPHABET, configuration, png, render
from modelscope.models.cv.ocr_recognition.modules.CRNN.main_model import CRNN as BuiltinCRNN
from modelscope.models.cv.ocr_recognition.modules.LightweightEdge.main_model import LightweightEdge as BuiltinEdge

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import CheckpointError, ConfigurationError
from ms_ocr_handwritten.geometry import WHOLE
from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets import fused
from ms_ocr_handwritten.nets.crnn import CRNN
from ms_ocr_handwritten.nets.folded import FoldedCRNN
from ms_ocr_handwritten.nets.lightweight_edge import LightweightEdge
from ms_ocr_handwritten.nets.network import rgb_to_grey
from ms_ocr_handwritten.nets.weights import load_network, new_network
from ms_ocr_handwritten.onnx.export import export_onnx
from ms_ocr_handwritten.plugin.registration import TASK, upstream_class
from ms_ocr_handwritten.recognisers import CrnnConfig, LightweightEdgeConfig
from ms_ocr_handwritten.training.checkpoints import upstream_state_dict
from ms_ocr_handwritten.training.dataset import LineDataset, collate
from ms_ocr_handwritten.training.loss import LineLoss, read_batch
from ms_ocr_handwritten.training.setup import prepare_training
from ms_ocr_handwritten.vocab import Vocabulary

KINDS = {"CRNN": (BuiltinCRNN, CRNN), "LightweightEdge": (BuiltinEdge, LightweightEdge)}
SMALL = {"CRNN": {"channels": [8, 8, 16, 16], "hidden": 16}, "LightweightEdge": {}}
PARAMETERS = {"CRNN": 11_966_336, "LightweightEdge": 1_955_949}


NOISE = torch.nn.functional.interpolate(
    torch.rand(4, 3, 4, 80, generator=torch.Generator().manual_seed(2)), scale_factor=8
)


@torch.no_grad()
def with_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Batch norms that have seen noise in blocks, without which next to nothing of an image reaches the last layer."""
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.uniform_(0.8, 1.2)
        norm.bias.normal_(0, 0.1)
    network.train()(NOISE)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


@torch.no_grad()
def tell_columns_apart(network: torch.nn.Module) -> None:
    """Take out of the classifier what all columns have in common, by which alone random weights choose one class."""
    columns = network.encode(rgb_to_grey(NOISE)).flatten(0, 1)
    common = torch.linalg.svd(columns, full_matrices=False)[2][:1]
    weight = network.classifier.weight
    weight.sub_(weight @ common.T @ common).mul_(30)


def make_dir(folder: Path, kind: str, characters: str = ALPHABET, **sizes) -> Path:
    """A model directory with random weights that read many characters."""
    folder.mkdir(parents=True)
    raw = configuration()
    raw["model"] = {
        "type": "OCRRecognition",
        "recognizer": kind,
        "inference_kwargs": {"img_height": 32, "img_width": 640, "do_chunking": False},
    }
    first_id = Configuration.parse(raw).network.first_id
    vocabulary = Vocabulary(tuple(characters), first_id)
    raw["model"]["network"] = {"num_classes": vocabulary.classes, **sizes}
    (folder / "configuration.json").write_text(json.dumps(raw), encoding="utf-8")
    vocabulary.save(folder / "vocab.txt")
    torch.manual_seed(0)
    network = with_statistics(new_network(Configuration.parse(raw).network))
    tell_columns_apart(network)
    torch.save(upstream_state_dict(network), folder / "pytorch_model.pt")
    return folder


@pytest.fixture(params=sorted(KINDS))
def small_dir(request, tmp_path) -> Path:
    return make_dir(tmp_path / request.param, request.param, **SMALL[request.param])


def lines(ratios: tuple[float, ...], seed: int = 0) -> list[np.ndarray]:
    """Noise in blocks, BGR: what random weights read differs from block to block."""
    random = np.random.default_rng(seed)
    made = []
    for ratio in ratios:
        blocks = random.integers(0, 256, (4, max(1, int(4 * ratio)), 3), dtype=np.uint8)
        made.append(np.repeat(np.repeat(blocks, 12, 0), 12, 1))
    return made


# ---------------------------------------------------------------------- parity


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(request) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The builtin network and ours with the same random weights, of which each matters to the result."""
    builtin_class, own_class = KINDS[request.param]
    torch.manual_seed(0)
    builtin, ours = with_statistics(builtin_class()), own_class()
    assert list(ours.state_dict()) == list(builtin.state_dict())
    shapes = [[tuple(value.shape) for value in one.state_dict().values()] for one in (ours, builtin)]
    assert shapes[0] == shapes[1]
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[request.param]
    ours.load_state_dict(builtin.state_dict())
    return builtin.eval(), ours.eval()


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape and expected.std() > 0.01, "a degenerate oracle shows nothing"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_values_equal_the_builtins_at_every_depth(pair):
    builtin, ours = pair
    images = torch.rand(2, 3, 32, 640, generator=torch.Generator().manual_seed(1))
    images[1, :, :, 200:] = 0
    seen = {}

    def keep(name):
        return lambda module, given, found: seen.__setitem__(name, found)

    trunk, sequence = ("conv4", "rnn") if isinstance(ours, CRNN) else ("our_nas_model", "our_nas_model")
    handles = [
        module.get_submodule(name).register_forward_hook(keep((module is ours, name)))
        for module in pair
        for name in {trunk, sequence}
    ]
    logits, expected = ours(images), builtin(images)
    for handle in handles:
        handle.remove()
    for name in {trunk, sequence}:
        assert_close(seen[True, name], seen[False, name])
    assert logits.shape == (2, 160, 7644)
    assert_close(logits, expected)
    assert_close(ours(images[1:]), expected[1:])  # alone as beside the other


def test_learning_takes_the_builtins_steps(pair):
    """In training mode, too, where batch norm takes the statistics of the batch."""
    builtin, ours = (one.train() for one in pair)
    images = torch.rand(2, 3, 32, 640, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_close(ours(images), builtin(images))
    builtin.eval(), ours.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind, operators", [("CRNN", True), ("LightweightEdge", True), ("LightweightEdge", False)])
def test_reading_computes_what_the_network_does(tmp_path, kind, operators, monkeypatch):
    """In another way: on canvases of two widths, with black behind lines of all lengths; without oneDNN's operator."""
    assert fused.convolves(), "this PyTorch lacks oneDNN's operator: reading works, only slower"
    monkeypatch.setattr(fused, "convolves", lambda: operators)
    files = ModelDir.open(make_dir(tmp_path / kind, kind, **SMALL[kind]))
    network = load_network(files.configuration.network, files.require_weights())
    reading = FoldedCRNN(network) if kind == "CRNN" else fused.FusedEdge(network)
    for canvas in (640, 800):
        grey = torch.rand(6, 1, 32, canvas, generator=torch.Generator().manual_seed(1))
        for line, end in zip(grey, (1, 111, 112, 113, 592, canvas)):
            line[..., end:] = 0
        columns, logits = reading(grey)
        expected = network.encode(grey)
        assert (expected[0] - expected[1]).abs().max() > 0.05
        torch.testing.assert_close(columns, expected, rtol=1e-4, atol=3e-4)
        torch.testing.assert_close(logits, network.classify(expected), rtol=1e-4, atol=1e-2)


# ---------------------------------------------------------------------- reading


def official_dir(folder: Path, kind: str) -> Path:
    """A model directory of the official sizes, whose vocabulary begins with ALPHABET."""
    first = 1 if kind == "CRNN" else 2
    rest = "".join(chr(0x4E00 + index) for index in range(7644 - first - len(ALPHABET)))
    return make_dir(folder, kind, ALPHABET + rest)


def builtin_texts(folder: Path, images: list[np.ndarray]) -> list[str]:
    """Of images as OpenCV gives them, RGB for the builtin, which takes them so."""
    builtin = upstream_class("MODELS", TASK, "OCRRecognition")(str(folder)).eval()
    preprocessor = upstream_class("PREPROCESSORS", "cv", TASK)(str(folder))
    with torch.inference_mode():
        return [builtin(preprocessor(image[:, :, ::-1])["image"])["preds"][0] for image in images]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_texts_equal_the_builtins(tmp_path, kind):
    folder, images = official_dir(tmp_path / "model", kind), lines((0.5, 1, 3, 8, 19.5, 20))
    expected = builtin_texts(folder, images)
    assert sum(map(len, expected)) > 100 and len(set(expected)) == len(images)
    recognizer = Recognizer.from_pretrained(folder, "torch", "fp32")
    assert [recognizer.read(image).text for image in images] == expected
    assert [line.text for line in recognizer.read_many(images)] == expected


def test_longer_lines_get_a_wider_canvas(small_dir):
    """What upstream squeezes into 640 px: here by hand."""
    files = ModelDir.open(small_dir)
    network = load_network(files.configuration.network, files.require_weights())
    recognizer = Recognizer.from_pretrained(small_dir, "torch", "fp32")
    for ratio, width in ((20, 640), (20.25, 800), (25, 800), (25.25, 960), (101, 3360)):
        (image,) = lines((ratio,))
        canvas = line_canvas(load_image(image), WHOLE)
        assert (canvas.width, canvas.grey.shape, canvas.chunks, canvas.inked) == (int(32 * ratio), (32, width), 1, 1)
        with torch.inference_mode():
            columns = network.classify(network.encode(torch.from_numpy(canvas.grey)[None, None]))
        ids = columns[0].argmax(-1).tolist()
        assert len(ids) == width // 4
        text = "".join(files.vocabulary.character(now) for before, now in zip([0, *ids], ids) if now not in (0, before))
        line = recognizer.read(image)
        assert line.text == text and len(text) > ratio / 4
        assert all(0 <= one.x0 <= one.x1 <= image.shape[1] for one in line.chars)


def test_lines_of_all_widths_in_one_list(small_dir):
    images = lines((3, 22, 0.5, 40, 20, 21, 5))
    recognizer = Recognizer.from_pretrained(small_dir, "torch", "fp32")
    alone = [recognizer.read(image) for image in images]
    assert len({line.text for line in alone}) > 4
    assert [line.text for line in recognizer.read_many(images)] == [line.text for line in alone]
    several = list(recognizer.read_many(images, n_best=3))
    for many in several:
        assert len(many.alternatives) == 3 and many.alternatives[0][0] == many.text
        assert many.alternatives[0][1] >= many.alternatives[1][1]
    allowed = list(recognizer.read_many(images, allowed="01"))
    assert set("".join(line.text for line in allowed)) <= set("01") and any(line.text for line in allowed)


def check_an_exported_file(model_dir: Path, backend: str) -> None:
    """It has torch's texts, greedy and searched, over lines of all widths."""
    files = ModelDir.open(model_dir)
    network = load_network(files.configuration.network, files.require_weights())
    export_onnx(network, model_dir / "model.onnx", weights=files.weights)
    images = lines((3, 22, 0.5, 20, 5))
    torchs = Recognizer.from_pretrained(model_dir, "torch", "fp32")
    expected, searched = list(torchs.read_many(images)), list(torchs.read_many(images, n_best=2))
    assert len({line.text for line in expected}) == len(images)
    recognizer = Recognizer.from_pretrained(model_dir, backend, "fp32")
    assert [line.text for line in recognizer.read_many(images, n_best=2)] == [line.text for line in searched]
    for line, other in zip(expected, recognizer.read_many(images), strict=True):
        assert other.text == line.text and other.score == pytest.approx(line.score, rel=1e-3)


def test_onnx_files_give_the_same_texts(small_dir):  # with OpenVINO: test_openvino.py
    check_an_exported_file(small_dir, "onnxruntime")


def test_doctor_says_what_auto_takes_and_measures_it(small_dir):
    result = CliRunner().invoke(main, ["doctor", "--rounds", "1", "--model", str(small_dir)], prog_name="ms-ocr")
    assert (result.exit_code, result.stderr) == (0, "")
    network = ModelDir.open(small_dir).configuration.network
    assert f"model: {small_dir}, {network.recognizer}, {network.num_classes} classes\n" in result.stdout
    measured = re.findall(r"^(torch|onnxruntime) +(\S+) +([\d.]+) +([\d.]+)$", result.stdout, re.M)
    assert [row[:2] for row in measured] == [("torch", name) for name in ("fp32", "bf16", "bf16+fp32")]
    assert all(float(value) > 0 for row in measured for value in row[2:])
    assert f"not here: onnxruntime fp32: {small_dir}: holds no model.onnx; make one with" in result.stdout
    for situation in ("with torch imported", "without"):
        assert f"auto, {situation}: backend 'torch', precision 'fp32' (" in result.stdout


# ---------------------------------------------------------------------- what a configuration may say


def test_the_first_line_of_a_vocabulary_has_the_id_that_the_kind_says(tmp_path):
    crnn, edge = (ModelDir.open(make_dir(tmp_path / kind, kind, **SMALL[kind])) for kind in sorted(KINDS))
    assert (crnn.vocabulary.encode("ab"), edge.vocabulary.encode("ab")) == ([1, 2], [2, 3])
    assert crnn.vocabulary.grow("z").encode("z") == [len(ALPHABET) + 1]
    assert (crnn.configuration.network.num_classes, edge.configuration.network.num_classes) == (21, 22)


@pytest.mark.parametrize(
    "model, expected",
    [
        ({"recognizer": "CRNN", "inference_kwargs": {"img_width": 804}}, "img_width is 804; 640 expected"),
        ({"recognizer": "CRNN", "inference_kwargs": {"do_chunking": True}}, "do_chunking is true; CRNN reads lines as"),
        ({"recognizer": "CRNN", "network": {"depths": [1, 1, 1, 1]}}, "unknown key model.network.depths"),
        ({"recognizer": "CRNN", "network": {"channels": [8, 8]}}, "model.network.channels is .*four positive"),
        ({"recognizer": "LightweightEdge", "network": {"hidden": 8}}, "unknown key model.network.hidden"),
        ({"recognizer": "PARSeq"}, "one of 'ConvNextViT', 'CRNN', 'LightweightEdge' expected"),
    ],
)
def test_what_a_kind_cannot_be_is_named(model, expected):
    with pytest.raises(ConfigurationError, match=expected):
        Configuration.parse({"model": model})


def test_a_kind_has_its_own_parts_to_freeze():
    with pytest.raises(ConfigurationError, match="names 'encoder'; 'trunk', 'head' expected"):
        Configuration.parse({"model": {"recognizer": "LightweightEdge"}, "train": {"freeze": "encoder"}})


def test_weights_of_another_kind_are_refused(tmp_path):
    folder = make_dir(tmp_path / "crnn", "CRNN", **SMALL["CRNN"])
    with pytest.raises(CheckpointError, match="does not fit the network of configuration.json .*missing"):
        load_network(LightweightEdgeConfig(22), folder / "pytorch_model.pt")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_network(CrnnConfig(num_classes=21), folder / "pytorch_model.pt")


# ---------------------------------------------------------------------- learning


def training_of(model_dir: Path, lmdb: Path, work_dir: Path, epochs: int, **train):
    raw = json.loads((model_dir / "configuration.json").read_text(encoding="utf-8"))
    raw["train"] = {
        "max_epochs": epochs,
        "seed": 1,
        "dataloader": {"batch_size_per_gpu": 4},
        "optimizer": {"type": "AdamW", "lr": 0.003},
        "checkpoint": {"period": {"interval": epochs}, **train.pop("checkpoint", {})},
        **train,
    }
    raw["evaluation"] = {"dataloader": {"batch_size_per_gpu": 4}}
    return prepare_training(model_dir, raw, [lmdb], [lmdb], work_dir, device="cpu")


@pytest.fixture
def few_lines(tmp_path) -> Path:
    """Lines of several widths, one of more than 640 px."""
    path, texts = tmp_path / "lines", ["a1", "b2c", "e5f6a" * 10, "0"]
    write_lmdb(path, [(png(render(text)), text) for text in texts])
    return path


def test_losses_are_those_of_pytorch_over_each_lines_own_canvas(small_dir, few_lines):
    files = ModelDir.open(small_dir)
    network = load_network(files.configuration.network, files.require_weights())
    dataset = LineDataset([LmdbReader(few_lines)], files.vocabulary, layout=WHOLE)
    batch = collate([dataset[index] for index in range(len(dataset))], skip_padding=True)
    assert [tuple(grey.shape) for grey in batch.pieces] == [(3, 1, 32, 640), (1, 1, 32, 800)]
    with torch.no_grad():
        losses, encoded = LineLoss(network)(batch)
        expected, texts = [], []
        for index in range(len(dataset)):
            canvas = line_canvas(load_image(dataset.image_bytes(index)), WHOLE)
            logits = network.classify(network.encode(torch.from_numpy(canvas.grey)[None, None]))
            ids = files.vocabulary.encode(dataset.label(index))
            nll = torch.nn.functional.ctc_loss(
                logits.log_softmax(-1).transpose(0, 1),
                torch.tensor([ids]),
                [logits.shape[1]],
                [len(ids)],
                reduction="sum",
            )
            expected.append(nll / len(ids))
            texts.append(Recognizer.from_network(network, files.vocabulary, "fp32").read_canvases([canvas])[0].text)
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-3)
    assert read_batch(encoded, network.classifier, batch, files.vocabulary) == texts


def test_a_training_goes_on_where_it_was_stopped(small_dir, few_lines, tmp_path):
    """The statistics of batch norm included."""
    whole = training_of(small_dir, few_lines, tmp_path / "whole", 2)
    start = {name: value.clone() for name, value in whole.network.state_dict().items()}
    scores = whole.run()
    training_of(small_dir, few_lines, tmp_path / "parts", 1).run()
    parts = training_of(small_dir, few_lines, tmp_path / "parts", 2)
    assert parts.run() == scores
    saved = [torch.load(tmp_path / name / "epoch_2.pth", weights_only=True) for name in ("whole", "parts")]
    assert saved[0].keys() == saved[1].keys()
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    moved = [name for name, value in start.items() if not torch.equal(value, saved[0][f"recognizer.{name}"])]
    assert sum("running_mean" in name for name in moved) > 5 and len(moved) == len(start)
    output = tmp_path / "whole" / "output"
    kept = Recognizer.from_pretrained(output, "torch", "fp32")
    assert (
        kept.read(render("b2c")).text
        == Recognizer.from_network(whole.network, kept.vocabulary).read(render("b2c")).text
    )
    again = training_of(output, few_lines, tmp_path / "again", 1).evaluate()
    assert again["cer"] == scores["cer"] and again["avg_loss"] == pytest.approx(scores["avg_loss"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_builtin_reads_what_was_trained_here(tmp_path, few_lines, kind):
    folder, images = official_dir(tmp_path / "model", kind), lines((2, 7))
    before = builtin_texts(folder, images)
    training_of(folder, few_lines, tmp_path / "work", 1).run()
    output = tmp_path / "work" / "output"
    shutil.copy(tmp_path / "work" / "epoch_1.pth", output / "pytorch_model.pt")
    expected = builtin_texts(output, images)
    assert expected != before
    recognizer = Recognizer.from_pretrained(output, "torch", "fp32")
    assert [line.text for line in recognizer.read_many(images)] == expected


def test_frozen_parts_and_new_characters(small_dir, few_lines, tmp_path):
    write_lmdb(tmp_path / "more", [(png(render("zx1")), "zx1")] * 4)
    training = training_of(
        small_dir, tmp_path / "more", tmp_path / "work", 1, freeze="trunk", unknown_characters="grow"
    )
    trunk = {
        name: value.clone()
        for name, value in training.network.state_dict().items()
        if not name.startswith(("rnn", "cls", "head"))
    }
    training.run()
    now = training.network.state_dict()
    assert len(trunk) > 20 and all(torch.equal(value, now[name]) for name, value in trunk.items())
    output = ModelDir.open(tmp_path / "work" / "output")
    assert output.vocabulary.first_id == ModelDir.open(small_dir).vocabulary.first_id
    assert output.vocabulary.characters[-2:] == ("x", "z")
    assert Recognizer.from_pretrained(output.path, "torch").read(render("zx1")) is not None
