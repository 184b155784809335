"""hOCR 1.2: XHTML with positions and confidences, as read by hocr-tools, OCRmyPDF and browsers."""

import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import SubElement

from ..reader import Page, PageLine
from ..words import box_around, words_of
from . import SourcePage
from .xml import allowed, document

_DOCTYPE = (
    '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" '
    '"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
)


def written(source: SourcePage, page: Page) -> str:
    root = ElementTree.Element("html", {"xmlns": "http://www.w3.org/1999/xhtml"})
    head = SubElement(root, "head")
    SubElement(head, "title").text = allowed(source.image)
    SubElement(head, "meta", {"http-equiv": "Content-Type", "content": "text/html; charset=utf-8"})
    SubElement(head, "meta", name="ocr-system", content="ms_ocr_handwritten")
    capabilities = "ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_poly ocrp_wconf"
    SubElement(head, "meta", name="ocr-capabilities", content=capabilities)
    image = allowed(source.image).replace('"', "%22")
    sheet = SubElement(
        SubElement(root, "body"),
        "div",
        {
            "class": "ocr_page",
            "id": "page",
            "title": f'image "{image}"; bbox 0 0 {page.width} {page.height}; ppageno {source.number - 1}',
        },
    )
    if page.lines:
        box = _bbox(box_around(tuple(point for line in page.lines for point in line.polygon)))
        area = SubElement(sheet, "div", {"class": "ocr_carea", "id": "area", "title": box})
        paragraph = SubElement(area, "p", {"class": "ocr_par", "id": "paragraph", "title": box})
        for index, line in enumerate(page.lines, start=1):
            _add_line(paragraph, f"line_{index}", line)
    return document(root, _DOCTYPE)


def _add_line(paragraph: ElementTree.Element, name: str, line: PageLine) -> None:
    box = box_around(line.polygon)
    title = _bbox(box) + "; poly " + " ".join(f"{round(x)} {round(y)}" for x, y in line.polygon)
    if line.baseline:
        (x0, y0), (x1, y1) = line.baseline[0], line.baseline[-1]
        slope = (y1 - y0) / max(x1 - x0, 1.0)
        title += f"; baseline {slope:.4f} {y0 + slope * (box[0] - x0) - box[3]:.1f}"
    element = SubElement(paragraph, "span", {"class": "ocr_line", "id": name, "title": title})
    for index, word in enumerate(words_of(line), start=1):
        about = f"{_bbox(word.box)}; x_wconf {round(100 * word.score)}"
        span = SubElement(element, "span", {"class": "ocrx_word", "id": f"{name}_{index}", "title": about})
        span.text, span.tail = allowed(word.text), " "


def _bbox(box: tuple[int, int, int, int]) -> str:
    return "bbox {} {} {} {}".format(*box)
