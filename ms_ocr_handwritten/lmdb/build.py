"""Make an LMDB from image files and a table of their labels (TSV or CSV).

    labels.tsv    relative file TAB text [TAB anything]
    labels.csv    relative file,text         (quoted as in RFC 4180)

A first line `file TAB text` or `file,text` is taken for a header. Text is stored as it stands, not folded.
"""

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ImageError, LabelError, OcrError
from .check import line_columns
from .store import write_lmdb

_HEADER = ["file", "text"]


@dataclass(frozen=True)
class SkippedSample:
    """A sample left out: `where` is file:line of the table, `reason` the message of the error."""

    where: str
    reason: str


@dataclass(frozen=True)
class BuildReport:
    """What `build_lmdb` did: `written` samples are in `path`, `skipped` ones are not."""

    path: str
    written: int
    skipped: tuple[SkippedSample, ...]


@dataclass(frozen=True)
class _Row:
    where: str
    image: Path
    label: str


def read_labels_file(path: str | os.PathLike, image_root: str | os.PathLike | None = None) -> list[tuple[Path, str]]:
    """(image path, label) of every row of a table, in order; images lie under `image_root`, else beside the table.

    Raises LabelError naming file:line where a row has too few or too many fields, an image that does not exist or
    comes twice, or an empty label; and where the table itself is missing, not UTF-8, or neither .tsv, .txt nor .csv.
    """
    seen: dict[Path, str] = {}
    rows = list(_rows(path, image_root))
    for row in rows:
        _check_row(row, seen)
    return [(row.image, row.label) for row in rows]


def build_lmdb(
    out: str | os.PathLike,
    labels_file: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    on_bad_sample: Literal["error", "skip"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Store the lines of `labels_file` as the LMDB folder `out`; image files go in byte for byte.

    Each image is decoded first. A row with a missing, repeated or unreadable image or an empty label raises
    (ImageError or LabelError, naming file:line), or with "skip" is left out and listed in the report; a table that
    cannot be parsed always raises. `progress` is called with (rows done, rows in all).
    Raises LmdbError where `out` exists already or no sample is left.
    """
    if on_bad_sample not in ("error", "skip"):
        raise ValueError(f"on_bad_sample is {on_bad_sample!r}; give 'error' or 'skip'")
    rows = list(_rows(labels_file, image_root))
    skipped: list[SkippedSample] = []

    def samples() -> Iterator[tuple[bytes, str]]:
        seen: dict[Path, str] = {}
        for done, row in enumerate(rows, start=1):
            try:
                _check_row(row, seen)
                yield _image_bytes(row), row.label
            except OcrError as error:
                if on_bad_sample == "error":
                    raise
                skipped.append(SkippedSample(row.where, str(error)))
            if progress is not None:
                progress(done, len(rows))

    written = write_lmdb(out, samples())
    return BuildReport(os.path.abspath(out), written, tuple(skipped))


def _check_row(row: _Row, seen: dict[Path, str]) -> None:
    """Raise LabelError where the row is no sample; `seen` maps the images so far to where they stand."""
    if row.image in seen:
        raise LabelError(f"{row.where}: {row.image} has a label already, at {seen[row.image]}; keep one of the two")
    if not row.image.is_file():
        raise LabelError(f"{row.where}: image {row.image} does not exist; correct the name, or give the image root")
    if not row.label.strip():
        raise LabelError(f"{row.where}: the label of {row.image} is empty; write its text, or remove the row")
    seen[row.image] = row.where


def _image_bytes(row: _Row) -> bytes:
    """The file of the row's image, once it is known to decode. Raises ImageError naming the row and the file."""
    try:
        data = row.image.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{row.where}: {row.image} cannot be read ({error.strerror}); check its permissions"
        ) from error
    try:
        line_columns(data)
    except ImageError as error:
        raise ImageError(f"{row.where}: {row.image}: {error}") from error
    return data


def _rows(path: str | os.PathLike, image_root: str | os.PathLike | None) -> Iterator[_Row]:
    table = Path(path)
    root = table.parent if image_root is None else Path(image_root)
    fields_of = _table_format(table)
    try:
        for number, fields in fields_of(table):
            if number == 1 and [field.lower() for field in fields[:2]] == _HEADER and not (root / fields[0]).is_file():
                continue
            yield _Row(f"{table}:{number}", Path(os.path.normpath(root / fields[0])), fields[1])
    except OSError as error:
        raise LabelError(f"{table}: cannot be read ({error.strerror}); give a table of files and texts") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{table}:{_line_of(table)}: not UTF-8 ({error.reason}); convert the table to UTF-8") from None


def _table_format(table: Path) -> Callable[[Path], Iterator[tuple[int, list[str]]]]:
    suffix = table.suffix.lower()
    if suffix == ".csv":
        return _csv_fields
    if suffix in (".tsv", ".txt"):
        return _tsv_fields
    raise LabelError(f"{table}: the name ends in neither .tsv, .txt nor .csv; rename it to say which it is")


def _tsv_fields(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the lines that are not blank; columns after the second are allowed."""
    with open(table, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.removesuffix("\n").split("\t")
            if fields == [""]:
                continue
            if len(fields) < 2:
                raise LabelError(f"{table}:{number}: no tab in {fields[0]!r}; expected: file TAB text")
            yield number, fields


def _csv_fields(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the rows that are not blank; exactly two fields, so that no comma cuts a text."""
    with open(table, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != 2:
                    raise LabelError(
                        f"{table}:{reader.line_num}: {len(fields)} fields; expected file,text, "
                        'and a text with a comma in double quotes: a.png,"one, two"'
                    )
                yield reader.line_num, fields
        except csv.Error as error:
            raise LabelError(f"{table}:{reader.line_num}: {error}; quote the text as in RFC 4180") from error


def _line_of(table: Path) -> int:
    """Number of the first line that is not UTF-8 (the decoder's own position is one within its buffer)."""
    with open(table, "rb") as lines:
        return next(number for number, line in enumerate(lines, start=1) if not _is_utf8(line))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
