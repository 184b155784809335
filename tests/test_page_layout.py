"""Joining boxes, the order of lines, and laying out lines that run down the page."""

import numpy as np
import pytest

from ms_ocr_handwritten.image.straighten import cut_line_picture
from ms_ocr_handwritten.page.join import join_boxes
from ms_ocr_handwritten.page.order import reading_order
from ms_ocr_handwritten.page.tall import laid_out


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def turned(polygon: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return polygon @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


COLUMNS = {  # name -> box, in the order they should be read
    "heading": (100, 0, 900, 40),
    "left 1": (0, 100, 450, 140),
    "left 2": (0, 150, 430, 190),
    "left 3": (0, 200, 300, 240),
    "right 1": (500, 95, 950, 135),
    "right 2": (500, 145, 950, 185),
    "across": (0, 300, 950, 340),
    "left 4": (0, 350, 450, 390),
    "right 4": (500, 352, 950, 392),
    "foot": (420, 500, 530, 540),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tilt", [-2, 0, 2])
def test_columns_are_read_one_after_the_other(seed, tilt):
    names = list(np.random.default_rng(seed).permutation(list(COLUMNS)))
    order = reading_order([turned(box(*COLUMNS[name]), tilt) for name in names])
    assert [names[index] for index in order] == list(COLUMNS)


def test_parts_of_one_row_are_read_from_left_to_right():
    order = reading_order([box(500, 8, 900, 48), box(0, 12, 300, 40), box(0, 60, 900, 100), box(310, 0, 480, 45)])
    assert order == [1, 3, 0, 2]


def test_vertical_writing_begins_at_the_right():
    columns = {
        "title": (900, 0, 940, 600),
        "one": (800, 50, 840, 300),
        "two": (800, 320, 840, 600),
        "last": (0, 0, 40, 9),
    }
    names = ["last", "two", "title", "one"]
    order = reading_order([box(*columns[name]) for name in names], "vertical")
    assert [names[index] for index in order] == ["title", "one", "two", "last"]


def test_no_line_is_lost_or_doubled_whatever_stands_where():
    random = np.random.default_rng(0)
    for count in (0, 1, 2, 60):
        corners = random.uniform(0, 100, (count, 2, 2))
        polygons = [box(*one.min(axis=0), *one.max(axis=0) + 1) for one in corners]
        assert sorted(reading_order(polygons)) == list(range(count))


@pytest.mark.parametrize("degrees", [0, 5, -8])
def test_boxes_on_one_baseline_are_joined(degrees):
    parts = [box(0, 0, 300, 40), box(320, 2, 600, 44), box(605, -2, 800, 38)]
    boxes = [turned(one, degrees) for one in [parts[1], box(0, 60, 700, 100), parts[2], parts[0]]]
    other, line = sorted(join_boxes(boxes), key=len)
    upper = turned(np.array([[0, 0], [300, 0], [320, 2], [600, 2], [605, -2], [800, -2]], float), degrees)
    assert len(line) == 12 and len(other) == 4
    assert np.allclose(line[:6], upper)


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


@pytest.mark.parametrize(
    "second",
    [
        box(350, 0, 600, 40),  # more than a character away: another column
        box(310, 30, 600, 70),  # the next line
        box(310, 0, 600, 100),  # far larger
        turned(box(310, 0, 600, 40), 20),  # in another direction
        box(100, 0, 400, 40),  # over it
    ],
)
def test_other_boxes_stay_apart(second):
    first = box(0, 0, 300, 40)
    assert_same(join_boxes([second, first]), [first, second])


def test_columns_that_run_down_stay_apart_and_a_narrow_letter_does_not():
    columns = [box(0, 0, 30, 300), box(40, 0, 70, 300)]
    assert_same(join_boxes(columns), columns)
    outline = [(0, 0), (300, 0), (310, 0), (325, 0), (325, 40), (310, 40), (300, 40), (0, 40)]
    assert_same(join_boxes([box(0, 0, 300, 40), box(310, 0, 325, 40)]), [np.array(outline, float)])


def test_polygons_of_other_shapes_are_left_as_they_are():
    triangle = np.array([[0, 0], [300, 0], [300, 40]], float)
    other = box(305, 0, 600, 40)
    assert_same(join_boxes([triangle, other]), [triangle, other])


@pytest.fixture
def column() -> np.ndarray:
    """Five dark squares of different heights below each other, uint8 (250, 50, 3), each of another grey."""
    page = np.full((250, 50, 3), 230, np.uint8)
    for index, (top, bottom) in enumerate([(5, 45), (60, 90), (105, 150), (160, 195), (205, 245)]):
        page[top:bottom, 12:38] = 20 * index
    return page


def test_upright_characters_are_set_side_by_side(column):
    picture = cut_line_picture(column, [(0, 0), (50, 0), (50, 250), (0, 250)])
    stacked, left, right = laid_out(picture)
    assert stacked.pixels.shape[1] == 5 * 50
    for index in range(5):
        cell = stacked.pixels[:, index * 50 : (index + 1) * 50]
        assert (cell == 20 * index).all(axis=2).sum() == (column == 20 * index).all(axis=2).sum()
    span = stacked.span(100, 150)  # the third
    assert span[0][1] <= 105 and span[2][1] >= 150 and span[0][1] > 85 and span[2][1] < 170
    assert (span[:, 0] == [0, 50, 50, 0]).all()
    assert left.pixels.shape == right.pixels.shape == (50, 250, 3)
    assert (left.pixels[25, 25] == 0).all() and left.span(5, 45).tolist() == [[0, 5], [50, 5], [50, 45], [0, 45]]
    assert (right.pixels[25, 225] == 0).all() and right.span(205, 245).tolist() == [[0, 5], [50, 5], [50, 45], [0, 45]]


@pytest.mark.parametrize("height", [1, 20, 76, 110, 999])
def test_columns_of_any_height_are_cut_into_all_their_rows(height):
    noise = np.random.default_rng(0).integers(0, 256, (height, 50, 3), np.uint8)
    stacked = next(iter(laid_out(cut_line_picture(noise, [(0, 0), (50, 0), (50, height), (0, height)]))))
    assert stacked.y[0] == 0 and stacked.y[-1] == height and (np.diff(stacked.y) > 0).all()
    assert stacked.pixels.shape[1] == 50 * (len(stacked.y) - 1)
