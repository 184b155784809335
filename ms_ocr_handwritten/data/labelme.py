"""LabelMe's files, one JSON per page: `shapes` of {"label", "points", "shape_type", "description"}, `imagePath`.

The text of a line is its description if it has one (the label is then a class), else its label.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

from ..errors import DataError
from .label_studio import load_json
from .pages import PageImage, find_page
from .record import BadRecord, ReadOptions, Record, Records, checked_text
from .transcribed_page import box as corners


def is_labelme(page: Any) -> bool:
    return isinstance(page, dict) and {"shapes", "imagePath"} <= page.keys()


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.json"))


def read(path: Path, options: ReadOptions) -> Records:
    base = path if path.is_dir() else path.parent
    for file in files(path):
        try:
            yield from _page(file, file.relative_to(base).as_posix(), options)
        except DataError as error:
            yield BadRecord(str(file), error)


def _page(file: Path, name: str, options: ReadOptions) -> Records:
    page = load_json(file)
    if not is_labelme(page) or not isinstance(page["shapes"], list):
        raise DataError(f"{file}: has no shapes and imagePath, as written by LabelMe")
    picture = PageImage(_picture(page, file, options))
    for number, shape in enumerate(page["shapes"]):
        where = f"{file}: shape {number}"
        try:
            kind, points = shape.get("shape_type", "polygon"), shape["points"]
            if kind == "rectangle":
                (x0, y0), (x1, y1) = points[0], points[-1] if len(points) == 2 else points[2]
                points = corners(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            elif kind != "polygon":
                raise ValueError(f"a {kind} encloses no line; draw a rectangle or a polygon")
            text = checked_text(shape.get("description") or shape["label"], "its label")
        except (AttributeError, TypeError, KeyError, ValueError, IndexError) as error:
            yield BadRecord(where, DataError(f"{where}: {error}"))
            continue
        yield Record(where=where, text=text, image=picture.cutter(points), source=f"{name}#{number}", page=file.stem)


def _picture(page: dict[str, Any], file: Path, options: ReadOptions) -> Path | bytes:
    """The file beside the annotations, else the copy embedded in them."""
    try:
        return find_page(str(page["imagePath"]), (options.image_root, file.parent), str(file))
    except DataError:
        if not page.get("imageData"):
            raise
    try:
        return base64.b64decode(page["imageData"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{file}: imageData is not base64 ({error}); put the image beside it") from None
