"""Lines, chunks and columns against tables by hand, and against a count of pixels."""

import pytest

from ms_ocr_handwritten.geometry import (
    CHUNKED,
    MAX_CHUNKS,
    WHOLE,
    canvas_columns,
    canvas_width,
    chunk_of_column,
    chunks_for_width,
    inked_chunks,
    kept_columns,
    line_chunks,
    scaled_width,
)


@pytest.mark.parametrize("chunks, width, columns", [(1, 300, 75), (2, 552, 138), (3, 804, 201), (80, 20208, 5052)])
def test_a_canvas_by_hand(chunks, width, columns):
    found = canvas_columns(chunks)
    assert (canvas_width(chunks), found) == (width, columns) and type(found) is int


@pytest.mark.parametrize(
    "width, least, of_line, inked",
    [
        (1, 1, 3, 1),
        (252, 1, 3, 1),
        (253, 1, 3, 2),
        (300, 1, 3, 2),
        (301, 2, 3, 2),
        (804, 3, 3, 4),
        (805, 4, 4, 4),
        (1056, 4, 4, 5),
        (1057, 5, 5, 5),
    ],
)
def test_chunks_of_a_width_by_hand(width, least, of_line, inked):
    assert (chunks_for_width(width), line_chunks(width), inked_chunks(width)) == (least, of_line, inked)


def test_widths_are_cut_off_as_upstream_does():
    assert [scaled_width(*size) for size in ((200, 60), (99, 32), (1, 33))] == [106, 99, 0]


@pytest.mark.parametrize("chunks", range(1, 6))
def test_kept_columns_cover_the_canvas_once(chunks):
    """Columns by the pixel at which they begin: 4 px each, chunks every 252 px."""
    columns = [252 * chunk + 4 * column for chunk in range(chunks) for column in range(75)[kept_columns(chunk, chunks)]]
    assert columns == list(range(0, 252 * chunks + 48, 4))
    owners = [chunk for chunk in range(chunks) for _ in range(75)[kept_columns(chunk, chunks)]]
    assert [chunk_of_column(column, chunks) for column in range(len(columns))] == owners


def test_a_layout_of_chunks():
    widths = (1, 804, 805, 1056, 1057)
    assert [CHUNKED.pieces(width) for width in widths] == [3, 3, 4, 4, 5]
    assert [CHUNKED.canvas_width(width) for width in widths] == [804, 804, 1056, 1056, 1308]
    assert [CHUNKED.inked_width(width) for width in (1, 252, 253, 800, 805)] == [300, 300, 552, 804, 1056]
    assert [CHUNKED.columns(width) for width in widths] == [201, 201, 264, 264, 327]
    assert CHUNKED.cuts(804) == [slice(0, 300), slice(252, 552), slice(504, 804)]
    assert (CHUNKED.official_piece, CHUNKED.longest) == (300, canvas_width(MAX_CHUNKS))


def test_a_layout_of_whole_lines():
    widths = (1, 640, 641, 800, 801)
    assert [WHOLE.pieces(width) for width in widths] == [1] * 5
    assert [WHOLE.canvas_width(width) for width in widths] == [640, 640, 800, 800, 960]
    assert [WHOLE.inked_width(width) for width in widths] == [640, 640, 800, 800, 960]
    assert [WHOLE.columns(width) for width in widths] == [160, 160, 200, 200, 240]
    assert WHOLE.cuts(800) == [slice(0, 800)] and WHOLE.official_piece == 640
