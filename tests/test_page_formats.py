"""The files of a page, opened by readers that others wrote, and by our own."""

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ms_ocr_handwritten.data.transcripts import read_transcripts
from ms_ocr_handwritten.page.formats import FORMATS, SourcePage, suffix_of, writer_of
from ms_ocr_handwritten.page.formats.overlay import overlay
from ms_ocr_handwritten.page.formats.pdf import PdfWriter
from ms_ocr_handwritten.page.reader import Page, PageCharacter, PageLine

TEXTS = ("Deux mots, l'été", "手写体 和 文字", 'a < b & "c" > d', "42")
SOURCE = SourcePage("folder/scan <1>.png", 3, "scan <1>.png")


def written_line(text: str, top: float, slope: float = 0.0) -> PageLine:
    """A line of 30 px to a character from x = 50, 40 px high."""

    def corners(x0: float, x1: float) -> tuple[tuple[float, float], ...]:
        return tuple((x, top + slope * x + down) for x, down in ((x0, 0.0), (x1, 0.0), (x1, 40.0), (x0, 40.0)))

    chars = tuple(
        PageCharacter(character, 0.5 + index / 100, corners(50.0 + 30 * index, 80.0 + 30 * index))
        for index, character in enumerate(text)
    )
    end = 50.0 + 30 * len(text)
    baseline = ((50.0, top + slope * 50 + 30), (end, top + slope * end + 30))
    return PageLine(text, 0.75, chars, corners(50.0, end), baseline)


@pytest.fixture
def page() -> Page:
    lines = tuple(written_line(text, 100.4 + 80 * index, 0.02 * index) for index, text in enumerate(TEXTS))
    return Page(800, 600, lines)


def file_of(page: Page, layout: str, folder: Path) -> Path:
    path = folder / f"sheet{suffix_of(layout)}"
    path.write_text(writer_of(layout)(SOURCE, page), encoding="utf-8")
    return path


@pytest.mark.parametrize("layout", ["alto", "page", "hocr"])
def test_what_is_written_is_read_again(page, tmp_path, layout):
    (read,) = read_transcripts(file_of(page, layout, tmp_path))
    assert (read.image, read.width, read.height, read.problems) == ("scan <1>.png", 800, 600, ())
    assert [line.text for line in read.lines] == list(TEXTS)
    for before, after in zip(page.lines, read.lines):
        assert np.abs(np.subtract(before.polygon, after.polygon)).max() <= 0.5
        x, y = np.array(after.baseline).T
        assert np.abs(np.interp(x, *np.array(before.baseline).T) - y).max() <= 1


def test_json_is_one_line_with_everything(page, tmp_path):
    content = writer_of("json")(SOURCE, page)
    assert content.count("\n") == 1
    row = json.loads(content)
    assert {key: row[key] for key in ("source", "page", "width", "height")} == {
        "source": "folder/scan <1>.png",
        "page": 3,
        "width": 800,
        "height": 600,
    }
    assert [line["text"] for line in row["lines"]] == list(TEXTS) and row["lines"][0]["score"] == 0.75
    assert row["lines"][0]["polygon"] == [[50.0, 100.4], [530.0, 100.4], [530.0, 140.4], [50.0, 140.4]]
    assert row["lines"][0]["chars"][1] == ["e", 0.51, [[80.0, 100.4], [110.0, 100.4], [110.0, 140.4], [80.0, 140.4]]]
    assert writer_of("text")(SOURCE, page) == "".join(f"{text}\n" for text in TEXTS)


def test_alto_has_words_with_places(page, tmp_path):
    root = ElementTree.parse(file_of(page, "alto", tmp_path)).getroot()
    name = {"a": "http://www.loc.gov/standards/alto/ns-v4#"}
    words = root.findall(".//a:TextLine[@ID='line_1']/a:String", name)
    assert [word.get("CONTENT") for word in words] == ["Deux", "mots,", "l'été"]
    assert [int(words[1].get(key)) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] == [200, 100, 150, 41]
    assert 0.5 < float(words[0].get("WC")) < 0.54
    lines = root.findall(".//a:TextLine", name)
    kinds = [[child.tag.rpartition("}")[2] for child in line] for line in lines]
    assert kinds[0] == ["Shape", "String", "SP", "String", "SP", "String"]  # the schema's order
    assert all({"ID", "HPOS", "VPOS", "WIDTH", "HEIGHT", "BASELINE"} <= set(line.attrib) for line in lines)
    identities = [element.get("ID") for element in root.iter() if element.get("ID")]
    assert len(set(identities)) == len(identities)


def test_page_xml_keeps_to_its_schema(page, tmp_path):
    path = file_of(page, "page", tmp_path)
    root = ElementTree.parse(path).getroot()
    name = {"p": "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"}
    line = root.find(".//p:TextLine", name)
    assert [child.tag.rpartition("}")[2] for child in line] == ["Coords", "Baseline", "TextEquiv"]
    assert line.find("p:Coords", name).get("points") == "50,100 530,100 530,140 50,140"
    schemas = find_spec("ocrd_validators")  # OCR-D's copy of the schema, where it is installed
    if schemas is not None:
        etree = pytest.importorskip("lxml.etree")
        schema = etree.XMLSchema(etree.parse(Path(schemas.origin).parent / "page.xsd"))
        schema.assertValid(etree.parse(path))


def test_alto_tools_reads_our_alto(page, tmp_path):
    pytest.importorskip("alto_tools")
    path = file_of(page, "alto", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "from alto_tools.alto_tools import main; main()", "-t", str(path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert [line.strip() for line in done.stdout.splitlines() if line.strip()] == list(TEXTS)


def pdf_of(*pages: Page) -> bytes:
    file = io.BytesIO()
    writer = PdfWriter(file)
    for page in pages:
        writer.add(page, np.full((page.height, page.width, 3), (200, 220, 240), np.uint8), 72 / 144)
    writer.close()
    return file.getvalue()


def test_pdf_text_is_found_where_it_stands(page):
    pypdfium2 = pytest.importorskip("pypdfium2")
    document = pypdfium2.PdfDocument(pdf_of(page, Page(100, 50, ()), page))
    assert [document[index].get_size() for index in range(3)] == [(400, 300), (50, 25), (400, 300)]
    for index in (0, 2):
        text = document[index].get_textpage()
        assert text.get_text_range().split() == " ".join(TEXTS).split()
        assert [row.strip() for row in text.get_text_range().splitlines()] == list(TEXTS)
        searcher = text.search("mots")
        start, count = searcher.get_next()
        assert count == 4
        left, bottom, right, top = text.get_charbox(start)
        assert left == pytest.approx((50 + 5 * 30) / 2, abs=1) and right == pytest.approx((50 + 6 * 30) / 2, abs=1)
        assert 300 - 141 / 2 <= bottom < top <= 300 - 100 / 2
    assert document[1].get_textpage().get_text_range() == ""
    drawn = np.asarray(document[0].render(scale=1).to_pil().convert("RGB"), int)
    assert np.abs(drawn - (240, 220, 200)).max() < 6  # the picture alone: the text is invisible


def test_pdf_text_is_the_same_for_another_reader(page):
    pypdf = pytest.importorskip("pypdf")
    read = pypdf.PdfReader(io.BytesIO(pdf_of(page, page)), strict=True)
    assert [one.extract_text().split() for one in read.pages] == [" ".join(TEXTS).split()] * 2


def test_pdf_holds_more_characters_than_one_font():
    pypdfium2 = pytest.importorskip("pypdfium2")
    text = "".join(chr(0x4E00 + index) for index in range(600))
    lines = tuple(written_line(text[start : start + 20], 30.0 + start * 3) for start in range(0, len(text), 20))
    document = pypdfium2.PdfDocument(pdf_of(Page(800, 1900, lines)))
    assert "".join(document[0].get_textpage().get_text_range().split()) == text


def test_a_line_that_runs_down_has_its_words_in_order():
    chars = tuple(
        PageCharacter(character, 1.0, ((10.0, y), (40.0, y), (40.0, y + 30), (10.0, y + 30)))
        for character, y in zip("上下 左右", range(0, 150, 30))
    )
    line = PageLine("上下 左右", 1.0, chars, ((10.0, 0.0), (40.0, 0.0), (40.0, 150.0), (10.0, 150.0)))
    page = Page(100, 200, (line,))
    root = ElementTree.fromstring(writer_of("alto")(SOURCE, page))
    boxes = [
        [int(one.get(key)) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] for one in root.iter() if one.get("CONTENT")
    ]
    assert boxes == [[10, 0, 30, 60], [10, 90, 30, 60]]
    pypdfium2 = pytest.importorskip("pypdfium2")
    text = pypdfium2.PdfDocument(pdf_of(page))[0].get_textpage()
    assert text.get_text_range().split() == ["上下", "左右"]
    left, bottom, right, top = text.get_charbox(1)
    assert 10 / 2 <= left < right <= 40 / 2 and 100 - 61 / 2 <= bottom < top <= 100 - 29 / 2


@pytest.mark.parametrize("layout", [one for one in FORMATS if one not in ("pdf", "text", "json")])
def test_a_page_without_lines_is_a_valid_file(tmp_path, layout):
    (read,) = read_transcripts(file_of(Page(30, 20, ()), layout, tmp_path))
    assert (read.width, read.height, read.lines) == (30, 20, ())


def test_what_xml_cannot_hold_is_replaced(tmp_path):
    page = Page(800, 600, (written_line("a\x00b\x1fc", 10.0),))
    for layout in ("alto", "page", "hocr"):
        (read,) = read_transcripts(file_of(page, layout, tmp_path))
        assert read.lines[0].text in ("a\ufffdb\ufffdc", "a\ufffdb c")  # U+001F is a space to Python


def test_the_overlay_shows_outlines_and_texts(page):
    root = ElementTree.fromstring(overlay(page, np.zeros((600, 800, 3), np.uint8)))
    name = {"s": "http://www.w3.org/2000/svg"}
    assert [element.text for element in root.findall("s:text", name)] == list(TEXTS)
    for element, line in zip(root.findall("s:text", name), page.lines):
        x = [point[0] for point in line.polygon]
        assert [float(element.get(key)) for key in ("x", "textLength")] == [800 + min(x), max(x) - min(x)]
        assert 25 < float(element.get("font-size")) <= 28  # 0.7 of the line's height, however it slants
    assert root.find("s:polygon", name).get("points") == "50,100.4 530,100.4 530,140.4 50,140.4"
    assert root.find("s:image", name).get("{http://www.w3.org/1999/xlink}href").startswith("data:image/jpeg;base64,")
