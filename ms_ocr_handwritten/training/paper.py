"""Rendering ink as a scan: ruled lines, boxes, neighbours, uneven light, blur, noise, JPEG, binarisation, inversion.

Ink masks are uint8, 0 no ink to 255 full ink; scans are uint8 grey, usually dark on light.
"""

import cv2
import numpy as np


def smooth_field(shape: tuple[int, int], rng: np.random.Generator, cells: int = 3) -> np.ndarray:
    """Low-frequency noise, float32 `shape`, about -1 to 1."""
    h, w = shape
    columns = max(2, min(24, int(cells * w / max(h, 1) * 0.5) + 2))
    coarse = rng.standard_normal((cells, columns)).astype(np.float32) * 0.6
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)


def add_rules(
    paper: np.ndarray, baseline: float, pitch: float, boxes: list[tuple[float, float]], rng: np.random.Generator
) -> None:
    """Draw printed lines on the float32 `paper` (levels 0-255): one rule, several, or a box for each character."""
    h, w = paper.shape
    level = float(rng.uniform(0.35, 0.92)) * float(paper.mean())
    thick = max(1, round(h / 48 * rng.uniform(0.6, 1.8)))
    kind = rng.random()
    slope = rng.normal(0, 0.004) * w
    layer = np.zeros((h, w), np.uint8)
    if kind < 0.45 or len(boxes) < 2:
        for row in (baseline,) if kind < 0.25 else (baseline - pitch, baseline, baseline + pitch):
            cv2.line(layer, (0, round(row - slope)), (w, round(row + slope)), 255, thick, cv2.LINE_AA)
    elif kind < 0.75:
        edges = [0.5 * (a[1] + b[0]) for a, b in zip(boxes, boxes[1:])]
        edges = [boxes[0][0] - 0.1 * pitch, *edges, boxes[-1][1] + 0.1 * pitch]
        for x in edges:
            cv2.line(layer, (round(x), 0), (round(x), h), 255, thick, cv2.LINE_AA)
        for y in (baseline - 0.9 * pitch, baseline + 0.15 * pitch):
            cv2.line(layer, (0, round(y - slope)), (w, round(y + slope)), 255, thick, cv2.LINE_AA)
    else:
        step = max(8, round(pitch * rng.uniform(0.25, 0.7)))
        layer[int(rng.integers(step)) :: step] = 255
        if rng.random() < 0.8:
            layer[:, int(rng.integers(step)) :: step] = 255
    dotted = rng.random() < 0.15
    if dotted:
        layer[:, (np.arange(w) // max(2, h // 20)) % 2 == 0] = 0
    paper += (level - paper) * (layer.astype(np.float32) * (1 / 255))


def make_paper(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An empty sheet, float32 levels 0-255: white, grey, tinted, with uneven light or a shadow."""
    h, w = shape
    clean = rng.random()
    level = 255.0 if clean < 0.4 else float(rng.uniform(185, 255) if clean < 0.85 else rng.uniform(95, 190))
    paper = np.full((h, w), level, np.float32)
    if clean < 0.4:
        return paper
    if rng.random() < 0.6:
        paper *= 1 + float(rng.uniform(0.01, 0.09)) * smooth_field(shape, rng)
    if rng.random() < 0.15:
        edge = np.clip((np.arange(w, dtype=np.float32) - rng.uniform(0, w)) / rng.uniform(4, 0.5 * w + 8), 0, 1)
        paper *= 1 - float(rng.uniform(0.1, 0.4)) * (edge if rng.random() < 0.5 else 1 - edge)
    if rng.random() < 0.25:
        paper += rng.standard_normal(shape).astype(np.float32) * float(rng.uniform(1, 6))
    return paper


def neighbours(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remains of the lines above and below: the line's own ink, shifted, cut in at the top or bottom edge."""
    h, w = ink.shape
    result = np.zeros_like(ink)
    depth = max(2, int(h * rng.uniform(0.04, 0.18)))
    rows = np.flatnonzero(ink.any(1))
    if len(rows) < depth + 2:
        return result
    rolled = np.roll(ink, int(rng.integers(w)), axis=1)[:, :: 1 if rng.random() < 0.5 else -1]
    where = rng.random()
    if where < 0.65:
        result[:depth] = rolled[rows[-1] + 1 - depth : rows[-1] + 1]
    if where > 0.4:
        result[-depth:] = np.roll(rolled, w // 3, axis=1)[rows[0] : rows[0] + depth]
    return result


def pencil(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven ink: grain, and fading along the line."""
    h, w = ink.shape
    if rng.random() < 0.5:
        grain = rng.integers(int(rng.uniform(60, 200)), 256, (h, w), np.uint8)
        ink = cv2.multiply(ink, cv2.blur(grain, (2, 2)), scale=1 / 255)
    if rng.random() < 0.6:
        fade = np.clip(0.85 + 0.25 * smooth_field((h, w), rng), 0.3, 1)
        ink = (ink * fade).astype(np.uint8)
    return ink


def put_ink(paper: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken the paper where there is ink; float32 in, uint8 out. Contrast from faint to full."""
    level = float(paper.mean())
    contrast = float(rng.uniform(0.6, 1.0) if rng.random() < 0.9 else rng.uniform(0.3, 0.6))
    dark = level * (1 - contrast)
    return np.clip(paper + (np.minimum(dark, paper) - paper) * (ink * np.float32(1 / 255)), 0, 255).astype(np.uint8)


def binarise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black and white, like a fax or a cleaned scan; uint8 in and out. Only for images with clear ink."""
    threshold, _ = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.where(image > threshold + rng.uniform(-5, 30), np.uint8(255), np.uint8(0))


def degrade(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Degradations by a camera or scanner, uint8 grey in and out; `strength` 0-1 scales their probability."""
    h, w = image.shape

    def chance(p: float) -> bool:
        return rng.random() < p * strength

    if chance(0.2):
        factor = rng.uniform(0.55, 0.95)
        small = cv2.resize(image, (max(4, round(w * factor)), max(8, round(h * factor))), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC)
    if chance(0.3):
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.95)) * h / 36)
    if chance(0.04):
        kernel = np.zeros((3, 3), np.float32)
        kernel[1] = 1 / 3
        image = cv2.filter2D(image, -1, kernel if rng.random() < 0.5 else kernel.T)
    if chance(0.4):
        noise = rng.standard_normal((h, w), np.float32) * float(
            rng.uniform(1, 4) if rng.random() < 0.8 else rng.uniform(4, 14)
        )
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if chance(0.35):
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))])
        decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if done else image
        assert decoded is not None  # just encoded
        image = decoded
    if chance(0.15):
        gamma = np.exp(rng.normal(0, 0.35))
        image = cv2.LUT(image, (255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))
    if chance(0.03):
        image = 255 - image
    return image
