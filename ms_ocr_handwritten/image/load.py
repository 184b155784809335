"""Loading any source (path, URL, bytes, Pillow image, array) as upright RGB."""

import os
import threading

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import ImageError
from .file import load_pixels, open_image
from .limits import Limits, check_bytes, check_size, shortened, size_text
from .source import read_source, read_stream
from .structure import sound_exif

_WHITE = 255
_STRIP_PIXELS = 2**20  # converted at a time
_UINT16_PER_UINT8 = 257  # 65535 / 255
_LOCKS = [threading.Lock() for _ in range(61)]  # a prime: addresses are multiples of 16


def load_image(source: object, *, limits: Limits = Limits()) -> np.ndarray:
    """Load one image as upright RGB uint8 (H, W, 3), in a new array.

    `source` is one of
    - a path, or an http(s) URL (see `source.py` for the addresses that are refused);
    - bytes, bytearray or memoryview of an encoded image (PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or JPEG 2000), or a file
      opened in binary mode (read from its beginning, if it is seekable);
    - a Pillow image of any mode;
    - a numpy array: grey (H, W) or (H, W, 1), BGR (H, W, 3) as in OpenCV, or BGRA (H, W, 4). uint8 is used as it is,
      uint16 is scaled from [0, 65535], bool is black and white; floats are [0, 1] if no value exceeds 1, else
      [0, 255]; other integer types must lie in [0, 255].

    Transparency is blended with white, EXIF orientation is applied, only the first of several frames is read, colour
    profiles are ignored. 32-bit grey (Pillow's "I") is [0, 65535] from a file, else [0, 255] if no value exceeds 255.
    A truncated file is an error unless the process has set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.

    Raises ImageError naming the source and the remedy.

    >>> load_image(np.zeros((40, 200), np.float32)).shape  # grey in [0, 1]
    (40, 200, 3)
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
            "None: no image; cv2.imread returns it if the path is wrong or the file is not an image: check the "
            "path, or give it here instead of the array"
        )
    raise ImageError(
        f"{type(source).__name__}: not an image source; "
        "give a path, an http(s) URL, bytes, an open file, a Pillow image or a numpy array"
    )


def image_size(source: str | os.PathLike[str] | bytes, *, limits: Limits = Limits()) -> tuple[int, int]:
    """Width and height in px of the upright image, from its header only.

    Raises ImageError.

    >>> image_size(cv2.imencode(".png", np.zeros((40, 200), np.uint8))[1].tobytes())
    (200, 40)
    """
    encoded = source if isinstance(source, bytes) else read_source(source, limits)
    name = f"{len(encoded)} encoded bytes" if isinstance(source, bytes) else shortened(source)
    with open_image(encoded, name, limits) as image:
        if not sound_exif(image.info.get("exif", b"")):
            image.info.pop("exif", None)
        try:
            lying = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        except Exception as error:  # damaged data makes Pillow's readers raise almost anything
            raise ImageError(f"{name}: cannot be decoded; it is damaged, write or send it again") from error
        return image.size[::-1] if lying else image.size


def _lock_of(source: object) -> threading.Lock:
    """A lock for an object that changes while it is read, in case threads share it; others may get the same lock."""
    return _LOCKS[id(source) % len(_LOCKS)]


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
    """RGB on white; temporary memory is limited to a strip of the image."""
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if strip.has_transparency_data:
            # Pillow converts La (premultiplied alpha) only to LA.
            strip = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
            rgb[top : top + rows] = _on_white(np.asarray(strip))
        else:
            rgb[top : top + rows] = np.asarray(strip.convert("RGB"))
    return rgb


def _rgb_from_grey(image: Image.Image, name: str, from_file: bool) -> np.ndarray:
    """RGB of modes F, I and I;16*: more than 8 bits of grey, which Pillow's own conversion would clip."""
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
    """The array scaled to [0, 255], by the rules documented in `load_image`."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return ((array.astype(np.uint32) + _UINT16_PER_UINT8 // 2) // _UINT16_PER_UINT8).astype(np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ImageError(f"{name}: {array.dtype} holds no grey values; give uint8")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # written so that NaN fails
        raise ImageError(f"{name}: values from {low} to {high}; give finite values in [0, 1] or [0, 255], or uint8")
    if array.dtype.kind == "f":
        array = np.rint(array * 255.0 if high <= 1 else array)
    return array.astype(np.uint8)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """RGBA uint8 (H, W, 4) blended with white: RGB uint8 (H, W, 3), rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint16)  # 255 * 255 + 127 fits
    mixed = rgba[:, :, :3] * alpha + _WHITE * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
