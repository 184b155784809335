"""The only place where encoded images are opened: format, size and structure are checked before Pillow decodes."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

from ..errors import ImageError
from .limits import Limits, check_bytes, check_size, size_text
from .structure import FORMATS, StructureError, simplified, sound_exif

_COSTLY = {"JPEG2000": 4}  # weight of a pixel in these formats: their decoder needs 16 bytes per pixel


def open_image(encoded: bytes, name: str, limits: Limits) -> Image.Image:
    """Open an encoded image in one of FORMATS, reading its header and checking its size; `load_pixels` decodes it.

    Parts that do not affect the pixels (text, colour profiles, further frames of some formats) are removed. Raises
    ImageError, which calls the image `name` and repeats nothing of its content.
    """
    check_bytes(len(encoded), name, limits.max_bytes)
    try:
        file_format, encoded = simplified(encoded)
        image = Image.open(io.BytesIO(encoded), formats=(file_format,))
    except StructureError as error:
        if encoded.startswith(b"%PDF-"):
            raise ImageError(f"{name}: a PDF, not an image of a line; `ms-ocr page` reads its pages") from error
        raise ImageError(f"{name}: not a readable image, {error}; give a PNG or JPEG") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: {error}; shrink the image or raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except MemoryError as error:
        raise _out_of_memory(name) from error
    except Exception as error:  # a broken header makes Pillow's readers raise almost anything
        raise ImageError(f"{name}: not a readable image, its header is damaged; give a PNG or JPEG") from error
    check_size(*image.size, name, limits.max_pixels // _COSTLY.get(file_format, 1))
    return image


@contextmanager
def load_pixels(image: Image.Image, name: str, limits: Limits) -> Iterator[None]:
    """Decode `image`, and reserve its share of the process's decoding memory until the block ends.

    Raises ImageError, also in place of whatever the block raises.
    """
    if isinstance(image, ImageFile.ImageFile) and image.format not in (*FORMATS, "MPO"):
        raise ImageError(
            f"{name}: {image.format} is not a supported format; give a PNG or JPEG, or a copy of the image "
            "(`image.copy()`) if you trust where it comes from"
        )
    check_size(*image.size, name, limits.max_pixels)
    with _decoding.share(image.width * image.height, limits.max_pixels):
        try:
            image.load()
            check_size(*image.size, name, limits.max_pixels)
            if not sound_exif(image.info.get("exif", b"")):
                image.info.pop("exif", None)
            yield
        except ImageError:
            raise
        except MemoryError as error:
            raise _out_of_memory(f"{name}, {size_text(*image.size)}") from error
        except Exception as error:  # damaged data makes Pillow's decoders raise almost anything
            raise ImageError(
                f"{name}: cannot be decoded; it is damaged or truncated, write or send it again"
            ) from error


def _out_of_memory(name: str) -> ImageError:
    return ImageError(f"{name}: not enough memory to decode it; shrink the image, or read fewer at a time")


class _Share:
    """Number of pixels that the threads of this process are currently decoding."""

    def __init__(self) -> None:
        self._changed, self._pixels = threading.Condition(), 0

    @contextmanager
    def share(self, pixels: int, most: int) -> Iterator[None]:
        """Wait until the total including `pixels` is at most `most`, or there are no others."""
        with self._changed:
            self._changed.wait_for(lambda: self._pixels == 0 or self._pixels + pixels <= most)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


_decoding = _Share()


def _forget() -> None:
    """Reset in a forked child, which has none of its parent's threads and must not wait for them."""
    global _decoding
    _decoding = _Share()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
