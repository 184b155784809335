"""Lines, chunks and columns: the few numbers of the official model and what follows from them.

A line is scaled to 32 px height, put at the left of a black canvas and read in chunks of 300 px that
overlap by 48 px. The network turns each chunk into 75 columns of 4 px. Where two chunks overlap, each gives
up half of the overlap (6 columns), so that the kept columns of all chunks, side by side, cover the canvas once.

Source of the numbers: ModelScope `preprocessors/ocr` and `models/cv/ocr_recognition/modules/ConvNextViT`.
Notation used throughout: N chunks, B lines, T columns, C classes, H and W pixels, D features.
"""


def _exact_div(a: int, b: int) -> int:
    assert a % b == 0, f"{a} is not a multiple of {b}"
    return a // b


LINE_HEIGHT = 32  # px
CHUNK_WIDTH = 300  # px
CHUNK_OVERLAP = 48  # px
COLUMN_WIDTH = 4  # px of the canvas per column of the network

CHUNK_STEP = CHUNK_WIDTH - CHUNK_OVERLAP  # 252 px
CHUNK_COLUMNS = _exact_div(CHUNK_WIDTH, COLUMN_WIDTH)  # 75
TRIM = _exact_div(CHUNK_OVERLAP, 2 * COLUMN_WIDTH)  # 6 columns given up at each inner edge

OFFICIAL_CHUNKS = 3  # upstream always computes three
OFFICIAL_WIDTH = OFFICIAL_CHUNKS * CHUNK_STEP + CHUNK_OVERLAP  # 804 px, the canvas of a line up to 25:1
GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of R, G, B, as upstream's forward has them; they sum to 0.9999
MAX_CHUNKS = 80  # 20,208 px, a line of 631:1; a limit on memory, not on the method


def canvas_width(chunks: int) -> int:
    """Width in px of a canvas of `chunks` chunks: 252 n + 48.

    >>> canvas_width(3)
    804
    """
    return chunks * CHUNK_STEP + CHUNK_OVERLAP


def canvas_columns(chunks: int) -> int:
    """Columns kept of `chunks` chunks: 63 n + 12, which is canvas_width / 4.

    >>> canvas_columns(3)
    201
    """
    return _exact_div(canvas_width(chunks), COLUMN_WIDTH)


def chunks_for_width(width: int) -> int:
    """Chunks whose canvas is the least that is at least `width` px wide (1 or more).

    >>> chunks_for_width(301)
    2
    """
    return max(1, -(-(width - CHUNK_OVERLAP) // CHUNK_STEP))


def line_chunks(scaled_width: int) -> int:
    """Chunks of the canvas of a line of `scaled_width` px at 32 px height: three, or more if it needs them.

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
    """Chunks of which at least one pixel lies left of `width`: the others hold padding alone (1 or more).

    >>> inked_chunks(253)
    2
    """
    return max(1, -(-width // CHUNK_STEP))


def kept_columns(index: int, chunks: int) -> slice:
    """Columns of chunk `index` (of `chunks`) that enter the line: [:69] first, [6:69] inner, [6:] last.

    >>> kept_columns(1, 3)
    slice(6, 69, None)
    """
    first, last = index == 0, index == chunks - 1
    return slice(0 if first else TRIM, CHUNK_COLUMNS if last else CHUNK_COLUMNS - TRIM)


def chunk_of_column(column: int, chunks: int) -> int:
    """The chunk (of `chunks`) that column `column` of the line was kept of; see `kept_columns`.

    >>> chunk_of_column(69, 3)
    1
    """
    return min(max(0, column - TRIM) // (CHUNK_COLUMNS - 2 * TRIM), chunks - 1)


assert OFFICIAL_WIDTH == 804 and canvas_columns(OFFICIAL_CHUNKS) == 201
