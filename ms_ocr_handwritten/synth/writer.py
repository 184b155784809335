"""One hand: a randomly drawn style, and its effect on strokes and points. Lengths in em, angles in radians.

Arrays: strokes (S, 20, 2); flat points (M, 2) with the character they belong to (M,); chains are joined
strokes, stored flat as (points, lengths). All randomness comes from the given generator.
"""

from dataclasses import dataclass

import numpy as np

CHAIN_STEP = 0.045  # em between the points of a chain before smoothing


@dataclass(frozen=True)
class Style:
    """What stays constant over the lines of one writer."""

    slant: float  # shear, positive leans to the right
    aspect: float  # width over height of a character
    pen: float  # width of the pen
    pressure: float  # 0-1, how far the width varies within a stroke
    taper: float  # 0-1, how thin strokes end
    warp: float  # amplitude of the smooth distortion of a character
    jitter: float  # of the end points of strokes
    turn: float  # rotation of individual strokes
    stretch: float  # relative change of length of individual strokes
    bow: float  # bend of individual strokes, relative to their length
    smooth: int  # passes of corner cutting
    join: float  # probability that a stroke connects to the next
    omit: float  # probability per character that a short stroke is omitted
    merge: float  # probability per character that it is drawn in few moves
    link: float  # probability that a character connects to the next
    size_jitter: float  # of the size of characters
    rise_jitter: float  # of the baseline from character to character
    spacing: float  # gap between characters
    pitch: float  # 0-1, from even gaps to a regular grid
    space: float  # width of the space
    latin_scale: float
    drift: float  # slope of the baseline
    growth: float  # logarithm of the size ratio of the last to the first character
    lean: float  # change of the slant from the first character to the last
    running: float  # probability per character of its running form
    tilt: float  # how much horizontal strokes rise to the right
    spread: tuple[float, float]  # factor by which strokes of a character are farther apart (> 1) or closer, in x and y
    balance: tuple[float, float]  # more room for the left (> 0) or right, for the top or bottom of characters


def draw_style(rng: np.random.Generator) -> Style:
    """A writer, from neat and slow (care near 0) to fast and connected (care near 1)."""
    speed = rng.random() ** 1.15
    normal, uniform = rng.normal, rng.uniform
    return Style(
        slant=float(np.clip(normal(0.03, 0.10 + 0.08 * speed), -0.35, 0.55)),
        aspect=float(np.exp(normal(0, 0.12))),
        pen=float(np.clip(np.exp(normal(np.log(0.046), 0.40)), 0.016, 0.125)),
        pressure=float(rng.random() ** 2),
        taper=float(rng.random() ** 1.5),
        warp=0.012 + 0.032 * float(rng.random()) + 0.020 * speed,
        jitter=0.008 + 0.022 * float(rng.random()) + 0.016 * speed,
        turn=0.03 + 0.07 * float(rng.random()) + 0.03 * speed,
        stretch=0.04 + 0.10 * float(rng.random()),
        bow=0.02 + 0.06 * float(rng.random()),
        smooth=int(rng.integers(0, 3) + round(9 * speed * rng.random())),
        join=0.85 * speed * float(rng.random()),
        omit=0.25 * max(0.0, speed - 0.4),
        merge=0.6 * max(0.0, speed - 0.3) * float(rng.random()),
        link=0.25 * max(0.0, speed - 0.5) * float(rng.random()),
        size_jitter=0.02 + 0.07 * float(rng.random()),
        rise_jitter=0.01 + 0.035 * float(rng.random()),
        spacing=float(uniform(-0.02, 0.16) + (rng.random() < 0.12) * uniform(0, 0.6)),
        pitch=float(rng.random()),
        space=float(uniform(0.28, 0.8)),
        latin_scale=float(uniform(0.8, 1.25)),
        drift=float(normal(0, 0.008)),
        growth=float(normal(0, 0.08)),
        lean=float(normal(0, 0.05)),
        running=float(rng.random()) if rng.random() < 0.25 + 0.5 * speed else 0.0,
        tilt=float(np.clip(normal(0.05, 0.06), -0.08, 0.22)),
        spread=(float(np.exp(normal(0, 0.10))), float(np.exp(normal(0, 0.07)))),
        balance=(float(normal(0, 0.12)), float(normal(0, 0.10))),
    )


def bend_strokes(strokes: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Rotate, stretch, shift and bend every stroke, and move its ends: (S, 20, 2) -> (S, 20, 2)."""
    count, points, _ = strokes.shape
    t = np.linspace(0, 1, points, dtype=np.float32)
    chord = strokes[:, -1] - strokes[:, 0]
    length = np.sqrt(np.square(chord).sum(-1, keepdims=True)) + 1e-3
    centre = strokes.mean(1, keepdims=True)
    noise = rng.standard_normal((count, 12)).astype(np.float32)
    size = np.minimum(1.0, 2.0 * length)  # short strokes move less
    angle = noise[:, 0:1] * style.turn + 0.5 * style.turn * noise[0, 0]
    cos, sin = np.cos(angle), np.sin(angle)
    local = (strokes - centre) * (1 + style.stretch * np.clip(noise[:, 1:2], -2, 2))[:, None]
    turned = np.stack([local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos], -1)
    normal = np.stack([-chord[:, 1], chord[:, 0]], -1) / length
    bow = style.bow * length * noise[:, 2:3]
    turned += normal[:, None] * (bow * 4 * t * (1 - t))[..., None]
    start, end = noise[:, None, 4:6] * size[..., None], noise[:, None, 6:8] * size[..., None]
    turned += style.jitter * (start * ((1 - t) ** 2)[:, None] + end * (t**2)[:, None])
    return turned + centre + 0.6 * style.jitter * noise[:, None, 8:10]


def spread_strokes(strokes: np.ndarray, owner: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Move whole strokes away from or towards the centre of their character: (S, 20, 2) -> (S, 20, 2).

    owner: (S,) the character of each stroke. Each character has its own factor, around that of the writer.
    """
    counts = np.bincount(owner)
    middles = strokes.mean(1)  # (S, 2)
    total = np.stack([np.bincount(owner, middles[:, axis]) for axis in (0, 1)], 1)
    centres = total / np.maximum(counts, 1)[:, None]
    factors = np.array(style.spread) * np.exp(0.05 * rng.standard_normal((len(counts), 2)))
    moved = (middles - centres[owner]) * (factors[owner] - 1)
    return strokes + moved[:, None].astype(np.float32)


def kept_strokes(strokes: np.ndarray, owner: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Mask (S,) of the strokes that are drawn: now and then a character of six or more lacks a short one."""
    keep = np.ones(len(strokes), bool)
    if style.omit <= 0:
        return keep
    length = np.abs(np.diff(strokes, axis=1)).sum((1, 2))
    counts = np.bincount(owner)
    for character in np.flatnonzero((counts >= 6) & (rng.random(len(counts)) < style.omit)):
        own = np.flatnonzero(owner == character)
        shortest = own[np.argmin(length[own] * rng.uniform(0.7, 1.3, len(own)))]
        keep[shortest] = length[shortest] > 0.3
    return keep


def joined(
    strokes: np.ndarray,
    owner: np.ndarray,
    linked: np.ndarray,
    merged: np.ndarray,
    style: Style,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mask (S,): the pen stays down from this stroke to the next. Ends close together are joined more often.

    linked: (C,) characters that connect to the next one (joined writing); merged: (C,) drawn in few moves.
    """
    found = np.zeros(len(strokes), bool)
    if len(strokes) < 2:
        return found
    gap = np.sqrt(np.square(strokes[1:, 0] - strokes[:-1, -1]).sum(-1))
    before, after = owner[:-1], owner[1:]
    chance = np.where(merged[before], 0.85, style.join) * np.exp(-np.square(gap / 0.5))
    chance = np.where(gap < 0.06, np.maximum(chance, 0.3 * (style.smooth > 1)), chance)
    next_character = style.link * np.exp(-np.square(gap / 0.4))
    chance = np.where(after == before, chance, np.where(after == before + 1, next_character, 0))
    chance = np.where(linked[before] & (after == before + 1) & (gap < 0.7), 0.93, chance)
    chance = np.where(linked[before] & (after == before), 0, chance)
    found[:-1] = rng.random(len(gap)) < chance
    return found


def chains(
    strokes: np.ndarray, run_on: np.ndarray, step: float = CHAIN_STEP
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join strokes and space their points evenly.

    Returns points (M, 2), lengths (K,) of the chains in points, and a mask (M,) of points on a connecting move.
    """
    _, per, _ = strokes.shape
    flat = strokes.reshape(-1, 2)
    ends = np.flatnonzero(~run_on)
    starts = np.concatenate([[0], ends[:-1] + 1])
    segment = np.sqrt(np.square(np.diff(flat, axis=0)).sum(-1))
    segment[(ends[:-1] + 1) * per - 1] = 1.0  # no ink between chains, but the sum must increase
    along = np.concatenate([[0.0], np.cumsum(segment + 1e-6)])
    first, last = along[starts * per], along[(ends + 1) * per - 1]
    lengths = np.maximum(4, np.ceil((last - first) / step).astype(int) + 1)
    offset = np.repeat(np.cumsum(lengths) - lengths, lengths)
    t = (np.arange(int(lengths.sum())) - offset) / np.repeat(lengths - 1, lengths)
    at = np.repeat(first, lengths) + t * np.repeat(last - first, lengths)
    points = np.stack([np.interp(at, along, flat[:, 0]), np.interp(at, along, flat[:, 1])], 1).astype(np.float32)
    segment_of = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(flat) - 2)
    return points, lengths, (segment_of % per == per - 1) & run_on[segment_of // per]


def smooth_chains(points: np.ndarray, lengths: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Smooth corners: `passes` (K,) times (1, 2, 1)/4 along each chain, keeping its ends."""
    if len(points) < 3:
        return points
    ends = np.cumsum(lengths)
    left = np.repeat(passes, lengths)
    left[ends - 1] = 0
    left[ends - lengths] = 0
    left = left[1:-1, None]
    points = points.copy()
    for done in range(int(passes.max(initial=0))):
        points[1:-1] += 0.25 * (left > done) * (points[2:] + points[:-2] - 2 * points[1:-1])
    return points


def pen_widths(
    points: np.ndarray, lengths: np.ndarray, connecting: np.ndarray, style: Style, rng: np.random.Generator
) -> np.ndarray:
    """Width of the pen at every point (M,): waves of pressure, thin ends, thinner connecting moves."""
    total = len(points)
    offset = np.repeat(np.cumsum(lengths) - lengths, lengths)
    t = (np.arange(total) - offset) / np.repeat(lengths - 1, lengths)
    phase, wave = rng.random((2, len(lengths))).astype(np.float32)
    width = 1 + 0.45 * style.pressure * np.sin(6.28 * (np.repeat(phase, lengths) + t * np.repeat(wave, lengths)))
    width *= 1 - style.taper * 0.7 * np.clip(t * 2.2 - 1.2, 0, 1)
    width *= np.where(connecting, 1 - 0.5 * max(style.pressure, style.taper), 1)
    return style.pen * width


def warp_characters(
    points: np.ndarray, owner: np.ndarray, count: int, amplitude: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth low-frequency distortion, different for each character: (M, 2) -> (M, 2)."""
    waves = rng.uniform(-1, 1, (count, 2, 6)).astype(np.float32)  # (characters, waves, parameters)
    result = points.copy()
    for w in range(2):
        own = waves[:, w][owner]  # (M, 6)
        scale = 1.0 + w
        phase = 6.2832 * (0.75 * scale * (own[:, 0] * points[:, 0] + own[:, 1] * points[:, 1]) + own[:, 2])
        size = (1.9 * amplitude / scale) * np.stack([own[:, 3], own[:, 4]], 1)
        result += size * np.stack([np.sin(phase), np.cos(phase + 3 * own[:, 5])], 1)
    return result


def shape_characters(
    points: np.ndarray,
    owner: np.ndarray,
    scale: np.ndarray,
    han: np.ndarray,
    style: Style,
    strength: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Balance, size, aspect, slant, tilt and a small rotation of each character about the centre of its baseline.

    scale: (C,) size of each character; han: (C,) whether it fills the em box, only then are its parts balanced and
    its horizontals tilted; strength 0-1 how much the characters differ from each other.
    """
    count = len(scale)
    noise = rng.standard_normal((6, count)).astype(np.float32) * strength
    size = scale * np.exp(style.size_jitter * noise[0])
    wide = size * style.aspect * np.exp(0.8 * style.size_jitter * noise[1])
    shear, turn = style.slant + 0.04 * noise[2], 0.03 * noise[3]
    u, v = np.clip(points[:, 0], 0, 1), np.clip(points[:, 1] + 0.88, 0, 1)
    more_left, more_top = (han * (b + 0.08 * n) for b, n in zip(style.balance, noise[4:6]))
    x = points[:, 0] + more_left[owner] * u * (1 - u)
    y = points[:, 1] + more_top[owner] * v * (1 - v)
    x, y = x * wide[owner], y * size[owner]
    rise = turn - han * style.tilt
    return np.stack([x - y * (shear + turn)[owner], y + (x - 0.45) * rise[owner]], 1)
