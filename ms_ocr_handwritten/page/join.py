"""Joins parts of long lines: boxes on one baseline with a small gap between them belong to one line."""

from collections.abc import Sequence

import numpy as np

_GAP = 1.0  # in heights of the lower box: less than one or two characters, and than the gutter between columns
_OVERLAP = 0.5  # minimum overlap across the line, in heights of the lower box
_HEIGHTS = 2.0  # maximum ratio of their heights
_TURN = np.deg2rad(10)  # maximum difference of their directions


def join_boxes(boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Boxes (4, 2), clockwise from the upper left corner, with those of one line joined into one polygon.

    A joined polygon follows the upper edges of its boxes from left to right and returns along their lower edges.
    Polygons with other than four points are left unchanged.
    """
    joined: list[list[np.ndarray]] = []
    for box in sorted(boxes, key=lambda one: one[:, 0].min()):
        fitting = [parts for parts in joined if _continues(parts[-1], box)]
        if fitting:
            min(fitting, key=lambda parts: _gap(parts[-1], box)).append(box)
        else:
            joined.append([box])
    return [parts[0] if len(parts) == 1 else _outline(parts) for parts in joined]


def _outline(parts: list[np.ndarray]) -> np.ndarray:
    upper = [point for box in parts for point in box[:2]]
    lower = [point for box in parts[::-1] for point in box[2:]]
    return np.array([*upper, *lower])


def _continues(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether `right` continues the line of `left`."""
    if len(left) != 4 or len(right) != 4:
        return False
    direction, other = _direction(left), _direction(right)
    if np.dot(direction, other) < np.cos(_TURN) or abs(direction[0]) < abs(direction[1]):
        return False
    heights = _height(left), _height(right)
    lower = min(heights)
    if _width(left) < heights[0] and _width(right) < heights[1]:  # two columns of vertical writing
        return False
    across = np.array([-direction[1], direction[0]])
    end, start = (left[1] + left[2]) / 2, (right[0] + right[3]) / 2
    apart = abs(np.dot(start - end, across))
    shared = sum(heights) / 2 - apart  # of two strips, both along the line
    return (
        lower > 0
        and max(heights) <= _HEIGHTS * lower
        and min(shared, lower) >= _OVERLAP * lower
        and -lower <= _gap(left, right) <= _GAP * lower
    )


def _gap(left: np.ndarray, right: np.ndarray) -> float:
    """px along the line from the end of one box to the start of the other; negative if they overlap."""
    return float(np.dot((right[0] + right[3]) / 2 - (left[1] + left[2]) / 2, _direction(left)))


def _direction(box: np.ndarray) -> np.ndarray:
    along = (box[1] + box[2]) / 2 - (box[0] + box[3]) / 2
    return along / max(float(np.linalg.norm(along)), 1e-9)


def _width(box: np.ndarray) -> float:
    return float(np.linalg.norm(box[1] - box[0]) + np.linalg.norm(box[2] - box[3])) / 2


def _height(box: np.ndarray) -> float:
    return float(np.linalg.norm(box[3] - box[0]) + np.linalg.norm(box[2] - box[1])) / 2
