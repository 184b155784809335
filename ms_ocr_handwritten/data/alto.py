"""ALTO (Library of Congress), versions 2 to 4: pages with lines, as written by eScriptorium and library scanners."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ..errors import LabelError
from .transcribed_page import Polygon, TranscribedLine, TranscribedPage, box, one_spaced, parse_points, read_xml


def read_alto(path: str | os.PathLike[str]) -> Iterator[TranscribedPage]:
    """The pages of an ALTO file, in order. Raises LabelError for other files; invalid lines are in `problems`."""
    root = read_xml(path, "alto")
    image = root.findtext("Description/sourceImageInformation/fileName", "").strip()
    pages = root.findall("Layout/Page")
    for number, page in enumerate(pages, start=1):
        where = f"{path}, page {number}" if len(pages) > 1 else str(path)
        lines: list[TranscribedLine] = []
        problems: list[LabelError] = []
        for index, line in enumerate(page.iter("TextLine"), start=1):
            name = line.get("ID") or str(index)
            try:
                polygon = _polygon(line)
                lines.append(TranscribedLine(name, _text(line), polygon, _baseline(line, polygon)))
            except ValueError as error:
                problems.append(LabelError(f"{where}: line {name}: {error}; correct its coordinates"))
        size = [_number(page, key, 0.0) for key in ("WIDTH", "HEIGHT")]
        yield TranscribedPage(Path(path), where, image, size[0], size[1], tuple(lines), tuple(problems))


def _text(line: ElementTree.Element) -> str:
    parts: list[str] = []
    spaced = line.find("SP") is not None
    for element in line:
        if element.tag == "SP":
            parts.append(" ")
        elif element.tag in ("String", "HYP"):
            if parts and not spaced and element.tag == "String":  # a writer that omits spaces
                parts.append(" ")
            parts.append(element.get("CONTENT", ""))
    return one_spaced(parts)


def _polygon(line: ElementTree.Element) -> Polygon:
    shape = line.find("Shape/Polygon")
    points = parse_points(shape.get("POINTS", "")) if shape is not None else ()
    if len(points) >= 3:
        return points
    x, y, width, height = (_number(line, key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    return box(x, y, x + width, y + height)


def _baseline(line: ElementTree.Element, polygon: Polygon) -> Polygon | None:
    text = line.get("BASELINE", "")
    if not text.strip():
        return None
    if len(text.replace(",", " ").split()) == 1:  # before 4.0: one y for the whole line
        y = float(text)
        xs = [x for x, _ in polygon]
        return (min(xs), y), (max(xs), y)
    points = parse_points(text)
    return points if len(points) > 1 else None


def _number(element: ElementTree.Element, key: str, default: float | None = None) -> float:
    value = element.get(key)
    if value is None:
        if default is None:
            raise ValueError(f"it has neither {key} nor Polygon")
        return default
    return float(value)
