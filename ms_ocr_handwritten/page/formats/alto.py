"""ALTO 4 (Library of Congress), as read by eScriptorium, Kitodo and library viewers."""

import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import SubElement

from ..reader import Page, PageLine, Polygon
from ..words import box_around, words_of
from . import SourcePage
from .xml import allowed, document

_NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
_SCHEMA = f"{_NAMESPACE} http://www.loc.gov/standards/alto/v4/alto-4-2.xsd"


def written(source: SourcePage, page: Page) -> str:
    root = ElementTree.Element(
        "alto",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": _SCHEMA,
        },
    )
    description = SubElement(root, "Description")
    SubElement(description, "MeasurementUnit").text = "pixel"
    image = SubElement(description, "sourceImageInformation")
    SubElement(image, "fileName").text = allowed(source.image)
    software = SubElement(SubElement(description, "Processing", ID="ocr"), "processingSoftware")
    SubElement(software, "softwareName").text = "ms_ocr_handwritten"
    size = {"WIDTH": str(page.width), "HEIGHT": str(page.height)}
    sheet = SubElement(
        SubElement(root, "Layout"), "Page", {"ID": "page", "PHYSICAL_IMG_NR": str(source.number), **size}
    )
    space = SubElement(sheet, "PrintSpace", {"HPOS": "0", "VPOS": "0", **size})
    if page.lines:
        whole = tuple(point for line in page.lines for point in line.polygon)
        block = SubElement(space, "TextBlock", {"ID": "block", **_place(whole)})
        for index, line in enumerate(page.lines, start=1):
            _add_line(block, f"line_{index}", line)
    return document(root)


def _add_line(block: ElementTree.Element, name: str, line: PageLine) -> None:
    element = SubElement(block, "TextLine", {"ID": name, **_place(line.polygon)})
    if line.baseline:
        element.set("BASELINE", _points(line.baseline))
    SubElement(SubElement(element, "Shape"), "Polygon", POINTS=_points(line.polygon))
    for index, word in enumerate(words_of(line), start=1):
        if index > 1:
            SubElement(element, "SP")
        about = {"ID": f"{name}_{index}", "CONTENT": allowed(word.text), "WC": f"{word.score:.4f}"}
        SubElement(element, "String", {**about, **_place(word.polygon)})


def _place(points: Polygon) -> dict[str, str]:
    x0, y0, x1, y1 = box_around(points)
    return {"HPOS": str(x0), "VPOS": str(y0), "WIDTH": str(x1 - x0), "HEIGHT": str(y1 - y0)}


def _points(points: Polygon) -> str:
    return " ".join(f"{round(x)} {round(y)}" for x, y in points)
