"""PAGE XML (PRImA), 2010 to 2019: one page with lines, as written by Transkribus, eScriptorium and OCR-D."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ..errors import LabelError
from .transcribed_page import Polygon, TranscribedLine, TranscribedPage, one_spaced, parse_points, read_xml


def read_page_xml(path: str | os.PathLike[str]) -> Iterator[TranscribedPage]:
    """The page of a PAGE XML file. Raises LabelError for other files; invalid lines are in `problems`."""
    root = read_xml(path, "PcGts")
    for page in root.findall("Page"):  # the schema allows only one
        lines: list[TranscribedLine] = []
        problems: list[LabelError] = []
        for index, line in enumerate(page.iter("TextLine"), start=1):
            name = line.get("id") or str(index)
            try:
                polygon, baseline = _points(line, "Coords"), _points(line, "Baseline")
                if len(polygon) < 3:
                    raise ValueError(f"its Coords have {len(polygon)} points, three or more are needed")
            except ValueError as error:
                problems.append(LabelError(f"{path}: line {name}: {error}; correct its coordinates"))
                continue
            lines.append(TranscribedLine(name, _text(line), polygon, baseline if len(baseline) > 1 else None))
        try:
            width, height = (float(page.get(key, 0)) for key in ("imageWidth", "imageHeight"))
        except ValueError as error:
            raise LabelError(f"{path}: the size of its image: {error}; correct it") from None
        image = page.get("imageFilename", "").strip()
        yield TranscribedPage(Path(path), str(path), image, width, height, tuple(lines), tuple(problems))


def _points(line: ElementTree.Element, tag: str) -> Polygon:
    element = line.find(tag)
    if element is None:
        return ()
    if (points := element.get("points")) is not None:
        return parse_points(points)
    return tuple((float(point.get("x", "nan")), float(point.get("y", "nan"))) for point in element.iter("Point"))


def _text(line: ElementTree.Element) -> str:
    """The line's own text, the one with the lowest index if there are several; else those of its words."""
    texts = line.findall("TextEquiv")
    if texts:
        best = min(texts, key=lambda one: int(one.get("index", "0")) if one.get("index", "0").isdigit() else 0)
        return one_spaced([best.findtext("Unicode") or ""])
    return one_spaced([" ".join(filter(None, map(_text, line.findall("Word"))))])
