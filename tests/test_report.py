"""`ms-ocr evaluate --report` as a user calls it: what the page holds, what is refused, what a browser shows."""

import functools
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import ALPHABET, png, render
from test_cli_recognize import always_a  # noqa: F401  (a fixture)

from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.image import image_size
from ms_ocr_handwritten.line import Character, Line
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.report import plots
from ms_ocr_handwritten.report.lines import Evaluation, Reading, ReportedLine
from ms_ocr_handwritten.report.page import page_html
from ms_ocr_handwritten.report.pictures import bounds
from ms_ocr_handwritten.vocab import Vocabulary

pytest.importorskip("matplotlib", reason="needs the extra `report`")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><script>document.title='hit'</script><img src=http://evil.invalid/x onerror=alert(1)>"
LABELS = ["a", "ab", "x", "\uff41", HOSTILE]


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], prog_name="ms-ocr")


def embedded(page: str, name: str) -> object:
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)[1])


@pytest.fixture
def lines(tmp_path: Path, monkeypatch) -> Path:
    """lines/ in the working directory, an LMDB of LABELS over pictures of an a, two of them with a writer."""
    import lmdb

    monkeypatch.chdir(tmp_path)
    write_lmdb("lines", [(png(render("a")), label) for label in LABELS])
    with lmdb.open("lines") as environment, environment.begin(write=True) as transaction:
        for key, value in (
            ("writer-000000001", "W"),
            ("page-000000001", "P"),
            ("page-000000002", "P"),
            ("source-000000003", "far/off/3.png"),
        ):
            transaction.put(key.encode(), value.encode())
    return tmp_path / "lines"


def test_the_page_holds_every_line_and_what_was_read(always_a, lines):  # noqa: F811
    result = evaluate("--model", always_a, "lines", "--report", "out", "--training", "lines", "--report-lines", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [path.name for path in Path("out").iterdir()] == ["index.html"]
    page = Path("out/index.html").read_text(encoding="utf-8")
    rows = embedded(page, "lines")["rows"]
    assert [row[0] for row in rows] == [f"lines/image-00000000{n}" for n in range(1, 6)]
    assert [row[2] for row in rows] == ["W", "P", "far/off", "", ""]
    assert [row[3] for row in rows] == ["a", "ab", "x", "a", HOSTILE]  # folded
    assert [(row[5], row[6], row[7]) for row in rows[:4]] == [
        (0, "a", "1="),
        (1, "a", "1= 1d"),
        (1, "a", "1s"),
        (0, "a", "1="),
    ]
    pictures = embedded(page, "pictures")
    assert len(pictures) == 2 and "4" in pictures  # the most errors
    uri, ((left, right, score),) = pictures["4"]
    assert uri.startswith("data:image/webp;base64,") and 0 <= left <= right <= 100 and 0.5 < score < 1
    assert "always_a (torch, " in page


def test_the_figures_are_those_of_the_table(always_a, lines):  # noqa: F811
    write_lmdb("more", [(png(render("a")), "ab")])
    result = evaluate("--model", always_a, "lines", "more", "--report", "out", "--format", "json")
    first, second = (row["cer"] for row in json.loads(result.stdout)["sets"])
    page = Path("out/index.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="sortable" id="all">.*?<tbody>(.*?)</table>', page, re.S)[1]
    characters = len("".join(LABELS))
    whole = (first * characters + second * 2) / (characters + 2)
    rates = [float(re.findall(r'data-value="(.*?)"', row)[0]) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)]
    assert rates == pytest.approx([whole, first, second])


def test_counts_of_training_stand_beside_what_is_missed(always_a, lines):  # noqa: F811
    Path("seen").mkdir()
    Path("seen/1.png").write_bytes(png(render("a")))
    Path("seen/labels.tsv").write_text("1.png\tbbx\uff58\n", encoding="utf-8")
    evaluate("--model", always_a, "lines", "--report", "out", "--training", "seen", "--training", "seen")
    page = Path("out/index.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="sortable" id="missed">(.*?)</table>', page, re.S)[1]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table, re.S)]
    found = {row[0]: row[1:] for row in rows}
    assert found["x"][4:] == ["4", "✗"]
    assert found["b"][:2] == [str("".join(LABELS).count("b"))] * 2 and found["b"][4:] == ["4", "✓"]


def test_two_models_stand_side_by_side(always_a, tiny_model_dir, lines):  # noqa: F811
    result = evaluate("--model", always_a, "--against", tiny_model_dir, "lines", "--report", "out", "--format", "json")
    assert result.exit_code == 0, result.stderr
    first, second = json.loads(result.stdout)["sets"]
    assert (first["reader"], second["reader"]) == ("model", "against") and first["cer"] != second["cer"]
    page = Path("out/index.html").read_text(encoding="utf-8")
    rows = embedded(page, "lines")["rows"]
    assert {len(row) for row in rows} == {12}
    better = sum(row[5] < row[9] for row in rows), sum(row[5] > row[9] for row in rows)
    assert f"<td>{better[0]} / {better[1]}</td>" in page
    assert 'id="verdict"' in page and str(tiny_model_dir) in page


def test_a_line_that_cannot_be_read_is_named_in_the_page(always_a, lines):  # noqa: F811
    import lmdb

    with lmdb.open("lines") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-000000002", b"no image")
    result = evaluate("--model", always_a, "lines", "--report", "out")
    assert result.exit_code == 1
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert len(embedded(page, "lines")["rows"]) == 4
    assert '<td class="name">lines/image-000000002</td>' in page and "8 encoded bytes: not a readable image" in page


def test_what_is_there_is_left_as_it_is(lines):
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    for name in ("out", "out/mine.txt"):
        result = evaluate("--model", "no_model", "lines", "--report", name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: {name}: exists already and is left as it is; choose another --report\n"
    assert Path("out/mine.txt").read_text() == "mine"
    result = evaluate("--model", "no_model", "lines", "--report", "other", "--training", "nowhere")
    assert result.stderr.startswith("error: nowhere/labels.tsv: cannot be read (No such file or directory); ")
    result = evaluate("lines", "--training", "lines")
    assert result.exit_code == 2 and "--training has an effect only with --report" in result.stderr
    result = evaluate("lines", "--report", "new", "--against", "x", "--peer", "rapidocr")
    assert result.exit_code == 2 and "leave out --against or --peer" in result.stderr


def test_a_missing_package_names_the_extra(lines, monkeypatch):
    monkeypatch.setattr(plots, "NEEDED", ("no_such_package",))
    result = evaluate("--model", "no_model", "lines", "--report", "new")
    assert result.stderr == (
        "error: a report needs the package no_such_package; `pip install ms_ocr_handwritten[report]`\n"
    )


def test_nothing_to_report_is_said(always_a, lines):  # noqa: F811
    Path("broken").mkdir()
    Path("broken/data.mdb").touch()
    result = evaluate("--model", always_a, "broken", "--report", "out")
    assert result.exit_code == 1 and "no line was read, so there is nothing to report" in result.stderr
    assert not Path("out").exists()


def test_characters_are_cut_halfway_to_their_neighbours():
    chars = [Character(c, 1.0, x, x + 10) for c, x in (("a", 95), ("b", 195), ("c", 295))]
    assert bounds(chars, 1, False, 400, 40) == (150, 250)
    assert bounds(chars, 0, False, 400, 40) == (80, 150)  # the neighbour a line's height away
    assert bounds(chars, 2, True, 400, 40) == (200, 300)  # between b and c
    assert bounds(chars, 3, True, 400, 40) == (300, 340)
    close = [Character(c, 1.0, x, x) for c, x in (("a", 0), ("b", 1), ("c", 399))]
    left, right = bounds(close, 0, False, 400, 40)
    assert (left, right > 5) == (0, True)
    assert bounds([Character("a", 1.0, 3, 3)], 0, False, 1, 1) == (0, 1)


def test_the_size_of_a_picture_is_that_of_the_upright_one(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    Image.new("RGB", (30, 7)).save(tmp_path / "lying.jpg", exif=exif)
    assert image_size(tmp_path / "lying.jpg") == (7, 30)
    assert image_size(png(np.zeros((7, 30, 3), np.uint8))) == (30, 7)


# ------------------------------------------------------------------ in a browser


@functools.cache
def made_up(count: int, pictured: int = 30) -> str:
    """A page of `count` lines; line n of the first 50 has n errors, the second reader none."""
    label = "手写汉字行" * 10 + "ab"
    picture = png(cv2.resize(render("abc"), (600, 40)))
    readings = []
    for wrong in range(50):
        text = "x" * wrong + label[wrong:]
        chars = tuple(Character(c, 0.9, 10 * i, 10 * i + 5) for i, c in enumerate(text))
        readings.append(Reading.of(label, Line(text, 0.5 + wrong / 100, chars)))
    lines = [
        ReportedLine(f"line {i:05d}", "set", f"hand {i % 37}", 480, readings[i % 50], readings[0]) for i in range(count)
    ]
    pictures = lambda wanted: ((i, picture) for i in sorted(wanted))  # noqa: E731
    vocabulary = Vocabulary(tuple(dict.fromkeys(label)))
    about = [HOSTILE, "other"]
    return page_html(Evaluation(["model", "against"], about, lines, vocabulary, pictures, [], Counter(label)), pictured)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page of HTML by file://, `width` px wide; what it says on the console and asks for."""

    def open_page(html: str, width: int = 1280):
        path = tmp_path / "index.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, locale="en-US")
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#here .line")
        return page, said, asked

    return open_page


def test_tables_sort_and_filter_and_no_request_leaves(opened):
    page, said, asked = opened(made_up(100))
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert (said, page.evaluate("document.title.includes('hit')")) == ([], False)

    def column(table: str, number: int) -> list[str]:
        return page.locator(f"#{table} tbody tr:not([hidden]) td:nth-child({number})").all_text_contents()

    errors = [int(text) for text in column("groups", 9)]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) > 3
    page.click("#groups th:nth-child(1) button")
    names = column("groups", 1)
    assert names == sorted(names, reverse=True)
    page.click("#groups th:nth-child(9) button")
    assert [int(text) for text in column("groups", 9)] == sorted(errors, reverse=True)
    page.click("#groups th:nth-child(9) button")
    assert [int(text) for text in column("groups", 9)] == sorted(errors)
    assert page.locator("#groups th:nth-child(9)").get_attribute("aria-sort") == "ascending"
    page.fill("[data-table=groups]", "hand 11")
    assert column("groups", 1) == ["hand 11"]


def test_lines_are_sorted_filtered_and_turned(opened):
    page, said, _ = opened(made_up(100))
    names = page.locator("#here .line b")
    assert names.first.inner_text() == "line 00049"  # the most errors
    assert names.count() == 20 and page.locator(".place").first.inner_text() == "1 / 5 (100)"
    assert page.locator("#here .picture img").count() == 20
    page.locator("[data-turn='1']").first.click()
    assert page.locator(".place").first.inner_text() == "2 / 5 (100)"
    page.select_option("#order", "as_given")
    assert names.first.inner_text() == "line 00000"
    page.select_option("#show", "only_second")
    assert page.locator(".place").first.inner_text() == "1 / 5 (98)"
    page.select_option("#show", "only_first")
    assert page.locator(".place").first.inner_text() == "1 / 1 (0)"
    page.select_option("#show", "all")
    page.fill("#find", "line 00003")
    assert names.all_inner_texts() == ["line 00003"]
    pairs = page.locator("#here .aligned").first.locator(".pair")
    assert pairs.count() == 52 and page.locator("#here .aligned").first.locator(".pair.s").count() == 3
    assert pairs.first.inner_text().split() == ["手", "x"]
    assert said == []


def test_positions_lie_where_they_were_found(opened):
    page, _, _ = opened(made_up(100))
    box = page.locator("#here .picture").first.bounding_box()
    mark = page.locator("#here .picture i").nth(30)
    found = mark.bounding_box()
    assert found["x"] - box["x"] == pytest.approx(300 / 600 * box["width"], abs=1)
    assert found["width"] == pytest.approx(5 / 600 * box["width"], abs=1)
    assert mark.get_attribute("title") == "x 0.90"


@pytest.mark.parametrize("width", [1280, 390])
def test_both_languages_fit_the_screen(opened, width):
    page, _, _ = opened(made_up(100), width)
    for heading in ("Figures", "指标"):
        assert page.locator("#figures h2").inner_text() == heading
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.click("#language")


def test_ten_thousand_lines_open_at_once(opened):
    """In processor time of the page's thread, which other programs do not change."""
    html = made_up(10000, pictured=100)
    page, _, _ = opened("<div id=here><p class=line>here</div>")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    Path(page.url.removeprefix("file://")).write_text(html, encoding="utf-8")
    page.reload()
    page.wait_for_selector("#here article")
    spent = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    assert page.locator(".place").first.inner_text() == "1 / 500 (10000)"
    assert spent["TaskDuration"] < 1


def test_the_alphabet_lacks_the_unknown_character():
    assert "x" not in ALPHABET and "ab" in ALPHABET
