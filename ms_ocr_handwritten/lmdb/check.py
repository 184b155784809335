"""Examining an LMDB of lines: `inspect_lmdb` summarises it, `validate_lmdb` lists its faults.

Both are read-only and hold at most one image at a time.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import lmdb
import numpy as np

from ..errors import ImageError, LmdbError
from ..geometry import canvas_columns
from ..image import line_canvas, load_image
from ..image.file import open_image
from ..image.limits import Limits
from ..vocab import Vocabulary
from .child import ChildDied, events_of_child
from .labels import label_faults, vocabulary_faults
from .open import SharedEnvironment, absolute, data_file, shared_environment
from .store import COUNT_KEY, LmdbReader, decode_label, image_key, label_key, stored_count

Progress = Callable[[int, int], None]  # called with (samples done, total samples)

KEYS = "all keys"  # in a Problem that is not about a single key
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum of some values; zeros if there are none."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Summary:
    """Summary of an LMDB. Sizes in px are those declared by the image files; labels are as stored, not folded.

    image_formats: Pillow's names -> images
    label_lengths: number of characters -> labels, ascending
    label_percentiles: 50, 90, 99 -> characters
    characters: character -> occurrences, the most frequent first
    unreadable: keys of images without a readable header and of labels that are missing or not UTF-8
    """

    path: str
    samples: int
    image_formats: dict[str, int]
    widths: Spread
    heights: Spread
    aspects: Spread
    label_lengths: dict[int, int]
    label_percentiles: dict[int, float]
    characters: dict[str, int]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One fault: the record's `key`, its `kind` (see `validate_lmdb`), and a readable `detail`."""

    key: str
    kind: str
    detail: str


@dataclass(frozen=True)
class ValidationReport:
    """The result of `validate_lmdb`: `samples` were examined, `count` is `num-samples` (None if unusable)."""

    path: str
    count: int | None
    samples: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> number of problems, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())


def inspect_lmdb(path: str | os.PathLike, progress: Progress | None = None) -> Summary:
    """Sizes, formats, label lengths and characters of the LMDB `path`. Only the headers of images are read.

    Records that cannot be read are listed in the summary. Raises LmdbError for the LMDB as a whole, as LmdbReader does.
    """
    reader = LmdbReader(path)
    formats: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    characters: Counter[str] = Counter()
    sizes, unreadable = [], []
    for index in range(len(reader)):
        try:
            with open_image(reader.image_bytes(index), image_key(index), Limits()) as image:
                formats[str(image.format)] += 1
                sizes.append(image.size)
        except (ImageError, LmdbError):
            unreadable.append(image_key(index))
        try:
            label = reader.label(index)
            lengths[len(label)] += 1
            characters.update(label)
        except LmdbError:
            unreadable.append(label_key(index))
        if progress is not None:
            progress(index + 1, len(reader))
    widths, heights = np.array(sizes, dtype=np.float64).reshape(-1, 2).T
    return Summary(
        path=reader.path,
        samples=len(reader),
        image_formats=dict(formats.most_common()),
        widths=_spread(widths),
        heights=_spread(heights),
        aspects=_spread(widths / heights),
        label_lengths=dict(sorted(lengths.items())),
        label_percentiles=_percentiles(lengths),
        characters=dict(characters.most_common()),
        unreadable=tuple(unreadable),
    )


def _spread(values: np.ndarray) -> Spread:
    if values.size == 0:
        return Spread(0.0, 0.0, 0.0)
    return Spread(float(values.min()), float(np.median(values)), float(values.max()))


def _percentiles(lengths: Counter[int]) -> dict[int, float]:
    values = sorted(lengths.elements())
    return {p: float(np.percentile(values, p)) if values else 0.0 for p in _PERCENTILES}


def validate_lmdb(
    path: str | os.PathLike, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> ValidationReport:
    """Every fault of the LMDB `path`, sample by sample; characters and alignment only with a `vocabulary`.

    Kinds: `count` (num-samples missing, not a number, or not the actual number of samples), `key` (an image or label
    key that is not a number of nine digits from 1), `missing` (an image, a label or both), `beyond-count` (a
    sample not covered by num-samples), `image` (cannot be decoded, or not a line), `label` (not UTF-8),
    `damaged` (pages of the file that cannot be read), those of `labels.KINDS`, and with a vocabulary those of
    `labels.vocabulary_faults`.

    It runs in a child process, since damaged pages can end the process that reads them, which is then reported as
    the last problem. Raises LmdbError if the path is not an LMDB.
    """
    path = absolute(path)
    data_file(path)
    found = _in_child(path, vocabulary, progress, walk=True)
    if found.death and found.place == KEYS:  # it died while listing the keys; they can be looked up one by one instead
        death, found = found.death, _in_child(path, vocabulary, progress, walk=False)
        found.problems.insert(0, Problem(KEYS, "damaged", f"reading them ended the process ({death})"))
    if found.death:
        detail = f"reading it ended the process ({found.death}), nothing after it was checked; copy or build it again"
        found.problems.append(Problem(found.place, "damaged", detail))
    return ValidationReport(path, found.count, found.samples, tuple(found.problems))


@dataclass
class _Findings:
    """Findings of a child so far; `place` is the key it was examining, `death` how it died, if it did."""

    place: str = COUNT_KEY
    count: int | None = None
    samples: int = 0
    problems: list[Problem] = field(default_factory=list)
    death: str | None = None


def _in_child(path: str, vocabulary: Vocabulary | None, progress: Progress | None, walk: bool) -> _Findings:
    found = _Findings()
    try:
        for event in events_of_child(examine, path, vocabulary, walk):
            if isinstance(event, Problem):
                found.problems.append(event)
            elif isinstance(event, str):
                found.place = event
            elif isinstance(event, int):
                found.count = event
            else:
                found.samples, total = event
                if progress is not None and found.samples:
                    progress(found.samples, total)
    except ChildDied as death:
        found.death = str(death)
    return found


def examine(path: str, vocabulary: Vocabulary | None, walk: bool) -> Iterator[Problem | str | int | tuple[int, int]]:
    """Events for `validate_lmdb`: problems, keys before they are read, the count, (samples done, total samples)."""
    shared = shared_environment(path)
    count = None
    try:
        yield (count := stored_count(shared, path))
    except LmdbError as error:
        yield Problem(COUNT_KEY, "count", str(error))
    yield KEYS
    present: list[int] = []
    yield from _present_samples(shared, path, count, walk, present)
    last = present[-1] + 1 if present else 0
    if count not in (None, last):
        yield Problem(COUNT_KEY, "count", f"says {count}, but the last sample there is number {last}")
    yield from _gaps(present)
    yield 0, len(present)
    for done, index in enumerate(present, start=1):
        yield image_key(index)
        if count is not None and index >= count:
            yield Problem(image_key(index), "beyond-count", f"{COUNT_KEY} is {count}; no reader sees it")
        yield from _check_sample(shared, path, index, vocabulary)
        yield done, len(present)


def _present_samples(
    shared: SharedEnvironment, path: str, count: int | None, walk: bool, present: list[int]
) -> Iterator[Problem]:
    """Fill `present` with the indices (from 0) that have an image or a label; yields problems of malformed keys.

    Without a `walk` over all keys, or if they cannot be listed, every possible key is looked up.
    """
    indices: set[int] = set()
    if walk:
        try:
            with shared.reading() as transaction:
                keys = transaction.cursor().iternext(keys=True, values=False)
                for number, raw in enumerate(keys):
                    if number > shared.most_records:
                        raise lmdb.CorruptedError("the keys have no end")
                    index, problem = _index_of(bytes(raw))
                    indices |= set() if index is None else {index}
                    if problem:
                        yield problem
        except lmdb.Error as error:
            yield Problem(KEYS, "damaged", f"cannot be read ({error}); copy or build the LMDB again")
            walk = False
    if not walk:
        for index in range(min(max(count or 0, shared.most_records // 2), shared.most_records)):
            with contextlib.suppress(LmdbError):  # reported when the sample is checked
                if shared.get(image_key(index), path) is None and shared.get(label_key(index), path) is None:
                    continue
            indices.add(index)
    present += sorted(indices)


def _index_of(raw: bytes) -> tuple[int | None, Problem | None]:
    """The sample that a key belongs to, or what is wrong with the key; neither for the user's own keys."""
    key = raw.decode("utf-8", "backslashreplace")
    kind, dash, number = key.partition("-")
    if kind not in ("image", "label") or not dash:
        return None, None
    if (
        number.isascii()
        and number.isdigit()
        and len(number) < 19
        and key == f"{kind}-{int(number):09d}"
        and int(number)
    ):
        return int(number) - 1, None
    return None, Problem(key, "key", f"no sample has this key; the first is {kind}-000000001")


def _gaps(present: list[int]) -> Iterator[Problem]:
    """One problem for each run of samples that have neither image nor label."""
    previous = -1
    for index in present:
        if index > previous + 1:
            detail = f"neither image nor label of samples {image_key(previous + 1)} to {image_key(index - 1)} is there"
            yield Problem(image_key(previous + 1), "missing", detail)
        previous = index


def _check_sample(shared: SharedEnvironment, path: str, index: int, vocabulary: Vocabulary | None) -> Iterator[Problem]:
    canvas = None
    values: dict[str, bytes | None] = {}
    for key, kind, other in (
        (image_key(index), "image", "label"),
        (label_key(index), "label", "image"),
    ):
        try:
            values[kind] = shared.get(key, path)
        except LmdbError as error:
            yield Problem(key, "damaged", str(error))
            continue
        if values[kind] is None:
            yield Problem(key, "missing", f"the {other} is there, the {kind} is not")
    if (image := values.get("image")) is not None:
        try:
            canvas = line_canvas(load_image(image))
        except ImageError as error:
            yield Problem(image_key(index), "image", str(error))
    if (value := values.get("label")) is None:
        return
    try:
        label = decode_label(value, path, label_key(index))
    except LmdbError as error:
        yield Problem(label_key(index), "label", str(error))
        return
    faults = list(label_faults(label))
    if vocabulary is not None:
        faults += vocabulary_faults(label, vocabulary, canvas)
    yield from (Problem(label_key(index), kind, detail) for kind, detail in faults)


def line_columns(image: bytes) -> int:
    """Number of network columns for an encoded image of a line. Raises ImageError if it is not one."""
    return canvas_columns(line_canvas(load_image(image)).chunks)
