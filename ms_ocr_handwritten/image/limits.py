"""Limits on the cost of an image, and messages and checks shared by all sources."""

from dataclasses import dataclass

from ..errors import ImageError


@dataclass(frozen=True)
class Limits:
    """Limits for one source. All bounds are inclusive; the defaults suit a line of text or a phone's photo.

    `max_pixels` applies to every kind of source and is checked before and after decoding (a JPEG 2000 may have a
    quarter of it). A decoder takes up to 4 bytes per pixel besides the 3 of the result; all threads of a process
    together decode at most `max_pixels` at a time, so that 16 million stay under 512 MB. `max_bytes` applies to
    encoded images. `url_timeout` is the time in s for one URL, from the name look-up to the last byte, including
    redirects. `private_addresses=False` refuses URLs, and redirects, whose host is not a public internet address: for
    services that fetch URLs given by their users.

    For pages and larger images raise both: `Limits(max_pixels=100_000_000, max_bytes=128 * 2**20)`. Pillow's own
    limit (`PIL.Image.MAX_IMAGE_PIXELS`, an error above twice its value) also applies.
    """

    max_pixels: int = 16_000_000  # 48 MB as RGB
    max_bytes: int = 32 * 1024 * 1024
    url_timeout: float = 10.0
    private_addresses: bool = True


PAGE_LIMITS = Limits(max_pixels=64_000_000, max_bytes=64 * 1024 * 1024)  # A4 at 600 dpi has 35 megapixels


def shortened(name: object, length: int = 200) -> str:
    """`name` as text, without its middle above `length` characters, as someone may pass a whole base64 image."""
    text = str(name)
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 :]}"


def check_bytes(count: int, name: str, max_bytes: int) -> None:
    """Raise ImageError if `count` encoded bytes are none or too many."""
    if count == 0:
        raise ImageError(f"{name}: empty, there is no image in 0 bytes; write or send it again")
    if count > max_bytes:
        raise ImageError(f"{name}: over the limit of {max_bytes} bytes; shrink the image or raise Limits.max_bytes")


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise ImageError if an image has no pixels or too many."""
    if width <= 0 or height <= 0:
        raise ImageError(f"{name}: {size_text(width, height)} holds no pixel; check the crop that made it")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {size_text(width, height)} is over the limit of {max_pixels} pixels; "
            "crop or shrink it, or raise Limits.max_pixels"
        )


def size_text(width: int, height: int) -> str:
    return f"{width}x{height} px"
