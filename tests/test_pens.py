"""Pen trajectories: read from a file, set on a baseline, drawn as lines, sampled by writer."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the synthesiser draws with OpenCV")

from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.synth.line import Settings
from ms_ocr_handwritten.synth.pens import X_HEIGHT, Pens, frame_of
from ms_ocr_handwritten.synth.unipen import KINDS, PenLines


def stroke(*points: tuple[int, int]) -> list[int]:
    """A stroke as the file has it: its first point, then differences."""
    steps = [points[0], *((b[0] - a[0], b[1] - a[1]) for a, b in zip(points, points[1:]))]
    return [value for step in steps for value in step]


def row(kind: str, writer: int, text: str, *strokes: list[int]) -> dict:
    return {"kind": kind, "writer": writer, "text": text, "strokes": list(strokes)}


def bar(width: int, height: int) -> list[int]:
    """A zigzag of that size."""
    return stroke(*((x, height * (k % 2)) for k, x in enumerate(range(0, width + 1, 10))))


ROWS = [
    *(row("word", 1, "many", bar(200, 100)) for _ in range(50)),
    row("word", 2, "few", bar(120, 90), stroke((130, 5))),
    row("text", 1, "a line , of words", bar(700, 150)),
    row("word", 3, "s\\@o", bar(60, 50)),
    row("word", 3, "a\\b", bar(60, 50)),
    row("lower", 4, "a", bar(40, 40)),
    row("lower", 4, "b", bar(40, 80)),
    row("digit", 4, "7", bar(40, 80)),
    row("upper", 4, "T", bar(60, 90)),
    row("symbol", 4, "-", stroke((0, 0), (40, 1))),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pens") / "pens.jsonl.xz"
    with lzma.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(one) + "\n" for one in ROWS)
    return path


@pytest.fixture(scope="module")
def pens(file: Path) -> Pens:
    return Pens(file)


def test_writers_come_equally_often_whatever_they_wrote(pens: Pens):
    rng = np.random.default_rng(0)
    texts = [pens.draw("word", pens.writer("word", rng), rng).text for _ in range(600)]
    assert {text: texts.count(text) for text in ("many", "few", "so")} == pytest.approx(
        {"many": 200, "few": 200, "so": 200}, rel=0.2
    )


def test_signs_of_the_collection_are_no_text(pens: Pens):
    rng = np.random.default_rng(0)
    assert {pens.draw("word", 3, rng).text for _ in range(20)} == {"so"}
    assert pens.draw("text", 1, rng).text == "a line, of words"


@pytest.mark.parametrize(
    "text, above, below",
    [("aces", 0, 0), ("bed", 1, 0), ("gap", 0, 1), ("help", 1, 1), ("7", 1, 0), ("Gy", 1, 1)],
)
def test_the_baseline_is_where_the_letters_put_it(text: str, above: int, below: int):
    x_height, baseline = frame_of(text, 100.0)
    assert x_height == pytest.approx(100 / (1 + 0.9 * above + 0.75 * below))
    assert baseline == pytest.approx(100 - 0.75 * below * x_height)


def test_ink_is_in_em_from_the_left_end_of_the_baseline(pens: Pens):
    ink = pens.draw("word", 2, np.random.default_rng(0))  # "few", which rises and does not hang
    points = np.concatenate(ink.strokes)
    assert points[:, 0].min() == 0 and points[:, 1].max() == pytest.approx(0, abs=1e-5)
    assert np.ptp(points[:, 1]) == pytest.approx(1.9 * X_HEIGHT) and len(ink.strokes) == 2
    assert ink.width == pytest.approx(131 / 90 * 1.9 * X_HEIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_line_is_drawn_and_is_the_same_for_the_same_generator(file: Path, kind: str):
    lines = PenLines(file, ["ab"])
    settings = Settings(max_width=280, degrade=0.5)
    for seed in range(6):
        image, text = lines.sample(np.random.default_rng(seed), settings, {kind: 1.0})
        again = lines.sample(np.random.default_rng(seed), settings, {kind: 1.0})
        assert np.array_equal(image, again[0]) and text == again[1]
        assert image.dtype == np.uint8 and image.ndim == 2 and np.ptp(image) > 20 and text == text.strip() != ""
    known = {"word": {"many", "few", "so"}, "text": {"a line, of words"}, "single": set("ab7T-")}
    if kind in known:
        assert text in known[kind]
    if kind == "spelt":
        assert set(text.split()) == {"ab"}
    if kind == "words":
        assert set(text.split()) <= known["word"]


def test_a_line_of_words_is_of_one_writer(file: Path):
    lines, settings = PenLines(file), Settings(max_width=600, degrade=0.0)
    texts = [lines.sample(np.random.default_rng(seed), settings, {"words": 1.0})[1] for seed in range(30)]
    assert all(len(set(text.split())) == 1 for text in texts) and any(" " in text for text in texts)


def test_a_file_that_holds_no_pens_is_named(tmp_path: Path):
    path = tmp_path / "pens.jsonl.xz"
    with pytest.raises(ConfigurationError, match=r"pens\.jsonl\.xz: not a file of pen trajectories"):
        Pens(path)
    path.write_bytes(lzma.compress(b'{"kind": "word"}\n'))
    with pytest.raises(ConfigurationError, match=r"pens\.jsonl\.xz"):
        Pens(path)
