"""`PageReader`: lines cut out, read together and put in order, for one page and for many."""

import weakref

import numpy as np
import pytest
from conftest import ALPHABET, TINY_NETWORK, encoded, make_model_dir, noise, render, weaken_positions
from PIL import Image

from ms_ocr_handwritten import PageReader, Recognizer
from ms_ocr_handwritten.errors import ConfigurationError, ImageError
from ms_ocr_handwritten.page.reader import Page

WORDS = ("ab12", "cafe", "h3", "d00d", "fig", "bead", "9")


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory) -> Recognizer:
    """Random weights: nonsense, but other nonsense for each picture."""
    model = make_model_dir(tmp_path_factory.mktemp("page") / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    return Recognizer.from_pretrained(weaken_positions(model), precision="fp32")


def sheet(words: tuple[str, ...], height: int = 40) -> tuple[np.ndarray, list[np.ndarray]]:
    """A page with one word below the other, BGR, and the boxes of the words."""
    page = np.full((60 * len(words) + 40, 300, 3), 255, np.uint8)
    boxes = []
    for index, word in enumerate(words):
        line, top = render(word, height), 20 + 60 * index
        page[top : top + height, 20 : 20 + line.shape[1]] = line
        x1 = 20 + line.shape[1]
        boxes.append(np.array([[20, top], [x1, top], [x1, top + height], [20, top + height]], float))
    return page, boxes


def dark_rows(page: np.ndarray) -> list[np.ndarray]:
    """A detector for these pages: boxes around runs of rows that hold ink, from the lowest to the uppermost."""
    inked = (page.min(axis=2) < 128).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inked.astype(int), [0]])))
    boxes = []
    for top, bottom in edges.reshape(-1, 2):
        x = np.flatnonzero((page[top:bottom].min(axis=2) < 128).any(axis=0))
        boxes.append([[x[0], top], [x[-1] + 1, top], [x[-1] + 1, bottom], [x[0], bottom]])
    return boxes[::-1]


def test_given_polygons_are_cut_and_read_as_they_are(recognizer):
    page, boxes = sheet(WORDS)
    result = PageReader(recognizer, dark_rows).read(page, boxes)
    assert (result.width, result.height, result.problems) == (300, page.shape[0], ())
    crops = [page[int(box[0, 1]) : int(box[2, 1]), int(box[0, 0]) : int(box[2, 0])] for box in boxes]
    expected = [recognizer.read(crop) for crop in crops]
    assert [line.text for line in result.lines] == [line.text for line in expected]
    assert len({line.text for line in result.lines}) > 3
    assert [line.polygon for line in result.lines] == [tuple(map(tuple, box.tolist())) for box in boxes]
    line, plain, box = result.lines[0], expected[0], boxes[0]
    assert line.score == pytest.approx(plain.score, abs=1e-5)
    assert [char.character for char in line.chars] == [char.character for char in plain.chars]
    for before, after in zip(line.chars, line.chars[1:]):  # side by side
        assert before.polygon[1] == after.polygon[0] and before.polygon[2] == after.polygon[3]
    for char, where in zip(line.chars, plain.chars):
        assert char.polygon[0][0] <= 20 + (where.x0 + where.x1) / 2 + 0.1
        assert char.polygon[1][0] >= 20 + (where.x0 + where.x1) / 2 - 0.1
        assert (char.polygon[0][1], char.polygon[3][1]) == (box[0, 1], box[3, 1])


def test_found_lines_come_in_reading_order(recognizer):
    page = sheet(WORDS)[0]
    seen = []

    def detector(array):
        seen.append(array)
        return [np.array(box).reshape(-1) for box in dark_rows(array)]  # flat, as ModelScope has them

    result = PageReader(recognizer, detector).read(encoded(Image.fromarray(page[:, :, ::-1])))
    assert np.array_equal(seen[0], page)
    tops = [line.polygon[0][1] for line in result.lines]
    assert tops == sorted(tops) and len(tops) == len(WORDS)
    assert result.text == "\n".join(line.text for line in result.lines)


def test_pages_are_read_together_and_come_in_order(recognizer):
    reader = PageReader(recognizer, dark_rows)
    blank = np.full((50, 80, 3), 255, np.uint8)
    pages = [blank, sheet(WORDS)[0], sheet(("a",))[0], blank, blank, b"no image", sheet(("b", "c"))[0], blank]
    alone = [reader.read(page) for page in pages if not isinstance(page, bytes)]
    for batch_size in (1, 3, 32):
        many = list(reader.read_many(pages, batch_size, errors="yield"))
        error = many.pop(5)
        assert isinstance(error, ImageError) and "not a readable image" in str(error)
        assert [[line.text for line in page.lines] for page in many] == [
            [line.text for line in page.lines] for page in alone
        ]
        assert [len(page.lines) for page in many] == [0, 7, 1, 0, 0, 2, 0]
    read = []
    with pytest.raises(ImageError, match="not a readable image"):
        for page in reader.read_many(pages):
            read.append(page)
    assert len(read) == 5


@pytest.mark.parametrize("words", [(), ("ab", "c")])
def test_memory_does_not_grow_with_the_number_of_pages(recognizer, words):
    pictures: list[weakref.finalize] = []
    most = taken = 0

    def pages():
        nonlocal most, taken
        for _ in range(100):
            page = sheet(words)[0]
            pictures.append(weakref.finalize(page, int))
            most = max(most, sum(one.alive for one in pictures))
            taken += 1
            yield page

    ahead = 0
    for given, result in enumerate(PageReader(recognizer, dark_rows).read_many(pages(), batch_size=4), start=1):
        assert len(result.lines) == len(words)
        ahead = max(ahead, taken - given)
    assert most < 5
    if words:
        assert ahead < 16  # pages whose lines are under way


def test_lines_that_run_down_are_read_the_surer_way(recognizer):
    line = render("cafe1234")
    page = np.full((400, 200, 3), 255, np.uint8)
    turned = np.rot90(line, -1)  # as written, turned right: from top to bottom
    page[20 : 20 + turned.shape[0], 50:90] = turned
    box = [[50, 20], [90, 20], [90, 20 + turned.shape[0]], [50, 20 + turned.shape[0]]]
    (read,) = PageReader(recognizer, dark_rows).read(page, [box]).lines
    ways = [recognizer.read(one) for one in (line, line[::-1, ::-1], np.ascontiguousarray(turned))]
    assert read.score >= max(way.score for way in ways) - 1e-5
    if read.text == ways[0].text:  # turned back: the first character stands at the top
        assert read.baseline is None and read.chars[0].polygon[0][1] < read.chars[-1].polygon[0][1]


def test_columns_are_asked_for(recognizer):
    page = np.full((400, 300, 3), 255, np.uint8)
    boxes = [[[x, 20], [x + 30, 20], [x + 30, 350], [x, 350]] for x in (20, 120, 220)]
    for x in (20, 120, 220):
        page[20:350, x : x + 30] = noise(330, 30, seed=x)
    for writing, order in (("horizontal", [20, 120, 220]), ("vertical", [220, 120, 20])):
        lines = PageReader(recognizer, lambda _: boxes, writing=writing).read(page).lines
        assert [line.polygon[0][0] for line in lines] == order


def test_a_polygon_outside_the_page_is_a_problem_of_its_own(recognizer):
    page, boxes = sheet(("ab", "c"))
    outside = boxes[0] + 1000
    tall = [[0, 0], [1, 0], [1, 100], [0, 100]]
    result = PageReader(recognizer, dark_rows).read(page, [boxes[0], outside, boxes[1], tall])
    assert len(result.lines) == 3  # the thin one can be laid down and read
    (problem,) = result.problems
    assert str(problem).startswith("polygon 1: a polygon from (1020, 1020)") and "outside the page" in str(problem)


@pytest.mark.parametrize(
    ("found", "says"),
    [([[1, 2, 3]], "polygon 0: no points"), ([[[0, 0], [1, 1]]], "polygon 0: three or more"), ([["ab"]], "polygon 0")],
)
def test_what_a_detector_must_not_give_is_named(recognizer, found, says):
    with pytest.raises(ImageError, match=says):
        PageReader(recognizer, lambda page: found).read(noise(50, 50))


def test_what_is_not_known_is_refused(recognizer):
    with pytest.raises(ConfigurationError, match=r"detector is 'kraken'; give 'rapidocr'"):
        PageReader(recognizer, "kraken")
    with pytest.raises(ConfigurationError, match="writing is 'down'"):
        PageReader(recognizer, dark_rows, writing="down")
    with pytest.raises(ConfigurationError, match="errors is"):
        PageReader(recognizer, dark_rows).read_many([], errors="ignore")


def test_a_page_of_noise_without_lines_is_empty(recognizer):
    assert PageReader(recognizer, lambda page: []).read(noise(40, 60)) == Page(60, 40, ())
    with pytest.raises(ImageError, match="over the limit of 64000000 pixels"):
        PageReader(recognizer, dark_rows).read(encoded(Image.new("1", (10_000, 10_000))))
