"""The plugin of OCRmyPDF, run by OCRmyPDF itself."""

import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, weaken_positions
from PIL import Image

from ms_ocr_handwritten import PageReader

PLUGIN = "ms_ocr_handwritten.ocrmypdf"


@pytest.fixture
def ocrmypdf(tmp_path, monkeypatch):
    """OCRmyPDF's command in this process; `scan.pdf` holds an example page and a blank one."""
    pytest.importorskip("ocrmypdf", reason="OCRmyPDF is not installed")
    pytest.importorskip("rapidocr", reason="rapidocr is not installed")
    if not shutil.which("tesseract"):
        pytest.skip("OCRmyPDF starts only where Tesseract is installed")
    monkeypatch.chdir(tmp_path)
    image = Image.open(ROOT / "examples" / "pages" / "english.jpg").convert("L").reduce(2)
    blank = Image.new("L", image.size, 255)
    image.save("scan.pdf", save_all=True, append_images=[blank], resolution=75)
    run = import_module("ocrmypdf.__main__").run
    options = ["--plugin", PLUGIN, "--quiet", "--jobs", "1", "--output-type", "pdf", "--optimize", "0"]
    return lambda *arguments: run([*options, *map(str, arguments), "scan.pdf", "out.pdf"])


@pytest.fixture
def model(tmp_path) -> Path:
    return weaken_positions(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))


def test_ocrmypdf_lays_the_text_over_its_lines(ocrmypdf, model, monkeypatch):
    pypdfium2 = pytest.importorskip("pypdfium2")
    pages, read = [], PageReader.read

    def seen(reader, image):
        pages.append(read(reader, image))
        return pages[-1]

    monkeypatch.setattr(PageReader, "read", seen)
    assert ocrmypdf("--ms-ocr-model", model, "--sidecar", "text.txt") == 0
    page, blank = pages
    assert len(page.lines) == 7 and blank.lines == ()
    assert Path("text.txt").read_text(encoding="utf-8").strip("\f\n") == page.text
    document = pypdfium2.PdfDocument("out.pdf")
    text = document[0].get_textpage()
    assert "".join(text.get_text_range().split()) == "".join(page.text.split())
    assert document[1].get_textpage().get_text_range() == ""
    scale = document[0].get_width() / page.width
    for line in page.lines:
        (left, top), _, (right, bottom), _ = (tuple(scale * value for value in point) for point in line.polygon[:4])
        height = document[0].get_height()
        inside = text.get_text_bounded(left - 2, height - bottom - 2, right + 2, height - top + 2)
        assert "".join(line.text.split()) in "".join(inside.split())


def test_mistakes_end_ocrmypdf_with_their_reason(ocrmypdf, capfd):
    bad_arguments = 1
    assert ocrmypdf("--ms-ocr-model", "nowhere") == bad_arguments
    assert "--ms-ocr-model: " in (said := capfd.readouterr().err) and "nowhere" in said
    assert ocrmypdf("--pdf-renderer", "sandwich") == bad_arguments
    assert "leave --pdf-renderer sandwich out" in capfd.readouterr().err
    assert not Path("out.pdf").exists()


def test_another_engine_can_be_asked_for(ocrmypdf, monkeypatch):
    monkeypatch.delattr(PageReader, "read")
    assert ocrmypdf("--ocr-engine", "none") == 0 and Path("out.pdf").exists()


def test_it_is_imported_without_ocrmypdf(monkeypatch):
    """As by ModelScope's loader of plugins, which imports every module."""
    monkeypatch.setitem(sys.modules, "ocrmypdf", None)
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    assert not hasattr(import_module(PLUGIN), "get_ocr_engine")
