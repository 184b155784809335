"""What one image may cost, and the texts and checks that all sources share."""

from dataclasses import dataclass

from ..errors import ImageError


@dataclass(frozen=True)
class Limits:
    """What one source may cost. All bounds are inclusive; the defaults are for a line of text, or a phone's picture.

    `max_pixels` holds for every kind of source and is checked before and after decoding (a JPEG 2000 may have a
    quarter of it). A decoder takes up to 4 bytes a pixel beside the 3 of the result; all threads of a process
    together decode no more than `max_pixels` at a time, so that 16 million stay under 512 MB. `max_bytes` holds for
    encoded images. `url_timeout` is the time in s for one URL, from the name look-up to the last byte, redirects
    included. `private_addresses=False` refuses URLs, and redirects, whose host is not a public address of the
    internet: for services that fetch what their users name.

    Pages and larger pictures: raise the two, `Limits(max_pixels=100_000_000, max_bytes=128 * 2**20)`. Pillow's own
    limit (`PIL.Image.MAX_IMAGE_PIXELS`, an error above twice its value) stays in force beside ours.
    """

    max_pixels: int = 16_000_000  # 48 MB as RGB
    max_bytes: int = 32 * 1024 * 1024
    url_timeout: float = 10.0
    private_addresses: bool = True


PAGE_LIMITS = Limits(max_pixels=64_000_000, max_bytes=64 * 1024 * 1024)  # A4 at 600 dpi has 35 megapixels


def shortened(name: object, length: int = 200) -> str:
    """`name` as text, its middle left out above `length` characters: someone will pass a whole base64 image."""
    text = str(name)
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 :]}"


def check_bytes(count: int, name: str, max_bytes: int) -> None:
    """Raises ImageError if `count` encoded bytes are none at all or too many."""
    if count == 0:
        raise ImageError(f"{name}: empty, there is no image in 0 bytes; write or send it again")
    if count > max_bytes:
        raise ImageError(f"{name}: over the limit of {max_bytes} bytes; shrink the image or raise Limits.max_bytes")


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raises ImageError if an image has no pixel or too many."""
    if width <= 0 or height <= 0:
        raise ImageError(f"{name}: {size_text(width, height)} holds no pixel; check the crop that made it")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {size_text(width, height)} is over the limit of {max_pixels} pixels; "
            "crop or shrink it, or raise Limits.max_pixels"
        )


def size_text(width: int, height: int) -> str:
    return f"{width}x{height} px"
