"""Curves and events of trainings: every value of the log is in them, at its place."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.report.curves import read_curves

pytest.importorskip("matplotlib", reason="needs the extra `report`")

LOG = [
    {"mode": "train", "epoch": 1, "iter": 2, "loss": 4.0, "lr": 0.1, "lines_per_second": 7.0},
    {"mode": "train", "epoch": 1, "iter": 3, "left_out": "a line"},
    {"mode": "train", "epoch": 1, "iter": 4, "loss": None, "lr": 0.1, "lines_per_second": 8.0},
    {"mode": "eval", "epoch": 1, "cer": 0.5, "accuracy": 0.25, "avg_loss": 3.0},
    {"mode": "eval", "epoch": 2, "iter": 1, "cer": 0.25, "accuracy": None},
    {"mode": "train", "epoch": 2, "iter": 2, "loss": 2.0, "lr": 0.05, "lines_per_second": 9.0},
]


def curve(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["curve", *map(str, arguments)], prog_name="ms-ocr")


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        Path(name).mkdir()
        log = "".join(json.dumps(entry) + "\n" for entry in LOG)
        Path(name, "train_log.jsonl").write_text(log + '{"mode": "tra', encoding="utf-8")  # at work
    return tmp_path


def test_every_value_is_at_its_place(work):
    curves = read_curves(Path("one"))
    assert curves.name == "one"
    assert curves.train == {
        "loss": [(0.5, 4.0), (1.5, 2.0)],
        "lr": [(0.5, 0.1), (1.0, 0.1), (1.5, 0.05)],
        "lines_per_second": [(0.5, 7.0), (1.0, 8.0), (1.5, 9.0)],
    }
    assert curves.evaluation == {"cer": [(1.0, 0.5), (1.25, 0.25)], "accuracy": [(1.0, 0.25)], "avg_loss": [(1.0, 3.0)]}


def test_several_runs_are_in_one_picture(work):
    result = curve("one", "two", "--out", "both.svg")
    assert (result.exit_code, result.output) == (0, "both.svg\n")
    drawing = Path("both.svg").read_text(encoding="utf-8")
    assert drawing.startswith("<?xml") and drawing.count("<svg") == 1
    assert curve("one").output == "curves.png\n"
    from PIL import Image

    with Image.open("curves.png") as picture:
        assert picture.size == (1320, 840) and len(picture.convert("L").getcolors()) > 50
    assert sorted(path.name for path in work.iterdir()) == ["both.svg", "curves.png", "one", "two"]


def test_what_is_drawn_is_what_was_told(work, monkeypatch):
    import matplotlib.figure

    drawn = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    assert curve("one", "two").exit_code == 0
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    lines = {line.get_label(): line.get_xydata().tolist() for line in panels["evaluation, percent"].lines}
    assert lines["two CER"] == [[1.0, 50.0], [1.25, 25.0]] and lines["one lines right"] == [[1.0, 25.0]]
    assert set(panels) == {"loss per line", "evaluation, percent", "learning rate", "lines per second"}
    assert [len(axes.lines) for axes in panels.values()] == [4, 4, 2, 2]


def test_bad_input_is_named(work):
    result = curve("nowhere")
    assert result.exit_code == 1 and result.stderr == (
        "error: nowhere/train_log.jsonl: cannot be read (No such file or directory); name the work_dir of a training\n"
    )
    for text, said in (
        ("", "has no entries yet; wait for train.logging.interval batches, or name another"),
        ('{"mode": "train", "epoch": 1, "iter": 1}\n[]\n', "2: not an entry of a training log; remove the line"),
        ('{"mode": "other", "epoch": 1}\n', "1: not an entry of a training log; remove the line"),
    ):
        Path("one/train_log.jsonl").write_text(text)
        assert said in curve("one").stderr
    result = curve("two", "--out", "two/train_log.jsonl")
    assert "the suffix is not one of .png, .svg, .pdf; choose another --out" in result.stderr
    Path("there.png").write_text("mine")
    assert curve("two", "--out", "there.png").stderr == (
        "error: there.png: exists already and is left as it is; choose another --out\n"
    )
    assert Path("there.png").read_text() == "mine"
