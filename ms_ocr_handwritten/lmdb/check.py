"""Look at an LMDB of lines as a whole: `inspect_lmdb` sums it up, `validate_lmdb` lists what is wrong with it.

Neither changes anything, and neither holds more than one image at a time.
"""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lmdb
import numpy as np
from PIL import Image

from ..errors import ImageError, LmdbError
from ..geometry import canvas_columns
from ..image import line_canvas, load_image
from ..vocab import Vocabulary
from .labels import label_faults, vocabulary_faults
from .open import shared_environment
from .store import COUNT_KEY, LmdbReader, decode_label, get, image_key, label_key, stored_count

Progress = Callable[[int, int], None]  # called with (samples done, samples in all)

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Spread:
    """The least, the median and the greatest of some values; zeros where there are none."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Summary:
    """What an LMDB holds. Sizes in px as the image files state them; labels as stored, not folded.

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
    """One fault: `key` of the record, `kind` as `validate_lmdb` lists them, `detail` for a reader."""

    key: str
    kind: str
    detail: str


@dataclass(frozen=True)
class ValidationReport:
    """What `validate_lmdb` found: `samples` records were looked at, `count` is `num-samples` (None if unusable)."""

    path: str
    count: int | None
    samples: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def kinds(self) -> dict[str, int]:
        """Kind -> number of problems, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())


def inspect_lmdb(path: str | os.PathLike, progress: Progress | None = None) -> Summary:
    """Sizes, formats, label lengths and characters of the LMDB `path`. Image headers are read, not the pixels.

    A record that cannot be read is listed in the summary. Raises LmdbError as LmdbReader does for the whole.
    """
    reader = LmdbReader(path)
    formats: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    characters: Counter[str] = Counter()
    sizes, unreadable = [], []
    for index in range(len(reader)):
        try:
            with Image.open(io.BytesIO(reader.image_bytes(index))) as image:
                formats[str(image.format)] += 1
                sizes.append(image.size)
        except Exception:  # a broken header makes Pillow's readers raise almost anything
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

    Kinds: `count` (num-samples missing, no number, or not the number of samples there), `key` (an image or label
    key that is not a number of nine digits from 1), `missing` (an image, a label or both), `beyond-count` (a
    sample that num-samples leaves out), `image` (cannot be decoded, or no line), `label` (not UTF-8),
    those of `labels.KINDS`, and with a vocabulary those of `labels.vocabulary_faults`.
    Raises LmdbError where the path is no LMDB.
    """
    path = os.path.abspath(path)
    shared = shared_environment(path)
    environment = shared.environment
    images, labels, problems = _present_samples(environment)
    present = sorted(images | labels)
    count, count_problems = _check_count(environment, path, present)
    problems += [*count_problems, *_gaps(present)]
    for done, index in enumerate(present, start=1):
        if count is not None and index >= count:
            problems.append(Problem(image_key(index), "beyond-count", f"{COUNT_KEY} is {count}; no reader sees it"))
        problems += _check_sample(environment, path, index, vocabulary)
        if progress is not None:
            progress(done, len(present))
    return ValidationReport(path, count, len(present), tuple(problems))


def _present_samples(environment: lmdb.Environment) -> tuple[set[int], set[int], list[Problem]]:
    """Indices (from 0) of the images and of the labels that are there, and the keys that are malformed."""
    found: dict[str, set[int]] = {"image": set(), "label": set()}
    problems = []
    with environment.begin() as transaction:
        for raw in transaction.cursor().iternext(keys=True, values=False):
            key = raw.decode("utf-8", "backslashreplace")
            kind, dash, number = key.partition("-")
            if kind not in found or not dash:
                continue  # num-samples, or a key of the user's own
            if number.isascii() and number.isdigit() and key == f"{kind}-{int(number):09d}" and int(number) > 0:
                found[kind].add(int(number) - 1)
            else:
                problems.append(Problem(key, "key", f"no sample has this key; the first is {kind}-000000001"))
    return found["image"], found["label"], problems


def _check_count(environment: lmdb.Environment, path: str, present: list[int]) -> tuple[int | None, list[Problem]]:
    try:
        count = stored_count(environment, path)
    except LmdbError as error:
        return None, [Problem(COUNT_KEY, "count", str(error))]
    last = present[-1] + 1 if present else 0
    if count == last:
        return count, []
    return count, [Problem(COUNT_KEY, "count", f"says {count}, but the last sample there is number {last}")]


def _gaps(present: list[int]) -> Iterator[Problem]:
    """One problem for each run of samples of which neither image nor label is there."""
    previous = -1
    for index in present:
        if index > previous + 1:
            detail = f"neither image nor label of samples {image_key(previous + 1)} to {image_key(index - 1)} is there"
            yield Problem(image_key(previous + 1), "missing", detail)
        previous = index


def _check_sample(
    environment: lmdb.Environment, path: str, index: int, vocabulary: Vocabulary | None
) -> Iterator[Problem]:
    canvas = None
    image = get(environment, image_key(index), path)
    if image is None:
        yield Problem(image_key(index), "missing", "the label is there, the image is not")
    else:
        try:
            canvas = line_canvas(load_image(image))
        except ImageError as error:
            yield Problem(image_key(index), "image", str(error))
    value = get(environment, label_key(index), path)
    if value is None:
        yield Problem(label_key(index), "missing", "the image is there, the label is not")
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
    """Columns that the network gives to an encoded image of a line. Raises ImageError where it is none."""
    return canvas_columns(line_canvas(load_image(image)).chunks)
