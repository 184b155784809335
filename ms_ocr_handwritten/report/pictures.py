"""Small images of lines, and of single characters cropped from them, as data URIs."""

from collections.abc import Sequence

import numpy as np

from ..image.uri import picture_uri
from ..line import Character

LINE_PX = 56  # height of a line image
CHARACTER_PX = 40
WIDEST = 2400  # px of an image
NARROWEST = 0.4  # minimum width of a crop, in line heights
_QUALITY = 45  # of WebP, 0 to 100


def small(rgb: np.ndarray, height: int) -> str:
    """`rgb` uint8 (H, W, 3), H and W at least 1, as the data URI of a WebP at most `height` px high."""
    scale = min(height / rgb.shape[0], WIDEST / rgb.shape[1])
    return picture_uri(rgb, scale, form="WEBP", quality=_QUALITY)


def bounds(chars: Sequence[Character], at: int, missing: bool, width: int, height: int) -> tuple[int, int]:
    """Left and right px of the character `at` in a line of `width` x `height` px, or of the gap before it.

    CTC marks a character in the columns where it is certain of it, which are narrower than its ink, so the crop extends
    halfway to its neighbours; at the ends of the line a neighbour is assumed one line height away.

    Args:
        chars: At least one.
        at: 0 to len(chars) - 1, for a gap to len(chars).
        missing: Whether a character is missing there.
    """
    centres = [(char.x0 + char.x1) / 2 for char in chars]
    following = at if missing else at + 1
    before = centres[at - 1] if at else centres[0] - height
    after = centres[following] if following < len(centres) else centres[-1] + height
    left, right = (before, after) if missing else ((before + centres[at]) / 2, (centres[at] + after) / 2)
    left, right = max(0.0, left), min(float(width), right)
    reach = max(right - left, NARROWEST * height) / 2
    middle = (left + right) / 2
    first = min(max(0, int(middle - reach)), width - 1)
    return first, max(first + 1, min(width, round(middle + reach)))
