"""The picture of a line: straight and upright whatever its polygon, without the neighbours' ink."""

import cv2
import numpy as np
import pytest

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image.straighten import corners_of, cut_line, cut_line_picture

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
        corners_on_page = cut_line_picture(page, corners).on_page([(0, 0), (60, 0), (60, 20), (0, 20)])
        assert corners_on_page.tolist() == [[10, 5], [70, 5], [70, 25], [10, 25]]
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


def test_a_line_longer_than_opencv_counts_is_refused():
    page = np.zeros((12, 33_000, 3), np.uint8)
    with pytest.raises(ImageError, match="a line of 33000x9 px is over the limit of 32766 px; shrink the page"):
        cut_line(page, [(0, 1), (33_000, 2), (33_000, 11), (0, 10)])
    assert cut_line(page, [(0, 1), (32_000, 2), (32_000, 11), (0, 10)]).shape == (9, 32_000, 3)


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


# ---------------------------------------------------------------------- to a fraction of a px


MAP = np.stack([*np.meshgrid(np.arange(250), np.arange(250)), np.full((250, 250), 9)], axis=2).astype(np.uint8)
"""A page whose pixels say where they are: (x, y, 9)."""


def tilted(width: float, height: float, degrees: float, middle: tuple[float, float] = (125, 125)) -> np.ndarray:
    """The corners of a rectangle, turned clockwise on the page."""
    angle = np.deg2rad(degrees)
    along, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return middle + signs[:, :1] * width * along + signs[:, 1:] * height * down


def arc(x: np.ndarray, away: float = 0.0) -> np.ndarray:
    """Points of y = 125 + 15 cos(x / 60), `away` px below it, square to it."""
    tilt = -15 / 60 * np.sin(x / 60)
    normal = np.stack([-tilt, np.ones_like(tilt)], axis=1) / np.hypot(1, tilt)[:, None]
    return np.stack([x, 125 + 15 * np.cos(x / 60)], axis=1) + away * normal


X = np.linspace(30.0, 220.0, 60)
BAND = np.vstack([arc(X, -12), arc(X[::-1], 8)])


def assert_shows_where_it_is(picture, outline: np.ndarray | None = None) -> None:
    """Each pixel has the colour of its place on the page, but for those at the rim, or outside of `outline`."""
    height, width = picture.pixels.shape[:2]
    v, u = np.mgrid[0:height, 0:width]
    places = picture.on_page(np.stack([u.ravel() + 0.5, v.ravel() + 0.5], axis=1))
    inside = (
        np.array([cv2.pointPolygonTest(outline.astype(np.float32), point, True) > 1 for point in places.tolist()])
        if outline is not None
        else np.ones(len(places), bool)
    )
    assert inside.sum() > 0.8 * len(places)
    found = picture.pixels.reshape(-1, 3).astype(float)
    assert np.abs(found[inside, :2] - (places[inside] - 0.5)).max() < 0.6 and (found[:, 2] == 9).all()


@pytest.mark.parametrize("degrees", [-44, -10, 3, 30, 44])
def test_a_tilted_box_is_shown_as_it_stands(degrees):
    box = tilted(120, 30, degrees)
    picture = cut_line_picture(MAP, box)
    assert picture.pixels.shape == (30, 120, 3)
    assert np.allclose(picture.on_page([(0, 0), (120, 0), (120, 30), (0, 30)]), box)
    assert np.allclose(picture.span(60, 120), [(box[0] + box[1]) / 2, box[1], box[2], (box[2] + box[3]) / 2])
    assert_shows_where_it_is(picture, box)


def test_the_upper_edge_is_the_one_that_is_most_level():
    for degrees in (-44, -3, 44):
        box = tilted(120, 30, degrees)
        for turn in range(4):
            for other in (np.roll(box, turn, axis=0), np.roll(box[::-1], turn, axis=0)):
                assert np.array_equal(corners_of(other), box)
    steep = tilted(120, 30, 46)
    assert np.array_equal(corners_of(steep), np.roll(steep, 1, axis=0))
    assert np.array_equal(corners_of(tilted(120, 30, -46)), np.roll(tilted(120, 30, -46), -1, axis=0))
    assert corners_of(np.array([(0, 0), (90, 0), (20, 20), (0, 90)], float)) is None  # a dent
    assert corners_of(BAND) is None


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_a_margin_reaches_as_far_on_all_sides(margin):
    box = tilted(120, 30, 10)
    picture = cut_line_picture(MAP, box, margin=margin)
    wide = tilted(120 + 60 * margin, 30 + 60 * margin, 10)
    height, width = picture.pixels.shape[:2]
    assert (height, width) == (round(30 + 60 * margin), round(120 + 60 * margin))
    assert np.allclose(picture.on_page([(0, 0), (width, 0), (width, height), (0, height)]), wide)
    assert_shows_where_it_is(picture)


@pytest.mark.parametrize("baseline", [arc(X), None])
def test_a_line_along_an_arc_is_shown_as_it_stands(baseline):
    picture = cut_line_picture(MAP, BAND, baseline)
    height, width = picture.pixels.shape[:2]
    assert abs(height - 20) <= 1 and 195 < width < 205  # of the longer edge, between sides that lean
    for share in (0.1, 0.35, 0.5, 0.8):
        upper, lower = picture.on_page([(share * width, 0), (share * width, height)])
        for point, away in ((upper, -12), (lower, 8)):
            assert np.linalg.norm(arc(np.linspace(20, 230, 4000), away) - point, axis=1).min() < 0.6
    assert_shows_where_it_is(picture, BAND)
    wide = cut_line_picture(MAP, BAND, baseline, margin=0.25)
    assert abs(wide.pixels.shape[0] - 1.5 * height) <= 1 and abs(wide.pixels.shape[1] - width - 0.5 * height) <= 2
    assert_shows_where_it_is(wide)


def test_a_line_that_hardly_bends_is_taken_for_straight():
    """Its rails have no points between their ends: letters' ups and downs are not followed."""
    x = np.linspace(0, 200, 40)
    for depth, stations in ((1.0, True), (8.0, False)):
        y = 100 + depth * np.sin(np.pi * x / 200)
        outline = np.vstack([np.stack([x + 20, y - 15], axis=1), np.stack([x + 20, y + 15], axis=1)[::-1]])
        assert (cut_line_picture(MAP, outline).rails.shape[1] == 2) == stations


def test_a_baseline_is_followed_however_little_it_bends():
    x = np.linspace(20, 220, 40)
    sag = 0.9 * np.sin(np.pi * (x - 20) / 200)
    picture = cut_line_picture(MAP, [(20, 85), (220, 85), (220, 115), (20, 115)], np.stack([x, 105 + sag], axis=1))
    height, width = picture.pixels.shape[:2]
    edge, middle = picture.on_page([(1, height / 2), (width / 2, height / 2)])
    assert middle[1] - edge[1] == pytest.approx(0.9, abs=0.1)


def test_beyond_its_baseline_a_line_goes_on_straight():
    x = np.linspace(80, 160, 60)
    baseline = np.stack([x, 120 + (x - 120) ** 2 / 400], axis=1)  # slopes of -0.2 and 0.2 at its ends
    picture = cut_line_picture(MAP, [(20, 90), (220, 90), (220, 150), (20, 150)], baseline)
    width = picture.pixels.shape[1]
    for share, slope in ((0.02, -0.2), (0.12, -0.2), (0.49, 0.0), (0.86, 0.2), (0.96, 0.2)):
        start, end = picture.on_page([(share * width, 40), ((share + 0.02) * width, 40)])
        assert (end[1] - start[1]) / (end[0] - start[0]) == pytest.approx(slope, abs=0.02), share


@pytest.mark.parametrize("baseline", [[(120, 140)], [(60, 140), (180, 140), (60, 140.5)], np.zeros((0, 2))])
def test_a_baseline_that_tells_no_direction_is_none(baseline):
    outline = [(20, 110), (220, 118), (220, 148), (120, 146), (20, 140)]
    picture, plain = cut_line_picture(MAP, outline, baseline), cut_line_picture(MAP, outline)
    assert np.array_equal(picture.rails, plain.rails) and np.array_equal(picture.pixels, plain.pixels)
