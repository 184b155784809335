"""Allowed characters and lexica against all strings that they allow; what is wrong with them, and where."""

import math

import numpy as np
import pytest
from test_beam import Bigrams, columns, every_text, random_columns

from ms_ocr_handwritten.decoding.beam import beam_search
from ms_ocr_handwritten.decoding.candidates import Candidates
from ms_ocr_handwritten.decoding.constraints import Lexicon, WordsGrammar, allowed_classes
from ms_ocr_handwritten.decoding.decoder import Decoding
from ms_ocr_handwritten.decoding.entries import IMPOSSIBLE, best_entries, log_probabilities
from ms_ocr_handwritten.errors import ConfigurationError, LexiconError
from ms_ocr_handwritten.vocab import Vocabulary

VOCABULARY = Vocabulary(tuple("abc 0中文"))  # ids 2 to 8


def lexicon(*entries: str) -> Lexicon:
    return Lexicon.load(entries, VOCABULARY)


@pytest.mark.parametrize("seed", range(5))
def test_entries_have_their_exact_probabilities(seed):
    found = random_columns(6, 3, seed)
    texts = every_text(found)
    entries = ["a", "ab", "abc", "cba", "aa", "cc"]
    given = {tuple(VOCABULARY.encode(entry)): texts.get(tuple(VOCABULARY.encode(entry)), 0.0) for entry in entries}
    whole = math.fsum(given.values())
    searched = best_entries(found, lexicon(*entries), 10)
    assert {one.ids: math.exp(one.score) for one in searched.hypotheses} == pytest.approx(
        {text: probability / whole for text, probability in given.items()}, abs=1e-9
    )
    scores = [one.score for one in searched.hypotheses]
    assert scores == sorted(scores, reverse=True)


def test_an_entry_wins_however_improbable_and_however_long_the_line():
    never = columns([[0.0005, 0.0005, 0.9985, 0.0005]] * 400, (2, 3, 4))
    searched = best_entries(never, lexicon("aaa", "caa"), 5)
    assert [VOCABULARY.decode(one.ids) for one in searched.hypotheses] == ["caa", "aaa"]
    assert math.fsum(math.exp(one.score) for one in searched.hypotheses) == pytest.approx(1)


def test_the_share_of_a_character_is_that_of_the_entries_that_agree():
    found = columns([[0.02, 0.92, 0.03, 0.03], [0.97, 0.01, 0.01, 0.01], [0.02, 0.02, 0.72, 0.24]], (2, 3, 4))
    searched = best_entries(found, lexicon("ab", "ac"), 2)
    assert VOCABULARY.decode(searched.hypotheses[0].ids) == "ab"
    assert searched.shares[0] == 1
    assert searched.shares[1] == pytest.approx(math.exp(searched.hypotheses[0].score))


@pytest.mark.parametrize("seed", range(5))
def test_words_in_a_sequence_against_all_strings(seed):
    found = random_columns(5, 3, seed)  # a, b and c, without a space
    cjk = Vocabulary(tuple("中文字 "))
    grammar = WordsGrammar(Lexicon.load(["中文", "字", "文字字"], cjk), cjk)
    pieces = [tuple(cjk.encode(word)) for word in ("中文", "字", "文字字")]
    sequences, grown = {()}, {()}
    while grown:
        grown = {text + piece for text in grown for piece in pieces if len(text + piece) <= 5}
        sequences |= grown
    allowed = {text: probability for text, probability in every_text(found).items() if text in sequences}
    searched = beam_search(*found, 400, grammar=grammar)
    assert {one.ids: math.exp(one.score) for one in searched.hypotheses} == pytest.approx(allowed, abs=1e-4)


def steps(grammar: WordsGrammar, text: str) -> int | None:
    state: int | None = grammar.start()
    for class_id in VOCABULARY.encode(text):
        state = None if state is None else grammar.step(state, class_id)
    return state


@pytest.mark.parametrize(
    "text, allowed",
    [
        ("", True),
        ("ab", True),
        ("a", False),  # the beginning of one
        ("ab c", True),
        ("abc", False),  # letters meet without a space
        ("ab ab ab", True),
        ("ab ", False),
        (" ab", False),
        ("ab  c", False),
        ("中文中文", True),
        ("中文 中文", True),
        ("ab中文", True),
        ("c0", True),
        ("c00", False),
    ],
)
def test_where_words_need_a_space(text, allowed):
    grammar = WordsGrammar(lexicon("ab", "c", "c0", "中文"), VOCABULARY)
    state = steps(grammar, text)
    assert (state is not None and grammar.complete(state)) == allowed


def test_words_may_be_cut_in_several_ways():
    grammar = WordsGrammar(lexicon("中", "中文", "文中文"), VOCABULARY)
    for text in ("中文中文", "中文中", "中中文中文"):  # the first as 中文|中文 or 中|文中文
        state = steps(grammar, text)
        assert state is not None and grammar.complete(state), text
    assert steps(grammar, "文文") is None


def test_an_impossible_sequence_is_the_empty_text():
    found = columns([[0.0001, 0.9997, 0.0002]] * 2)  # too few columns for bb
    decoder = Decoding(VOCABULARY).decoder(lexicon=["bb"], lexicon_mode="words")
    assert [one.ids for one in decoder.decode(found).hypotheses] == [()]


def test_where_no_entry_fits_the_columns_the_text_is_empty():
    found = columns([[0.0001, 0.9997, 0.0002]] * 2)
    decoded = Decoding(VOCABULARY).decoder(lexicon=["bb", "aaa"]).decode(found)
    assert [one.ids for one in decoded.hypotheses] == [()] and decoded.shares == () == decoded.spans
    assert decoded.hypotheses[0].score == IMPOSSIBLE


def test_a_line_that_no_sequence_can_be_is_the_empty_text():
    """Behind "ab" a space must come; where the network is sure of another "a", all that is allowed rounds to zero."""
    found = columns([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], (2, 3, 5))
    decoder = Decoding(VOCABULARY).decoder(lexicon=["ab"], lexicon_mode="words")
    assert [(one.ids, one.score) for one in decoder.decode(found).hypotheses] == [((), IMPOSSIBLE)]
    shorter = Candidates(found.ids[:3], found.log_probs[:3])
    assert [one.ids for one in decoder.decode(shorter).hypotheses] == [(2, 3)]


def test_a_line_that_breaks_off_within_its_only_word_is_the_empty_text():
    """Its beginning is so much more probable than any allowed text that the others' masses underflow."""
    found = columns([[1e-8, 1 - 2e-8, 1e-8, 0], [1e-8, 1e-8, 1 - 2e-8, 0]] * 25, (2, 3, 4))  # abab...
    decoder = Decoding(VOCABULARY).decoder(3, lexicon=["ab" * 25 + "c", "ac"], lexicon_mode="words")
    decoded = decoder.decode(found)
    assert [(one.ids, one.score) for one in decoded.hypotheses] == [((), IMPOSSIBLE)]
    assert decoded.shares == () == decoded.spans


def test_decoding_asks_the_backend_for_what_may_be_read():
    decoding = Decoding(VOCABULARY)
    assert decoding.decoder() is None
    assert decoding.decoder(allowed="ca").wanted.classes == (2, 4)
    assert decoding.decoder(allowed="Ｃ０".lower()).wanted.classes == (4, 6)  # full-width is folded
    line = decoding.decoder(lexicon=["ab", "0"])
    assert line.wanted.classes == (2, 3, 6) and line.wanted.count == 3
    words = decoding.decoder(lexicon=["ab", "0"], lexicon_mode="words")
    assert words.wanted.classes == (2, 3, 5, 6)  # and the space
    both = decoding.decoder(lexicon=["ab", "0", "a"], allowed="ab")
    assert both.lexicon.entries == ((2, 3), (2,))
    assert Decoding(VOCABULARY, beam_width=5).decoder().width == 5


@pytest.mark.parametrize(
    "asked, told",
    [
        ({}, lambda text: True),
        ({"lexicon": ["a", "ab", "bc", "ca", "cab"]}, lambda text: text in ("a", "ab", "bc", "ca", "cab")),
        ({"lexicon": ["ab", "c"], "lexicon_mode": "words"}, lambda text: text in ("", "ab", "c")),  # spaces: no column
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_a_language_model_has_a_say_in_every_mode(asked, told, seed):
    """The probabilities of the first two of all texts that may be read; the beam is wide enough to drop none."""
    found, language = random_columns(4, 3, seed), Bigrams(seed)
    texts = {VOCABULARY.decode(text): (text, probability) for text, probability in every_text(found).items()}
    weights = {text: p * math.exp(language.of(ids)) for text, (ids, p) in texts.items() if told(text)}
    best = sorted(weights, key=weights.__getitem__)[:-3:-1]
    decoded = Decoding(VOCABULARY, language, beam_width=400).decoder(2, **asked).decode(found)
    assert [VOCABULARY.decode(one.ids) for one in decoded.hypotheses] == best
    whole = math.fsum(weights.values())
    scores = [math.exp(one.score) for one in decoded.hypotheses]
    assert scores == pytest.approx([weights[text] / whole for text in best], rel=1e-3)


def test_words_of_allowed_characters():
    decoding = Decoding(VOCABULARY)
    assert decoding.decoder(lexicon=["ab", "c"], allowed="abc", lexicon_mode="words").wanted.classes == (2, 3, 4)


def test_allowed_characters_are_given_their_probability():
    """The candidates are those given that only allowed characters are read, so texts sum to one."""
    found = columns([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]])
    decoded = Decoding(VOCABULARY).decoder(allowed="ab", n_best=3).decode(found)
    assert {one.ids: math.exp(one.score) for one in decoded.hypotheses} == pytest.approx({(2,): 0.875, (): 0.125})


def test_a_lexicon_is_read_again_when_its_file_changes(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("ab\n")
    decoding = Decoding(VOCABULARY)
    first = decoding.decoder(lexicon=path)
    assert decoding.decoder(lexicon=path) is first
    path.write_text("c\n\n0\n")
    import os

    os.utime(path, ns=(1, 1))
    assert decoding.decoder(lexicon=path).lexicon.entries == ((4,), (6,))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "words.txt: holds no entry"),
        (b"\n \n", "words.txt: holds no entry"),
        ("ab\n\naébß\n".encode(), r"words.txt: line 3: 'aébß' holds 'é' \(U\+00E9\), 'ß' \(U\+00DF\)"),
        (b"ab\n\xff\n", "words.txt: line 2 is not UTF-8"),
        (None, "words.txt: cannot be read"),
    ],
)
def test_a_bad_lexicon_is_named_with_its_line(tmp_path, content, said):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LexiconError, match=said):
        Decoding(VOCABULARY).decoder(lexicon=path)


def test_what_else_cannot_be_asked():
    decoding = Decoding(VOCABULARY)
    with pytest.raises(LexiconError, match=r"allowed holds 'z' \(U\+007A\)"):
        decoding.decoder(allowed="az")
    with pytest.raises(LexiconError, match="allowed is empty"):
        decoding.decoder(allowed="")
    with pytest.raises(LexiconError, match="no entry of the lexicon consists of allowed characters"):
        decoding.decoder(allowed="0", lexicon=["ab"])
    with pytest.raises(ConfigurationError, match="lexicon_mode is 'words', and there is no lexicon; give one"):
        decoding.decoder(lexicon_mode="words")
    with pytest.raises(ConfigurationError, match="lexicon_mode is 'word'"):
        decoding.decoder(lexicon=["a"], lexicon_mode="word")
    with pytest.raises(ConfigurationError, match="n_best is 0"):
        decoding.decoder(n_best=0)


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_entries(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffab\r\nc\r\n".encode())
    assert Lexicon.load(path, VOCABULARY).entries == ((2, 3), (4,))
    assert allowed_classes(["a", "b"], VOCABULARY) == (2, 3)


def test_a_quiet_column_needs_no_classes():
    """Backends give the blank alone there."""
    ids = np.array([[0, 2, 3], [0, 0, 0], [0, 3, 2]], np.int32)
    log_probs = np.log(np.array([[0.1, 0.8, 0.1], [1.0, 1e-300, 1e-300], [0.1, 0.8, 0.1]]))
    log_probs[1, 1:] = -np.inf
    searched = best_entries(Candidates(ids, log_probs), lexicon("ab", "ba"), 1)
    assert VOCABULARY.decode(searched.hypotheses[0].ids) == "ab"


@pytest.mark.parametrize("seed", range(3))
def test_entries_between_quiet_columns_have_the_probability_of_all_their_alignments(seed):
    """Quiet columns before, between and behind loud ones; the blank's own probability counts."""
    loud, quiet = random_columns(4, 3, seed), columns([[0.9995, 0, 0, 0]], (2, 3, 4))
    found = Candidates(*(np.concatenate([q, one[:2], q, one[2:], q]) for one, q in zip(loud, quiet)))
    texts, entries = every_text(found), lexicon("a", "ab", "aab", "bb", "cab", "bcab")
    expected = [texts.get(entry, 0.0) for entry in entries.entries]
    assert np.exp(log_probabilities(found, entries)) == pytest.approx(expected, rel=1e-6)
    assert 0 < min(expected) < 0.01


def test_what_is_no_candidate_of_a_column_is_impossible_there():
    found = Candidates(np.array([[0, 2], [0, 3]], np.int32), np.log([[0.25, 0.75], [0.5, 0.5]]))
    entries = lexicon("a", "b", "ab", "ba", "c", "ac")
    with np.errstate(divide="ignore"):
        expected = np.log([0.75 * 0.5, 0.25 * 0.5, 0.75 * 0.5, 0, 0, 0])
    np.testing.assert_allclose(log_probabilities(found, entries), expected)


def test_a_line_of_no_columns_is_no_entry():
    nothing = columns(np.zeros((0, 3)))
    assert np.isneginf(log_probabilities(nothing, lexicon("a", "bc"))).all()
    searched = best_entries(nothing, lexicon("a", "bc"), 2)
    assert [(one.ids, one.score) for one in searched.hypotheses] == [((), IMPOSSIBLE)] and searched.shares == []


def test_of_equally_probable_entries_the_lexicons_first_comes_first():
    """Whatever their number is: sorting by itself keeps the order of a few alone."""
    entries = Lexicon.of([(2 + 7 * place % 500,) for place in range(500)])
    ids = np.arange(2, 502)
    weights = 1 + ids % 3  # three kinds of equally probable ones
    order = np.argsort(-weights, kind="stable")
    row = np.concatenate([[0], ids[order]]).astype(np.int32), np.log([0.5, *0.5 * weights[order] / weights.sum()])
    searched = best_entries(Candidates(*(one[None] for one in row)), entries, 500)
    expected = [entry for weight in (3, 2, 1) for entry in entries.entries if 1 + entry[0] % 3 == weight]
    assert [one.ids for one in searched.hypotheses] == expected
    assert math.exp(searched.hypotheses[0].score) == pytest.approx(3 / weights.sum())
