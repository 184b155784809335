"""Margins: where ink is found, what is cut away and what is not, what is warned of, and what an empty text is worth."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from rapidfuzz.distance import Levenshtein

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.image import load_image
from ms_ocr_handwritten.image.margins import Ink, advice, find_ink, inked_columns, thumbnail, trimmed

LINES = {name: load_image(ROOT / "examples" / "lines" / f"{name}.png") for name in ("english", "chinese")}


def framed(rgb: np.ndarray, margin: int) -> np.ndarray:
    """With more of its paper around it."""
    return cv2.copyMakeBorder(rgb, *[margin] * 4, cv2.BORDER_CONSTANT, value=[int(np.median(rgb))] * 3)


def bars(*boxes: tuple[int, int, int, int], size=(100, 400), paper: int = 235, ink: int = 40) -> np.ndarray:
    """Rectangles (left, top, right, bottom) on paper: RGB uint8."""
    picture = np.full((*size, 3), paper, np.uint8)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = ink
    return picture


def pickets(left: int, top: int, right: int, bottom: int) -> list[tuple[int, int, int, int]]:
    """Upright strokes of 3 px: as high as a line and as thin as its strokes."""
    return [(x, top, x + 3, bottom) for x in range(left, right, 10)]


@pytest.mark.parametrize("paper, ink", [(235, 40), (30, 220), (200, 150)])
def test_ink_is_found_dark_on_light_and_light_on_dark(paper, ink):
    found = find_ink(bars(*pickets(50, 40, 250, 64), paper=paper, ink=ink))
    assert (found.left, found.top, found.right, found.bottom) == (50, 40, 243, 64)
    assert found.lines == 1 and found.is_line and found.share == pytest.approx(0.24)


def test_ink_on_paper_that_is_not_even_and_not_clean():
    random = np.random.default_rng(0)
    picture = bars(*pickets(50, 40, 250, 64), (300, 5, 301, 6)).astype(float)  # and a speck
    picture -= np.linspace(0, 60, 400)[None, :, None]  # a shadow
    picture += random.normal(0, 3, picture.shape)
    found = find_ink(np.clip(picture, 0, 255).astype(np.uint8))
    assert np.abs(np.array([found.left, found.top, found.right, found.bottom]) - [50, 40, 243, 64]).max() <= 2


@pytest.mark.parametrize("down, along", [(1, 1), (3, 3), (7, 7), (4, 9), (9, 4)])
def test_ink_of_a_large_picture_is_held_by_its_box(down, along):
    """Found in a smaller one, of WORKING_PIXELS: within two px of that one."""
    picture = bars(*pickets(50, 40, 250, 64), (80, 70, 83, 94), size=(130, 400))
    picture = picture.repeat(down, axis=0).repeat(along, axis=1)
    small, found = thumbnail(picture), find_ink(picture)
    y, x = picture.shape[0] / small.shape[0], picture.shape[1] / small.shape[1]
    assert small.size <= 100_300 and (x == pytest.approx(y, rel=0.02))
    assert np.abs([found.left - 50 * along, found.right - 243 * along]).max() <= 2 * x - 1
    assert np.abs([found.top - 40 * down, found.bottom - 94 * down]).max() <= 2 * y - 1
    assert found.picture_height == 130 * down and len(found.bands) == 2
    assert np.abs(np.array(found.bands) - 24 * down).max() <= 2 * y + 1
    assert found.width == found.right - found.left and found.share == (found.bottom - found.top) / (130 * down)


def test_strokes_are_as_thick_as_they_are_on_the_picture():
    for times in (1, 3, 7):
        found = find_ink(bars(*pickets(50, 40, 250, 64)).repeat(times, axis=0).repeat(times, axis=1))
        assert found.stroke == pytest.approx(3 * times, rel=0.5)


def test_single_specks_are_no_ink_and_spots_are():
    assert find_ink(bars((100, 40, 101, 42))) is None
    spot = find_ink(bars((100, 40, 101, 43), (300, 80, 301, 82)))
    assert (spot.left, spot.top, spot.right, spot.bottom, spot.bands) == (100, 40, 101, 43, (3,))
    assert inked_columns(bars((100, 40, 120, 60))[:, :, 0]) == pytest.approx(20 / 400, abs=2 / 400)


def ink_of(*bands: int, width: int = 400, stroke: float = 3.0, height: int = 50, picture_height: int = 100) -> Ink:
    return Ink(10, 20, 10 + width, 20 + height, stroke, bands, picture_height)


@pytest.mark.parametrize(
    "ink, lines",
    [
        (ink_of(40), 1),
        (ink_of(40, 40, 30), 3),
        (ink_of(40, 16), 2),  # 40 % of the highest
        (ink_of(40, 15), 1),
        (ink_of(40, 30, stroke=7.5), 2),  # four strokes
        (ink_of(40, 29, stroke=7.5), 1),
        (ink_of(40, 40, width=120), 2),  # three times as long as high
        (ink_of(40, 40, width=119), 1),
        (ink_of(40, 40, stroke=11), 1),
    ],
)
def test_lines_above_each_other_are_counted(ink, lines):
    assert ink.lines == lines


def test_where_advice_and_trimming_begin():
    assert ink_of(40, stroke=10).is_line and not ink_of(40, stroke=10.5).is_line
    assert "takes 49% of its height" in advice(ink_of(40, height=49)) and advice(ink_of(40, height=50)) is None
    assert advice(ink_of(40, height=10, stroke=11)) is None
    picture = np.zeros((100, 500, 3), np.uint8)
    assert trimmed(picture, ink_of(40, height=61))[0] is picture
    crop, left = trimmed(picture, ink_of(40, height=60))  # 9 px remain around it
    assert crop.shape == (78, 418, 3) and left == 1
    crop, left = trimmed(picture, ink_of(40, height=60, width=485))  # as far as the picture goes
    assert crop.shape == (78, 494 + 5, 3) and left == 1
    crop, left = trimmed(picture, ink_of(5, height=5, width=8, stroke=1.0))  # 1 px at least
    assert crop.shape == (7, 10, 3) and left == 9


@pytest.mark.parametrize("picture", [bars(), bars((100, 40, 200, 60), ink=225)])
def test_paper_without_ink(picture):
    assert find_ink(picture) is None and advice(None) is None
    assert trimmed(picture, None)[0] is picture


@pytest.mark.parametrize(
    "boxes, kept",
    [
        (pickets(50, 40, 250, 64), (36, 46, 68, 247)),  # 15 % of 24 px remain around it
        (pickets(50, 10, 250, 90), None),  # it fills its picture
        ([(150, 48, 250, 54)], None),  # a dash
        ([(150, 40, 250, 45), (140, 60, 260, 65)], None),  # two of them: 二
        (pickets(50, 20, 250, 40) + pickets(50, 60, 250, 80), None),  # two lines
        (pickets(150, 40, 171, 56), (37, 147, 59, 176)),  # few characters: not higher than wide
    ],
)
def test_what_is_cut_away(boxes, kept):
    picture = bars(*boxes)
    crop, left = trimmed(picture, find_ink(picture))
    if kept is None:
        assert crop is picture and left == 0
        return
    top, first, bottom, end = kept
    assert left == first
    np.testing.assert_array_equal(crop, picture[top:bottom, first:end])


@pytest.mark.parametrize(
    "boxes, reason",
    [
        (
            pickets(50, 40, 250, 64),
            "has wide margins (ink takes 24% of its height); crop it closer, or set trim='auto'",
        ),
        (pickets(50, 20, 250, 40) + pickets(50, 60, 250, 80), "about 2 lines of writing above each other"),
        (pickets(50, 20, 250, 80), None),
        ([(150, 40, 250, 45), (140, 60, 260, 65)], None),
        (pickets(50, 30, 250, 80) + [(60, 10, 63, 14)], None),  # an accent is no line
        (pickets(50, 10, 90, 40) + pickets(50, 60, 90, 90), None),  # 多
    ],
)
def test_what_is_said(boxes, reason):
    said = advice(find_ink(bars(*boxes)))
    assert said is None if reason is None else reason in said


# ------------------------------------------------------------------ with the embedded model


@pytest.fixture(scope="module")
def readers():
    return {
        trim: Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", device="cpu", trim=trim)
        for trim in ("never", "auto")
    }


@pytest.mark.parametrize("name", LINES)
def test_a_line_in_wide_margins_reads_as_without_them(readers, name):
    expected = readers["never"].read(cv2.cvtColor(LINES[name], cv2.COLOR_RGB2BGR))
    for margin in (40, 60, 120):
        picture = cv2.cvtColor(framed(LINES[name], margin), cv2.COLOR_RGB2BGR)
        line = readers["auto"].read(picture)
        assert Levenshtein.distance(line.text, expected.text) <= 2  # its height is not quite the same
        for char, unframed in zip((line.chars[0], line.chars[-1]), (expected.chars[0], expected.chars[-1])):
            assert abs(char.x0 - margin - unframed.x0) < 20  # px of the picture with its margins
        if margin == 120:  # or there was nothing to mend
            assert Levenshtein.distance(readers["never"].read(picture).text, expected.text) > 3


def test_a_line_that_fills_its_picture_is_read_as_upstream_reads_it(readers):
    for rgb in LINES.values():
        assert readers["auto"].read(rgb) == readers["never"].read(rgb)


def test_it_warns_once_and_names_the_file(caplog, tmp_path):
    wide = framed(LINES["english"], 80)
    height, width = wide.shape[:2]
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    for picture, name in ((wide, ""), (str(tmp_path / "wide.png"), f"{tmp_path}/wide.png: ")):
        caplog.clear()
        recognizer = Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", device="cpu")
        list(recognizer.read_many([LINES["english"], picture, picture]))
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        expected = f"{name}an image of {width}x{height} px has wide margins"
        assert len(warnings) == 1 and warnings[0].startswith(expected)


def test_a_page_that_is_read_as_nothing_is_not_sure_of_it(readers):
    """Scaled to 32 px, its lines melt into one grey, which the network reads as empty paper."""
    page = np.tile(LINES["english"], (40, 3, 1))
    found, empty = readers["never"].read(page), readers["never"].read(np.full_like(page, 103))
    assert (found.text, empty.text) == ("", "")
    assert found.score < 0.5 and empty.score > 0.9


def test_trim_is_never_or_auto(tmp_path):
    with pytest.raises(ConfigurationError, match="trim is 'always'; 'never' or 'auto' expected"):
        Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", device="cpu", trim="always")
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), cv2.cvtColor(framed(LINES["english"], 120), cv2.COLOR_RGB2BGR))
    result = CliRunner().invoke(main, ["recognize", str(path), "--trim", "auto"])
    assert Levenshtein.distance(result.stdout, "the weather is fine today\n") <= 2
