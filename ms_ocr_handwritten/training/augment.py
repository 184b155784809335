"""Augmentation of line images, which keeps the text readable; applied to real lines on the fly, before scaling.

`augment` takes and returns uint8 grey (H, W), preferably dark ink on light paper; the size may change.
"""

import cv2
import numpy as np

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.training import paper

_WORK_HEIGHT = 64  # px; taller images are scaled down first, since the network reads 32 px


def _border(image: np.ndarray) -> int:
    """The grey level of the paper: the median of the brighter half of the image's border."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return int(np.percentile(edge, 75))


def distort(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Shear, stretch, rotation, a wavy baseline and a grid warp in a single remap: (H, W) -> (H', W')."""
    h, w = image.shape
    stretch = float(np.exp(rng.normal(0, 0.12 * strength)))
    slant, turn = rng.normal(0, 0.16 * strength), rng.normal(0, 0.006 * strength)
    grow = float(np.exp(rng.normal(0, 0.06 * strength)))
    pad_x, pad_y = int(abs(slant) * h * 0.5) + 2, int(abs(turn) * w * 0.5 + rng.uniform(0, 0.12 * strength) * h)
    new_w, new_h = max(8, int(w * stretch) + 2 * pad_x), max(8, int(h * grow) + 2 * pad_y)
    x, y = np.meshgrid(np.arange(new_w, dtype=np.float32), np.arange(new_h, dtype=np.float32))
    x, y = x - 0.5 * new_w, y - 0.5 * new_h
    columns = max(3, int(new_w / new_h * 1.6))
    size = 0.045 * h * strength * float(rng.random())
    shifts = rng.standard_normal((2, 4, columns)).astype(np.float32) * size
    dx, dy = (cv2.resize(shift, (new_w, new_h), interpolation=cv2.INTER_CUBIC) for shift in shifts)
    source_x = (x + slant * y) / stretch + dx + 0.5 * w
    source_y = y / grow + turn * x + dy + 0.5 * h
    return cv2.remap(
        image, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=_border(image)
    )


def thicken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thicker or thinner ink: blend with an erosion (thicker, as ink is dark) or a dilation."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    changed = cv2.erode(image, kernel) if rng.random() < 0.65 else cv2.dilate(image, kernel)
    share = float(rng.uniform(0.2, 0.9))
    return cv2.addWeighted(image, 1 - share, changed, share, 0)


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast and brightness, sometimes with uneven light or paper."""
    low, high = float(image.min()), float(image.max())
    top = float(rng.uniform(170, 255))
    bottom = float(rng.uniform(0, 0.6 * top))
    level = bottom + (image.astype(np.float32) - low) * ((top - bottom) / max(1.0, high - low))
    if rng.random() < 0.4:
        level *= 1 + float(rng.uniform(0.02, 0.12)) * paper.smooth_field(image.shape, rng)
    return np.clip(level, 0, 255).astype(np.uint8)


def recrop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the margins: crop a little at the top and bottom, or add paper on any side."""
    h = len(image)
    if rng.random() < 0.5:
        top, bottom = (rng.uniform(0, 0.05, 2) * h).astype(int)
        image = image[top : h - bottom]
    if rng.random() < 0.5:
        top, bottom, left, right = (int(v * h) for v in (*rng.uniform(0, 0.15, 2), *rng.uniform(0, 0.6, 2)))
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=_border(image))
    return image


def augment(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """An augmented copy of a line: uint8 (H, W) -> uint8 (H', W'), H' about min(H, 64) px.

    strength: 0 (only scaled) to about 1.5. Raises ImageError if the image is not uint8 grey.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or min(image.shape) < 1:
        raise ImageError(f"augment takes a grey uint8 image (H, W), not {image.dtype} {image.shape}")
    h, w = image.shape
    if h > _WORK_HEIGHT:
        size = (max(1, round(w * _WORK_HEIGHT / h)), _WORK_HEIGHT)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if strength <= 0:
        return image.copy()
    if rng.random() < 0.5 * strength:
        image = recrop(image, rng)
    if rng.random() < 0.9 * strength:
        image = distort(image, rng, strength)
    if rng.random() < 0.35 * strength:
        image = thicken(image, rng)
    if rng.random() < 0.08 * strength:
        image = paper.binarise(image, rng)
    if rng.random() < 0.5 * strength:
        image = relight(image, rng)
    return paper.degrade(image, rng, min(1.0, 0.8 * strength))
