"""Splitting an LMDB into a training and a held-out part: by lines, or whole writers, pages, folders."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, LmdbError
from .open import absolute
from .resumable import ResumableWriter, Sample, SkippedSample
from .store import SIDE_KEYS, LmdbReader, refuse_existing

GROUPS = ("writer", "page", "folder")
WAYS = ("line", "key", "group", *GROUPS)


@dataclass(frozen=True)
class Part:
    """One side of a split: `groups` is the number of writers, pages, folders or lines in it.

    skipped: samples that could not be read
    """

    path: str
    samples: int
    groups: int
    skipped: tuple[SkippedSample, ...] = ()


@dataclass(frozen=True)
class Split:
    """The result of `split_lmdb`; `by` is the way used ("writer" if "group" was requested and writers are known)."""

    by: str
    train: Part
    held_out: Part


def split_lmdb(
    path: str | os.PathLike,
    share: float = 0.9,
    by: str = "line",
    seed: int = 0,
    train: str | os.PathLike | None = None,
    held_out: str | os.PathLike | None = None,
) -> Split:
    """Write `share` of the LMDB's samples as the LMDB `train`, the others as `held_out`; `path` is not changed.

    Args:
        by: "line" draws single lines; "key" holds out the last ones in key order; "writer", "page" and "folder" draw
            whole groups, as near to `share` as possible; "group" is the first of these three that all samples have.
        seed: of the random draw; the same seed gives the same split.
        train, held_out: [`path` + "_train" and "_held_out"]

    Raises:
        DataError: a sample has no writer (page ...), or all have the same.
        LmdbError: a record cannot be read, or one of the two exists already.
    """
    if by not in WAYS:
        raise ValueError(f"by is {by!r}; give one of {', '.join(WAYS)}")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number between 0 and 1, such as 0.9")
    reader = LmdbReader(path)
    outs = [Path(absolute(out or usual)) for out, usual in zip((train, held_out), part_paths(path))]
    for out in outs:
        refuse_existing(out)
    by, groups = _groups(reader, by)
    is_held_out = _drawn(groups, share, None if by == "key" else np.random.default_rng(seed))
    parts = []
    for out, chosen in zip(outs, (~is_held_out, is_held_out)):
        indices = np.flatnonzero(chosen)
        skipped = copy_samples(reader, indices, out)
        parts.append(Part(os.fspath(out), len(indices) - len(skipped), len(np.unique(groups[indices])), skipped))
    return Split(by, *parts)


def part_paths(path: str | os.PathLike) -> tuple[Path, Path]:
    """The default paths of the two parts of the LMDB `path`."""
    base = absolute(path).removesuffix(os.sep + "data.mdb")
    return Path(f"{base}_train"), Path(f"{base}_held_out")


def copy_samples(reader: LmdbReader, indices: np.ndarray, out: Path) -> tuple[SkippedSample, ...]:
    """Write the samples at `indices` as the LMDB `out`; resumes an earlier, interrupted run.

    Returns the samples that cannot be read.
    """
    status = os.stat(os.path.join(reader.path, "data.mdb") if os.path.isdir(reader.path) else reader.path)
    told = f"{reader.path} {status.st_size} {status.st_mtime_ns} {indices.tobytes().hex()}"
    with ResumableWriter(out, hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()) as writer:
        for index in indices[writer.resumed :].tolist():
            try:
                image, label = reader.read(index)
                beside = {kind: text for kind in SIDE_KEYS if (text := reader.beside(index, kind))}
            except LmdbError as error:
                writer.skip(SkippedSample(reader.key(index), str(error)))
            else:
                writer.add(Sample(image, label, beside))
        skipped = writer.skipped()
        writer.finish()
    return skipped


def _groups(reader: LmdbReader, by: str) -> tuple[str, np.ndarray]:
    """The way of splitting, and each sample's group number (n,)."""
    if by in ("line", "key"):
        return by, np.arange(len(reader))
    for kind in GROUPS if by == "group" else (by,):
        names = [group_of(reader, index, kind) for index in range(len(reader))]
        if all(names):
            _, numbers = np.unique(names, return_inverse=True)
            if numbers.max(initial=0) > 0:
                return kind, numbers
            if by != "group":
                raise DataError(f"{reader.path}: all {len(names)} samples are of one {by}, {names[0]!r}; split by line")
        elif by != "group":
            first = reader.key(names.index(""))
            raise DataError(
                f"{reader.path}: {names.count('')} of {len(names)} samples have no {by}, the first is {first}; split "
                "by another, or rebuild the LMDB from data that name it"
            )
    raise DataError(f"{reader.path}: its samples tell no writers, pages or folders apart; split by line")


def group_of(reader: LmdbReader, index: int, kind: str) -> str:
    """The writer, page or folder of a sample, '' if unknown."""
    if kind != "folder":
        return reader.beside(index, kind)
    source = reader.beside(index, "source")
    return source.rpartition("/")[0] or "." if source else ""


def _drawn(groups: np.ndarray, share: float, random: np.random.Generator | None) -> np.ndarray:
    """bool (n,), which samples are held out: whole groups, at least one on each side; without `random` the last."""
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise DataError(f"{len(sizes)} lines cannot be split in two")
    order = np.arange(len(sizes))[::-1] if random is None else random.permutation(len(sizes))
    wanted = (1 - share) * len(groups)
    held_out: list[int] = []
    total = 0
    for group in order.tolist():
        if abs(total + sizes[group] - wanted) < abs(total - wanted) and len(held_out) < len(sizes) - 1:
            held_out.append(group)
            total += sizes[group]
    if not held_out:  # each group is larger than twice the wanted size
        held_out = [int(sizes.argmin())]
    return np.isin(groups, held_out)
