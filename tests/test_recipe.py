"""The first training phase: what it says each column shows, and the gradient of its loss. A hand from Pillow's font."""

import contextlib
import dataclasses
import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ImageFont

pytest.importorskip("fontTools")

from ms_ocr_handwritten.ctc import collapse  # noqa: E402
from ms_ocr_handwritten.geometry import scaled_width  # noqa: E402
from ms_ocr_handwritten.lmdb_store import write_lmdb  # noqa: E402
from ms_ocr_handwritten.synth.glyphs import read_fonts  # noqa: E402
from ms_ocr_handwritten.synth.line import Settings, draw_in_hand  # noqa: E402
from ms_ocr_handwritten.synth.writer import draw_style  # noqa: E402
from ms_ocr_handwritten.vocab import Vocabulary  # noqa: E402

LABELS = ["ab cd", "Noon", "e", "fig 3", "seen", "q"]


@pytest.fixture(scope="module")
def recipe():
    """The folder of the recipe's scripts as a place to import from, as it is for each of them."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipe"))
    yield
    sys.path.pop(0)


@pytest.fixture(scope="module")
def pretrain(recipe):
    return importlib.import_module("pretrain")


@pytest.fixture(scope="module")
def columns(recipe):
    return importlib.import_module("columns")


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "font.ttf"
    path.write_bytes(ImageFont.load_default(20).font_bytes)
    return read_fonts([path], tuple(sorted(set("".join(LABELS)) - {" "})))


class OneHand:
    """Draws LABELS in turn, as a LineSynthesizer draws its texts."""

    seed = 5

    def __init__(self, hand):
        self.hand, self.drawn = hand, []

    def sample(self, index, max_width):
        rng = np.random.default_rng(index)
        line = draw_in_hand(LABELS[index % len(LABELS)], self.hand, draw_style(rng), Settings(max_width=max_width), rng)
        self.drawn.append((line, max_width))
        return line


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(sorted(set("".join(LABELS)) - {" "})) + "\n \n", encoding="utf-8")
    return Vocabulary.load(path)


def test_the_columns_of_a_chunk_spell_its_lines(columns, hand, vocabulary):
    for index in range(8):
        synthesizer = OneHand(hand)
        grey, (classes, either, ids) = columns.ColumnDataset(synthesizer, vocabulary, 0, 8, sparse=0)[index]
        assert grey.shape == (32, 300) and classes.shape == either.shape == ids.shape == (75,)
        sure = np.where(either > 0, 0, classes)
        read = "".join(vocabulary.character(run.id) for run in collapse(sure, np.zeros(75, np.float32)))
        widths, texts, left = [], "", 0
        for line, room in synthesizer.drawn:
            assert room == 300 - left  # each line is drawn into the room that is left
            width = scaled_width(line.image.shape[1], line.image.shape[0])
            if left + width <= 300:
                texts, left = texts + line.text, left + width
                widths.append(width)
        assert read == texts
        assert ids.tolist() == vocabulary.encode(texts) + [0] * (75 - len(texts))
        assert len(widths) >= 2 and 300 - left < 60  # the chunk is full
        assert (grey[:, left + 1:] == 0).all() and grey[:, : left - 1].any()
        for column in np.flatnonzero(either):  # beside the middle of that character
            assert classes[column] in (sure[max(0, column - 1)], sure[min(74, column + 1)])


def test_a_chunk_holds_no_more_text_than_its_columns_can_be_aligned_to(columns, hand, vocabulary):
    class Crowded(OneHand):
        """Gives every line a text of 30 equal characters."""

        def sample(self, index, max_width):
            line = super().sample(index, max_width)
            return dataclasses.replace(line, text="e" * 30, boxes=[line.boxes[0]] * 30)

    _, (_, _, ids) = columns.ColumnDataset(Crowded(hand), vocabulary, 0, 1, sparse=0)[0]
    assert (ids > 0).sum() == 30  # 59 columns; a second line would need 60 more


def test_a_sparse_chunk_holds_one_line_and_nothing_behind_it(columns, hand, vocabulary):
    rooms = []
    for index in range(8):
        synthesizer = OneHand(hand)
        grey, (classes, either, ids) = columns.ColumnDataset(synthesizer, vocabulary, 0, 8, sparse=1)[index]
        ((line, room),) = synthesizer.drawn
        width = scaled_width(line.image.shape[1], line.image.shape[0])
        assert grey[:, : width - 1].any() and (grey[:, width + 1:] == 0).all()
        assert ((classes > 0) & (either == 0)).sum() == (ids > 0).sum() == len(line.text)
        rooms.append(room)
    assert 32 <= min(rooms) < max(rooms) < 300


def test_real_lines_come_in_a_new_order_each_time_round(pretrain, vocabulary, tmp_path):
    labels = ["ab", "cd", "Noon", "fig", "seen", "q"]
    image = cv2.imencode(".png", np.full((32, 200), 255, np.uint8))[1].tobytes()
    write_lmdb(tmp_path / "real", [(image, label) for label in labels])
    batches = pretrain.real_batches(str(tmp_path / "real"), vocabulary, 2, seed=0, workers=1)
    rounds = [[label for _ in range(3) for label in next(batches).labels] for _ in range(2)]
    batches.close()
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(labels) and rounds[0] != rounds[1]


def test_the_loss_and_its_gradient_are_those_of_the_plain_formula(columns):
    generator = torch.Generator().manual_seed(0)
    rows = columns.ROWS + 60
    logits = (3 * torch.randn(rows, 30, generator=generator)).requires_grad_()
    classes = torch.randint(0, 30, (rows,), generator=generator)
    either = (torch.rand(rows, generator=generator) < 0.3) & (classes > 0)
    loss = columns.column_loss(logits, classes, either)
    (gradient,) = torch.autograd.grad(2 * loss, logits)
    log_probs = logits.log_softmax(-1)
    named = log_probs.gather(1, classes[:, None])[:, 0]
    score = torch.where(either, torch.logaddexp(named, log_probs[:, 0]), named)
    middles = (classes != 0) & ~either
    expected = -(torch.where(middles, 1.0, columns.BLANK_WEIGHT) * score).sum() / middles.sum()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(2 * expected, logits)[0])


def test_kinds_of_text_get_the_weights_that_are_named(pretrain):
    found = pretrain.kinds_with(["single=0.5", "rare=0"])
    assert found == pretrain.KINDS | {"single": 0.5, "rare": 0.0} and pretrain.kinds_with([]) == pretrain.KINDS
    with pytest.raises(SystemExit, match="sinlge.*single"):
        pretrain.kinds_with(["sinlge=1"])


def test_muon_makes_the_same_steps_in_float32(pretrain):
    """Near those in bfloat16, which Muon asks for, and no product is computed in it."""
    def step(mode) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.zeros(24, 40))
        weight.grad = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
        before = weight.grad.clone()
        with mode:
            torch.optim.Muon([weight], lr=1.0, momentum=0.0, weight_decay=0.0).step()
        assert torch.equal(weight.grad, before)
        return weight.detach()

    usual, exact = step(contextlib.nullcontext()), step(pretrain.StaysFloat32())
    assert (usual - exact).abs().mean() < 0.02 * exact.abs().mean()
    assert not torch.equal(exact, exact.bfloat16().float()) and torch.equal(usual, usual.bfloat16().float())
