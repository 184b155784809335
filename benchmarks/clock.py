"""Alternating timing: A B A B ..., so that drift of the machine affects all alike; medians, and pairwise ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch


class Reader(Protocol):
    """A reader: one image at a time, or a list in its fastest way. `precision` is that of its matrix products."""

    name: str
    precision: str

    def one(self, image) -> str:
        raise NotImplementedError

    def many(self, images: list) -> list[str]:
        raise NotImplementedError


class Timing:
    """Milliseconds per line of each round, and the texts, which are the same in every round."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.texts: list[str] = []

    @property
    def median(self) -> float:
        return statistics.median(self.ms)


def seconds(task: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Wall time of `task(*arguments)`, including the GPU work it started, and its result."""
    _wait_for_gpu()
    start = time.perf_counter()
    result = task(*arguments)
    _wait_for_gpu()
    return time.perf_counter() - start, result


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(others: Sequence[float], own: Sequence[float]) -> float:
    """Median of other/own over pairs."""
    return statistics.median(other / mine for other, mine in zip(others, own, strict=True))


def single_calls(
    readers: Sequence[Reader], images: list, rounds: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, Timing]:
    """Time single calls of every image by every reader in turn.

    Each timed call follows an untimed one of the same reader, which brings its weights into the cache, as in a run
    of its own.
    """
    timings = {reader.name: Timing() for reader in readers}
    for _ in range(rounds):
        spent, texts = dict.fromkeys(timings, 0.0), {name: [] for name in timings}
        for image in images:
            for reader in readers:
                reader.one(image)
                duration, text = seconds(reader.one, image)
                spent[reader.name] += duration
                texts[reader.name].append(text)
        for name, timing in timings.items():
            timing.ms.append(1000 * spent[name] / len(images))
            timing.texts = texts[name]
        after_round()
    return timings


def whole_lists(
    readers: Sequence[Reader], images: list, rounds: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, Timing]:
    """Time the list by every reader in turn; a short part of it is read before the first round, untimed.

    On a GPU the whole list is: cuDNN selects its kernels for each new number of chunks.
    """
    timings = {reader.name: Timing() for reader in readers}
    for reader in readers:
        reader.many(images if torch.cuda.is_initialized() else images[:32])
    for _ in range(rounds):
        for reader in readers:
            duration, texts = seconds(reader.many, images)
            timings[reader.name].ms.append(1000 * duration / len(images))
            timings[reader.name].texts = texts
        after_round()
    return timings


def fastest(modes: Mapping[str, Callable[[list], Any]], images: list, rounds: int = 2) -> str:
    """The name of the mode that reads `images` fastest (median of rounds, after an untimed one)."""
    spent: dict[str, list[float]] = {name: [] for name in modes}
    for timed in range(rounds + 1):
        for name, read in modes.items():
            duration, _ = seconds(read, images)
            if timed:
                spent[name].append(duration)
    return min(spent, key=lambda name: statistics.median(spent[name]))
