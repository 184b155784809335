"""PAGE XML 2019-07-15 (PRImA), as read by Transkribus, eScriptorium and OCR-D.

Only lines are written, no words, so that a manually corrected line does not contradict its words.
"""

import datetime
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import SubElement

from ..reader import Page, PageLine, Polygon
from ..words import box_around
from . import SourcePage
from .xml import allowed, document

_NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def written(source: SourcePage, page: Page) -> str:
    root = ElementTree.Element(
        "PcGts",
        {
            "xmlns": _NAMESPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{_NAMESPACE} {_NAMESPACE}/pagecontent.xsd",
        },
    )
    metadata = SubElement(root, "Metadata")
    SubElement(metadata, "Creator").text = "ms_ocr_handwritten"
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    SubElement(metadata, "Created").text = now
    SubElement(metadata, "LastChange").text = now
    size = {"imageWidth": str(page.width), "imageHeight": str(page.height)}
    sheet = SubElement(root, "Page", {"imageFilename": allowed(source.image), **size})
    if page.lines:
        region = SubElement(sheet, "TextRegion", id="region")
        x0, y0, x1, y1 = box_around(tuple(point for line in page.lines for point in line.polygon))
        SubElement(region, "Coords", points=_points(((x0, y0), (x1, y0), (x1, y1), (x0, y1))))
        for index, line in enumerate(page.lines, start=1):
            _add_line(region, f"line_{index}", line)
    return document(root)


def _add_line(region: ElementTree.Element, name: str, line: PageLine) -> None:
    element = SubElement(region, "TextLine", id=name)
    SubElement(element, "Coords", points=_points(line.polygon))
    if line.baseline:
        SubElement(element, "Baseline", points=_points(line.baseline))
    text = SubElement(element, "TextEquiv", conf=f"{line.score:.4f}")
    SubElement(text, "Unicode").text = allowed(line.text)


def _points(points: Polygon) -> str:
    """Integers from 0, as required by the schema."""
    return " ".join(f"{max(0, round(x))},{max(0, round(y))}" for x, y in points)
