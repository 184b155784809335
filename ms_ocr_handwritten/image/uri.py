"""Images as data URIs, for self-contained HTML pages."""

import base64
import io
from typing import Literal

import numpy as np
from PIL import Image


def picture_uri(rgb: np.ndarray, scale: float = 1.0, *, form: Literal["JPEG", "WEBP"], quality: int) -> str:
    """`rgb` as a data URI, shrunk if `scale` is below 1, but never enlarged.

    Args:
        rgb: uint8 (H, W, 3), H and W at least 1.
        scale: Factor of width and height; at least 1 px is left.
        form: Format of the embedded file.
        quality: Quality of its compression, 0 to 100.

    >>> picture_uri(np.zeros((40, 200, 3), np.uint8), 0.5, form="WEBP", quality=45)[:32]
    'data:image/webp;base64,UklGRkIAA'
    """
    picture = Image.fromarray(rgb)
    if scale < 1:
        picture = picture.resize(
            (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))), Image.Resampling.BOX
        )
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=quality)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
