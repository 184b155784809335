"""Build an LMDB from lines in any of `data.formats`.

    sources -> records -> checked and encoded samples -> the LMDB; invalid records -> the report

Text is stored unchanged, not folded; an image file is stored byte for byte, once it is known to decode; images that
have to be encoded (CASIA's bitmaps, lines cut out of pages) become PNGs.
"""

import hashlib
import json
import os
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np

from ..data.formats import FORMATS, find_format
from ..data.record import BadRecord, ReadOptions, Record, Records
from ..data.rows import is_dataset, open_dataset, read_dataset
from ..data.table import empty_label
from ..errors import DataError, ImageError, LabelError, LmdbError
from ..geometry import MAX_CHUNKS, line_chunks, scaled_width
from ..image import line_canvas
from .check import line_columns
from .labels import label_faults
from .open import absolute
from .resumable import ResumableWriter, Sample, SkippedSample
from .store import SIDE_KEYS

Progress = Callable[[int, "int | None"], None]  # called with (records done, total records or None)
OnBad = Literal["error", "skip"]

_NORMALISE = {"nfc": partial(unicodedata.normalize, "NFC"), "nfkc": partial(unicodedata.normalize, "NFKC")}
_GROUP = 16  # records passed to a thread at once
_SHOWN = 3  # places named in a remark
# Level 1 without a filter compresses ink on plain paper in half the time of OpenCV's default, and no worse.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Remark:
    """Samples that were stored although something is odd: a kind of `labels.KINDS`, their number, the first places."""

    kind: str
    samples: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class BuildReport:
    """The result of `build_lmdb`: `written` samples are in `path`, `skipped` ones are not.

    resumed: number of records already processed by an earlier, interrupted run
    """

    path: str
    written: int
    skipped: tuple[SkippedSample, ...]
    remarks: tuple[Remark, ...] = ()
    resumed: int = 0


@dataclass(frozen=True)
class BuildOptions:
    """How to read the sources and process labels.

    form: a name in `data.formats.FORMATS`; '' to detect it
    normalise: Unicode normalisation of the labels ("nfc", "nfkc"), None for none
    threads: number of threads that check and encode images
    """

    form: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)
    normalise: str | None = None
    threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))


def build_lmdb(
    out: str | os.PathLike,
    sources: Any,
    image_root: str | os.PathLike | None = None,
    on_bad_sample: OnBad = "error",
    progress: Progress | None = None,
    options: BuildOptions = BuildOptions(),
) -> BuildReport:
    """Store the lines of `sources` as the LMDB folder `out`.

    An interrupted build continues if it is started again with the same sources and options; the names, sizes and times
    of their files are compared.

    Args:
        out: a folder that does not exist yet.
        sources: a path of any format, a `datasets.Dataset` or `MsDataset`, or a list of these.
        image_root: the folder for relative image names; replaces `options.read.image_root`.
        on_bad_sample: "error" raises at the first invalid record, "skip" leaves such records out and lists them in the
            report.
        progress: called with (records done, total records or None).
        options: formats, columns, normalisation.

    Raises:
        DataError, LabelError, ImageError: a source or, with "error", one of its records is invalid; the message names
            file and record.
        LmdbError: `out` exists already, is being written by another process, or no sample is left.
    """
    if on_bad_sample not in ("error", "skip"):
        raise ValueError(f"on_bad_sample is {on_bad_sample!r}; give 'error' or 'skip'")
    if options.normalise not in (None, *_NORMALISE):
        raise ValueError(f"normalise is {options.normalise!r}; give one of {', '.join(_NORMALISE)}, or None")
    read = options.read if image_root is None else replace(options.read, image_root=Path(image_root))
    inputs = [_open(one, options.form, read) for one in (sources if isinstance(sources, (list, tuple)) else [sources])]
    with ResumableWriter(out, _identity(inputs, read, options)) as writer:
        _write(writer, inputs, on_bad_sample, progress, options)
        skipped = writer.skipped()
        if not writer.samples:
            writer.discard()
            why = f"the first of {len(skipped)} records: {skipped[0].reason}" if skipped else "the source is empty"
            raise LmdbError(f"{out}: no samples, nothing is written; {why}")
        report = BuildReport(
            path=absolute(out),
            written=writer.samples,
            skipped=skipped,
            remarks=tuple(Remark(kind, number, tuple(first)) for kind, (number, first) in writer.remarks.items()),
            resumed=writer.resumed,
        )
        writer.finish()
    return report


@dataclass(frozen=True)
class _Source:
    """An input: its identity (to tell one build from another), its records, and their approximate number."""

    identity: str
    records: Callable[[], Records]
    count: Callable[[], int | None]


def _open(source: Any, form: str, read: ReadOptions) -> _Source:
    if is_dataset(source):
        rows = open_dataset(source, read.subset)
        name = f"data set of {len(rows)} rows"
        return _Source(f"{name} {rows._fingerprint}", partial(read_dataset, rows, read, name), lambda: len(rows))
    path = Path(absolute(source))
    if not form:
        form, path = find_format(path)
    if form not in FORMATS:
        raise DataError(f"--from {form}: not a known format; give one of {', '.join(FORMATS)}")
    if not path.exists():
        if form != "datasets":
            raise DataError(f"{path}: no such file or folder; correct the path")
        path = Path(source)  # an id: owner/name
    reader = FORMATS[form]
    return _Source(f"{form} {_state_of(path)}", partial(reader.read, path, read), partial(reader.count, path, read))


def _state_of(path: Path) -> str:
    """Digest of the name, size and time of a file, or of all files in a folder, to detect changed sources."""
    digest = hashlib.sha256()
    for file in [path] if not path.is_dir() else sorted(path.rglob("*")):
        try:
            status = file.stat()
        except OSError:
            continue
        if file == path or not file.is_dir():
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _identity(inputs: list[_Source], read: ReadOptions, options: BuildOptions) -> str:
    told = json.dumps([[one.identity for one in inputs], repr(read), options.normalise])
    return hashlib.sha256(told.encode()).hexdigest()


def _write(
    writer: ResumableWriter, inputs: list[_Source], on_bad: OnBad, progress: Progress | None, options: BuildOptions
) -> None:
    total = _total(inputs) if progress is not None else None
    records = chain.from_iterable(one.records() for one in inputs)
    for _ in islice(records, writer.resumed):
        pass  # without opening or cutting their images
    for outcome in _in_order(partial(sample_of, normalise=options.normalise), records, options.threads):
        if isinstance(outcome, BadRecord):
            if on_bad == "error":
                writer.discard()
                raise outcome.error
            writer.skip(SkippedSample(outcome.where, str(outcome.error)))
        else:
            where, sample = outcome
            for kind, _ in label_faults(sample.label):
                number, first = writer.remarks.get(kind, (0, []))
                writer.remarks[kind] = (number + 1, [*first, where][:_SHOWN])
            writer.add(sample)  # may also store the remarks
        if progress is not None:
            progress(writer.records, total)
    if progress is not None:
        progress(writer.records, writer.records)


def _total(inputs: list[_Source]) -> int | None:
    try:
        counts = [one.count() for one in inputs]
    except (DataError, OSError):  # reported when reading
        return None
    return None if None in counts else sum(one or 0 for one in counts)


def _in_order(work: Callable[[Item], Result], items: Iterator[Item], threads: int) -> Iterator[Result]:
    """Yield `work(item)` of all items in order, computed by threads; only a few are held at a time."""

    def work_through(group: deque[Item]) -> list[Result]:
        done = []
        while group:  # items are released one by one: the last line of a page frees the page's pixels
            done.append(work(group.popleft()))
        return done

    with ThreadPoolExecutor(threads, thread_name_prefix="lmdb build") as pool:
        pending: deque[Future[list[Result]]] = deque()
        try:
            while group := deque(islice(items, _GROUP)):
                pending.append(pool.submit(work_through, group))
                del group
                if len(pending) > 2 * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def sample_of(record: Record | BadRecord, normalise: str | None = None) -> tuple[str, Sample] | BadRecord:
    """The record's place and the sample to store, or the record with its error if it is invalid."""
    if isinstance(record, BadRecord):
        return record
    try:
        label = _NORMALISE[normalise](record.text) if normalise else record.text
        _check_label(label, record)
        image = _encoded(record)
    except (LabelError, DataError) as error:
        return BadRecord(record.where, error)
    except ImageError as error:
        return BadRecord(record.where, ImageError(f"{record.where}: {_named(record)}{error}"))
    except Exception as error:  # unforeseen errors of one record are listed, too, and do not end the build
        return BadRecord(record.where, DataError(f"{record.where}: cannot be made a sample ({error!r})"))
    beside = {kind: getattr(record, kind) for kind in SIDE_KEYS if getattr(record, kind)}
    return record.where, Sample(image, label, beside)


def _check_label(label: str, record: Record) -> None:
    if not label.strip():
        raise empty_label(record.where, str(record.image) if isinstance(record.image, Path) else "the line")
    try:
        label.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LabelError(
            f"{record.where}: the label {label!r} cannot be encoded as UTF-8 ({error.reason}); correct it"
        ) from None


def _named(record: Record) -> str:
    return f"{record.image}: " if isinstance(record.image, Path) else ""


def _encoded(record: Record) -> bytes:
    """The bytes to store: the file's own, once known to decode to a line, or a PNG. Raises ImageError."""
    image = record.image() if callable(record.image) else record.image
    if isinstance(image, np.ndarray):
        return encode_line(image)
    if isinstance(image, Path):
        try:
            image = image.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror}); check its permissions") from error
    line_columns(image)
    return image


def encode_line(image: np.ndarray) -> bytes:
    """Encode a line, uint8 (H, W) or BGR (H, W, 3), as a PNG. Raises ImageError if it is not a line."""
    height, width = image.shape[:2]
    if not height or not width:
        raise ImageError(f"a picture of {width} x {height} px holds no pixel")
    scaled = scaled_width(width, height)
    if scaled == 0 or line_chunks(scaled) > MAX_CHUNKS:
        line_canvas(np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image)  # raises with the reason
    return cv2.imencode(".png", image, _PNG)[1].tobytes()
