"""Words of a line: their texts, confidences and places, by hand."""

import pytest

from ms_ocr_handwritten.page.reader import PageCharacter, PageLine
from ms_ocr_handwritten.page.words import Word, words_of

OUTLINE = ((0.0, 0.0), (90.0, 0.0), (90.0, 40.0), (0.0, 40.0))


def line(text: str, *places: tuple[float, float], size: tuple[float, float] = (10.0, 40.0), scores=()) -> PageLine:
    """Characters whose upper left corners stand at `places`."""
    w, h = size
    polygons = [((x, y), (x + w, y), (x + w, y + h), (x, y + h)) for x, y in places]
    chars = [PageCharacter(*one) for one in zip(text, scores or [0.5] * len(text), polygons, strict=True)]
    return PageLine(text, 0.75, tuple(chars), OUTLINE)


def test_words_stand_from_their_first_to_their_last_character():
    found = words_of(line(" ab\u3000 c ", *((10.0 * n, 2.0 * n) for n in range(7))))
    assert [(word.text, word.polygon) for word in found] == [
        ("ab", ((10.0, 2.0), (30.0, 4.0), (30.0, 44.0), (10.0, 42.0))),
        ("c", ((50.0, 10.0), (60.0, 10.0), (60.0, 50.0), (50.0, 50.0))),
    ]


@pytest.mark.parametrize("step", [10.0, -10.0])
def test_characters_below_each_other_stand_from_the_upper_to_the_lower_one(step):
    """Each ten times as wide as it is high, and a little beside the one before it."""
    (word,) = words_of(line("abc", *((8.0 * n, 20 + step * n) for n in range(3)), size=(100.0, 10.0)))
    places = {20 + step * n: 8.0 * n for n in range(3)}
    upper, lower = min(places), max(places)
    assert word.polygon == (
        (places[upper], upper),
        (places[upper] + 100, upper),
        (places[lower] + 100, lower + 10),
        (places[lower], lower + 10),
    )


def test_characters_whose_way_is_more_level_than_steep_stand_beside_each_other():
    (level,) = words_of(line("ab", (0.0, 0.0), (11.0, 10.0)))
    assert level.polygon == ((0.0, 0.0), (21.0, 10.0), (21.0, 50.0), (0.0, 40.0))
    (steep,) = words_of(line("ab", (0.0, 0.0), (11.0, 12.0)))
    assert steep.polygon == ((0.0, 0.0), (10.0, 0.0), (21.0, 52.0), (11.0, 52.0))


def test_a_words_confidence_is_the_geometric_mean():
    sure, unsure, never = (
        words_of(line("ab", (0.0, 0.0), (10.0, 0.0), scores=scores))[0].score
        for scores in ((1.0, 1.0), (0.9, 0.4), (1.0, 0.0))
    )
    assert (sure, unsure) == pytest.approx((1.0, 0.6)) and 0 < never < 1e-4


def test_an_edited_line_is_one_word_where_it_stands():
    assert words_of(PageLine(" two words\n", 0.75, (), OUTLINE)) == [Word("two words", 0.75, OUTLINE)]
    assert words_of(PageLine(" \u3000", 0.75, (), OUTLINE)) == []
    assert words_of(line("  ", (0.0, 0.0), (10.0, 0.0))) == []


def test_a_box_has_whole_px_on_the_page():
    assert Word("a", 1.0, ((-3.2, 1.8), (9.1, -0.5), (8.0, 20.01), (2.0, 7.0))).box == (0, 0, 10, 21)
    assert Word("a", 1.0, ((3.9, 1.0), (5.0, 1.9), (5.0, 2.0), (3.1, 2.0))).box == (3, 1, 5, 2)
