"""Test-time augmentation: views of lines, and what several readings of a line agree on."""

import pickle

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.bulk import ReadLines
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.geometry import CHUNKED, WHOLE, Layout
from ms_ocr_handwritten.image import LineCanvas, line_canvas
from ms_ocr_handwritten.image.views import VIEWS, View, view_canvas
from ms_ocr_handwritten.line import Line
from ms_ocr_handwritten.reading import least_risk


def written(text: str, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Text in a picture 72 px high, BGR; noise of that standard deviation makes a network doubt it."""
    paper = np.full((72, 34 * len(text) + 30), 235, np.uint8)
    image = cv2.putText(paper, text, (12, 52), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.6, 30, 3, cv2.LINE_AA).astype(float)
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


LINES = [written("Hello", 60), written("2026", 0), written("minimum wage", 90, 1), written("of", 70, 2)]


def framed(view: View, rgb: np.ndarray, layout: Layout = CHUNKED) -> LineCanvas:
    return view_canvas(line_canvas(rgb, layout), view.scaled(rgb, layout))


@pytest.fixture(scope="module")
def plain() -> Recognizer:
    return Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", augment_below=0)


@pytest.fixture(scope="module")
def careful() -> Recognizer:
    return Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", augment_below=0.95)


@pytest.mark.parametrize("layout", [CHUNKED, WHOLE])
@pytest.mark.parametrize("view", VIEWS)
def test_a_stroke_in_a_view_lies_where_it_is_in_the_picture(view, layout):
    rgb = np.full((100, 700, 3), 255, np.uint8)
    rgb[:, 400:404] = 0
    canvas = framed(view, rgb, layout)
    assert (canvas.source_width, canvas.source_height) == (700, 100)
    assert canvas.source_x(canvas.grey[16, : canvas.width].argmin() + 0.5) == pytest.approx(402, abs=3)
    assert not canvas.grey[:, canvas.width :].any() and canvas.grey.shape[1] == layout.inked_width(canvas.width)


def test_margins_are_cut_off_and_added_with_the_height_for_measure():
    rgb = np.full((100, 320, 3), 255, np.uint8)
    rgb[10:12] = 0  # a rule near the upper edge
    closer, wider = (framed(View(margin=margin), rgb) for margin in (-0.1, 0.1))
    assert closer.grey[0, 5] < 0.5 and closer.width == round(320 * 32 / 80)
    assert wider.grey[:, 5].argmin() == 5 and wider.width == int(320 * 32 / 120)
    assert framed(View(stretch=1.25), rgb).width == round(line_canvas(rgb).width * 1.25)


def test_no_view_is_wider_than_a_canvas_can_be_or_has_no_width():
    longest = np.full((32, CHUNKED.longest, 3), 255, np.uint8)
    assert [framed(view, longest).width for view in VIEWS if view.stretch > 1] == [CHUNKED.longest]
    assert all(framed(view, np.full((32, 1, 3), 255, np.uint8)).width == 1 for view in VIEWS)


def test_least_risk_is_the_reading_nearest_to_all():
    def read(*texts_and_scores):
        return least_risk([Line(text, score, ()) for text, score in texts_and_scores])

    assert read(("cat", 0.9), ("hat", 0.5), ("hats", 0.5)) == Line("hat", 0.5, ())  # 0.9 + 0.5; cat: 0.5 + 1.0
    assert read(("cat", 0.9), ("dog", 0.8)).text == "cat"
    assert read(("", 0.3), ("on", 0.9), ("or", 0.2)).text == "on"
    assert read(("same", 0.4), ("other", 0.1), ("same", 0.7)).score == 0.7


@pytest.mark.parametrize("asked", [{}, {"n_best": 3}, {"allowed": "0123456789"}])
def test_lines_in_doubt_are_read_as_their_views_agree(plain, careful, asked):
    expected = []
    for image in LINES:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        first = plain.read(image, **asked)
        if first.score >= 0.95:
            expected.append(first.text)
            continue
        readings = [first]
        for view in VIEWS:  # the same by pictures that are made for the purpose, of which a canvas is a mere copy
            grey = framed(view, rgb)
            picture = np.repeat((grey.grey[:, : grey.width] * 255).round().astype(np.uint8)[..., None], 3, axis=2)
            readings.append(plain.read(picture, **asked))
        risks = [sum(b.score * edits(a.text, b.text) for b in readings) for a in readings]
        least = [line for line, risk in zip(readings, risks) if risk <= min(risks) + 1e-9]
        expected.append(max(least, key=lambda line: line.score).text)
    texts = [line.text for line in careful.read_many(LINES, **asked)]
    assert texts == expected == [careful.read(image, **asked).text for image in LINES]
    if not asked:
        assert texts != [line.text for line in plain.read_many(LINES)]


def edits(a: str, b: str) -> int:
    """Levenshtein's distance, written down once more."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def test_sure_lines_are_read_once(plain):
    careful = Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", augment_below=0.5)
    assert careful.read(LINES[1]) == plain.read(LINES[1]) and plain.read(LINES[1]).score > 0.5


def test_positions_are_those_of_the_picture(careful):
    line = careful.read(written("Hello", 60))
    assert line.chars and all(0 <= char.x0 <= char.x1 <= 34 * 5 + 30 for char in line.chars)
    middles = [(char.x0 + char.x1) / 2 for char in line.chars]
    first, last = np.flatnonzero((written("Hello") < 128).any((0, 2)))[[0, -1]]
    letter = (last - first) / 5
    assert middles == sorted(middles)
    assert first < middles[0] < first + letter and last - letter < middles[-1] < last


def test_the_configuration_decides_where_nothing_is_said():
    below = Configuration.load(default_model_dir()).decoder.augment_below
    assert 0 < below < 1
    recognizer = Recognizer.from_pretrained(default_model_dir(), "torch")
    assert recognizer.augment_below == pickle.loads(pickle.dumps(recognizer)).augment_below == below
    assert (
        pickle.loads(pickle.dumps(Recognizer.from_pretrained(default_model_dir(), augment_below=0.3))).augment_below
        == 0.3
    )
    assert Configuration.parse({}).decoder.augment_below == 0.0


@pytest.mark.parametrize("score", [-0.1, 1, float("nan")])
def test_a_score_that_is_none_is_refused(score):
    with pytest.raises(ConfigurationError, match="augment_below is"):
        Recognizer.from_pretrained(default_model_dir(), augment_below=score)
    with pytest.raises(ConfigurationError, match=r"decoder\.augment_below"):
        Configuration.parse({"decoder": {"augment_below": score}})


def test_command_line_and_rows_take_it(tmp_path, plain, careful):
    cv2.imwrite(str(tmp_path / "line.png"), LINES[0])
    texts = {}
    for below in ("0", "0.95"):
        words = ["recognize", str(tmp_path / "line.png"), "--backend", "torch", "--precision", "fp32"]
        result = CliRunner().invoke(main, [*words, "--augment-below", below])
        texts[below] = result.stdout.removesuffix("\n")
    assert texts == {"0": plain.read(LINES[0]).text, "0.95": careful.read(LINES[0]).text}
    reader = ReadLines(backend="torch", precision="fp32", augment_below=0.95)
    assert reader({"image": [LINES[0]]})["text"] == [careful.read(LINES[0]).text]
