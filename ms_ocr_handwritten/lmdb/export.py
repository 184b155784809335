"""Exporting an LMDB as image files with a table of labels, or as Parquet.

folder     images/0000/000000001.png ..., labels.tsv: file TAB text TAB writer TAB page (with a header)
rec_gt     the same in PaddleOCR's format: rec_gt.txt, file TAB text
parquet    data-00000.parquet ...: image {bytes, path}, text, writer, page; `datasets` and its viewers show the images
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabelError, LmdbError, OutputError
from .open import absolute
from .resumable import SkippedSample
from .store import LmdbReader

_IN_TABLE = {"folder": ("text", "writer", "page"), "rec_gt": ("text",), "parquet": ()}  # fields of a row
TARGETS = tuple(_IN_TABLE)

_PER_FOLDER = 10_000  # files in one folder
_SHARD_BYTES = 256 * 2**20  # of images in one Parquet file
_ROWS = 256  # in one group of rows
_SIGNATURES = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8", "jpg"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


@dataclass(frozen=True)
class ExportReport:
    """The result of `export_lmdb` in `path`; `skipped` records could not be read, or do not fit in a table."""

    path: str
    written: int
    skipped: tuple[SkippedSample, ...]


@dataclass(frozen=True)
class _Line:
    name: str
    image: bytes
    text: str
    writer: str
    page: str


def export_lmdb(
    path: str | os.PathLike, out: str | os.PathLike, to: str, progress: Callable[[int, int], None] | None = None
) -> ExportReport:
    """Write the samples of the LMDB `path` as the new folder `out`, which appears only when it is complete.

    Records that cannot be read are left out and listed; so are, for tables, those whose text, writer or page holds a
    tab or a line break.
    Raises LmdbError if the path is not an LMDB, OutputError if `out` exists or cannot be written.
    """
    if to not in TARGETS:
        raise ValueError(f"to is {to!r}; give one of {', '.join(TARGETS)}")
    reader, target = LmdbReader(path), Path(absolute(out))
    if os.path.lexists(target):
        raise OutputError(f"{target}: exists already and is left as it is; choose another path")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.exporting")  # unique for concurrent exports
    skipped: list[SkippedSample] = []
    try:
        partial.mkdir(parents=True)
        lines = _lines(reader, skipped, progress, _IN_TABLE[to])
        written = _as_parquet(lines, partial) if to == "parquet" else _as_table(lines, partial, to)
        os.rename(partial, target)
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}); check the space and path"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(os.fspath(target), written, tuple(skipped))


def _lines(
    reader: LmdbReader,
    skipped: list[SkippedSample],
    progress: Callable[[int, int], None] | None,
    in_table: Sequence[str],
) -> Iterator[_Line]:
    for index in range(len(reader)):
        try:
            image, text = reader.read(index)
            name = f"images/{index // _PER_FOLDER:04d}/{index + 1:09d}.{_suffix(image)}"
            line = _Line(name, image, text, reader.beside(index, "writer"), reader.beside(index, "page"))
            for column in in_table:
                value = getattr(line, column)
                if any(character in value for character in "\t\n\r"):
                    raise LabelError(
                        f"{reader.key(index)}: its {column} {value!r} has a tab or line break, which no table can hold"
                    )
            yield line
        except (LmdbError, LabelError) as error:
            skipped.append(SkippedSample(reader.key(index), str(error)))
        if progress is not None:
            progress(index + 1, len(reader))


def _suffix(image: bytes) -> str:
    return next((suffix for start, suffix in _SIGNATURES if image.startswith(start)), "img")


def _as_table(lines: Iterator[_Line], folder: Path, to: str) -> int:
    written = 0
    name = "labels.tsv" if to == "folder" else "rec_gt.txt"
    with open(folder / name, "w", encoding="utf-8", newline="\n") as table:
        if to == "folder":
            print("file", "text", "writer", "page", sep="\t", file=table)
        for line in lines:
            file = folder / line.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(line.image)
            beside = (line.writer, line.page) if to == "folder" else ()
            print(line.name, line.text, *beside, sep="\t", file=table)
            written += 1
    return written


def _as_parquet(lines: Iterator[_Line], folder: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    text = pyarrow.string()
    features = {"image": {"_type": "Image"}} | {
        name: {"dtype": "string", "_type": "Value"} for name in ("text", "writer", "page")
    }
    schema = pyarrow.schema([("image", image), ("text", text), ("writer", text), ("page", text)]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}  # so that `datasets` decodes the images
    )
    written = shard = 0
    line = next(lines, None)
    while line is not None or shard == 0:
        with pyarrow.parquet.ParquetWriter(folder / f"data-{shard:05d}.parquet", schema) as parquet:
            size = 0
            while line is not None and size < _SHARD_BYTES:
                rows: list[dict[str, object]] = []
                while line is not None and len(rows) < _ROWS and size < _SHARD_BYTES:
                    size += len(line.image)
                    rows.append(_row(line))
                    line = next(lines, None)
                parquet.write_table(pyarrow.Table.from_pylist(rows, schema))
                written += len(rows)
        shard += 1
    return written


def _row(line: _Line) -> dict[str, object]:
    path = line.name.rpartition("/")[2]
    return {"image": {"bytes": line.image, "path": path}, "text": line.text, "writer": line.writer, "page": line.page}
