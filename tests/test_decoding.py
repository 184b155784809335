"""N best texts, constraints and a language model as users ask for them, through every door."""

import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, render

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.config import Configuration, DecoderConfig
from ms_ocr_handwritten.decoding import tuning
from ms_ocr_handwritten.decoding.language_model import LanguageModel, Weights, save_weights
from ms_ocr_handwritten.errors import ConfigurationError, LanguageModelError, LexiconError
from ms_ocr_handwritten.lmdb.store import write_lmdb

LINES = [Path(__file__).parent.parent / "examples/lines" / name for name in ("chinese.png", "english.png")]
TEXTS = ["今天天气很好", "the weather is fine today"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [*map(str, arguments)], prog_name="ms-ocr")
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def by_torch():
    return Recognizer.from_pretrained(default_model_dir(), backend="torch", precision="fp32")


@pytest.fixture(scope="module")
def embedded():
    return Recognizer.from_pretrained(default_model_dir(), backend="onnxruntime")


@pytest.fixture(scope="module", params=["by_torch", "embedded"])
def recognizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """Of digits that rise, made by the command."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_text("0123456789\n" * 50 + "ab\nba\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("".join(f"{one}\n" for one in ALPHABET), encoding="utf-8")
    out = folder / "lm.arpa"
    said = run("lm", "build", folder / "text.txt", "--out", out, "--order", 3, "--vocab", folder / "vocab.txt")
    assert said.startswith(f"{out}: order 3, n-grams by order 24, ")
    return out


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """Random weights."""
    return Path(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=4.0, **TINY_NETWORK))


def test_alternatives_come_best_first_and_the_text_is_the_first(recognizer):
    for path, text in zip(LINES, TEXTS):
        greedy, line = recognizer.read(path), recognizer.read(path, n_best=4)
        assert greedy.alternatives == ()
        assert greedy.text == line.text == line.alternatives[0][0] == text
        scores = [score for _, score in line.alternatives]
        assert len({text for text, _ in line.alternatives}) == 4
        assert scores == sorted(scores, reverse=True) and scores[0] < 0
        assert math.fsum(map(math.exp, scores)) < 1 + 1e-5
        assert [(one.x0, one.x1) for one in line.chars] == [(one.x0, one.x1) for one in greedy.chars]
        for a, b in zip(line.chars, greedy.chars):
            assert a.score == pytest.approx(b.score, abs=0.1)


def test_backends_agree(by_torch, embedded):
    for path in LINES:
        own, other = by_torch.read(path, n_best=3).alternatives, embedded.read(path, n_best=3).alternatives
        assert [text for text, _ in own] == [text for text, _ in other]
        assert [score for _, score in own] == pytest.approx([score for _, score in other], abs=0.01)


def test_a_beam_of_one_reads_what_the_best_path_does(recognizer, tmp_path):
    """By its own code where nothing else is asked for, and by a search where all characters are allowed."""
    own = tmp_path / "own"
    shutil.copytree(default_model_dir(), own)
    raw = json.loads((own / "configuration.json").read_text())
    (own / "configuration.json").write_text(json.dumps({**raw, "decoder": {"beam_width": 1}}))
    narrow = Recognizer.from_pretrained(own, recognizer.backend, "fp32")
    everything = "".join(narrow.vocabulary.characters)
    scribble = np.random.default_rng(0).integers(0, 256, (32, 400), np.uint8)
    for image in (*LINES, render("0123"), render("weather 11"), scribble):
        line = recognizer.read(image)
        assert narrow.read(image) == line
        searched = narrow.read(image, allowed=everything)
        assert searched.text == line.text and len(searched.alternatives) == 1
        assert [(one.x0, one.x1) for one in searched.chars] == [(one.x0, one.x1) for one in line.chars]
        assert [one.score for one in searched.chars] == pytest.approx([one.score for one in line.chars], abs=1e-3)


def test_a_constraint_decides(recognizer):
    digits = recognizer.read(LINES[1], allowed="0123456789")
    assert set(digits.text) <= set("0123456789")
    entry = recognizer.read(LINES[1], lexicon=["the weather is bad today", TEXTS[1], "hello"], n_best=3)
    assert entry.text == TEXTS[1] and len(entry.alternatives) == 3
    assert entry.alternatives[1][0] == "the weather is bad today"
    assert math.fsum(math.exp(score) for _, score in entry.alternatives) == pytest.approx(1)
    without = recognizer.read(LINES[1], lexicon=["the weather is bad today", "hello"])
    assert without.text == "the weather is bad today"
    words = recognizer.read(
        LINES[1], lexicon=["the", "weather", "whether", "is", "fine", "today"], lexicon_mode="words"
    )
    assert words.text == TEXTS[1]
    other = recognizer.read(LINES[1], lexicon=["the", "whether", "is", "fine", "today"], lexicon_mode="words")
    assert other.text == "the whether is fine today"
    assert recognizer.read(LINES[0], lexicon=["今天", "天气", "很好", "很坏"], lexicon_mode="words").text == TEXTS[0]


def test_read_many_is_read(embedded):
    images = [LINES[0], LINES[1], LINES[0]]
    for asked in ({"n_best": 2}, {"lexicon": TEXTS}):
        many = list(embedded.read_many(images, batch_size=2, **asked))
        one, other = (embedded.read(image, **asked) for image in LINES)
        assert many == [one, other, one]


def test_read_many_keeps_errors_in_their_places_and_stops_early(embedded):
    images = [LINES[0], b"no image", LINES[1]]
    texts = [getattr(one, "text", "error") for one in embedded.read_many(images, errors="yield", n_best=2)]
    assert texts == [TEXTS[0], "error", TEXTS[1]]
    lines = embedded.read_many([LINES[0]] * 9, batch_size=1, n_best=2)
    assert next(lines).text == TEXTS[0]
    lines.close()  # its thread ends


def test_long_lines_have_candidates_in_every_window(recognizer):
    image = np.concatenate([render("weather 123 ") for _ in range(6)], axis=1)
    line = recognizer.read(image, n_best=2)
    assert recognizer.read(image).text == line.text
    assert line.chars[-1].x1 > 0.8 * image.shape[1]


def test_what_is_asked_wrongly_is_said_before_anything_is_read(embedded):
    with pytest.raises(LexiconError, match=r"allowed holds 'ŋ' \(U\+014B\)"):
        embedded.read_many([], allowed="aŋ")
    with pytest.raises(LexiconError, match="lexicon: holds no entry"):
        embedded.read(LINES[0], lexicon=[])


def doubtful(recognizer: Recognizer, image) -> list[str]:
    return [text for text, _ in recognizer.read(image, n_best=5).alternatives]


def test_a_language_model_decides_and_is_pickled(model_dir, language_model, tmp_path):
    plain = Recognizer.from_pretrained(model_dir, "torch", "fp32")
    copy = tmp_path / "lm.arpa"
    shutil.copy(language_model, copy)
    save_weights(copy, Weights(5.0, 5.0))
    rising = Recognizer.from_pretrained(model_dir, "torch", "fp32", language_model=copy)
    image = render("0123")
    line = rising.read(image)
    assert line.text != plain.read(image).text
    model = LanguageModel(copy)
    assert model.log_prob(line.text) / (len(line.text) + 1) > model.log_prob("jihg") / 5 + 1
    assert math.fsum(math.exp(score) for _, score in rising.read(image, n_best=10).alternatives) == pytest.approx(1)
    again = pickle.loads(pickle.dumps(rising))
    assert again.read(image) == line
    save_weights(copy, Weights(0.0, 0.0))
    none = Recognizer.from_pretrained(model_dir, "torch", "fp32", language_model=copy)
    assert doubtful(none, image) == doubtful(plain, image)


def test_a_configuration_names_a_language_model(model_dir, language_model, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(model_dir, own)
    shutil.copy(language_model, own / "lm.arpa")
    raw = json.loads((own / "configuration.json").read_text())
    raw["decoder"] = {"language_model": "lm.arpa", "alpha": 5.0, "beta": 5.0, "beam_width": 12}
    (own / "configuration.json").write_text(json.dumps(raw))
    image = render("0123")
    by_file = Recognizer.from_pretrained(own, "torch", "fp32").read(image)
    save_weights(own / "lm.arpa", Weights(5.0, 5.0))
    by_keyword = Recognizer.from_pretrained(model_dir, "torch", "fp32", language_model=own / "lm.arpa").read(image)
    assert by_file.text == by_keyword.text
    (own / "lm.arpa").unlink()
    with pytest.raises(LanguageModelError, match=r"lm\.arpa: no such file"):
        Recognizer.from_pretrained(own, "torch")


def test_the_section_decoder():
    parsed = Configuration.parse({"decoder": {"beam_width": 5, "alpha": 1}}).decoder
    assert parsed == DecoderConfig(alpha=1.0, beam_width=5)
    assert Configuration.parse({}).decoder == DecoderConfig()
    for wrong, said in (
        ({"beam": 5}, "unknown key decoder.beam"),
        ({"alpha": -1}, "decoder.alpha is -1"),
        ({"beam_width": 0}, "decoder.beam_width is 0"),
        ({"language_model": 3}, "decoder.language_model is 3"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Configuration.parse({"decoder": wrong})


def test_the_pipeline_takes_what_read_takes(model_dir, language_model):
    from modelscope.pipelines import pipeline

    read = pipeline("ocr-recognition", model=str(model_dir), precision="fp32", device="cpu")
    image = render("a1")
    assert set(read(image)) == {"text", "score", "chars"}
    found = read(image, n_best=3)
    (alternatives,) = found["alternatives"]
    assert len(alternatives) == 3 and found["text"] == [alternatives[0][0]]
    assert set(read(image, allowed="01")["text"][0]) <= {"0", "1"}
    assert read(image, lexicon=["ab", "ba"])["text"][0] in ("ab", "ba")
    (one,) = read([image], batch_size=2, lexicon=["ab", "ba"], lexicon_mode="words", n_best=2)
    assert len(one["alternatives"]) == 2
    fused = pipeline("ocr-recognition", model=str(model_dir), language_model=str(language_model), device="cpu")
    assert fused(image)["alternatives"]


def test_recognize_by_command(tmp_path):
    (tmp_path / "words.txt").write_text(f"{TEXTS[1]}\nhello\n", encoding="utf-8")
    image = LINES[1]
    row = json.loads(run("recognize", image, "--format", "jsonl", "--n-best", 3, "--backend", "onnxruntime"))
    assert row["text"] == row["alternatives"][0][0] == TEXTS[1] and len(row["alternatives"]) == 3
    assert "alternatives" not in json.loads(run("recognize", image, "--format", "jsonl", "--backend", "onnxruntime"))
    assert run("recognize", image, "--lexicon", tmp_path / "words.txt", "--backend", "onnxruntime") == TEXTS[1] + "\n"
    digits = run("recognize", image, "--allowed", "0123456789", "--backend", "onnxruntime").strip()
    assert digits.isdigit() or digits == ""


def test_a_bad_lexicon_is_one_line_of_error(tmp_path):
    (tmp_path / "words.txt").write_text("hello\nŋ\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["recognize", str(LINES[1]), "--lexicon", str(tmp_path / "words.txt")])
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'words.txt'}: line 2: 'ŋ' holds 'ŋ' (U+014B)" in result.stderr


def test_tuning_finds_weights_and_evaluate_uses_them(model_dir, language_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "ALPHAS", (0.5,))
    monkeypatch.setattr(tuning, "BETAS", (0.0, 2.0))
    copy = tmp_path / "lm.arpa"
    shutil.copy(language_model, copy)
    rng = np.random.default_rng(0)
    texts = ["01", "678"]
    pngs = [(rng.integers(0, 256, (32, 40 * len(text)), np.uint8), text) for text in texts]
    import cv2

    write_lmdb(tmp_path / "lines", ((cv2.imencode(".png", image)[1].tobytes(), text) for image, text in pngs))
    said = run(
        "lm", "tune", model_dir, copy, tmp_path / "lines", "--backend", "torch", "--precision", "fp32"
    ).splitlines()
    assert said[0] == "alpha\tbeta\tCER" and len(said) >= 10
    weights = json.loads((tmp_path / "lm.arpa.json").read_text())
    rates = {tuple(map(float, row.split("\t")[:2])): row.split("\t")[2] for row in said[1:-1]}
    best = min(rates.values(), key=lambda rate: float(rate.rstrip("%")))
    assert rates[weights["alpha"], weights["beta"]] == best
    assert f"alpha {weights['alpha']:g}, beta {weights['beta']:g}: CER {best} of 2 lines" in said[-1]
    options = ("--model", model_dir, "--backend", "torch", "--precision", "fp32", "--format", "json")
    evaluated = json.loads(run("evaluate", tmp_path / "lines", *options, "--language-model", copy))
    assert f"{evaluated['sets'][0]['cer']:.2%}" == best


def test_perplexity_by_command(language_model, tmp_path):
    (tmp_path / "rising.txt").write_text("01234\n6789\n", encoding="utf-8")
    (tmp_path / "falling.txt").write_text("43210\n9876é\n", encoding="utf-8")
    rows = [
        row.split("\t") for row in run("lm", "perplexity", language_model, *sorted(tmp_path.glob("*.txt"))).splitlines()
    ]
    assert rows[0] == ["text", "lines", "characters", "unknown", "perplexity"]
    assert rows[1][1:4] == ["2", "10", "1"] and rows[2][1:4] == ["2", "9", "0"]
    assert float(rows[2][4]) < 5 < 20 < float(rows[1][4])


def test_building_refuses_what_it_cannot_do(language_model, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\n")
    (tmp_path / "empty.txt").write_bytes(b"\n")
    (tmp_path / "good.txt").write_bytes(b"fine\n")
    for arguments, said in (
        ((tmp_path / "bad.txt", "--out", tmp_path / "x"), "bad.txt: line 2 is not UTF-8"),
        ((tmp_path / "empty.txt", "--out", tmp_path / "x"), "there is no text"),
        ((tmp_path / "none.txt", "--out", tmp_path / "x"), "none.txt: cannot be read"),
        ((tmp_path / "bad.txt", "--out", language_model), "exists already"),
        ((tmp_path / "good.txt", "--out", tmp_path / "good.txt" / "x"), "x: cannot be written (Not a directory)"),
    ):
        result = CliRunner().invoke(main, ["lm", "build", *map(str, arguments)])
        assert result.exit_code == 1 and said in result.stderr, said
    assert not (tmp_path / "x").exists()
