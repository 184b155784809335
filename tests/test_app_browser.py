"""The page in a real browser: what a person does with it, at the width of a desk and of a phone."""

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from app_tools import require_gradio
from conftest import ROOT

from ms_ocr_handwritten.app.interface import Served, Settings, serve
from ms_ocr_handwritten.lmdb.store import LmdbReader

require_gradio()
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, the client alone")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs the browser chromium", allow_module_level=True)

LINE = ROOT / "examples" / "lines" / "chinese.png"
TEXT = "今天天气很好"
SECONDS = 60_000  # ms; two cores may have other work
DROP = """
(target, [data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  for (const kind of ["dragenter", "dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
}
"""
PASTE = """
([data, type]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const item = new ClipboardItem({[type]: new Blob([bytes], {type})});
  navigator.clipboard.read = async () => [item];
}
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def corrections(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("app") / "corrections"


@pytest.fixture(scope="module")
def served(corrections) -> Iterator[Served]:
    page = serve(Settings(corrections=corrections))
    yield page
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, served: Served, width: int, language: str) -> tuple[Any, list[str]]:
    """The page, and where all its requests went."""
    page = browser.new_page(viewport={"width": width, "height": 900}, locale=language)
    page.set_default_timeout(SECONDS)
    hosts: list[str] = []
    page.on("request", lambda request: hosts.append(urlsplit(request.url).netloc))
    page.goto(served.url)
    page.wait_for_selector("#picture input[type=file]", state="attached")
    return page, hosts


def drop(page: Any, place: str, file: Path) -> None:
    data = base64.b64encode(file.read_bytes()).decode()
    page.eval_on_selector(place, DROP, [data, file.name, "image/png"])


def read_text(page: Any) -> str:
    page.wait_for_function("() => document.querySelector('#text textarea')?.value")
    return page.input_value("#text textarea")


def test_a_dropped_picture_is_read_and_its_correction_reaches_the_lmdb(browser, served, corrections):
    page, hosts = opened(browser, served, 1280, "zh-CN")
    drop(page, "#picture button", LINE)
    assert read_text(page) == TEXT
    assert page.locator("#shown .text span").all_inner_texts() == list(TEXT)
    assert page.locator("#shown li").count() == 5

    page.hover("#shown .text span >> nth=4")  # the character, its place and what is known of it
    assert page.locator("#shown polygon.lit").get_attribute("data-at") == "0-4"
    assert re.fullmatch(r"很\s+置信度 [01]\.\d{3}\s+x \d+–\d+ px", page.inner_text("#shown .told"))
    assert page.evaluate(OVERFLOW) == 0

    page.click("#correct-this")
    page.wait_for_selector("#current .text")
    assert page.input_value("#corrected textarea") == TEXT
    page.click("#others label >> nth=1")
    page.wait_for_function(f"() => document.querySelector('#corrected textarea').value !== '{TEXT}'")
    page.fill("#corrected textarea", "今天天气不好")
    page.click("#save")
    assert page.inner_text("#done .done") == f"已保存：{corrections} 第 1 行"
    reader = LmdbReader(corrections)
    assert len(reader) == 1
    assert reader.read(0) == (LINE.read_bytes(), "今天天气不好")
    assert reader.beside(0, "source") == LINE.name
    assert set(hosts) == {urlsplit(served.url).netloc}  # no request left the machine
    page.close()


def test_several_files_are_corrected_one_after_the_other_on_a_phone(browser, served, corrections, tmp_path):
    before = len(LmdbReader(corrections)) if corrections.exists() else 0
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nothing")
    page, hosts = opened(browser, served, 390, "en-US")
    page.get_by_role("tab", name="Correct").click()
    page.wait_for_selector("text=Nothing to correct")
    page.set_input_files("#files input[type=file]", [broken, LINE, ROOT / "examples" / "lines" / "english.png"])
    page.wait_for_selector("#current .error")
    assert "broken.png" in page.inner_text("#current .error")
    page.wait_for_selector("#left >> text=/^lines to correct: 3$/")
    page.click("#skip")
    page.wait_for_selector("#left >> text=/^lines to correct: 2$/")
    page.wait_for_selector("#current .text")
    assert page.input_value("#corrected textarea") == TEXT
    page.press("#corrected textarea", "Enter")
    page.wait_for_selector("#left >> text=/^lines to correct: 1$/")
    page.wait_for_function(f"() => !['', '{TEXT}'].includes(document.querySelector('#corrected textarea').value)")
    too_long = "no line holds as much as this " * 20
    page.fill("#corrected textarea", too_long)
    page.click("#save")
    page.wait_for_selector("#done .error")
    page.wait_for_selector("#left >> text=/^lines to correct: 1$/")  # it stays, and so does what was typed
    assert page.input_value("#corrected textarea") == too_long
    assert page.evaluate(OVERFLOW) == 0
    reader = LmdbReader(corrections)
    assert len(reader) == before + 1 and reader.read(before) == (LINE.read_bytes(), TEXT)
    assert set(hosts) == {urlsplit(served.url).netloc}
    page.close()


def test_a_drawing_and_a_pasted_picture_are_read(browser, served):
    page, _ = opened(browser, served, 390, "en-US")
    page.get_by_role("tab", name="Draw").click()
    box = page.locator("#pad canvas").bounding_box()
    assert box["height"] > 100 and box["x"] + box["width"] <= 390
    for stroke in ([(40, 30), (40, 110)], [(40, 70), (75, 70)], [(75, 30), (75, 110)], [(120, 30), (120, 110)]):
        start, end = [(box["x"] + x, box["y"] + y) for x, y in stroke]
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=4)
        page.mouse.up()
    page.click("#take")
    page.wait_for_selector("#shown .text span")
    assert read_text(page)[:1] == "H"
    page.click("#wipe")
    page.click("#take")
    page.wait_for_selector("#shown .error")
    assert "nothing is drawn" in page.inner_text("#shown .error")

    page.get_by_role("tab", name="Image", exact=True).click()
    page.evaluate(PASTE, [base64.b64encode(LINE.read_bytes()).decode(), "image/png"])
    page.click("#picture button[aria-label*=aste], #picture button[aria-label*=lipboard]")
    page.wait_for_selector("#shown .text span")
    assert read_text(page) == TEXT
    assert page.evaluate(OVERFLOW) == 0
    page.close()
