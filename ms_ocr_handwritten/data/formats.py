"""The format of a path and its reader: `find_format(path)`, `FORMATS[name]`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from . import casia, iam, label_studio, labelme, ppocrlabel, rows, stored, table, transcribed, via, webdataset
from .record import ReadOptions, Records
from .transcripts import is_transcript

_LABEL_FILES = ("labels.tsv", "labels.csv", "labels.txt", "rec_gt.txt", "rec_gt_train.txt", "Label.txt")


Reader = Callable[[Path, ReadOptions], Records]
Counter = Callable[[Path, ReadOptions], "int | None"]


def _unknown(path: Path, options: ReadOptions) -> None:
    return None


@dataclass(frozen=True)
class Format:
    """How to read a format, and its approximate number of records, for a progress bar (None: unknown)."""

    title: str
    read: Reader
    count: Counter = _unknown


FORMATS = {
    "table": Format("TSV or CSV of image files and texts, PaddleOCR's rec_gt.txt", table.read, table.count),
    "casia": Format("CASIA's .dgrl, .dgr and .gnt", casia.read, casia.count),
    "lmdb": Format("LMDBs of ModelScope, deep-text-recognition-benchmark, PaddleOCR", stored.read, stored.count),
    "iam": Format("IAM's lines.txt or XML, and its lines", iam.read),
    "ppocrlabel": Format("PPOCRLabel's Label.txt", ppocrlabel.read, ppocrlabel.count),
    "label-studio": Format("Label Studio's JSON", label_studio.read),
    "labelme": Format("LabelMe's JSON files", labelme.read),
    "via": Format("VIA's project or annotations, as JSON", via.read),
    "pages": Format("PAGE XML, ALTO or hOCR beside pictures of pages", transcribed.read),
    "datasets": Format("a data set of Hugging Face, saved to disk or in the cache", rows.read, rows.count),
    "parquet": Format("Parquet files", rows.read_parquet, rows.count_parquet),
    "webdataset": Format("WebDataset's tar files", webdataset.read),
}


def find_format(path: Path) -> tuple[str, Path]:
    """The name of the format of `path`, and the file or folder to read.

    Raises DataError if there is nothing, nothing in a known format, or more than one data set.
    """
    if path.is_file():
        name = _format_of_file(path)
        if name:
            return name, path
        raise DataError(f"{path}: of no known format; name it (--from {'|'.join(FORMATS)})")
    if not path.is_dir():
        raise DataError(
            f"{path}: no such file or folder; for a data set in the cache of `datasets` give --from datasets"
        )
    found = _formats_of_folder(path)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{path}: the folder holds no file of a known format; name one in it, or the format "
            f"(--from {'|'.join(FORMATS)}); images with a text file each are packed into a tar first (docs/data.md)"
        )
    listed = ", ".join(f"{where.name} ({name})" for name, where in found)
    raise DataError(f"{path}: the folder contains several data sets: {listed}; name one, or the format (--from)")


def _format_of_file(path: Path) -> str:
    name, suffix = path.name.lower(), path.suffix.lower()
    if name == "data.mdb" or suffix in (".mdb", ".lmdb"):
        return "lmdb"
    if name == "lines.txt":
        return "iam"
    if suffix == ".txt" and ppocrlabel.is_label_file(path):
        return "ppocrlabel"
    if suffix in (".tsv", ".csv", ".txt"):
        return "table"
    if suffix in (".dgrl", ".dgr", ".gnt"):
        return "casia"
    if suffix == ".json":
        return _format_of_json(path)
    if suffix == ".parquet":
        return "parquet"
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return "webdataset"
    if suffix in (".xml", ".hocr", ".html", ".htm", ".xhtml") and is_transcript(path):
        return "pages"
    return ""


def _format_of_json(path: Path) -> str:
    try:
        content = label_studio.load_json(path)
    except DataError:
        return ""
    if label_studio.is_export(content):
        return "label-studio"
    if labelme.is_labelme(content):
        return "labelme"
    return "via" if via.pages_of(content) else ""


def _formats_of_folder(path: Path) -> list[tuple[str, Path]]:
    """(format, path to read) of all data sets there: by the names in the folder, else by those in a folder below it."""
    if (path / "data.mdb").is_file():
        return [("lmdb", path)]
    if rows.is_saved(path):
        return [("datasets", path)]
    if iam.lines_file(path) or iam.xml_folder(path):
        return [("iam", path)]
    labels = [path / name for name in _LABEL_FILES if (path / name).is_file()]
    if labels:
        # PPOCRLabel writes rec_gt.txt of its crops beside the Label.txt of the pages: two data sets in one folder.
        return [(_format_of_file(file), file) for file in labels]
    found: dict[tuple[str, Path], None] = {}
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            form = _BY_SUFFIX.get(_suffix(name))
            if form == "json" and ("labelme", path) not in found:
                form = _format_of_json(Path(folder, name))
            if form == "pages" and not ((form, path) in found or is_transcript(Path(folder, name))):
                continue
            if form and form != "json":
                # A file of these two formats holds many pages and is a data set of its own.
                found[form, Path(folder, name) if form in ("label-studio", "via") else path] = None
        if found:
            break
    return list(found)


_BY_SUFFIX = {
    ".dgrl": "casia",
    ".dgr": "casia",
    ".gnt": "casia",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".xml": "pages",
    ".hocr": "pages",
    ".json": "json",
}


def _suffix(name: str) -> str:
    lower = name.lower()
    return ".tar.gz" if lower.endswith(".tar.gz") else os.path.splitext(lower)[1]
