"""The picture of a line: straight and upright whatever its polygon, without the neighbours' ink."""

import cv2
import numpy as np
import pytest

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image.straighten import cut_line, cut_line_picture

PAPER, INK = 230, 20


def strip(width: int = 600, height: int = 60) -> np.ndarray:
    """Grey paper with words on one baseline at 2/3 of the height, uint8 (height, width, 3)."""
    line = np.full((height, width, 3), PAPER, np.uint8)
    cv2.putText(line, "straight words", (20, height * 2 // 3), cv2.FONT_HERSHEY_SIMPLEX, height / 50, (INK,) * 3, 3)
    return cv2.GaussianBlur(line, (5, 5), 0)


def page_with(line: np.ndarray, to_page) -> np.ndarray:
    """A page of 700x500 px with the strip at `to_page(x, y)` (arrays of strip px -> page px), drawn point by point."""
    page = np.full((500, 700, 3), PAPER, np.uint8)
    height, width = line.shape[:2]
    y, x = np.mgrid[0 : height - 0.25 : 0.25, 0 : width - 0.25 : 0.25]
    at = np.stack(to_page(x, y))
    page[at[1].astype(int), at[0].astype(int)] = line[y.astype(int), x.astype(int)]
    return page


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The mean difference of two pictures at the size of the first, in grey levels."""
    other = cv2.resize(other, one.shape[1::-1], interpolation=cv2.INTER_AREA)
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def edge(to_page, line: np.ndarray, steps: int = 30) -> list[tuple[float, float]]:
    """The outline of the strip on the page, clockwise."""
    height, width = line.shape[:2]
    x = np.linspace(0, width, steps)
    upper, lower = np.stack(to_page(x, 0 * x)), np.stack(to_page(x, 0 * x + height))
    return [tuple(point) for point in [*upper.T.tolist(), *lower.T[::-1].tolist()]]


def bent(x, y):
    """Along a slow arc, 60 px deep."""
    return x + 50, y + 150 + 60 * np.sin(np.pi * x / 600)


def rotated(x, y, angle=0.2):
    return 60 + x * np.cos(angle) - y * np.sin(angle), 150 + x * np.sin(angle) + y * np.cos(angle)


def converging(x, y):
    """Half as high at its right end."""
    return x + 50, 200 + (y - 30) * (1 - x / 1200)


def test_an_upright_rectangle_is_its_pixels():
    page = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    for corners in ([(10, 5), (70, 5), (70, 25), (10, 25)], [(70, 25), (10, 25), (10, 5), (70, 5)]):
        line = cut_line(page, corners)
        assert np.array_equal(line, page[5:25, 10:70])
        assert not np.shares_memory(line, page)
    assert np.array_equal(cut_line(page[:, :, 0], [(0, 0), (80, 0), (80, 50), (0, 50)]), page[:, :, 0])


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("place", [rotated, converging])
def test_rotation_and_perspective_are_taken_out(place, turn, start):
    line = strip()
    corners = np.roll(np.array(edge(place, line, steps=2)), start, axis=0)[::turn]
    cut = cut_line(page_with(line, place), corners.tolist())
    assert abs(cut.shape[0] - 60) <= 2 and abs(cut.shape[1] - 600) <= 2
    assert difference(line, cut) < 6
    assert difference(line, np.full_like(cut, PAPER)) > 14  # what a picture of nothing would have


@pytest.mark.parametrize("with_baseline", [True, False])
@pytest.mark.parametrize("place", [bent, rotated])
def test_a_long_polygon_becomes_straight(place, with_baseline):
    line = strip()
    x = np.linspace(0, 600, 12)
    baseline = np.stack(place(x, 0 * x + 40)).T.tolist() if with_baseline else None
    cut = cut_line(page_with(line, place), edge(place, line), baseline)
    ink = np.argwhere(cut[:, :, 0] < 100)
    height = ink[:, 0].max() - ink[:, 0].min()
    assert height < 52  # upright letters and descenders; 60 px more as the line lies on the page
    assert difference(line, cut) < (7 if with_baseline else 12)


def test_a_baseline_to_the_left_turns_the_picture():
    line = strip()
    upside_down = page_with(line, lambda x, y: (650 - x, 250 - y))
    cut = cut_line(upside_down, [(50, 190), (650, 190), (650, 250), (50, 250)], [(650, 210), (50, 210)])
    assert difference(line, cut) < 6


def test_ink_outside_the_polygon_becomes_paper():
    page = np.full((200, 400, 3), (200, 210, 220), np.uint8)
    cv2.line(page, (20, 100), (380, 100), (INK,) * 3, 5)  # the line's own
    cv2.line(page, (20, 76), (380, 76), (0, 0, 0), 5)  # a neighbour's, above the polygon but for its middle
    polygon = [(10, 84), (180, 84), (190, 60), (210, 60), (220, 84), (390, 84), (390, 120), (10, 120)]
    cut = cut_line(page, polygon)
    dark = np.argwhere(cut.max(axis=2) < 10)  # the neighbour's
    assert 0 < len(dark) < 60 * 5  # where the polygon reaches up, and only there
    assert dark[:, 1].min() > 160 and dark[:, 1].max() < 220
    assert (cut[3, 20] == (200, 210, 220)).all()
    assert (cut.min(axis=2) < 50).sum() > 300 * 4  # the line's own ink is there


@pytest.mark.parametrize("shape", ["box", "polygon"])
def test_a_margin_shows_what_a_tight_box_cuts_off_but_not_the_neighbours(shape):
    page = np.full((200, 400, 3), PAPER, np.uint8)
    page[90:110, 100:300] = INK  # the line's body
    page[82:90, 150:160] = INK  # an ascender above its box
    page[70:84, 200:260] = 0  # the neighbour's
    box = [(90, 88), (310, 88), (310, 112), (90, 112)]
    polygon = box if shape == "box" else [*box[:2], (310, 100), *box[2:]]
    neighbour = np.array([[190, 60], [270, 60], [270, 85], [190, 85]], float)
    tight = cut_line_picture(page, polygon)
    wide = cut_line_picture(page, polygon, margin=0.5, neighbours=[neighbour])
    assert abs(wide.pixels.shape[0] - 48) <= 1 and abs(wide.pixels.shape[1] - 244) <= 1
    ink = (wide.pixels[:, :, 0] < 100).sum()
    assert abs(ink - (20 * 200 + 8 * 10)) < 60  # the whole ascender and nothing of the neighbour
    assert (tight.pixels[:, :, 0] < 100).sum() < 20 * 200 + 2 * 10 + 60
    assert np.abs(wide.on_page([(0, 0)]) - (78, 76)).max() < 2
    unmasked = cut_line_picture(page, polygon, margin=0.5)
    assert (unmasked.pixels[:, :, 0] < 100).sum() > ink + 300


def test_the_colour_of_the_paper_follows_the_page():
    page = np.repeat(np.linspace(90, 250, 800).astype(np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    polygon = [(0, 40), (400, 60), (800, 40), (800, 80), (400, 100), (0, 80)]
    cut = cut_line(page, polygon, [(0, 75), (800, 75)])
    assert np.abs(cut[0].astype(int) - page[0].astype(int)).max() < 30  # one colour for all would differ by 80


@pytest.mark.parametrize("place", [rotated, converging, bent])
def test_points_of_the_picture_are_found_on_the_page(place):
    line = strip()
    picture = cut_line_picture(page_with(line, place), edge(place, line, steps=2 if place is not bent else 30))
    height, width = picture.pixels.shape[:2]
    x, y = np.array([0.0, 200.0, 450.0, 600.0]), np.array([0.0, 20.0, 60.0, 30.0])
    found = picture.on_page(np.stack([x / 600 * width, y / 60 * height], axis=1))
    assert np.abs(found - np.stack(place(x, y)).T).max() < (13 if place is bent else 3)  # an arc is no shear


def test_what_is_no_baseline_is_an_error():
    polygon = [(10, 10), (90, 10), (90, 40), (10, 40)]
    for baseline in ([(10, 35), "ab"], [(10, 35), (1, 2, 3)]):
        with pytest.raises(ImageError, match="a baseline that is not a list"):
            cut_line(np.zeros((50, 100, 3), np.uint8), polygon, baseline)
    with pytest.raises(ImageError, match=r"a baseline of shape \(3,\): finite"):
        cut_line(np.zeros((50, 100, 3), np.uint8), polygon, [1, 2, 3])


@pytest.mark.parametrize(
    ("polygon", "says"),
    [
        ([], "three or more"),
        ([(0, 0), (5, 5)], "three or more"),
        ([(0, 0, 1), (5, 5, 1), (3, 4, 1)], "three or more"),
        ([(0, 0), (float("nan"), 5), (3, 4)], "finite"),
        ([(0, 0), "ab", (3, 4)], "not a list"),
        ([(5, 5), (40, 5), (20, 5)], "less than a pixel"),
        ([(200, 5), (240, 5), (240, 25)], "outside the page of 100x50 px"),
        ([(0, 0), (1e9, 0), (1e9, 1e9), (0, 1e9)], "outside the page"),
        ([(-30, 5), (20, 5), (20, 25), (-30, 25)], "outside the page"),
    ],
)
def test_what_is_no_polygon_of_the_page_is_an_error(polygon, says):
    with pytest.raises(ImageError, match=says):
        cut_line(np.zeros((50, 100, 3), np.uint8), polygon)


def test_a_polygon_may_reach_over_the_edge():
    page = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    assert np.array_equal(cut_line(page, [(-3, -2), (83, -2), (83, 20), (-3, 20)]), page[:20])


def test_any_polygon_gives_a_picture_or_an_error():
    random = np.random.default_rng(1)
    page = random.integers(0, 256, (60, 90, 3), np.uint8)
    pictures = 0
    for _ in range(500):
        polygon = random.normal((45, 30), random.uniform(0.3, 40), (random.integers(3, 9), 2)).tolist()
        baseline = random.normal((45, 30), 20, (random.integers(0, 4), 2)) if random.random() < 0.5 else None
        try:
            picture = cut_line(page, polygon, baseline)
        except ImageError:
            continue
        assert picture.dtype == np.uint8 and picture.size and max(picture.shape) < 2 * (60 + 90)
        pictures += 1
    assert pictures > 200
