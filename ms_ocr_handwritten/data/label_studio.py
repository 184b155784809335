"""Label Studio's JSON export (not JSON-MIN) of its OCR template: boxes and polygons in percent, with texts.

A task holds `data` (the page's URL) and `annotations`, whose `result` is a list of regions; those with the same id
belong together: a shape (rectangle, polygon; `...labels` if it has a label) and its text (textarea). A rectangle's
`rotation` is in degrees about its upper left corner. The first annotation of a task that is not cancelled is used.
"""

import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DataError, LabelError
from ..image import image_size
from ..image.limits import PAGE_LIMITS
from .pages import PageImage, find_page, rectangle
from .record import BadRecord, ReadOptions, Record, Records

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of a file that is uploaded
_SHAPES = ("rectangle", "rectanglelabels", "polygon", "polygonlabels")


def is_export(tasks: Any) -> bool:
    return (
        isinstance(tasks, list)
        and bool(tasks)
        and isinstance(tasks[0], dict)
        and {"data", "annotations"} <= tasks[0].keys()
    )


def read(path: Path, options: ReadOptions) -> Records:
    tasks = load_json(path)
    if not is_export(tasks):
        raise DataError(f"{path}: not a list of tasks with data and annotations; export as JSON (not JSON-MIN)")
    for number, task in enumerate(tasks, start=1):
        where = f"{path}: task {task.get('id', number) if isinstance(task, dict) else number}"
        try:
            name = _page_name(task, where)
            page = _page(name, (options.image_root, path.parent), where)
            regions = list(_regions(task))
        except DataError as error:
            yield BadRecord(where, error)
        except (AttributeError, TypeError, KeyError) as error:
            yield BadRecord(where, DataError(f"{where}: not a valid export ({error!r}); export it again"))
        else:
            yield from _lines(regions, page, name, where)


def load_json(path: Path) -> Any:
    """The file's parsed content. Raises DataError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from None


def _page_name(task: dict[str, Any], where: str) -> str:
    """The page's file: the path of a local file, or that of its address, whose last part is the file's name."""
    addresses = [value for value in task["data"].values() if isinstance(value, str)]
    if len(addresses) > 1:
        addresses = [one for key, one in task["data"].items() if key in ("ocr", "image", "captioning")] or addresses
    if not addresses:
        raise DataError(f"{where}: its data names no image")
    address = urllib.parse.urlsplit(addresses[0])
    local = urllib.parse.parse_qs(address.query).get("d")
    return local[0] if local else urllib.parse.unquote(address.path).lstrip("/") or addresses[0]


def _page(name: str, folders: tuple[Path | None, ...], where: str) -> Path:
    """As `find_page`; also by the name that the file had before it was uploaded."""
    try:
        return find_page(name, folders, where)
    except DataError:
        with suppress(DataError):
            return find_page(_UPLOADED.sub("", name.rpartition("/")[2]), folders, where)
        raise


def _regions(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    """(id, shape or None, text) of the regions that have a shape or a text, in order."""
    done = [one for one in task["annotations"] if not one.get("was_cancelled")]
    shapes: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    for part in done[0]["result"] if done else []:
        if part.get("type") in _SHAPES:
            shapes[part["id"]] = part
        elif part.get("type") == "textarea":
            text = part["value"]["text"]
            parts = [text] if isinstance(text, str) else text or ()
            texts[part["id"]] = "\n".join(str(one) for one in parts if one is not None)
    for name in {**shapes, **texts}:
        yield name, shapes.get(name), texts.get(name, "")


def _lines(regions: list[tuple[str, dict[str, Any] | None, str]], page: Path, name: str, where: str) -> Records:
    picture = PageImage(page)
    for region, shape, text in regions:
        here = f"{where}: region {region}"
        if shape is None:
            yield BadRecord(here, LabelError(f"{here}: has a text but no box; draw one, or remove it"))
            continue
        try:
            polygon = _polygon(shape, page)
        except (TypeError, KeyError, ValueError) as error:
            yield BadRecord(here, DataError(f"{here}: its shape cannot be interpreted ({error!r}); draw it again"))
            continue
        yield Record(where=here, text=text, image=picture.cutter(polygon), source=f"{name}#{region}", page=page.stem)


def _polygon(shape: dict[str, Any], page: Path) -> list[tuple[float, float]]:
    """Points in px of the page; Label Studio uses percent of its width and height."""
    value = shape["value"]
    width, height = shape.get("original_width"), shape.get("original_height")
    if not width or not height:
        width, height = image_size(page, limits=PAGE_LIMITS)
    x_scale, y_scale = width / 100, height / 100
    if "points" in value:
        return [(x * x_scale, y * y_scale) for x, y in value["points"]]
    return rectangle(
        value["x"] * x_scale,
        value["y"] * y_scale,
        value["width"] * x_scale,
        value["height"] * y_scale,
        value.get("rotation", 0),
    )
