"""hOCR: pages with lines as HTML, as written by Tesseract and OCRopus."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from ..errors import LabelError
from .transcribed_page import Polygon, TranscribedLine, TranscribedPage, box, one_spaced, parse_points, read_bytes

_LINE_CLASSES = {"ocr_line", "ocrx_line", "ocr_header", "ocr_footer", "ocr_caption", "ocr_textfloat"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_PROPERTY = re.compile(r"""\s*([A-Za-z_]+)((?:"[^"]*"|'[^']*'|[^;"'])*)(?:;|$)""")


def read_hocr(path: str | os.PathLike[str]) -> Iterator[TranscribedPage]:
    """The pages of an hOCR file, in order. Raises LabelError for other files; invalid lines are in `problems`."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not UTF-8 ({error.reason}); convert it to UTF-8") from None
    parser = _Parser()
    parser.feed(text)
    parser.close()
    if not parser.pages:
        raise LabelError(f"{path}: has no element of class ocr_page; is it hOCR?")
    for number, page in enumerate(parser.pages, start=1):
        where = f"{path}, page {number}" if len(parser.pages) > 1 else str(path)
        yield _transcribed(Path(path), where, page)


@dataclass
class _Element:
    name: str
    properties: dict[str, str]
    text: list[str] = field(default_factory=list)


@dataclass
class _Page(_Element):
    lines: list[_Element] = field(default_factory=list)


class _Parser(HTMLParser):
    """Collects pages and their lines; all other HTML is ignored."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pages: list[_Page] = []
        self._line: _Element | None = None
        self._depth = 0  # number of open elements within the line, including itself

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attributes}
        classes = set(values.get("class", "").split())
        if self._line is not None:
            self._depth += tag not in _VOID
            if tag == "br":
                self._line.text.append(" ")
            return
        properties = {key: value.strip() for key, value in _PROPERTY.findall(values.get("title", ""))}
        if "ocr_page" in classes:
            self.pages.append(_Page(values.get("id", ""), properties))
        elif classes & _LINE_CLASSES and self.pages:
            page = self.pages[-1]
            self._line = _Element(values.get("id") or str(len(page.lines) + 1), properties)
            self._depth = 1
            page.lines.append(self._line)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._line is not None and tag not in _VOID:
            self._depth -= 1
            if self._depth == 0:
                self._line = None

    def handle_data(self, data: str) -> None:
        if self._line is not None:
            self._line.text.append(data)


def _transcribed(file: Path, where: str, page: _Page) -> TranscribedPage:
    lines: list[TranscribedLine] = []
    problems: list[LabelError] = []
    for line in page.lines:
        try:
            corners = _bbox(line)
            polygon = parse_points(line.properties.get("poly", ""))
            polygon = polygon if len(polygon) >= 3 else box(*corners)
            lines.append(TranscribedLine(line.name, one_spaced(line.text), polygon, _baseline(line, corners)))
        except ValueError as error:
            problems.append(LabelError(f"{where}: line {line.name}: {error}; correct its title"))
    try:
        x0, y0, x1, y1 = _bbox(page) if "bbox" in page.properties else (0.0,) * 4
    except ValueError as error:
        raise LabelError(f"{where}: {error}; correct the title of its ocr_page") from None
    image = page.properties.get("image", "").strip("\"'")
    return TranscribedPage(file, where, image, x1 - x0, y1 - y0, tuple(lines), tuple(problems))


def _bbox(element: _Element) -> tuple[float, float, float, float]:
    points = parse_points(element.properties.get("bbox", ""))
    if len(points) != 2:
        raise ValueError(f"a bbox of four numbers expected, {element.properties.get('bbox', '')!r} found")
    return *points[0], *points[1]


def _baseline(line: _Element, corners: tuple[float, float, float, float]) -> Polygon | None:
    """`baseline slope offset`, relative to the lower left corner of the bbox."""
    numbers = line.properties.get("baseline", "").split()
    if len(numbers) != 2:
        return None
    slope, offset = map(float, numbers)
    x0, _, x1, y1 = corners
    return (x0, y1 + offset), (x1, y1 + offset + slope * (x1 - x0))
