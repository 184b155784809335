"""What the page does with pictures and corrections, without Gradio and without a browser."""

import base64
import io
import re
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ALPHABET, ROOT, TINY_NETWORK, encoded, make_model_dir, noise, png, render
from PIL import Image

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.app.corrections import save_correction
from ms_ocr_handwritten.app.drawing import error_html, reading_html
from ms_ocr_handwritten.app.handlers import PAGE, Choice, Handlers, Item, Source
from ms_ocr_handwritten.app.interface import Settings, is_loopback
from ms_ocr_handwritten.app.reading import ReadPicture, Recognizers, drawn_line, read_line
from ms_ocr_handwritten.app.texts import LANGUAGES, TEXTS, language_of, text
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import BackendError, ConfigurationError, ImageError, LabelError
from ms_ocr_handwritten.image import Limits
from ms_ocr_handwritten.lmdb.check import validate_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.page.reader import PageCharacter, PageLine

CHINESE, ENGLISH = (ROOT / "examples" / "lines" / name for name in ("chinese.png", "english.png"))
BOX = ((0.0, 0.0), (8.0, 0.0), (8.0, 4.0), (0.0, 4.0))
EMBEDDED = default_model_dir()


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained(EMBEDDED, trim="auto")


@pytest.fixture
def handlers(tmp_path) -> Handlers:
    return Handlers(Recognizers([EMBEDDED]), tmp_path / "corrections")


def element(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html.replace("<details open>", "<details>"))


def test_a_line_is_read_as_the_recogniser_reads_it(recognizer):
    read = read_line(recognizer, CHINESE, 5, Limits())
    line = recognizer.read(CHINESE, n_best=5)
    assert read.text == line.text == "今天天气很好"
    assert read.alternatives == line.alternatives and len(read.alternatives) == 5
    assert [char.score for char in read.lines[0].chars] == [char.score for char in line.chars]
    height, width = read.rgb.shape[:2]
    edges = [(char.polygon[0][0], char.polygon[1][0]) for char in read.lines[0].chars]
    for (left, right), char in zip(edges, line.chars):
        assert 0 <= left <= char.x0 <= char.x1 <= right <= width
    assert [right for _, right in edges[:-1]] == [left for left, _ in edges[1:]]  # side by side
    assert {char.polygon[2][1] for char in read.lines[0].chars} == {height}


def test_the_html_holds_each_character_in_text_and_picture(recognizer):
    read = read_line(recognizer, CHINESE, 5, Limits())
    html = element(reading_html(read, "zh"))
    spans = html.findall(".//p[@class='text']/span")
    assert [span.text for span in spans] == list("今天天气很好")
    places = html.findall(".//polygon")
    assert [place.get("data-at") for place in places] == [span.get("data-at") for span in spans]
    assert re.fullmatch(r"今  置信度 [01]\.\d{3}  x \d+–\d+ px", spans[0].get("data-told"))
    assert [row.text.strip() for row in html.findall(".//li")] == [other for other, _ in read.alternatives]
    address = html.find(".//image").get("href").removeprefix("data:image/jpeg;base64,")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(address), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == read.rgb.shape


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_of_a_picture_becomes_markup(language):
    evil = '<img src=x onerror="alert(1)">&'
    chars = tuple(PageCharacter(one, 0.5, BOX) for one in evil)
    read = ReadPicture(np.zeros((4, 8, 3), np.uint8), True, (PageLine(evil, 0.5, chars, BOX),), ((evil, -1.0),) * 2)
    html = reading_html(read, language)
    assert "<img" not in html and 'onerror="' not in html
    assert "".join(span.text for span in element(html).findall(".//p/span")) == evil
    assert element(error_html(ValueError(evil), language))[0].text.endswith(evil)


def test_colours_go_from_red_to_green(recognizer):
    chars = tuple(PageCharacter("a", score, BOX) for score in (0.0, 0.9, 1.0))
    read = ReadPicture(np.zeros((4, 8, 3), np.uint8), True, (PageLine("aaa", 0.9, chars, BOX),))
    hues = [int(hue) for hue in re.findall(r"border-color: hsl\((\d+) ", reading_html(read, "en"))]
    assert hues == [0, 79, 120]


def test_a_large_picture_is_shown_smaller():
    read = ReadPicture(noise(2000, 3000), False, ())
    address = element(reading_html(read, "en")).find(".//image").get("href")
    shown = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert shown.size == (1500, 1000)


def drawing(strokes: bool) -> str:
    canvas = np.full((256, 1600, 3), 255, np.uint8)
    if strokes:
        cv2.putText(canvas, "hello", (500, 150), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 5)
    return "data:image/png;base64," + base64.b64encode(png(canvas)).decode()


def test_a_drawing_is_cut_to_what_was_drawn():
    cut = cv2.imdecode(np.frombuffer(drawn_line(drawing(True), Limits()), np.uint8), cv2.IMREAD_COLOR)
    assert cut.shape[0] < 100 and cut.shape[1] < 300


@pytest.mark.parametrize(
    ("data_url", "told"),
    [
        (drawing(False), "nothing is drawn"),
        ("data:image/svg+xml;base64,AAAA", "not a PNG"),
        ("data:image/png;base64,?", "not a PNG"),
        ("data:image/png;base64," + "A" * 2_000_000, "over the limit of 1000000 bytes"),
        ("data:image/png;base64," + base64.b64encode(png(np.zeros((1200, 1200), np.uint8))).decode(), "1000000 pixels"),
    ],
)
def test_a_drawing_that_is_none_says_so(data_url, told):
    with pytest.raises(ImageError, match=told):
        drawn_line(data_url, Limits(max_pixels=1_000_000, max_bytes=1_000_000))


def test_what_cannot_be_read_is_told_without_saying_where_it_lies(handlers, tmp_path):
    broken = tmp_path / "secret place" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(png(render("a"))[:60])
    bomb = broken.with_name("bomb.png")
    bomb.write_bytes(encoded(Image.new("1", (5000, 5000))))
    for file, told in ((broken, "truncated"), (bomb, "over the limit of 16000000 pixels"), (tmp_path / "gone", "gone")):
        shown = handlers.read(Source(file, "mine.png"), Choice(EMBEDDED, "auto"), "en")
        assert (shown.text, shown.items) == ("", ())
        assert "Error: mine.png" in shown.html and told in shown.html
        assert "secret place" not in shown.html


def test_only_the_models_that_are_offered(tiny_model_dir, tmp_path):
    other = str(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="not one of the models"):
        Recognizers([str(tiny_model_dir)]).get(other, "auto")
    with pytest.raises(ConfigurationError, match="configuration.json"):  # it is looked for there
        Recognizers([str(tiny_model_dir)], others=True).get(other, "auto")


def test_the_last_used_models_stay_open(tiny_model_dir):
    recognizers = Recognizers([str(tiny_model_dir)])
    first = recognizers.get(str(tiny_model_dir), "auto")
    assert recognizers.get(str(tiny_model_dir), "auto") is first
    assert recognizers.get(str(tiny_model_dir), "fp32") is not first
    with pytest.raises(BackendError):
        recognizers.get(str(tiny_model_dir), "fp13")
    assert recognizers.get(str(tiny_model_dir), "auto") is first


def test_a_correction_goes_from_the_reading_to_the_lmdb(handlers):
    choice = Choice(EMBEDDED, "auto")
    shown = handlers.read(Source(CHINESE, "chinese.png"), choice, "zh")
    assert shown.text == "今天天气很好"
    queue, html, left = handlers.first([*shown.items, Item(Source(ENGLISH, "english.png"))], choice, "zh")
    assert "待校正行数：2" in left and "今" in html
    assert queue[0].text == queue[0].alternatives[0] == "今天天气很好"
    queue, done = handlers.save(queue, " 今天天气不好 ", choice, "zh")
    assert f"已保存：{handlers.corrections} 第 1 行" in done
    queue, _, _ = handlers.first(queue, choice, "zh")
    assert len(queue) == 1 and queue[0].text
    kept, done = handlers.save(queue, "\t", choice, "en")
    assert [item.text for item in kept] == ["\t"] and "without a character" in done  # refused: it stays as it was typed
    assert [item.text for item in handlers.first(kept, choice, "en")[0]] == ["\t"]
    queue, done = handlers.save(queue, "hello ☃", choice, "en")
    assert queue == [] and "as line 2" in done and "U+2603" in done
    reader = LmdbReader(handlers.corrections)
    assert [reader.label(index) for index in range(2)] == ["今天天气不好", "hello ☃"]
    assert [reader.image_bytes(index) for index in range(2)] == [CHINESE.read_bytes(), ENGLISH.read_bytes()]
    assert reader.beside(0, "source") == "chinese.png"
    assert handlers.first(queue, choice, "en")[0] == []


def test_a_line_that_cannot_be_read_does_not_block_the_queue(handlers):
    choice = Choice(EMBEDDED, "auto")
    queue = [Item(Source(b"none", "bad.png")), Item(Source(CHINESE, "chinese.png"))]
    queue, html, _ = handlers.first(queue, choice, "en")
    assert "bad.png" in html and queue[0].text == ""
    kept, done = handlers.save(queue, "text", choice, "en")
    assert kept[1:] == queue[1:] and "Error" in done
    assert not handlers.corrections.exists()


@pytest.mark.parametrize(
    ("label", "told"), [("a\tb", "control character"), ("  ", "without a character"), ("ab" * 110, "not aligned")]
)
def test_texts_that_no_training_could_learn_are_refused(tmp_path, tiny_model_dir, label, told):
    vocabulary = Recognizer.from_pretrained(tiny_model_dir).vocabulary
    with pytest.raises(LabelError, match=f"line.png.*{told}"):
        save_correction(tmp_path / "lmdb", png(render("ab")), label, "line.png", vocabulary)
    assert not (tmp_path / "lmdb").exists()


def test_a_page_gives_its_lines(handlers):
    pytest.importorskip("rapidocr")
    page = ROOT / "examples" / "pages" / "chinese.jpg"
    shown = handlers.read(Source(page, "page.jpg"), Choice(EMBEDDED, "auto", PAGE), "en")
    assert len(shown.items) == len(shown.text.split("\n")) == 6
    assert shown.items[1].source.name == "page-002.png"
    queue, _, _ = handlers.first(list(shown.items), Choice(EMBEDDED, "auto"), "en")
    assert queue[0].text == shown.text.split("\n")[0]
    queue, done = handlers.save(queue, queue[0].text, Choice(EMBEDDED, "auto"), "en")
    assert "as line 1" in done
    stored = cv2.imdecode(np.frombuffer(LmdbReader(handlers.corrections).image_bytes(0), np.uint8), cv2.IMREAD_COLOR)
    assert stored.shape[1] > 3 * stored.shape[0]


def test_corrections_are_trained_on_and_loaded_by_modelscope(tmp_path):
    from modelscope.msdatasets import MsDataset

    model = make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK)
    vocabulary, lmdb = Recognizer.from_pretrained(model).vocabulary, tmp_path / "corrections"
    labels = ["ab", "c1", "d2", "e"]
    for label in labels:
        save_correction(lmdb, png(render(label)), label, f"{label}.png", vocabulary)
    assert validate_lmdb(lmdb, vocabulary).ok
    loaded = MsDataset.load("any", namespace="damo", split="test", local_lmdb=str(lmdb))
    assert [loaded[index]["label"] for index in range(len(loaded))] == labels
    folders = {"--train": lmdb, "--eval": lmdb, "--model": model, "--work-dir": tmp_path / "work"}
    options = [str(part) for pair in folders.items() for part in pair]
    done = CliRunner().invoke(main, ["train", *options, "--set", "train.max_epochs=1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "work" / "output" / "pytorch_model.pt").exists()


def test_every_text_is_there_in_both_languages():
    for key, words in TEXTS.items():
        assert len(words) == len(LANGUAGES) and all(words)
        assert re.search("[\u4e00-\u9fff]", words[1]), key
        assert re.findall(r"{\w+}", words[0]) == re.findall(r"{\w+}", words[1])[:: 1 if key != "saved" else -1]
    assert text("queue", "zh", count=3) == "待校正行数：3"
    assert [language_of(one) for one in ("zh-CN,zh;q=0.9,en;q=0.8", "ZH", "en-US,zh;q=0.5", "")] == [
        "zh",
        "zh",
        "en",
        "en",
    ]


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False)]
    + [("::", False), ("192.168.1.2", False), ("localhost.example.com", False)],
)
def test_who_can_reach_a_host(host, alone):
    assert is_loopback(host) is alone
    assert is_loopback(Settings().host)


def test_the_command_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were missing
    done = CliRunner().invoke(main, ["app", "--corrections", str(tmp_path / "lmdb")])
    assert done.exit_code == 1
    assert "pip install ms_ocr_handwritten[app]" in done.output


def test_corrections_that_are_no_lmdb_are_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)  # nothing is served, whatever is said
    (tmp_path / "notes.txt").write_text("no LMDB")
    for path in (tmp_path, tmp_path / "notes.txt"):
        done = CliRunner().invoke(main, ["app", "--corrections", str(path)])
        assert done.exit_code == 1 and done.stderr.startswith(f"error: {path}: "), done.stderr
