"""`ms-ocr page` and `ms-ocr evaluate-pages` as a user calls them, with the real detector."""

import json
import shutil
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import ALPHABET, ROOT, TINY_NETWORK, encoded, make_model_dir, weaken_positions
from PIL import Image

from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.data.transcripts import read_transcripts
from ms_ocr_handwritten.image.straighten import cut_line
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.page import detector
from ms_ocr_handwritten.page.formats import suffix_of

pytest.importorskip("rapidocr")
pypdfium2 = pytest.importorskip("pypdfium2")

PAGES = ROOT / "examples" / "pages"
LINES = {"english": 7, "chinese": 6}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="ms-ocr")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Reads nonsense, but fast."""
    folder = tmp_path_factory.mktemp("cli_page") / "model"
    return weaken_positions(make_model_dir(folder, ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture(scope="module", autouse=True)
def one_detector():
    """Each command opens a detector; here they share one, which takes most of the time to open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "RapidOcrDetector", cache(detector.RapidOcrDetector))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The example pages at a third of their size, each a file, both as a TIFF and as a PDF; and a blank page."""
    folder = tmp_path_factory.mktemp("made") / "scans"
    folder.mkdir()
    images = [Image.open(PAGES / f"{name}.jpg").convert("L").reduce(3) for name in LINES]
    for name, image in zip(LINES, images):
        image.save(folder / f"{name}.png", dpi=(50, 50))
    for name, options in (("both.tif", {}), ("both.pdf", {"resolution": 50})):
        first, second = (image.copy() for image in images)  # Pillow leaves settings of a format on what it saved
        first.save(folder / name, save_all=True, append_images=[second], **options)
    Image.new("L", (300, 200), 255).save(folder / "blank.png")
    return folder


@pytest.fixture
def scans(made, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "scans"))


def rows(result: Result) -> list[dict]:
    return [json.loads(row) for row in result.stdout.splitlines()]


def test_pages_of_all_kinds_as_json(model, scans):
    result = call("page", "--model", model, "scans", "--format", "json", "--dpi", "75")
    assert (result.exit_code, result.stderr) == (0, "")
    pages = rows(result)
    assert [(page["source"], page["page"], len(page["lines"])) for page in pages] == [
        ("scans/blank.png", 1, 0),
        ("scans/both.pdf", 1, 7),
        ("scans/both.pdf", 2, 6),
        ("scans/both.tif", 1, 7),
        ("scans/both.tif", 2, 6),
        ("scans/chinese.png", 1, 6),
        ("scans/english.png", 1, 7),
    ]
    for page in pages[1:]:
        tops = [min(y for _, y in line["polygon"]) for line in page["lines"]]
        assert tops == sorted(tops)
    assert pages[3]["lines"] == pages[6]["lines"] and pages[4]["lines"] == pages[5]["lines"]  # the same pixels
    pdf, png = pages[1], pages[6]  # drawn at 75 dpi, scanned at 50
    assert pdf["width"] == pytest.approx(png["width"] * 75 / 50, abs=2)
    for one, other in zip(pdf["lines"], png["lines"]):
        assert np.abs(np.array(one["polygon"]) * 50 / 75 - other["polygon"]).max() < 8


def test_text_has_a_heading_where_there_are_several_pages(model, scans):
    one = call("page", "--model", model, "scans/english.png")
    assert one.exit_code == 0 and len(one.stdout.splitlines()) == 7
    both = call("page", "--model", model, "scans/both.tif", "scans/blank.png").stdout.splitlines()
    assert both[0] == "==> scans/both.tif, page 1 <==" and both[1:8] == one.stdout.splitlines()
    assert (both[8], both[15:]) == ("==> scans/both.tif, page 2 <==", ["==> scans/blank.png <=="])
    Path("scans/blank.png").rename("scans/a\nb.png")
    assert call("page", "--model", model, "scans/a*").stdout == "==> scans/a\\nb.png <==\n"


def test_files_of_pages_come_back_as_truth(model, scans):
    """What is written is read again by `evaluate-pages`: all lines are found, and read as they were."""
    result = call("page", "--model", model, "scans/both.tif", "scans/english.png", "--format", "alto", "--out", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    names = ["both_0001.alto.xml", "both_0001.jpg", "both_0002.alto.xml", "both_0002.jpg", "english.alto.xml"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    shutil.copy("scans/english.png", "out")
    for path in Path("out").glob("both*"):
        path.unlink()
    result = call("evaluate-pages", "out", "--model", model, "--own-polygons", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    ours, own = json.loads(result.stdout)["readers"]
    assert (ours["reader"], ours["pages"], ours["lines"]) == ("model", 1, 7)
    assert (ours["found"], ours["invented"], ours["cer"], ours["page_cer"]) == (1.0, 0, 0.0, 0.0)
    assert own["reader"] == "own polygons" and own["found"] == 1.0 and own["seconds_a_page"] > 0
    table = call("evaluate-pages", "out", "--model", model).stdout.splitlines()
    assert table[0].split()[:4] == ["reader", "pages", "lines", "found"] and "100.00 %" in table[1]


def test_a_pdf_of_what_was_read(model, scans):
    expected = rows(call("page", "--model", model, "scans/both.tif", "--format", "json"))
    result = call("page", "--model", model, "scans/both.tif", "--format", "pdf", "--out", "out", "--overlay")
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "both.pdf",
        "both_0001.overlay.svg",
        "both_0002.overlay.svg",
    ]
    document = pypdfium2.PdfDocument("out/both.pdf")
    for index, page in enumerate(expected):
        text = document[index].get_textpage().get_text_range()
        assert "".join(text.split()) == "".join("".join(line["text"] for line in page["lines"]).split())
    again = call("page", "--model", model, "scans/both.tif", "--format", "pdf", "--out", "out")
    assert again.exit_code == 1 and "both.pdf: exists already and is left as it is" in again.stderr


def test_two_pages_of_one_name_are_told_apart(model, scans):
    (scans / "inner").mkdir()
    shutil.copy("scans/english.png", "scans/inner/english.png")
    paths = ["scans/english.png", "scans/inner/english.png"]
    for layout, suffix in (("text", ".txt"), ("pdf", ".pdf")):
        result = call("page", "--model", model, *paths, "--format", layout, "--out", layout)
        assert result.exit_code == 1 and result.stderr.splitlines()[0] == (
            f"error: scans/inner/english.png: {layout}/english{suffix}: is that of scans/english.png, which has the "
            "same name; read the two in runs of their own, each with its --out"
        )


def test_a_file_in_place_of_the_folder_is_told_before_anything_is_read(model, scans):
    result = call("page", "--model", model, "scans/english.png", "--out", "scans/english.png")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: scans/english.png: cannot be written (File exists)")


def test_a_language_model_has_a_say_in_pages(model, scans):
    result = call("page", "--model", model, "scans/english.png", "--language-model", "no.arpa")
    assert result.exit_code == 1 and result.stderr.startswith("error: no.arpa: no such file")
    once = call("page", "--model", model, "scans/english.png", "--augment-below", "0", "--format", "json")
    views = call("page", "--model", model, "scans/english.png", "--augment-below", "0.99", "--format", "json")
    scores = [[line["score"] for line in rows(result)[0]["lines"]] for result in (once, views)]
    assert once.exit_code == views.exit_code == 0 and scores[0] != scores[1]


def test_bad_pages_are_named_and_the_rest_is_read(model, scans):
    (scans / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    (scans / "huge.png").write_bytes(encoded(Image.new("1", (10_000, 10_000), 1)))
    (scans / "notes.png").write_bytes(b"no image")
    Image.new("L", (100, 100), 255).save(scans / "vast.pdf", resolution=0.5)  # 200 inches square
    for name in ("both.pdf", "chinese.png", "english.png"):
        (scans / name).unlink()
    result = call("page", "--model", model, "scans", "nowhere", "--format", "json")
    assert result.exit_code == 1
    assert [Path(page["source"]).name for page in rows(result)] == ["blank.png", "both.tif", "both.tif"]
    errors = [line for line in result.stderr.splitlines() if not line.endswith("warnings.warn(")]
    found = "\n".join(errors)
    assert "broken.pdf: the PDF cannot be opened" in found
    assert "huge.png: 10000x10000 px is over the limit of 64000000 pixels" in found
    assert "notes.png: not a readable image" in found
    assert "vast.pdf: 40000x40000 px are over the limit" in found.replace(", page 1 of 1", "")
    assert "nowhere: no such file or folder" in found
    assert errors[-1] == "5 of 8 could not be read"


def test_an_encrypted_pdf_says_so(model, scans):
    pypdf = pytest.importorskip("pypdf")
    pytest.importorskip("cryptography")
    writer = pypdf.PdfWriter(clone_from="scans/both.pdf")
    writer.encrypt("secret", algorithm="AES-256")
    writer.write("scans/locked.pdf")
    result = call("page", "--model", model, "scans/locked.pdf")
    assert result.exit_code == 1
    assert "scans/locked.pdf: the PDF cannot be opened" in result.stderr and "without its password" in result.stderr


def test_formats_that_are_files_ask_for_a_folder(model):
    result = call("page", "x.png", "--format", "alto")
    assert result.exit_code == 2 and "--format alto writes files; name the folder for them: --out DIR" in result.stderr


def test_evaluation_names_what_is_missing(model, scans):
    empty = call("evaluate-pages", "scans", "--model", model)
    assert empty.exit_code == 1 and "scans: holds no PAGE XML, ALTO or hOCR file" in empty.stderr
    Path("scans/a.xml").write_text("<alto><Layout/></alto>", encoding="utf-8")
    Path("scans/b.xml").write_text("<alto><Layout><Page WIDTH='9' HEIGHT='9'/></Layout></alto>", encoding="utf-8")
    result = call("evaluate-pages", "scans", "--model", model)
    assert result.exit_code == 1
    assert "scans/b.xml: its image 'b.jpg' is not beside it" in result.stderr


@pytest.mark.parametrize("layout", ["page", "alto", "hocr"])
def test_a_corrected_page_comes_back_as_training_data(model, scans, layout):
    """Read, corrected by hand in the XML, and built: the labels are the corrected ones, the lines cut as always."""
    read = rows(call("page", "--model", model, "scans/english.png", "--format", "json"))[0]["lines"]
    assert call("page", "--model", model, "scans/english.png", "--format", layout, "--out", "scans").exit_code == 0
    path = scans / f"english{suffix_of(layout)}"
    content, wrong = path.read_text(encoding="utf-8"), read[2]["text"]
    assert wrong.isalnum() and content.count(wrong) == 1
    path.write_text(content.replace(wrong, "put right"), encoding="utf-8")
    result = call("lmdb", "build", "lines", path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = LmdbReader("lines")
    samples = [lines.read(index) for index in range(len(lines))]
    assert [label for _, label in samples] == [*(line["text"] for line in read[:2]), "put right",
                                               *(line["text"] for line in read[3:])]  # fmt: skip
    page = cv2.imread("scans/english.png")
    (transcribed,) = read_transcripts(path)
    for (image, _), line in zip(samples, transcribed.lines):
        picture = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(picture, cut_line(page, line.polygon, line.baseline)) and picture.std() > 10
    for line, before in zip(transcribed.lines, read):
        assert np.abs(np.subtract(line.polygon, before["polygon"])).max() <= 0.5
