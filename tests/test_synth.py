"""The line synthesiser: seeds, labels, boxes, ink. Small inputs are made here; all of them need MS_OCR_SYNTH_INPUTS."""

import dataclasses
import gzip
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the synthesiser draws with OpenCV")
pytest.importorskip("PIL", reason="the synthesiser reads fonts with Pillow")

from ms_ocr_handwritten.errors import ConfigurationError, ImageError, LabelError  # noqa: E402
from ms_ocr_handwritten.synth import charset, digits, fetch, glyphs, latin, line, running, text, writer  # noqa: E402
from ms_ocr_handwritten.synth.line import LineSynthesizer, generate  # noqa: E402
from ms_ocr_handwritten.training.augment import augment  # noqa: E402

HANZI = {  # medians on the 1,024 grid of the stroke data, y up from -124 to 900
    "一": [[[120, 400], [880, 420]]],
    "二": [[[250, 620], [750, 640]], [[120, 200], [880, 210]]],
    "十": [[[120, 430], [880, 450]], [[500, 800], [500, 0]]],
    "口": [[[220, 640], [260, 120]], [[230, 640], [780, 650], [720, 130]], [[270, 170], [730, 180]]],
}


@pytest.fixture(scope="module")
def small_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    for name in ("strokes", "fonts", "text"):
        (root / name).mkdir()
    for character, medians in HANZI.items():
        (root / "strokes" / f"{character}.json").write_text(json.dumps({"medians": medians}), encoding="utf-8")
    words = "十一 400 m\n一口 90 n\n二十 50 m\n口 3000 n\n王 9 n\n"
    (root / "text" / "dict.txt").write_text(words, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def small(small_inputs: Path) -> LineSynthesizer:
    return LineSynthesizer(small_inputs, seed=7)


@pytest.fixture(scope="module")
def full() -> LineSynthesizer:
    folder = os.environ.get("MS_OCR_SYNTH_INPUTS")
    if not folder:
        pytest.skip("MS_OCR_SYNTH_INPUTS is not set: run python -m ms_ocr_handwritten.synth.fetch DIR, set it to DIR")
    return LineSynthesizer(folder, seed=7)


def assert_sound(line, allowed: set[str]) -> None:
    height, width = line.image.shape
    assert line.image.dtype == np.uint8 and np.ptp(line.image) > 10
    assert line.text and line.text == line.text.strip() == text.fold(line.text)
    assert unicodedata.is_normalized("NFC", line.text) and set(line.text) <= allowed
    assert len(line.boxes) == len(line.text)
    assert all(0 <= x0 <= x1 <= width for x0, x1 in line.boxes)
    centres = [0.5 * (x0 + x1) for x0, x1 in line.boxes]
    assert sum(a > b for a, b in zip(centres, centres[1:])) <= 0.1 * len(centres) + 1  # marks may lie over letters
    assert width * 32 / height >= 4 * len(line.text)  # a column for each character


def test_vocabulary_is_in_the_documented_order(tmp_path: Path):
    found = charset.characters()
    assert found[:3] == (" ", "!", '"') and found[94] == "~" and len(found) == len(set(found))
    others = charset.other_forms()
    assert "".join(found[-6763 - len(others) :]) == charset.hanzi() + others
    assert charset.hanzi()[0] == "啊" and charset.hanzi()[-1] == "齄"
    assert all(text.fold(c) == c for c in found[1:]), "a character that folding changes can never be a label"
    charset.write_vocabulary(tmp_path / "vocab.txt")
    raw = (tmp_path / "vocab.txt").read_bytes()
    assert b"\r" not in raw and raw.decode().split("\n")[:-1] == list(found)


def test_other_forms_are_traditional_and_japanese_and_no_simplified_ones():
    others = charset.other_forms()
    assert len(others) == 2474 and list(others) == sorted(set(others)) and not set(others) & set(charset.hanzi())
    assert set("國學語見們這個讀寫龍龜") <= set(others)  # traditional
    assert set("図駅気売読広円沢桜働込畑") <= set(others)  # Japanese


def test_words_are_written_in_traditional_and_in_japanese_forms(tmp_path: Path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "dict.txt").write_text("国学 9 n\n龙 9 n\n", encoding="utf-8")
    source = text.TextSource(tmp_path, set(charset.characters()))
    rng = np.random.default_rng(0)
    without = {source.sample(rng, 2, {"forms": 1.0}) for _ in range(60)}
    assert not any("國" in label for label in without)
    (tmp_path / "text" / "STCharacters.txt").write_text("# OpenCC\n国\t國\n学\t學\n龙\t龍 竜\n", encoding="utf-8")
    (tmp_path / "text" / "JPShinjitaiCharacters.txt").write_text("国\t國\n学\t學\n竜\t龍\n", encoding="utf-8")
    source = text.TextSource(tmp_path, set(charset.characters()))
    labels = [source.sample(rng, 2, {"forms": 1.0}) for _ in range(300)]
    assert {"國學", "国学", "龍", "竜"} <= set(labels)
    assert any(set(label) <= set(charset.other_forms()) - set("國學龍竜") for label in labels)  # by chance, of all


def test_fold():
    assert text.fold("\uff21\uff11\uff0c  e\u0301\u3000 ") == "A1, é"


def test_sample_depends_on_seed_and_index_alone(small: LineSynthesizer, small_inputs: Path):
    again = LineSynthesizer(small_inputs, seed=7)
    first = [small.sample(i) for i in range(6)]
    second = [again.sample(i) for i in reversed(range(6))][::-1]
    for a, b in zip(first, second):
        assert a.text == b.text and a.boxes == b.boxes and np.array_equal(a.image, b.image)
    other = LineSynthesizer(small_inputs, seed=8)
    assert any(a.text != b.text for a, b in zip(first, (other.sample(i) for i in range(6))))
    assert len({a.image.tobytes() for a in first}) == 6


def test_lines_are_sound(small: LineSynthesizer):
    for index in range(150):
        line = small.sample(index)
        assert_sound(line, small.texts.allowed)
        assert "王" not in line.text  # in the word list, but nothing can draw it
        assert line.image.shape[1] * 32 / line.image.shape[0] <= small.settings.max_width * 1.05


def test_boxes_hold_the_ink(small_inputs: Path):
    clean = LineSynthesizer(small_inputs, seed=1, degrade=0, max_width=800)
    for seed in range(20):
        line = clean.draw("一口 Ab3", np.random.default_rng(seed))
        assert line.text == "一口 Ab3"
        covered = np.zeros(line.image.shape[1], bool)
        for x0, x1 in line.boxes:
            covered[max(0, int(x0) - 2) : int(np.ceil(x1)) + 2] = True
        ink = (255 - line.image).astype(int).sum(0)
        assert ink[~covered].sum() <= 0.02 * ink.sum()
        for (x0, x1), character in zip(line.boxes, line.text):
            assert character == " " or ink[int(x0) : int(np.ceil(x1)) + 1].sum() > 0


@pytest.mark.parametrize("label", ["王", "", " 一"])
def test_a_label_that_cannot_be_drawn_is_named(small: LineSynthesizer, label: str):
    with pytest.raises(LabelError, match=repr(label)):
        small.draw(label, np.random.default_rng(0))


def test_unknown_setting_names_it(small_inputs: Path):
    with pytest.raises(ConfigurationError, match="max_widht"):
        LineSynthesizer(small_inputs, seed=1, max_widht=3)


def test_missing_word_list_names_it(tmp_path: Path):
    (tmp_path / "strokes").mkdir()
    (tmp_path / "strokes" / "一.json").write_text(json.dumps({"medians": HANZI["一"]}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"dict\.txt"):
        LineSynthesizer(tmp_path, seed=1)


def test_missing_inputs_name_the_folder(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="fetch"):
        glyphs.load(tmp_path)


def test_generate_splits_by_start(small_inputs: Path):
    whole = list(generate(small_inputs, 4, seed=3))
    assert whole[2:] == list(generate(small_inputs, 2, seed=3, start=2))
    image = cv2.imdecode(np.frombuffer(whole[0][0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.ndim == 2


def test_a_glyph_that_a_font_leaves_empty_is_not_taken():
    from PIL import ImageFont

    font = ImageFont.load_default(size=glyphs.TRACE_SIZE)
    assert glyphs.trace(font, " ") == []
    outer, inner = sorted(glyphs.trace(font, "O"), key=lambda c: -np.ptp(c[:, 0]))
    assert np.ptp(outer[:, 0]) > np.ptp(inner[:, 0]) > 0.1


def test_every_ascii_character_has_a_pen_form():
    for hand in latin.hands(3):
        assert all(chr(code) in hand for code in range(0x21, 0x7F))
        assert all(c in hand for c in "éèêëàâçùûüôöîïñÉÀÇ")
        points, counts, advance = hand.glyph("é")
        assert (counts == glyphs.STROKE_POINTS).all() and len(points) == counts.sum() and advance > 0.2


def ring(cells: int) -> np.ndarray:
    """A zero with a hole, as high as the grid, drawn from 0 to 1."""
    grid = np.zeros((cells, cells), np.float32)
    grid[:, cells // 4 : -cells // 4] = 1
    grid[cells // 4 : -cells // 4, 3 * cells // 8 : -3 * cells // 8] = 0
    return grid


def bar(cells: int) -> np.ndarray:
    grid = np.zeros((cells, cells), np.float32)
    grid[:, 3 * cells // 8 : -3 * cells // 8] = 1
    return grid


@pytest.fixture
def digits_dir(tmp_path: Path) -> Path:
    """Both sources: two samples of a ring for 0, of bars for the others; one digit more of the 3."""
    folder = tmp_path / "digits"
    folder.mkdir()
    samples = [((ring if digit == 0 else bar)(8) * 16, digit) for digit in (*range(10), *range(10), 3)]
    rows = [",".join(map(str, (*cells.astype(int).ravel(), digit))) for cells, digit in samples]
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    for digit in range(10):
        grid = np.pad((ring if digit == 0 else bar)(20), 4)
        data = [*grid.ravel().tolist()] * (3 if digit == 3 else 2)
        (folder / f"{digit}.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    return folder


def test_real_digits_stand_on_the_baseline_with_their_holes(digits_dir: Path):
    hands = digits.hands(digits_dir)
    assert [hand.name for hand in hands] == ["uci-0", "uci-1", "mnist-0", "mnist-1"]
    for hand in hands:
        assert "".join(sorted(hand.index)) == "0123456789"
        points, counts, advance = hand.glyph("0")
        assert len(counts) == 2 and points[:, 1].max() == 0 and -0.95 < points[:, 1].min() < -0.6
        assert points[:, 0].min() == pytest.approx(0.05, abs=0.002)
        assert advance == pytest.approx(points[:, 0].max() + 0.05, abs=0.002)
        assert len(hand.glyph("1")[1]) == 1


def test_a_source_of_digits_that_is_not_whole_is_left_out(digits_dir: Path):
    (digits_dir / "7.json").unlink()
    assert [hand.name for hand in digits.hands(digits_dir)] == ["uci-0", "uci-1"]
    (digits_dir / "digits.csv.gz").unlink()
    assert digits.hands(digits_dir) == []


def area(contours: list[np.ndarray]) -> float:
    return sum(cv2.contourArea(contour.astype(np.float32)) for contour in contours)


def test_a_thin_digit_is_not_broken():
    """Half a cell of ink in a hole-less stroke: as much is taken off as leaves it whole."""
    narrow = np.zeros((8, 8), np.float32)
    narrow[:, 3], narrow[4, 3] = 1, 9 / 16
    whole = digits._contours(narrow, 8, 0.4, 0)
    thinner = digits._contours(narrow, 8, 0.4, 8)
    assert len(thinner) == len(whole) == 1 and area(thinner) < 0.8 * area(whole)


def test_a_thin_digit_is_not_worn_down_to_a_dot():
    """A blot at the end of a thin stroke: it would be left alone, as the one contour that there was."""
    blotted = np.zeros((28, 28), np.float32)
    blotted[4:24, 14], blotted[20:24, 12:17] = 0.7, 1
    thinner = digits._contours(blotted, 20, 0.4, 8)
    assert len(thinner) == 1 and np.ptp(thinner[0][:, 1]) > 0.6


def test_most_writers_write_real_digits(small_inputs: Path, digits_dir: Path, tmp_path: Path):
    for name in ("strokes", "text", "fonts"):
        (tmp_path / name).symlink_to(small_inputs / name)
    source = LineSynthesizer(tmp_path, seed=1)
    chosen = [source._choose("一 1a", np.random.default_rng(seed)) for seed in range(400)]
    hands = {"uci-0", "uci-1", "mnist-0", "mnist-1"}
    assert np.mean([sources[2].name in hands for sources in chosen]) == pytest.approx(line._REAL_DIGITS, abs=0.08)
    assert {sources[2].name for sources in chosen} >= hands
    assert not any(sources[i].name in hands for sources in chosen for i in (0, 3))


def test_strokes_move_apart_as_wholes_about_the_middle_of_their_character():
    strokes = np.zeros((3, glyphs.STROKE_POINTS, 2), np.float32)
    strokes[..., 0] = np.linspace(0, 0.1, glyphs.STROKE_POINTS) + np.array([0, 0.6, 2.0])[:, None]
    style = writer.draw_style(np.random.default_rng(0))
    style = dataclasses.replace(style, spread=(1.2, 1.0))
    moved = [
        writer.spread_strokes(strokes, np.array([0, 0, 1]), style, np.random.default_rng(seed)) for seed in range(200)
    ]
    assert all(np.allclose(np.diff(m, axis=1), np.diff(strokes, axis=1), atol=1e-5) for m in moved)  # shapes are kept
    assert all(np.allclose(m[:2].mean(), strokes[:2].mean(), atol=1e-5) for m in moved)
    assert all(np.allclose(m[2], strokes[2], atol=1e-5) for m in moved)  # alone, it has nothing to move from
    gaps = [(m[1, 0, 0] - m[0, 0, 0]) / 0.6 for m in moved]
    assert np.median(gaps) == pytest.approx(1.2, abs=0.02) and 0.03 < np.std(gaps) < 0.09


def ink_of(*points: tuple[float, float]) -> np.ndarray:
    return glyphs.resample(np.array(points))


BOX = [
    ink_of((0.2, -0.6), (0.22, -0.1)),
    ink_of((0.21, -0.6), (0.8, -0.62), (0.78, -0.1)),
    ink_of((0.23, -0.1), (0.78, -0.1)),
]
DOTS = [ink_of((x, -0.1), (x + 0.05, 0.05)) for x in (0.1, 0.3, 0.5, 0.7)]
WATER = [ink_of((0.1, -0.75), (0.22, -0.68)), ink_of((0.05, -0.5), (0.18, -0.45)), ink_of((0.06, 0.0), (0.25, -0.3))]
BAR = ink_of((0.1, -0.4), (0.9, -0.42))


@pytest.mark.parametrize(
    "strokes, count",
    [(BOX, 2), (DOTS, 1), (WATER, 2), ([BAR, BAR + (0, 0.3)], 2), ([*BOX, *DOTS], 3), ([BAR, *BOX, BAR + (0, 0.4)], 4)],
    ids=["box", "dots", "water", "bars", "box over dots", "box between bars"],
)
def test_running_hand_writes_some_shapes_in_fewer_moves(strokes: list[np.ndarray], count: int):
    found = list(running.shortened(strokes))
    assert len(found) == count and all(stroke.shape == (glyphs.STROKE_POINTS, 2) for stroke in found)
    before, after = np.concatenate(strokes), np.concatenate(found)
    assert np.allclose(after.min(0), before.min(0), atol=0.1) and np.allclose(after.max(0), before.max(0), atol=0.1)


def test_the_bottom_of_a_box_is_written_on_from_its_right_side():
    left, rest = running.shortened(BOX)
    assert np.array_equal(left, BOX[0]) and np.allclose(rest[-1], (0.23, -0.1), atol=1e-5)


def test_a_quick_writer_uses_the_running_forms(small: LineSynthesizer):
    source = next(s for s in small.sets if s.name == "strokes")
    hand = running.RunningHand(source)
    assert "口" in hand and "王" not in hand
    points, lengths, advance = hand.glyph("口")
    assert lengths.tolist() == [glyphs.STROKE_POINTS] * 2 and len(points) == 2 * glyphs.STROKE_POINTS and advance == 1
    assert np.array_equal(hand.glyph("二")[0], source.glyph("二")[0])
    rng, style = np.random.default_rng(0), writer.draw_style(np.random.default_rng(0))
    chosen = [
        [small._or_running(source, dataclasses.replace(style, running=share), rng).name for _ in range(200)]
        for share in (0.0, 0.4, 1.0)
    ]
    assert [names.count("running") for names in chosen] == [0, pytest.approx(80, abs=25), 200]


def test_chains_join_and_space_evenly():
    one = np.linspace((0, 0), (1, 0), glyphs.STROKE_POINTS)
    two = np.linspace((1, 0.5), (0, 0.5), glyphs.STROKE_POINTS)
    strokes = np.stack([one, two]).astype(np.float32)
    apart, lengths, moves = writer.chains(strokes, np.array([False, False]), step=0.1)
    assert lengths.tolist() == [12, 12] or lengths.tolist() == [11, 11]
    assert not moves.any() and np.allclose(apart[0], (0, 0), atol=1e-4) and np.allclose(apart[-1], (0, 0.5), atol=1e-4)
    joined, lengths, moves = writer.chains(strokes, np.array([True, False]), step=0.1)
    steps = np.hypot(*np.diff(joined, axis=0).T)
    assert len(lengths) == 1 and 3 <= moves.sum() <= 7 and steps.max() < 0.11


def test_smoothing_keeps_the_ends_and_cuts_the_corner():
    points = np.array([[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [5, 5], [6, 5], [6, 6]], np.float32)
    smooth = writer.smooth_chains(points, np.array([5, 3]), np.array([2, 0]))
    assert np.array_equal(smooth[[0, 4, 5, 6, 7]], points[[0, 4, 5, 6, 7]])
    assert smooth[2, 0] < 0.9 and smooth[2, 1] > 0.1


def test_augment_keeps_type_and_depends_on_the_generator():
    image = np.full((90, 400), 230, np.uint8)
    cv2.putText(image, "abc def", (10, 60), cv2.FONT_HERSHEY_SIMPLEX, 2, 20, 4)
    changed = [augment(image, np.random.default_rng(seed)) for seed in range(60)]
    assert all(c.dtype == np.uint8 and c.ndim == 2 and np.ptp(c) > 40 and 40 <= c.shape[0] <= 100 for c in changed)
    assert len({c.tobytes() for c in changed}) == 60
    assert np.array_equal(augment(image, np.random.default_rng(5)), changed[5])
    assert augment(image, np.random.default_rng(0), strength=0).shape == (64, 284)
    with pytest.raises(ImageError, match="uint8"):
        augment(image.astype(np.float32), np.random.default_rng(0))


def test_every_character_can_be_drawn(full: LineSynthesizer):
    missing = [c for c in charset.characters() if c != " " and not any(c in s for s in full.sets)]
    assert missing == []
    rng = np.random.default_rng(0)
    for character in charset.characters()[1::13]:
        assert full.draw(character, rng).text == character


def test_full_lines_are_sound(full: LineSynthesizer):
    for index in range(300):
        assert_sound(full.sample(index), set(charset.characters()))


def test_every_input_has_a_licence_and_a_version_where_the_registry_keeps_it():
    found = fetch.packages()
    assert found[0].name == "hanzi-writer-data"
    assert all(p.licence and p.members and (p.version or p.client == "apt") for p in found)
    assert len({(p.name, p.members) for p in found}) == len(found)
