"""The lines to read: tiles of given widths, the example lines side by side, or a folder of the user's."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tiles import tile_line

from ms_ocr_handwritten.geometry import LINE_HEIGHT, OFFICIAL_WIDTH, inked_chunks, line_chunks, scaled_width

EXAMPLES = Path(__file__).parent.parent / "examples" / "lines"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
CHUNK_WIDTHS = {1: 240, 2: 500, 3: 800}  # px at 32 px height, by the number of chunks with ink


def mixed(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Tiles of widths uniform in [32, 804] px, from 1:1 to the widest that upstream does not squeeze."""
    return [tile_line(int(width), random) for width in random.integers(LINE_HEIGHT, OFFICIAL_WIDTH + 1, count)]


def inked(image: np.ndarray) -> int:
    """Number of chunks with ink for an image of a line."""
    width = scaled_width(image.shape[1], image.shape[0])
    return min(inked_chunks(width), line_chunks(width))


def drawn_lines(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """The two example lines alternating, side by side, cropped to ratios uniform in [2, 25]: BGR uint8 (48, W, 3)."""
    parts = [cv2.imread(str(EXAMPLES / name)) for name in ("english.png", "chinese.png")]
    height = parts[0].shape[0]
    strip = np.concatenate(
        [cv2.resize(part, (part.shape[1] * height // part.shape[0], height)) for part in parts * 4], axis=1
    )
    widths = (height * random.uniform(2, 25, count)).astype(int)
    starts = [int(random.integers(0, strip.shape[1] - width + 1)) for width in widths]
    return [strip[:, start : start + width].copy() for start, width in zip(starts, widths)]


def folder_lines(folder: Path) -> list[np.ndarray]:
    """The images named in labels.tsv (file TAB ...), else all in the folder in order of name: BGR uint8 (H, W, 3)."""
    labels = folder / "labels.tsv"
    if labels.exists():
        paths = [folder / row.split("\t")[0] for row in labels.read_text(encoding="utf-8").splitlines() if row]
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    images = [cv2.imread(str(path)) for path in paths]
    if bad := [str(path) for path, image in zip(paths, images) if image is None]:
        raise SystemExit(f"{', '.join(bad[:5])}: OpenCV cannot read {len(bad)} of {len(paths)} images; mend --images")
    if not images:
        raise SystemExit(f"{folder}: no image ({', '.join(SUFFIXES)}) and no labels.tsv; name another folder")
    return images


def evenly(images: list, count: int) -> list:
    """At most `count` of the images, evenly spaced."""
    return [images[index * len(images) // count] for index in range(count)] if len(images) > count else images


def endless_lines(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """`count` lines generated lazily: noise 20 to 60 px high, of one to four chunks, grey uint8 (H, W)."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        height = int(random.integers(20, 61))
        width = int(height * random.uniform(1, 31))  # four chunks end at 31.5:1
        yield random.integers(0, 256, (height, width), np.uint8)
