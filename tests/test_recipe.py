"""The first training phase: what it says each column shows, and the gradient of its loss. A hand from Pillow's font."""

import contextlib
import dataclasses
import importlib
import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK, make_model_dir
from PIL import ImageFont
from torch.utils.data import default_collate

pytest.importorskip("fontTools")

from ms_ocr_handwritten.ctc import collapse
from ms_ocr_handwritten.geometry import scaled_width
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.recognizer import Character, Line
from ms_ocr_handwritten.synth.glyphs import read_fonts
from ms_ocr_handwritten.synth.line import Settings, draw_in_hand
from ms_ocr_handwritten.synth.writer import draw_style
from ms_ocr_handwritten.training.ctc_loss import ROWS
from ms_ocr_handwritten.training.dataset import collate
from ms_ocr_handwritten.training.distributed import Ranks
from ms_ocr_handwritten.vocab import Vocabulary

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
def students_room(recipe):
    """The module of what learns."""
    return importlib.import_module("student")


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
        assert (grey[:, left + 1 :] == 0).all() and grey[:, : left - 1].any()
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
        assert grey[:, : width - 1].any() and (grey[:, width + 1 :] == 0).all()
        assert ((classes > 0) & (either == 0)).sum() == (ids > 0).sum() == len(line.text)
        rooms.append(room)
    assert 32 <= min(rooms) < max(rooms) < 300


def test_what_is_hidden_of_a_chunk_is_its_paper_in_whole_spans(students_room):
    torch.manual_seed(0)
    grey = torch.rand(40, 1, 32, 300)
    grey[::2, ..., 120:] = 0  # behind the end of a line
    assert torch.equal(students_room.hide_spans(grey, 0.0), grey)
    found = students_room.hide_spans(grey, 0.25)
    hidden = (found != grey).any(2)[:, 0]  # (40, 300)
    for chunk, columns in enumerate(hidden):
        spans = columns.view(-1, students_room.SPAN)
        assert (spans.all(1) == spans.any(1)).all()
        assert (found[chunk, 0, :, columns] == grey[chunk][grey[chunk] > 0].quantile(0.75)).all()
    assert hidden.float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.fixture(scope="module")
def earlier(recipe):
    return importlib.import_module("earlier")


def bars(at: list[int], width: int) -> torch.Tensor:
    """Chunks of light paper `width` px wide, each with a dark bar 3 px wide whose middle is at that px."""
    grey = torch.zeros(len(at), 1, 32, 300)
    grey[..., :width] = 0.9
    for chunk, middle in zip(grey, at):
        chunk[..., middle - 1 : middle + 2] = 0.2
    return grey


def test_chunks_come_again_with_their_own_targets_and_the_oldest_make_room(earlier, monkeypatch):
    monkeypatch.setattr(earlier, "KEPT", 8)
    memory = earlier.Earlier(torch.device("cpu"))
    at = list(range(20, 260, 20))  # 12 chunks, the targets of which say where their bar is
    targets = torch.tensor(at)[:, None, None].expand(-1, 3, 75)
    for start in range(0, 12, 3):
        memory.keep(bars(at, 280)[start : start + 3], targets[start : start + 3])
    torch.manual_seed(0)
    grey, found = memory.draw(200)
    assert grey.shape == (200, 1, 32, 300) and found.shape == (200, 3, 75) and found.dtype == torch.int64
    assert set(found.flatten().tolist()) == set(at[4:])
    darkest = grey[:, 0, 14:18, 5:275].mean(1).argmin(-1) + 5
    assert (darkest - found[:, 0, 0]).abs().max() <= 3  # no more than a column of 4 px


def test_chunks_are_changed_each_by_itself_and_not_behind_their_end(earlier):
    torch.manual_seed(0)
    grey = bars([60] * 64, 150)
    found = earlier.changed(grey)
    assert not found[..., 150:].any() and found.min() >= 0 and found.max() <= 1
    ink = (found[..., 40:80].amax(-1, keepdim=True) - found[..., 40:80]).sum((1, 2, 3)) / 32
    paper = found[..., 100:140].mean((1, 2, 3))
    middle = found[:, 0, :, 30:90].argmin(-1) + 30.0  # (64, 32): the bar's place in each row
    slant = middle[:, -4:].mean(1) - middle[:, :4].mean(1)
    assert ink.std() > 0.2 and paper.std() > 0.02 and slant.std() > 1 and middle.mean(1).std() > 0.5
    assert (middle - 60).abs().max() <= 5


@pytest.fixture(scope="module")
def real_lines(recipe):
    return importlib.import_module("real_lines")


@pytest.fixture(scope="module")
def cuts(recipe):
    return importlib.import_module("cuts")


def written(*words: str) -> tuple[np.ndarray, Line]:
    """A line 64 px high: each character a block 12 px wide as dark as its letter says, gaps of 20 px; as it is read."""
    image, chars, x = np.full((64, 40 + 40 * sum(map(len, words))), 255, np.uint8), [], 10
    for word in words:
        if chars:
            chars.append(Character(" ", 0.9, x - 12, x - 2))
            x += 6
        for letter in word:
            image[10:50, x : x + 12] = ord(letter)
            chars.append(Character(letter, 0.9, x + 4, x + 8))
            x += 14
    text = "".join(char.character for char in chars)
    return image[:, : x + 4], Line(text, 0.9, tuple(chars))


def letters_of(image: np.ndarray) -> str:
    """What `written` wrote there."""
    levels = [int(level) for level in image[30] if level < 200]
    return "".join(chr(level) for level, _ in itertools.groupby(levels))


def test_lines_are_cut_at_the_spaces_that_were_read_where_the_label_has_them(real_lines, cuts):
    def parts(line: Line, label: str) -> list[tuple[np.ndarray, str]]:
        return real_lines.parts(image, label, cuts.cut_points(image, line, label))

    image, line = written("abc", "de", "fgh")
    found = parts(line, "abc de fgh")
    assert [text for _, text in found] == ["abc", "de", "fgh"]
    assert [letters_of(part) for part, _ in found] == ["abc", "de", "fgh"]
    assert np.array_equal(np.concatenate([part for part, _ in found], 1), image)  # nothing is lost, nothing comes twice
    chars = (*line.chars[:4], dataclasses.replace(line.chars[4], character="x"), *line.chars[5:])
    misread = Line("abc xe fgh", 0.9, chars)
    assert [text for _, text in parts(misread, "abc de fgh")] == ["abc de", "fgh"]
    assert [text for _, text in parts(line, "zzz")] == ["zzz"]


def test_a_new_line_says_what_its_parts_say(real_lines, cuts):
    lines = [written("abc", "de", "fgh"), written("kl"), written("mno", "pq")]
    pool = [real_lines.parts(image, line.text, cuts.cut_points(image, line, line.text)) for image, line in lines]
    pool[1] = [(image // 2, text) for image, text in pool[1]]  # on darker paper
    rng = np.random.default_rng(3)
    for _ in range(20):
        image, text = real_lines.recombine(pool, rng)
        assert image.shape[0] == real_lines.HEIGHT and image.shape[1] <= real_lines.WIDEST + 200
        assert set(image[0]) == {255} or (
            set(image[0]) == {127} and text.startswith("kl")
        )  # one paper: the first part's
        if "kl" not in text:
            assert letters_of(image) == text.replace(" ", "")
    assert len({real_lines.recombine(pool, rng)[1] for _ in range(20)}) > 10


@pytest.fixture
def real(tmp_path):
    labels = ["ab cd", "Noon", "fig", "seen", "q", "e"]
    image = cv2.imencode(".png", np.full((32, 200), 255, np.uint8))[1].tobytes()
    write_lmdb(tmp_path / "real", [(image, label) for label in labels])
    return LmdbReader(tmp_path / "real"), labels


def test_whole_real_lines_come_in_a_new_order_each_time_round(real_lines, vocabulary, real):
    reader, labels = real
    lines = real_lines.RealLines(reader, vocabulary, None, 0, 12, seed=0, strength=1.0)
    rounds = [[lines[number].label for number in range(start, start + 6)] for start in (0, 6)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(labels) and rounds[0] != rounds[1]
    later = real_lines.RealLines(reader, vocabulary, None, 6, 12, seed=0, strength=1.0)  # as a run that goes on
    assert np.array_equal(later[2].grey, lines[8].grey) and later[2].ids == lines[8].ids


def test_new_real_lines_are_made_of_the_parts_between_the_cuts(real_lines, vocabulary, real):
    reader, labels = real
    lines = real_lines.RealLines(reader, vocabulary, [[(2, 150)], [], [], [], [], []], 0, 60, seed=0, strength=1.0)
    found = {lines[number].label for number in range(60)}
    words = {word for label in labels for word in label.split()}
    assert {word for label in found for word in label.split()} == words and "ab cd" in found
    assert found - set(labels)


def test_the_loss_and_its_gradient_are_those_of_the_plain_formula(columns):
    generator = torch.Generator().manual_seed(0)
    rows = ROWS + 60
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


def test_every_column_of_a_character_is_learnt_and_some_of_the_blank_ones(students_room):
    classes = torch.zeros(4000, dtype=torch.int64)
    classes[::4] = 7
    learnt = students_room.taught(classes, 3)
    assert (classes[learnt] == 7).sum() == 1000 and learnt.diff().min() > 0
    assert (classes[learnt] == 0).sum() == pytest.approx(3000 * students_room.BLANKS, rel=0.1)
    assert torch.equal(students_room.taught(classes, 3), learnt) and not torch.equal(
        students_room.taught(classes, 4), learnt
    )


def test_ranks_step_by_the_mean_of_their_gradients(pretrain, students_room, tmp_path, monkeypatch):
    model = make_model_dir(tmp_path / "model", "ab", **TINY_NETWORK)
    words = ["--inputs", "", "--model", str(model), "--out", str(tmp_path / "out")]
    student = students_room.Student(pretrain.parse(words), 0, Ranks(0, 2, torch.device("cpu")))
    for number, parameter in enumerate(student.network.parameters()):
        parameter.grad = torch.full_like(parameter, number)
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda flat: flat.add_(flat * 2)
    )  # the other's are twice as large
    student._share_gradients()
    for number, parameter in enumerate(student.network.parameters()):
        assert (parameter.grad == 1.5 * number).all()


def test_a_mixture_keeps_the_shares_and_gives_each_sources_samples_in_order(recipe):
    mixture = importlib.import_module("mixture")

    class Counted:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, index):
            return self.name, index

    def row(start, stop):
        found = mixture.Mixture([Counted("a"), Counted("b"), Counted("c")], [5, 3, 2], start, stop, seed=4)
        return [found[k] for k in range(len(found))]

    whole = row(0, 40)
    assert whole[25:] == row(25, 40)  # a run that goes on
    for name, share in (("a", 5), ("b", 3), ("c", 2)):
        assert [index for source, index in whole if source == name] == list(range(4 * share))
    assert [source for source, _ in whole[:10]] != [source for source, _ in whole[10:20]]


def test_new_rows_of_the_head_are_learnt_and_old_ones_stay(recipe, monkeypatch):
    grow = importlib.import_module("grow")
    monkeypatch.setattr(grow, "ROUNDS", 60)
    monkeypatch.setattr(grow, "BATCH", 256)
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 12)
    before = head.weight.detach().clone(), head.bias.detach().clone()
    middles = 4 * torch.randn(12, 16)
    middles[:8] = 4 * before[0][:8] / before[0][:8].norm(dim=1, keepdim=True)
    classes = torch.arange(12).repeat(60)
    features = (middles[classes] + 0.3 * torch.randn(720, 16)).bfloat16()
    grow.learn_rows(head, 8, features, classes)
    assert torch.equal(head.weight[:8], before[0][:8]) and torch.equal(head.bias[:8], before[1][:8])
    new = classes >= 8
    assert (head(features.float()).argmax(1) == classes)[new].float().mean() > 0.95


def test_kinds_of_text_get_the_weights_that_are_named(pretrain):
    found = pretrain.kinds_with(["single=0.5", "rare=0"])
    assert found == pretrain.KINDS | {"single": 0.5, "rare": 0.0} and pretrain.kinds_with([]) == pretrain.KINDS
    with pytest.raises(SystemExit, match="sinlge.*single"):
        pretrain.kinds_with(["sinlge=1"])


def test_two_networks_learn_from_the_same_chunks_and_go_on_where_they_were(
    pretrain, students_room, columns, real_lines, hand, vocabulary, real, tmp_path, monkeypatch
):
    monkeypatch.setattr(students_room, "WARMUP", 5)
    model, outs = make_model_dir(tmp_path / "model", "".join(vocabulary.characters), **TINY_NETWORK), ["one", "two"]
    words = [
        "--inputs",
        "",
        "--model",
        str(model),
        str(model),
        "--out",
        *(str(tmp_path / out) for out in outs),
        "--lr",
        "4e-3",
        "4e-3",
        "--join",
        "0",
        "0.5",
        "--ctc",
        "0.3",
        "--steps",
        "60",
        "--ema",
        "0.9",
        "--real-weight",
        "0.01",
    ]
    arguments, ranks = pretrain.parse(words), Ranks(0, 1, torch.device("cpu"))
    drawn = columns.ColumnDataset(OneHand(hand), vocabulary, 0, 6, sparse=0)
    grey, targets = default_collate([drawn[number] for number in range(6)])
    chunks = students_room.Chunks.of(grey[:, None], targets)
    lines = real_lines.RealLines(real[0], vocabulary, None, 0, 6, seed=0, strength=0.0)
    batch = collate([lines[number] for number in range(3)], skip_padding=True)
    students = [students_room.Student(arguments, number, ranks) for number in range(2)]
    for step in range(30):
        for student in students:
            student.learn(chunks, batch, step / 60)
    for student in students:
        student.save(seconds=7.0)
    again = [students_room.Student(arguments, number, ranks) for number in range(2)]
    assert [(student.step, student.seconds) for student in again] == [(30, 7.0)] * 2
    for step in range(30, 60):
        for student in (*students, *again):
            student.learn(chunks, batch, step / 60)
    joined = []
    for student, resumed, out in zip(students, again, outs):
        found, expected = resumed.network.state_dict(), student.network.state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        log = [json.loads(row) for row in (tmp_path / out / "pretrain_log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in log] == [60, 60] and log[1]["loss"] < 0.75 * log[0]["loss"]
        assert log[1]["real_loss"] > 0 and log[1]["text_loss"] > 0
        joined.append(log[0]["text_loss"] / log[1]["text_loss"])
    assert joined[0] > 1 > joined[1]  # of the first half of its steps the second network's entry holds no CTC loss


def test_muon_makes_the_same_steps_in_float32(students_room):
    """Near those in bfloat16, which Muon asks for, and no product is computed in it."""

    def step(mode) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.zeros(24, 40))
        weight.grad = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
        before = weight.grad.clone()
        with mode:
            torch.optim.Muon([weight], lr=1.0, momentum=0.0, weight_decay=0.0).step()
        assert torch.equal(weight.grad, before)
        return weight.detach()

    usual, exact = step(contextlib.nullcontext()), step(students_room.StaysFloat32())
    assert (usual - exact).abs().mean() < 0.02 * exact.abs().mean()
    assert not torch.equal(exact, exact.bfloat16().float()) and torch.equal(usual, usual.bfloat16().float())


@pytest.fixture(scope="module")
def train(recipe):
    return importlib.import_module("train")


def stages(train, work: Path, *more: str):
    words = ["--copiste", "c", "--work", str(work), "--htr", "h", "--pens", "p.jsonl.xz", *more]
    return {stage.name: stage for stage in train.plan(train.parse(words))}


def test_the_phases_of_the_whole_training_are_commands_that_pretrain_takes(train, pretrain, tmp_path):
    found = stages(train, tmp_path, "--minutes", "9")
    begun = {}
    for name in train.PHASES:
        (command,) = found[name].commands
        assert Path(command[1]).is_file() and "{" not in " ".join(command)
        arguments = pretrain.parse(list(command[2:]))
        assert arguments.out == [tmp_path / name] and arguments.minutes == 9
        begun[name] = Path(arguments.weights[0]).parent.name
    assert begun == {"columns": "", "with_real": "columns", "with_parts": "with_real", "with_pens": "with_parts"}
    assert [source[:2] for source in arguments.real] == [
        [str(tmp_path / "real"), "22"],
        [str(tmp_path / "htr_train"), "18"],
        ["p.jsonl.xz", "60"],
    ]


def test_the_whole_training_has_a_model_of_the_vocabularys_size(train, tmp_path):
    train.prepare(tmp_path, train.RECIPE / "configuration.json")
    for name in ("model", *train.PHASES):
        files = ModelDir.open(tmp_path / name)
        assert files.configuration.network.num_classes == files.vocabulary.classes


def test_a_stage_is_done_where_what_it_makes_is_there(train, tmp_path):
    assert not any(stage.done() for stage in stages(train, tmp_path).values())
    (tmp_path / "cuts.json").write_text("[]")
    (tmp_path / "columns").mkdir()
    log = tmp_path / "columns" / "pretrain_log.jsonl"
    log.write_text('{"step": 100}\n{"step": 4999}\n')
    assert [name for name, stage in stages(train, tmp_path).items() if stage.done()] == ["cuts"]
    with open(log, "a") as file:
        file.write('{"step": 5000}\n')
    assert [name for name, stage in stages(train, tmp_path).items() if stage.done()] == ["columns", "cuts"]


def test_the_whole_training_goes_on_with_what_is_to_be_done(train, tmp_path, monkeypatch, capsys):
    """Run with stages of one command each that leaves a mark, one of them done before."""
    marks = [tmp_path / name for name in ("one", "two", "three")]
    marks[0].touch()

    def plan(arguments):
        for mark in marks:
            program = f"open({str(mark)!r}, 'x')" if mark.name != "three" else "pass"
            yield train.Stage(mark.name, ((sys.executable, "-c", program),), mark.exists)

    monkeypatch.setattr(train, "plan", plan)
    with pytest.raises(SystemExit, match="three: not finished; run the same command again"):
        train.main(["--copiste", "c", "--work", str(tmp_path)])
    assert [mark.exists() for mark in marks] == [True, True, False] and "one: done" in capsys.readouterr().out
