"""VGG Image Annotator (VIA 2), a project or its annotations as JSON: regions of pages with attributes.

The text is the attribute called text, transcription ... (or as the caller names it), or the only attribute.
"""

from pathlib import Path
from typing import Any

from ..errors import DataError
from .label_studio import load_json
from .pages import PageImage, find_page
from .record import BadRecord, Columns, ReadOptions, Record, Records, checked_text
from .transcribed_page import box


def pages_of(content: Any) -> dict[str, Any] | None:
    """Name -> page, None if this is not a VIA file."""
    if not isinstance(content, dict):
        return None
    pages = content.get("_via_img_metadata", content)
    known = isinstance(pages, dict) and all(
        isinstance(one, dict) and {"filename", "regions"} <= one.keys() for one in pages.values()
    )
    return pages if known and pages else None


def read(path: Path, options: ReadOptions) -> Records:
    pages = pages_of(load_json(path))
    if pages is None:
        raise DataError(f"{path}: not a project or annotations of VIA 2; export them as JSON")
    for key, page in pages.items():
        name, where = str(page["filename"]), f"{path}: {page['filename']}"
        try:
            picture = PageImage(find_page(name, (options.image_root, path.parent), f"{path}: {key}"))
        except DataError as error:
            yield BadRecord(where, error)
            continue
        regions = page["regions"]
        for number, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
            here = f"{where}: region {number}"
            try:
                text, polygon = (
                    _text(region["region_attributes"], options.columns),
                    _polygon(region["shape_attributes"]),
                )
            except (TypeError, KeyError, ValueError, AttributeError) as error:
                yield BadRecord(here, DataError(f"{here}: {error}"))
                continue
            yield Record(
                where=here, text=text, image=picture.cutter(polygon), source=f"{name}#{number}", page=Path(name).stem
            )


def _text(attributes: dict[str, Any], columns: Columns) -> str:
    names = [columns.text] if columns.text else [one for one in Columns.USUAL["text"] if one in attributes]
    if not names and len(attributes) == 1:
        names = list(attributes)
    if not names or names[0] not in attributes:
        raise ValueError(f"which attribute is its text? There are {', '.join(attributes) or 'none'} (--text-column)")
    return checked_text(attributes[names[0]], f"the attribute {names[0]}")


def _polygon(shape: dict[str, Any]) -> Any:
    if shape["name"] == "rect":
        return box(shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"])
    if shape["name"] in ("polygon", "polyline"):
        return list(zip(shape["all_points_x"], shape["all_points_y"]))
    raise ValueError(f"a {shape['name']} encloses no line; draw a rectangle or a polygon")
