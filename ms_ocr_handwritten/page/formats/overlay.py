"""The page with the outlines of its lines and their texts beside it, as SVG, which every browser shows.

SVG, because a bitmap would need a font for every script in a vocabulary.
"""

import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import SubElement

import cv2
import numpy as np

from ...image.uri import picture_uri
from ..reader import Page
from ..words import box_around
from .xml import allowed, document

SUFFIX = ".overlay.svg"

_QUALITY = 80  # of the embedded JPEG
_COLOURS = ("#c0392b", "#2471a3")  # alternating between lines


def overlay(page: Page, pixels: np.ndarray) -> str:
    """`pixels`: uint8 (H, W, 3) BGR, the upright page."""
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "xmlns:xlink": "http://www.w3.org/1999/xlink",
            "viewBox": f"0 0 {2 * page.width} {page.height}",
        },
    )
    picture = picture_uri(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), form="JPEG", quality=_QUALITY)
    SubElement(root, "image", {"xlink:href": picture, "width": str(page.width), "height": str(page.height)})
    for index, line in enumerate(page.lines):
        colour = _COLOURS[index % 2]
        points = " ".join(f"{x:g},{y:g}" for x, y in line.polygon)
        SubElement(root, "polygon", {"points": points, "fill": colour, "fill-opacity": "0.1", "stroke": colour})
        x0, y0, x1, y1 = box_around(line.polygon)
        size = (
            min(cv2.minAreaRect(np.asarray(line.polygon, np.float32))[1]) * 0.7
        )  # the box of a slanted line is higher
        place = {"x": str(page.width + x0), "y": f"{(y0 + y1) / 2 + size / 3:g}", "font-size": f"{size:g}"}
        if x1 - x0 > y1 - y0:  # same length as on the page, so it never exceeds its edge
            place |= {"textLength": str(x1 - x0), "lengthAdjust": "spacingAndGlyphs"}
        text = SubElement(root, "text", {**place, "fill": colour, "font-family": "sans-serif"})
        text.text = allowed(line.text)
        SubElement(text, "title").text = f"{index + 1}: {line.score:.3f}"
    return document(root)
