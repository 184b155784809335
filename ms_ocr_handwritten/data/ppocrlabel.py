"""PPOCRLabel's Label.txt: `page TAB JSON list of {"transcription", "points", "difficult"}`, lines cut out of pages.

Written by PPOCRLabel (`savePPlabel`), read by PaddleOCR's detectors; page paths are relative to the parent of the
folder that holds Label.txt. "###" and `difficult` mark illegible text.
"""

import json
from pathlib import Path

from ..errors import DataError, LabelError
from .pages import PageImage, find_page
from .record import BadRecord, ReadOptions, Record, Records, checked_text

UNREADABLE = ("###", "待识别")  # the latter is PPOCRLabel's placeholder in a box without text


def is_label_file(path: Path) -> bool:
    """Whether the first line consists of a page and a list of boxes."""
    try:
        with open(path, "rb") as file:
            name, tab, boxes = file.readline(2**20).partition(b"\t")
    except OSError:
        return False
    return bool(name and tab) and boxes.lstrip().startswith(b"[{") and b'"points"' in boxes


def count(path: Path, options: ReadOptions) -> int:
    total = 0
    with open(path, "rb") as file:
        for line in file:
            total += line.count(b'"points"')
    return total


def read(path: Path, options: ReadOptions) -> Records:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield from _page(line, f"{path}:{number}", path, options)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _page(line: bytes, where: str, path: Path, options: ReadOptions) -> Records:
    try:
        name, _, text = line.decode("utf-8-sig").rstrip("\r\n").partition("\t")
        boxes = json.loads(text)
        page = find_page(name, (options.image_root, path.parent.parent, path.parent), where)
    except DataError as error:
        yield BadRecord(where, error)
        return
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        yield BadRecord(where, DataError(f"{where}: no `page TAB JSON list of boxes` ({error}); correct the line"))
        return
    picture = PageImage(page)
    for index, box in enumerate(boxes if isinstance(boxes, list) else [boxes]):
        here = f"{where}: box {index}"
        try:
            text, points, difficult = (
                checked_text(box["transcription"], "its transcription"),
                box["points"],
                box.get("difficult", False),
            )
        except (TypeError, KeyError, AttributeError, DataError) as error:
            yield BadRecord(here, DataError(f"{here}: no transcription and points ({error!r}); correct the box"))
            continue
        if difficult or text in UNREADABLE:
            yield BadRecord(here, LabelError(f"{here}: marked as unreadable ({'difficult' if difficult else text})"))
            continue
        yield Record(
            where=here, text=text, image=picture.cutter(points), source=f"{name}#{index}", page=Path(name).stem
        )
