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


LAYOUTS = {  # boxes in the order they should be read
    "a date at the right above all": [(700, 0, 900, 40), (0, 100, 500, 140), (0, 200, 950, 240)],
    "a column that begins lower": [(0, 50, 400, 90), (0, 100, 400, 140), (500, 0, 950, 40), (500, 60, 950, 100)],
    "what stands above a line of the left column": [
        (0, 0, 290, 40),
        (500, 200, 690, 240),
        (200, 300, 590, 340),
        (900, 0, 1090, 40),
    ],
    "columns that touch": [(0, 0, 460, 40), (0, 50, 460, 90), (400, -5, 800, 35), (400, 45, 800, 85)],
    "lines below each other that share little": [(400, 0, 800, 40), (0, 50, 500, 90), (400, 100, 800, 140)],
    "a row far at the right": [(1000, 10, 1300, 40), (1310, 0, 1480, 30)],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_read_as_people_do(name):
    boxes = [box(*one) for one in LAYOUTS[name]]
    assert reading_order(boxes) == list(range(len(boxes)))
    assert reading_order(boxes[::-1]) == list(range(len(boxes)))[::-1]


def test_order_depends_on_neither_place_nor_scale_nor_the_way_of_writing():
    """Moved, enlarged, or turned to the right and read as columns: all by whole numbers, so that nothing is rounded."""
    random = np.random.default_rng(1)
    layouts = [[box(*one) for one in boxes] for boxes in (*LAYOUTS.values(), COLUMNS.values())]
    for _ in range(40):
        corners = random.integers(0, 1000, (int(random.integers(2, 12)), 2))
        layouts.append([box(x, y, x + w, y + 40) for (x, y), w in zip(corners, random.integers(20, 600, len(corners)))])
    for polygons in layouts:
        order = reading_order(polygons)
        assert reading_order([polygon + (3000, 2000) for polygon in polygons]) == order
        assert reading_order([polygon * 8 for polygon in polygons]) == order
        assert reading_order([polygon[:, ::-1] * (-1, 1) for polygon in polygons], "vertical") == order


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
    lower = turned(np.array([[800, 38], [605, 38], [600, 44], [320, 44], [300, 40], [0, 40]], float), degrees)
    assert np.allclose(line, np.vstack([upper, lower]))


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


NEAR_AND_FAR = [  # two boxes right of (0, 0, 300, 40): the first continues it just so, the second not any more
    (box(338, 0, 600, 40), box(342, 0, 600, 40)),  # a gap of the line's height
    (box(324, 8, 600, 33), box(327, 8, 600, 33)),  # of the lower one's
    (box(310, 18, 600, 58), box(310, 22, 600, 62)),  # half of the height in common
    (box(310, 19, 600, 39), box(310, 31, 600, 51)),  # half of the lower one's
    (box(310, -19, 600, 59), box(310, -22, 600, 62)),  # twice as high
    (box(262, 0, 600, 40), box(258, 0, 600, 40)),  # over it by the height
    (turned(box(0, -20, 300, 20), 8) + (310, 20), turned(box(0, -20, 300, 20), 12) + (310, 20)),
]


@pytest.mark.parametrize("near, far", NEAR_AND_FAR)
def test_boxes_are_joined_up_to_a_limit(near, far):
    first = box(0, 0, 300, 40)
    for scale in (1, 20):
        assert [len(one) for one in join_boxes([first * scale, near * scale])] == [8]
        assert [len(one) for one in join_boxes([first * scale, far * scale])] == [4, 4]


def test_of_two_lines_the_nearer_one_is_continued():
    upper, lower, last = box(0, 0, 300, 40), box(90, 15, 310, 55), box(320, 8, 600, 48)
    assert [one[:, 0].max() for one in join_boxes([upper, lower, last])] == [300, 600]
    upper, lower = box(0, 0, 310, 40), box(90, 15, 300, 55)
    assert [one[:, 0].max() for one in join_boxes([upper, lower, last])] == [600, 300]


def test_the_middle_of_a_slanted_box_counts():
    """Edges of unequal height and length: the means of both sides are compared."""
    slanted = np.array([[0, 10], [300, -10], [300, 50], [0, 30]], float)  # 20 px high at the left, 60 at the right
    assert len(join_boxes([slanted, box(338, 0, 600, 40)])) == 1
    assert len(join_boxes([slanted, box(342, 0, 600, 40)])) == 2
    steep = turned(box(0, 0, 300, 40), 40), turned(box(310, 0, 600, 40), 40)
    assert len(join_boxes(steep)) == 1
    steep = turned(box(0, 0, 300, 40), 50), turned(box(310, 0, 600, 40), 50)
    assert len(join_boxes(steep)) == 2


def test_columns_that_run_down_stay_apart_and_a_narrow_letter_does_not():
    for place in (0, 900):
        columns = [box(0, 0, 30, 300) + place, box(40, 0, 70, 300) + place]
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


def test_stacked_characters_stand_in_the_middle_of_paper(column):
    stacked = next(laid_out(cut_line_picture(column, [(0, 0), (50, 0), (50, 250), (0, 250)])))
    heights = np.diff(stacked.y)
    assert stacked.pixels.shape == (heights.max(), 250, 3)
    for index, (top, height) in enumerate(zip(stacked.y, heights)):
        above = (heights.max() - height) // 2
        cell = stacked.pixels[:, 50 * index : 50 * (index + 1)]
        assert (cell[above : above + height] == column[top : top + height]).all()
        assert (cell[:above] == 230).all() and (cell[above + height :] == 230).all()


def cuts_of(ink: list[int], width: int) -> list[int]:
    """Where a column is cut whose rows hold so much ink."""
    rows = np.full((len(ink), width, 3), 255, np.uint8)
    for row, amount in zip(rows, ink):
        row[:amount] = 0
    corners = [(0, 0), (width, 0), (width, len(ink)), (0, len(ink))]
    return next(laid_out(cut_line_picture(rows, corners))).y.tolist()


def test_of_cuts_through_paper_those_are_taken_that_leave_squares():
    ink = [3 if 3 <= row % 10 <= 6 else 0 for row in range(40)]
    assert cuts_of(ink, 10) == [0, 10, 20, 30, 40]
    assert cuts_of(ink * 2, 10) == list(range(0, 81, 10))


def test_a_cut_goes_through_paper_rather_than_ink():
    ink = [3] * 40
    ink[13] = ink[26] = 0
    assert cuts_of(ink, 10) == [0, 13, 26, 40]
    ink[10] = 1  # nearly as little: between squares and paper the sum decides
    assert cuts_of(ink, 10) == [0, 13, 26, 40]


def test_the_sum_of_shapes_and_ink_decides_where_a_column_is_cut():
    """Of columns 20 px wide: pieces are 10 to 32 px high, a cut through the mean of ink costs as much as no height."""
    ink = [3] * 36
    ink[5] = 0  # paper, but too near to the end
    assert cuts_of(ink, 20) == [0, 18, 36]
    ink = [3] * 65
    ink[28] = ink[33] = 0  # paper, but too near to each other; one cut alone would leave more than 32 px
    assert cuts_of(ink, 20) in ([0, 28, 46, 65], [0, 28, 47, 65])
    ink = [3] * 38
    ink[10], ink[19] = 0, 1  # paper that leaves 10 and 28 px, and little ink in the middle
    assert cuts_of(ink, 20) == [0, 19, 38]


def test_pieces_are_from_half_to_one_and_a_half_times_as_high_as_wide():
    """But for the last, which may be lower."""
    random = np.random.default_rng(0)
    for height in (9, 47, 48, 60, 200, 333):
        pieces = np.diff(cuts_of(random.integers(0, 6, height).tolist(), 20))
        assert (pieces <= 32).all() and (pieces[:-1] >= 10).all() and pieces.sum() == height


@pytest.mark.parametrize("height", [1, 20, 76, 110, 999])
def test_columns_of_any_height_are_cut_into_all_their_rows(height):
    noise = np.random.default_rng(0).integers(0, 256, (height, 50, 3), np.uint8)
    stacked = next(iter(laid_out(cut_line_picture(noise, [(0, 0), (50, 0), (50, height), (0, height)]))))
    assert stacked.y[0] == 0 and stacked.y[-1] == height and (np.diff(stacked.y) > 0).all()
    assert stacked.pixels.shape[1] == 50 * (len(stacked.y) - 1)
