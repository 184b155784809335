"""Tables of image files and texts: TSV, CSV, and PaddleOCR's rec_gt.txt.

    labels.tsv, rec_gt.txt    file TAB text [TAB page [TAB anything]]
    labels.csv                file,text                 (quoted as in RFC 4180)

A first line that names no image is a header: `filename,label,writer` in any order, or names given by the caller.
A CSV with more than two columns needs a header, since an unquoted comma in a text looks the same. In place of a file,
PaddleOCR's tables may have a JSON list of files that share the text.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import DataError, LabelError
from .record import BadRecord, Columns, ReadOptions, Record, Records

SUFFIXES = (".tsv", ".txt", ".csv")
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_Row = tuple[int, list[str] | LabelError]  # line number, fields or the error in the line
_POSITIONS = ("image", "text", "page")  # of the columns if there is no header


def read_labels_file(path: str | os.PathLike, image_root: str | os.PathLike | None = None) -> list[tuple[Path, str]]:
    """(image path, label) of every row of a table, in order; images are relative to `image_root`, else to the table.

    Raises LabelError naming file:line if a row has too few or too many fields, an image that does not exist or
    occurs twice, or an empty label; and if the table itself is missing, not UTF-8, or neither .tsv, .txt nor .csv.
    """
    rows = []
    for record in read(Path(path), ReadOptions(image_root=None if image_root is None else Path(image_root))):
        if isinstance(record, BadRecord):
            raise record.error
        if isinstance(record.image, Path):  # tables contain only paths
            rows.append((record.image, record.text))
    return rows


def empty_label(where: str, name: str) -> LabelError:
    return LabelError(f"{where}: the label of {name} is empty; write its text, or remove the row")


def count(path: Path, options: ReadOptions) -> int:
    """Lines of the table, including header and blank lines, for a progress bar."""
    with open(path, "rb") as table:
        return sum(1 for _ in table)


def read(path: Path, options: ReadOptions) -> Records:
    """The rows of the table. Raises LabelError if it is missing or of another type, DataError for its columns."""
    root = options.image_root or path.parent
    seen: dict[int, int] = {}
    try:
        for number, names, row in _named_rows(path, root, options.columns):
            where = f"{path}:{number}"
            if isinstance(row, LabelError):
                yield BadRecord(where, row)
                continue
            for name in names:
                image = Path(os.path.normpath(root / name))
                fault = _fault(where, image, row["text"], path, number, seen)
                yield BadRecord(where, fault) if fault else Record(where=where, image=image, source=name, **row)
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}); give a table of files and texts") from error


def _fault(where: str, image: Path, text: str, table: Path, number: int, seen: dict[int, int]) -> LabelError | None:
    """Why the row is not a sample; `seen` maps the images of earlier samples (only their hashes) to line numbers."""
    name = hash(image)
    if name in seen:
        return LabelError(f"{where}: {image} has a label already, at {table}:{seen[name]}; keep one of the two")
    if not image.is_file():
        return LabelError(f"{where}: image {image} does not exist; correct the name, or give the image root")
    if not text.strip():
        return empty_label(where, str(image))
    seen[name] = number
    return None


def _named_rows(
    path: Path, root: Path, columns: Columns
) -> Iterator[tuple[int, list[str], dict[str, str] | LabelError]]:
    """(line number, names of the images, text, further fields) of every row except a header."""
    positions: dict[str, int] = {}
    for number, fields in _table_format(path)(path):
        if isinstance(fields, LabelError):
            yield number, [], fields
            continue
        if not positions:
            header = _header(fields, root, columns, path)
            positions = header or {kind: at for at, kind in enumerate(_POSITIONS)}
            if header:
                continue
        try:
            names = _image_names(fields[positions["image"]])
            row = {kind: fields[at] for kind, at in positions.items() if kind != "image" and at < len(fields)}
        except (ValueError, IndexError, RecursionError):
            yield (
                number,
                [],
                LabelError(f"{path}:{number}: {len(fields)} fields, or not a list of files; expected file and text"),
            )
            continue
        if "text" not in row:
            yield number, [], LabelError(f"{path}:{number}: {len(fields)} fields; expected file and text")
            continue
        yield number, names, row


def _header(fields: list[str], root: Path, columns: Columns, path: Path) -> dict[str, int]:
    """Kind -> position of the columns if the first row is a header, i.e. its first field names no image."""
    first = fields[0].strip()
    if first.startswith("[") or first.lower().endswith(IMAGE_SUFFIXES) or (first and (root / first).is_file()):
        return {}
    try:
        found = columns.find(fields, str(path))
    except DataError:
        if columns != Columns() or len(fields) > 2:
            raise
        return {"image": 0, "text": 1}  # whatever their names are
    return {kind: fields.index(name) for kind, name in found.items()}


def _image_names(field: str) -> list[str]:
    """The files of a row: one, or PaddleOCR's JSON list of files. Raises ValueError if it is not such a list."""
    if not field.startswith("["):
        return [field]
    names = json.loads(field)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(field)
    return names


def _table_format(table: Path) -> Callable[[Path], Iterator[_Row]]:
    suffix = table.suffix.lower()
    if suffix == ".csv":
        return _csv_rows
    if suffix in SUFFIXES:
        return _tsv_rows
    raise LabelError(f"{table}: the name ends in neither .tsv, .txt nor .csv; rename it to say which it is")


def _tsv_rows(table: Path) -> Iterator[_Row]:
    """The non-blank lines; columns after the second are allowed."""
    with open(table, "rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                yield number, _not_utf8(table, number, error)
                continue
            fields = line.split("\t")
            if len(fields) < 2 and line:
                yield number, LabelError(f"{table}:{number}: no tab in {line[:80]!r}; expected: file TAB text")
            elif line:
                yield number, fields


def _csv_rows(table: Path) -> Iterator[_Row]:
    """The non-blank rows; as many fields as in the header, else two, so that a comma cannot truncate a text."""
    wanted = 0
    with open(table, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, LabelError(f"{table}:{reader.line_num}: {error}; quote the text as in RFC 4180")
                continue
            if fields is None:
                return
            if not fields:
                continue
            number = reader.line_num
            if not wanted:
                wanted = 2 if fields[0].lower().endswith(IMAGE_SUFFIXES) else len(fields)
            try:
                ",".join(fields).encode("utf-8")
            except UnicodeEncodeError:
                yield number, _not_utf8(table, number, "invalid bytes")
                continue
            if len(fields) != wanted:
                expected = wanted if wanted != 2 else "file,text"
                yield (
                    number,
                    LabelError(
                        f"{table}:{number}: {len(fields)} fields; expected {expected}, and a text with a comma in "
                        'double quotes: a.png,"one, two"; more columns need a header: file,text,page'
                    ),
                )
                continue
            yield number, fields


def _not_utf8(table: Path, number: int, error: UnicodeDecodeError | str) -> LabelError:
    reason = error if isinstance(error, str) else error.reason
    return LabelError(f"{table}:{number}: not UTF-8 ({reason}); convert the table to UTF-8")
