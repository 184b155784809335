"""From any source (path, URL, bytes, Pillow image, array) to the canvas that the network reads.

    source -> load_image -> RGB (H, W, 3) -> line_canvas -> grey (32, W') -> chunk_array -> (N, 32, 300)

Scaling and padding are those of ModelScope's `OCRRecognitionPreprocessor`, the grey those of its `ConvNextViT`, so
that the values equal upstream's up to 25:1. Longer lines get more chunks; upstream squeezes them.
"""

import os
import threading
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from .errors import ImageError
from .geometry import (
    CHUNK_STEP,
    CHUNK_WIDTH,
    GREY_WEIGHTS,
    LINE_HEIGHT,
    MAX_CHUNKS,
    canvas_width,
    inked_chunks,
    line_chunks,
    scaled_width,
)
from .image_file import load_pixels, open_image
from .limits import Limits, check_bytes, check_size, shortened, size_text
from .source import read_source, read_stream

_WHITE = 255
_STRIP_PIXELS = 2**20  # converted at a time
_SHARES = [np.arange(256, dtype=np.float32) / 255.0 * weight for weight in GREY_WEIGHTS]  # of each level of R, G, B
_UINT16_PER_UINT8 = 257  # 65535 / 255
_LOCKS = [threading.Lock() for _ in range(61)]  # a prime: addresses are multiples of 16


def load_image(source: object, *, limits: Limits = Limits()) -> np.ndarray:
    """Upright RGB uint8 (H, W, 3) of one image; the array is the caller's own.

    `source` is one of
    - a path, or an http(s) URL (`source.py` says which addresses are refused);
    - bytes, bytearray or memoryview of an encoded image (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or JPEG 2000), or a file
      that is open for reading them (from its beginning, if it can be wound back);
    - a Pillow image of any mode;
    - a numpy array: grey (H, W) or (H, W, 1), BGR (H, W, 3) as OpenCV gives it, BGRA (H, W, 4). uint8 as it is,
      uint16 scaled from [0, 65535], bool to black and white; floats are [0, 1] if no value exceeds 1, else
      [0, 255]; further integer types must lie in [0, 255].

    Transparency is laid on white paper, EXIF orientation is applied, the first frame of several is read, colour
    profiles are ignored. 32-bit grey (Pillow's "I") is [0, 65535] from a file, else [0, 255] if no value exceeds 255.
    A truncated file is an error unless the process has set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.

    Raises ImageError naming the source and the remedy.
    """
    if isinstance(source, np.ndarray):
        name = f"array {source.shape} {source.dtype}"
        _check_array(source, name, limits.max_pixels)
        return _rgb_from_array(np.asarray(source), name)
    if isinstance(source, Image.Image):
        with _lock_of(source):
            return _rgb_from_pillow(source, f"Pillow image {source.mode} {size_text(*source.size)}", limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = f"{memoryview(source).nbytes} encoded bytes"
        check_bytes(memoryview(source).nbytes, name, limits.max_bytes)
        return _decode(bytes(source), name, limits)
    if isinstance(source, (str, os.PathLike)):
        return _decode(read_source(source, limits), shortened(source), limits)
    if hasattr(source, "read"):
        with _lock_of(source):
            encoded, name = read_stream(source, limits)
        return _decode(encoded, name, limits)
    if source is None:
        raise ImageError(
            "None: no image; cv2.imread gives it where the path is wrong or the file is no image: check the path, "
            "or give it here in place of the array"
        )
    raise ImageError(
        f"{type(source).__name__}: not a source of an image; "
        "give a path, an http(s) URL, bytes, an open file, a Pillow image or a numpy array"
    )


def _lock_of(source: object) -> threading.Lock:
    """Of an object that changes while it is read, for threads that are given the same one (as others, now and then)."""
    return _LOCKS[id(source) % len(_LOCKS)]


@dataclass(frozen=True, eq=False)
class LineCanvas:
    """A line scaled to 32 px height at the left of a black canvas, without the chunks that hold padding alone.

    grey: float32 (32, 252 n + 48) in [0, 1] for n inked chunks, 0 from column `width` on
    width: px of the canvas that the line covers
    source_width, source_height: px of the part of the upright image that the line came from
    source_left: px of that image left of this part
    ink: the share of its columns that hold ink, in [0, 1], where they were looked at before the line was scaled
    chunks: of the whole canvas, 3 up to 25:1
    """

    grey: np.ndarray
    width: int
    source_width: int
    source_height: int
    chunks: int
    source_left: int = 0
    ink: float | None = None

    @property
    def inked(self) -> int:
        """The number of chunks that are not padding alone, at most `chunks`."""
        return (self.grey.shape[1] - CHUNK_WIDTH) // CHUNK_STEP + 1

    def chunk_array(self) -> np.ndarray:
        """The inked chunks, 300 px every 252 px: contiguous float32 (n, 32, 300), n <= chunks."""
        return _chunked(self.grey)

    def source_x(self, canvas_x: float) -> float:
        """The px of the source image at `canvas_x` px of the canvas, held within the part that the line came from."""
        return self.source_left + min(max(canvas_x * self.source_width / self.width, 0.0), float(self.source_width))


def line_canvas(rgb: np.ndarray) -> LineCanvas:
    """The canvas of an RGB uint8 (H, W, 3) line. Raises ImageError if it is far too tall or too long to be one."""
    scaled, chunks = _scaled_line(rgb)
    height, width = rgb.shape[:2]
    red, green, blue = map(cv2.LUT, cv2.split(scaled), _SHARES)
    inked = min(inked_chunks(scaled.shape[1]), chunks)
    grey = np.zeros((LINE_HEIGHT, canvas_width(inked)), np.float32)
    # Upstream's weights, in upstream's order: float sums depend on it.
    grey[:, : scaled.shape[1]] = red + green + blue
    return LineCanvas(grey, scaled.shape[1], width, height, chunks)


def rgb_chunks(rgb: np.ndarray) -> np.ndarray:
    """All chunks of an RGB uint8 (H, W, 3) line, padding included: float32 (N, 3, 32, 300) in [0, 1].

    N is 3 up to 25:1, and the values are then those of upstream's preprocessor. Raises ImageError as `line_canvas`.
    """
    scaled, chunks = _scaled_line(rgb)
    canvas = np.zeros((3, LINE_HEIGHT, canvas_width(chunks)), np.float32)
    canvas[:, :, : scaled.shape[1]] = np.moveaxis(scaled, 2, 0)
    return _chunked(canvas / 255.0)


def _scaled_line(rgb: np.ndarray) -> tuple[np.ndarray, int]:
    """The line at 32 px height, uint8 (32, width, 3), and the chunks of its whole canvas."""
    height, width = rgb.shape[:2]
    line_width = scaled_width(width, height)
    chunks = line_chunks(line_width)
    if line_width == 0:
        raise ImageError(
            f"an image of {size_text(width, height)} is 0 px wide at a height of {LINE_HEIGHT} px; "
            "a line of text runs from left to right: rotate the image, or crop it to one line"
        )
    if chunks > MAX_CHUNKS:
        longest = canvas_width(MAX_CHUNKS)
        raise ImageError(
            f"an image of {size_text(width, height)} is {line_width} px wide at a height of {LINE_HEIGHT} px, over the "
            f"limit of {longest} px (aspect ratio {longest / LINE_HEIGHT}:1); cut the line into shorter ones"
        )
    return cv2.resize(rgb, (line_width, LINE_HEIGHT)), chunks


def _chunked(canvas: np.ndarray) -> np.ndarray:
    """(..., 32, 252 n + 48) -> contiguous (n, ..., 32, 300)."""
    starts = range(0, canvas.shape[-1] - CHUNK_WIDTH + 1, CHUNK_STEP)
    return np.stack([canvas[..., start : start + CHUNK_WIDTH] for start in starts])


def _decode(encoded: bytes, name: str, limits: Limits) -> np.ndarray:
    with open_image(encoded, name, limits) as image:
        return _rgb_from_pillow(image, name, limits)


def _rgb_from_pillow(image: Image.Image, name: str, limits: Limits) -> np.ndarray:
    from_file = image.format is not None
    with load_pixels(image, name, limits):
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            return _rgb_from_grey(image, name, from_file)
        return _rgb_in_strips(image)


def _rgb_in_strips(image: Image.Image) -> np.ndarray:
    """RGB on white paper; what is needed on the way is never larger than a strip of the image."""
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if strip.has_transparency_data:
            # Pillow converts La (weighted by alpha) to LA alone.
            strip = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
            rgb[top : top + rows] = _on_white(np.asarray(strip))
        else:
            rgb[top : top + rows] = np.asarray(strip.convert("RGB"))
    return rgb


def _rgb_from_grey(image: Image.Image, name: str, from_file: bool) -> np.ndarray:
    """Modes F, I and I;16*: more than 8 bits of grey, which Pillow's own conversion would clip."""
    grey = np.array(image)
    transparent = image.info.get("transparency")
    paper = None if transparent is None else grey == transparent
    if image.mode == "I" and (from_file or grey.max() > 255):
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(f"{name}: 32-bit grey of {grey.min()} to {grey.max()}; scale it to 0-255 as uint8")
        grey = grey.astype(np.uint16)
    rgb = _rgb_from_array(grey, name)
    if paper is not None:
        rgb[paper] = _WHITE
    return rgb


def _check_array(array: np.ndarray, name: str, max_pixels: int) -> None:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise ImageError(f"{name}: give one image, grey (H, W), BGR (H, W, 3) or BGRA (H, W, 4)")
    check_size(array.shape[1], array.shape[0], name, max_pixels)


def _rgb_from_array(array: np.ndarray, name: str) -> np.ndarray:
    array = np.ascontiguousarray(_as_uint8(array, name))
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels == 1:
        return cv2.cvtColor(array, cv2.COLOR_GRAY2RGB)
    if channels == 3:
        return cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    return _on_white(cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA))


def _as_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """The same shape in [0, 255], by the rules that `load_image` documents."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return ((array.astype(np.uint32) + _UINT16_PER_UINT8 // 2) // _UINT16_PER_UINT8).astype(np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ImageError(f"{name}: {array.dtype} holds no grey values; give uint8")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # so written that NaN fails
        raise ImageError(f"{name}: values from {low} to {high}; give finite values in [0, 1] or [0, 255], or uint8")
    if array.dtype.kind == "f":
        array = np.rint(array * 255.0 if high <= 1 else array)
    return array.astype(np.uint8)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """RGBA uint8 (H, W, 4) laid on white paper: RGB uint8 (H, W, 3), rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint16)  # 255 * 255 + 127 fits
    mixed = rgba[:, :, :3] * alpha + _WHITE * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
