"""Transcribed pages as other programs write them: ALTO, PAGE XML, hOCR."""

from pathlib import Path

import pytest

from ms_ocr_handwritten.data.transcribed_page import MAX_BYTES
from ms_ocr_handwritten.data.transcripts import is_transcript, read_transcripts
from ms_ocr_handwritten.errors import LabelError

# The layout of eScriptorium (ALTO 4.2), with two Strings as other writers have them.
ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns="http://www.loc.gov/standards/alto/ns-v4#">
  <Description><MeasurementUnit>pixel</MeasurementUnit>
    <sourceImageInformation><fileName>C:\\scans\\sheet%201.jpg</fileName></sourceImageInformation></Description>
  <Layout><!-- a comment --><Page WIDTH="2550" HEIGHT="3300" PHYSICAL_IMG_NR="0" ID="p1">
    <PrintSpace HPOS="0" VPOS="0" WIDTH="2550" HEIGHT="3300">
      <TextBlock ID="b1"><Shape><Polygon POINTS="0 0 9 0 9 9"/></Shape>
        <TextLine ID="l1" BASELINE="194 363 427 353" HPOS="192" VPOS="289" WIDTH="2152" HEIGHT="140">
          <Shape><Polygon POINTS="192 372 220 383 278.5 377"/></Shape>
          <String CONTENT="J&#x27;ai lu"></String></TextLine>
        <TextLine ID="l2" BASELINE="400" HPOS="10" VPOS="380" WIDTH="100" HEIGHT="30">
          <String CONTENT="two"/><SP/><String CONTENT="wor"/><HYP CONTENT="-"/></TextLine>
        <TextLine HPOS="10" VPOS="500" WIDTH="100" HEIGHT="30"><String CONTENT="no"/><String CONTENT="SP"/></TextLine>
        <TextLine ID="l4" HPOS="10" VPOS="oops" WIDTH="100" HEIGHT="30"><String CONTENT="bad"/></TextLine>
        <TextLine ID="l5" HPOS="1" VPOS="2" WIDTH="3" HEIGHT="4"/>
      </TextBlock></PrintSpace></Page></Layout></alto>
"""

# The layout of Transkribus (PAGE 2013) with a choice of texts (OCR-D), and points as PAGE 2010 has them.
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
  <Metadata><Creator>someone</Creator></Metadata>
  <Page imageFilename="sheet 1.jpg" imageWidth="1000" imageHeight="800">
    <TextRegion id="r1"><Coords points="0,0 10,0 10,10"/>
      <TextLine id="l1" custom="readingOrder {index:0;}">
        <Coords points="10,20 400,22 400,60 10,58"/><Baseline points="10,50 200,48 400,52"/>
        <Word id="w1"><Coords points="1,1 2,1 2,2"/><TextEquiv><Unicode>not this</Unicode></TextEquiv></Word>
        <TextEquiv index="1"><Unicode>second</Unicode></TextEquiv>
        <TextEquiv index="0"><Unicode>手写 first </Unicode></TextEquiv></TextLine>
      <TextLine id="l2"><Coords><Point x="1" y="2"/><Point x="30" y="2"/><Point x="30" y="9"/></Coords>
        <Word><TextEquiv><Unicode>of</Unicode></TextEquiv></Word><Word><TextEquiv><Unicode>words</Unicode></TextEquiv></Word>
      </TextLine>
      <TextLine id="l3"><Coords points="1,2 nan,4 5,6"/><TextEquiv><Unicode>bad</Unicode></TextEquiv></TextLine>
      <TextLine id="l4"><Coords points="1,2 3,4"/><TextEquiv><Unicode>bad</Unicode></TextEquiv></TextLine>
      <TextLine id="l5"><Coords points="1,2 3,4 5,6"/><TextEquiv><Unicode/></TextEquiv></TextLine>
    </TextRegion></Page></PcGts>
"""

# The layout of Tesseract 5, two pages; entities that XML does not know.
HOCR = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
 "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en">
<head><title></title><meta name='ocr-system' content='x'/></head>
<body>
 <div class='ocr_page' id='page_1' title='image "a; b/sheet.png"; bbox 0 0 640 480; ppageno 0; scan_res 300 300'>
  <div class='ocr_carea'><p class='ocr_par'>
   <span class='ocr_line' id='line_1_1' title="bbox 36 92 618 184; baseline 0.1 -10; x_size 50">
    <span class='ocrx_word' title='bbox 36 92 96 116; x_wconf 95'>caf&eacute;</span>
    <span class='ocrx_word' title='bbox 109 92 129 116'><strong>au</strong>&nbsp;lait</span><br/>
   </span>
   <span class='ocr_header' title="bbox 1 2 3 4; poly 1 2 3 2 3 4 1 5">手写<span>体</span></span>
   <span class='ocr_line' id='bad' title="bbox 1 2">x</span>
  </p></div></div>
 <div class='ocr_page' title='bbox 0 0 10 20'></div>
</body></html>
"""


def written(folder: Path, content: str, name: str = "sheet.xml") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_alto(tmp_path):
    path = written(tmp_path, ALTO)
    (page,) = read_transcripts(path)
    assert (page.width, page.height, page.where) == (2550, 3300, str(path))
    assert [line.text for line in page.lines] == ["J'ai lu", "two wor-", "no SP", ""]
    assert [line.name for line in page.lines] == ["l1", "l2", "3", "l5"]
    assert page.lines[0].polygon == ((192, 372), (220, 383), (278.5, 377))
    assert page.lines[0].baseline == ((194, 363), (427, 353))
    assert page.lines[1].polygon == ((10, 380), (110, 380), (110, 410), (10, 410))
    assert page.lines[1].baseline == ((10, 400), (110, 400)) and page.lines[2].baseline is None
    (problem,) = page.problems
    assert str(problem).startswith(f"{path}: line l4: could not convert string to float: 'oops'")


def test_page_xml(tmp_path):
    path = written(tmp_path, PAGE)
    (page,) = read_transcripts(path)
    assert (page.image, page.width, page.height) == ("sheet 1.jpg", 1000, 800)
    assert [line.text for line in page.lines] == ["手写 first", "of words", ""]
    assert page.lines[0].polygon == ((10, 20), (400, 22), (400, 60), (10, 58))
    assert page.lines[0].baseline == ((10, 50), (200, 48), (400, 52))
    assert page.lines[1].polygon == ((1, 2), (30, 2), (30, 9)) and page.lines[1].baseline is None
    assert ["line l3: a number is not finite" in str(page.problems[0]), "2 points" in str(page.problems[1])] == [
        True
    ] * 2


@pytest.mark.parametrize("prefix", ["pc:", ""])
def test_names_with_a_prefix(tmp_path, prefix):
    content = PAGE.replace('xmlns="', f'xmlns{prefix and ":pc"}="')
    for tag in (
        "PcGts",
        "Page",
        "TextRegion",
        "TextLine",
        "Coords",
        "TextEquiv",
        "Unicode",
        "Baseline",
        "Word",
        "Point",
    ):
        for start in ("<", "</"):
            for end in (" ", ">", "/>"):
                content = content.replace(f"{start}{tag}{end}", f"{start}{prefix}{tag}{end}")
    (page,) = read_transcripts(written(tmp_path, content))
    assert [line.text for line in page.lines] == ["手写 first", "of words", ""]


def test_hocr(tmp_path):
    path = written(tmp_path, HOCR, "sheet.hocr")
    first, second = read_transcripts(path)
    assert (first.image, first.width, first.height) == ("a; b/sheet.png", 640, 480)
    assert first.where == f"{path}, page 1" and second.lines == ()
    assert [line.text for line in first.lines] == ["café au\xa0lait", "手写体"]
    assert first.lines[0].polygon == ((36, 92), (618, 92), (618, 184), (36, 184))
    assert first.lines[0].baseline == ((36, 174), (618, pytest.approx(174 + 58.2)))
    assert first.lines[1].polygon == ((1, 2), (3, 2), (3, 4), (1, 5))
    assert "page 1: line bad: a bbox of four numbers expected, '1 2' found" in str(first.problems[0])


def test_the_image_is_found_beside_the_file(tmp_path):
    (page,) = read_transcripts(written(tmp_path, ALTO, "other.alto.xml"))
    with pytest.raises(LabelError, match=r"other.alto.xml: its image 'sheet 1.jpg' is not beside it"):
        page.find_image()
    (tmp_path / "other.png").touch()  # the name of the transcription
    assert page.find_image() == tmp_path / "other.png"
    (tmp_path / "sheet 1.jpg").touch()  # what it says itself
    assert page.find_image() == tmp_path / "sheet 1.jpg"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sheet 1.jpg").touch()
    assert page.find_image(tmp_path / "images") == tmp_path / "images" / "sheet 1.jpg"


def test_coordinates_follow_the_image(tmp_path):
    (page,) = read_transcripts(written(tmp_path, PAGE))
    assert page.scaled_to(1000, 800) is page
    half = page.scaled_to(500, 400)
    assert half.lines[0].polygon == ((5, 10), (200, 11), (200, 30), (5, 29))
    assert half.lines[0].baseline == ((5, 25), (100, 24), (200, 26)) and half.lines[1].baseline is None
    with pytest.raises(LabelError, match="of a page of 1000x800, its image has 800x1000 px"):
        page.scaled_to(800, 1000)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "neither PAGE XML, ALTO nor hOCR"),
        ("<svg/>", "neither PAGE XML, ALTO nor hOCR"),
        (ALTO[:400], "not well-formed XML"),
        ("<html><body>text</body></html>", "ocr_page"),
        (PAGE.replace('"1000"', '"wide"'), "the size of its image"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><alto>&a;</alto>', "not well-formed XML"),
    ],
)
def test_other_files_are_errors_that_name_them(tmp_path, content, says):
    path = written(tmp_path, content)
    with pytest.raises(LabelError, match=says) as caught:
        list(read_transcripts(path))
    assert str(path) in str(caught.value)


def test_what_is_no_file_or_too_large_is_an_error(tmp_path):
    with pytest.raises(LabelError, match=r"none.xml: cannot be read \(No such file"):
        read_transcripts(tmp_path / "none.xml")
    huge = written(tmp_path, ALTO)
    with open(huge, "r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(LabelError, match="over the limit"):
        list(read_transcripts(huge))


def test_formats_are_told_by_their_root(tmp_path):
    for content in (ALTO, PAGE, HOCR, f"<!-- <svg> -->{ALTO[38:]}"):
        assert is_transcript(written(tmp_path, content))
    assert not is_transcript(written(tmp_path, "<annotation/>"))
