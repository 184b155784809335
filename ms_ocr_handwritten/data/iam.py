"""IAM handwriting database: lines.txt (or the forms' XML) and the line images.

    lines.txt    id  ok|err  grey level  components  x y w h  Words|of|the|line      ("#" begins a comment)
    xml/         <form id writer-id> ... <line id text> in files named after the forms
    images       lines/a01/a01-000u/a01-000u-00.png, or all in one folder

"ok" and "err" rate the word segmentation, not the line itself: both are used. The writer is that of the form, from its
XML or from forms.txt.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ..errors import DataError
from .record import BadRecord, ReadOptions, Record, Records

_SKIPPED = 8  # fields before the words
_LINES, _FORMS = "lines.txt", "forms.txt"


def lines_file(path: Path) -> Path | None:
    """lines.txt in the database's folder (or its ascii/), or the path itself; None if there is none."""
    candidates = [path] if path.is_file() else [path / _LINES, path / "ascii" / _LINES]
    return next((one for one in candidates if one.name == _LINES and one.is_file()), None)


def xml_folder(path: Path) -> Path | None:
    for folder in (path / "xml", path):
        if folder.is_dir() and (first := next(folder.glob("*.xml"), None)) and b"<form " in first.read_bytes()[:4096]:
            return folder
    return None


def read(path: Path, options: ReadOptions) -> Records:
    """Raises DataError if there is neither lines.txt nor the forms' XML."""
    lines, xml = lines_file(path), xml_folder(path if path.is_dir() else path.parent)
    base = path if path.is_dir() else path.parent.parent if path.parent.name == "ascii" else path.parent
    folders = [options.image_root] if options.image_root else [base / "lines", base]
    if lines is not None:
        yield from _from_text(lines, _writers(lines, xml), folders)
    elif xml is not None:
        yield from _from_xml(xml, folders)
    else:
        raise DataError(f"{path}: neither {_LINES} nor a folder xml/ of IAM's forms is there")


def _from_text(file: Path, writers: dict[str, str], folders: list[Path]) -> Records:
    with open(file, encoding="utf-8", errors="replace") as rows:
        for number, row in enumerate(rows, start=1):
            if row.startswith("#") or not row.strip():
                continue
            where = f"{file}:{number}"
            fields = row.rstrip("\r\n").split(" ", _SKIPPED)
            if len(fields) <= _SKIPPED:
                yield BadRecord(
                    where, DataError(f"{where}: {len(fields)} fields; expected {_SKIPPED + 1}, the words last")
                )
                continue
            text = fields[_SKIPPED].replace("|", " ")
            yield _record(fields[0], text, writers.get(_form(fields[0]), ""), where, folders)


def _from_xml(folder: Path, folders: list[Path]) -> Records:
    for file in sorted(folder.glob("*.xml")):
        try:
            form = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError, ValueError) as error:
            yield BadRecord(str(file), DataError(f"{file}: not well-formed XML ({error}); copy it again"))
            continue
        for line in form.iter("line"):
            name, text = line.get("id", ""), line.get("text", "")
            yield _record(name, text, form.get("writer-id", ""), f"{file}: line {name}", folders)


def _record(name: str, text: str, writer: str, where: str, folders: list[Path]) -> Record | BadRecord:
    form = _form(name)
    for folder in folders:
        for place in (Path(form[:3]) / form, Path(form), Path()):
            image = folder / place / f"{name}.png"
            if name and image.is_file():
                return Record(
                    where=where,
                    text=text,
                    image=image,
                    source=f"{form[:3]}/{form}/{name}.png",
                    writer=writer,
                    page=form,
                )
    looked = " or ".join(map(str, folders))
    return BadRecord(where, DataError(f"{where}: no {name}.png in {looked}; unpack the lines, or give the image root"))


def _form(line: str) -> str:
    return line.rpartition("-")[0]


def _writers(lines: Path, xml: Path | None) -> dict[str, str]:
    """Form -> writer, as far as given in forms.txt beside lines.txt or in the XML."""
    writers = {}
    forms = lines.with_name(_FORMS)
    if forms.is_file():
        for row in forms.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = row.split()
            if len(fields) > 1 and not row.startswith("#"):
                writers[fields[0]] = fields[1]
    elif xml is not None:
        for file in xml.glob("*.xml"):
            try:
                form = ElementTree.parse(file).getroot()
            except (ElementTree.ParseError, OSError, ValueError):
                continue  # the form's writer is unknown here; its lines are read all the same
            writers[form.get("id", file.stem)] = form.get("writer-id", "")
    return writers
