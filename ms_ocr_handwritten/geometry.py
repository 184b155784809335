"""Lines, chunks and columns: the constants of the official models and what is derived from them.

A line is scaled to 32 px height and placed at the left of a black canvas, which networks turn into columns of 4 px. A
network takes it whole, or in chunks of 300 px that overlap by 48 px (`Layout`), each of 75 columns. Where two chunks
overlap, half of the overlap (6 columns) is dropped from each, so that the kept columns of all chunks, side by side,
cover the canvas exactly once.

Source of the numbers: ModelScope `preprocessors/ocr` and `models/cv/ocr_recognition/modules/ConvNextViT`.
Notation used throughout: N chunks, B lines, T columns, C classes, H and W pixels, D features.
"""

from dataclasses import dataclass


def _exact_div(a: int, b: int) -> int:
    assert a % b == 0, f"{a} is not a multiple of {b}"
    return a // b


LINE_HEIGHT = 32  # px
CHUNK_WIDTH = 300  # px
CHUNK_OVERLAP = 48  # px
COLUMN_WIDTH = 4  # px of the canvas per column of the network

CHUNK_STEP = CHUNK_WIDTH - CHUNK_OVERLAP  # 252 px
CHUNK_COLUMNS = _exact_div(CHUNK_WIDTH, COLUMN_WIDTH)  # 75
TRIM = _exact_div(CHUNK_OVERLAP, 2 * COLUMN_WIDTH)  # 6 columns dropped at each inner edge

OFFICIAL_CHUNKS = 3  # upstream always computes three
OFFICIAL_WIDTH = OFFICIAL_CHUNKS * CHUNK_STEP + CHUNK_OVERLAP  # 804 px, the canvas of a line up to 25:1
GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of R, G, B, as in upstream's forward; they sum to 0.9999
MAX_CHUNKS = 80  # 20,208 px, a line of 631:1; a limit on memory, not on the method


def canvas_width(chunks: int) -> int:
    """Width in px of a canvas of `chunks` chunks: 252 n + 48.

    >>> canvas_width(3)
    804
    """
    return chunks * CHUNK_STEP + CHUNK_OVERLAP


def canvas_columns(chunks: int) -> int:
    """Number of columns kept from `chunks` chunks: 63 n + 12, which is canvas_width / 4.

    >>> canvas_columns(3)
    201
    """
    return _exact_div(canvas_width(chunks), COLUMN_WIDTH)


def chunks_for_width(width: int) -> int:
    """Minimum number of chunks (at least 1) whose canvas is at least `width` px wide.

    >>> chunks_for_width(301)
    2
    """
    return max(1, -(-(width - CHUNK_OVERLAP) // CHUNK_STEP))


def line_chunks(scaled_width: int) -> int:
    """Number of chunks for a line of `scaled_width` px at 32 px height: three, or more if needed.

    >>> line_chunks(20), line_chunks(805)
    (3, 4)
    """
    return max(OFFICIAL_CHUNKS, chunks_for_width(scaled_width))


def scaled_width(width: int, height: int) -> int:
    """Width in px of a line of `width` x `height` px at 32 px height, rounded as upstream rounds.

    >>> scaled_width(200, 60)
    106
    """
    return int(LINE_HEIGHT * (width / float(height)))


def inked_chunks(width: int) -> int:
    """Number of chunks (at least 1) that begin left of `width`; the others hold only padding.

    >>> inked_chunks(253)
    2
    """
    return max(1, -(-width // CHUNK_STEP))


def kept_columns(index: int, chunks: int) -> slice:
    """Columns kept from chunk `index` (of `chunks`): [:69] for the first, [6:69] inner, [6:] last, [:] the only one.

    >>> kept_columns(1, 3)
    slice(6, 69, None)
    """
    first, last = index == 0, index == chunks - 1
    return slice(0 if first else TRIM, None if last else CHUNK_COLUMNS - TRIM)


def chunk_of_column(column: int, chunks: int) -> int:
    """The chunk (of `chunks`) that column `column` of the line comes from; see `kept_columns`.

    >>> chunk_of_column(69, 3)
    1
    """
    return min(max(0, column - TRIM) // (CHUNK_COLUMNS - 2 * TRIM), chunks - 1)


@dataclass(frozen=True)
class Layout:
    """How a network expects lines: the canvas of a line, and the pieces of it that are computed independently.

    All widths are in px at 32 px height; `width` is that of the line itself.

    >>> CHUNKED.pieces(900), CHUNKED.canvas_width(900), WHOLE.pieces(900), WHOLE.canvas_width(900)
    (4, 1056, 1, 960)
    """

    official_width: int  # of the canvas that upstream always computes
    chunked: bool  # whether the canvas is cut into chunks; else it is one piece

    @property
    def official_piece(self) -> int:
        """Width of the pieces of the official canvas."""
        return CHUNK_WIDTH if self.chunked else self.official_width

    @property
    def longest(self) -> int:
        """Maximum canvas width, a limit on memory."""
        return canvas_width(MAX_CHUNKS)

    def pieces(self, width: int) -> int:
        """Number of pieces of the canvas of a line, including those of padding."""
        return line_chunks(width) if self.chunked else 1

    def canvas_width(self, width: int) -> int:
        """Width of the canvas of a line: the official one, or more if the line needs it."""
        if self.chunked:
            return canvas_width(line_chunks(width))
        return self.official_width + WHOLE_STEP * max(0, -(-(width - self.official_width) // WHOLE_STEP))

    def inked_width(self, width: int) -> int:
        """Width of the canvas of a line without the pieces that hold only padding."""
        return canvas_width(min(inked_chunks(width), line_chunks(width))) if self.chunked else self.canvas_width(width)

    def cuts(self, canvas: int) -> list[slice]:
        """The pieces of a canvas of `canvas` px width, as slices in px."""
        if not self.chunked:
            return [slice(0, canvas)]
        return [slice(start, start + CHUNK_WIDTH) for start in range(0, canvas - CHUNK_OVERLAP, CHUNK_STEP)]

    def columns(self, width: int) -> int:
        """Number of columns of the canvas of a line."""
        return _exact_div(self.canvas_width(width), COLUMN_WIDTH)


CHUNKED = Layout(OFFICIAL_WIDTH, chunked=True)
WHOLE = Layout(640, chunked=False)  # upstream squeezes lines of more than 20:1 into these 640 px
WHOLE_STEP = 160  # px by which a whole line's canvas grows: fewer distinct widths need fewer kernels
assert OFFICIAL_WIDTH == 804 and canvas_columns(OFFICIAL_CHUNKS) == 201
