"""What the beam leaves out, keeps and tells: quiet columns, unlikely classes, grammars, shares; a textbook's beam."""

import math

import numpy as np
import pytest
from test_beam import A, B, Bigrams, columns, every_text, random_columns

from ms_ocr_handwritten.decoding.beam import beam_search
from ms_ocr_handwritten.decoding.candidates import Candidates, Wanted, candidates
from ms_ocr_handwritten.decoding.decoder import plain_search

C, D = 4, 5


def texts_of(found: Candidates, width: int = 100, **options) -> dict[tuple[int, ...], float]:
    return {one.ids: math.exp(one.score) for one in beam_search(*found, width, **options).hypotheses}


# ---------------------------------------------------------------------- quiet columns


def test_quiet_columns_multiply_by_their_blanks():
    """Alone and in runs, before, between and behind loud ones; the other classes have nothing there."""
    loud, quiet = [0.2, 0.5, 0.3], [0.9992, 0, 0]
    found = columns([quiet, quiet, loud, quiet, loud, loud, quiet, quiet, quiet])
    assert texts_of(found) == pytest.approx({text: p for text, p in every_text(found).items() if p}, rel=1e-9)
    assert texts_of(columns([quiet] * 3)) == pytest.approx({(): 0.9992**3}, rel=1e-9)


def test_a_blank_that_rounds_to_certainty_parts_equal_neighbours():
    """In float32 its log-probability is zero."""
    logits = np.full((5, 9), -25, np.float32)
    logits[[0, 2, 4], 0] = logits[[1, 3], A] = 0
    logits[[1, 3], 0] = -9
    found = candidates(logits, Wanted())
    assert found.log_probs[2, 0] == 0
    assert beam_search(*found).hypotheses[0].ids == (A, A)
    scores = [one.score for one in plain_search(found, 3).hypotheses]
    assert scores == sorted(scores, reverse=True)


# ---------------------------------------------------------------------- what is left out


def test_a_column_that_is_sure_of_a_character_is_no_quiet_one():
    found = columns([[0.0002, 0.9995, 0.0003], [0.0003, 0.0002, 0.9995]])
    assert beam_search(*found).hypotheses[0].ids == (A, B)
    assert texts_of(found)[A, B] == pytest.approx(0.9995**2, rel=1e-3)


def test_classes_below_a_share_of_their_columns_best_begin_no_text():
    """A thousandth: of the columns' best ones, 0.3 and 0.9, B has 1.7 and 0.9 thousandths."""
    found = columns([[0.3, 0.3, 0.0005, 0.3, 0.0995], [0.9, 0.05, 0.0008, 0.03, 0.0192]], (A, B, C, D))
    texts = texts_of(found)
    assert {text for text in texts if B in text} == {(B,), (B, A), (B, C), (B, D)}
    assert texts[B,] == pytest.approx(0.0005 * 0.9) and texts[B, A] == pytest.approx(0.0005 * 0.05)


def test_texts_that_begin_with_a_negligible_mass_are_not_followed():
    """Two characters of 2 thousandths one after the other, though each alone is likely enough."""
    found = columns([[0.002, 0.994, 0.002, 0.002]] * 2, (A, B, C))
    texts = texts_of(found)
    assert (B, A) in texts and (A, C) in texts and (B, C) not in texts
    assert texts_of(columns([[0.002, 0.99, 0.004, 0.004]] * 2, (A, B, C)))[B, C] == pytest.approx(0.004**2)


def test_a_text_of_no_mass_is_none():
    assert texts_of(columns([[0, 1, 0]] * 2)) == pytest.approx({(A,): 1})


# ---------------------------------------------------------------------- grammars and narrow beams


class Texts:
    """A grammar of some texts, as a table of their beginnings; no state is 0 or 1."""

    def __init__(self, *texts: tuple[int, ...]) -> None:
        self.texts = texts
        self.beginnings = sorted({text[:length] for text in texts for length in range(len(text) + 1)}, reverse=True)

    def start(self) -> int:
        return self.beginnings.index(()) + 2

    def step(self, state: int, class_id: int) -> int | None:
        text = (*self.beginnings[state - 2], class_id)
        return self.beginnings.index(text) + 2 if text in self.beginnings else None

    def complete(self, state: int) -> bool:
        return self.beginnings[state - 2] in self.texts


def test_what_a_grammar_allows_is_found_however_improbable():
    rare = [0.3, 0.7 - 1e-7, 1e-7]
    found = columns([rare, rare, [0.6, 0.2, 0.2]])
    texts, grammar = every_text(found), Texts((B, B), (B, A))
    assert texts_of(found, grammar=grammar) == pytest.approx({text: texts[text] for text in grammar.texts}, rel=1e-9)
    assert texts_of(found, grammar=Texts((C,))) == {}


class Textbook:
    """A beam that keeps `width` texts a column, every one of them extended by every class; of loud columns alone.

    Of a text it holds the mass that ends in a blank, what stayed in its last class, and what came new to it.
    """

    def __init__(self, found: Candidates, width: int, language: Bigrams | None, grammar: Texts | None) -> None:
        beam, began, history = {(): (1.0, 0.0, 0.0)}, {}, []
        for column, (ids, log_probs) in enumerate(zip(*found)):
            probs, grown = dict(zip(ids.tolist(), np.exp(log_probs).tolist())), {}
            for text, (blank, stayed, new) in beam.items():
                own = grown.setdefault(text, [0.0, 0.0, 0.0])
                own[0] += (blank + stayed + new) * probs[0]
                own[1] += (stayed + new) * probs[text[-1]] if text else 0.0
                for one in ids[1:].tolist():
                    longer = (*text, one)
                    if grammar and longer not in grammar.beginnings:
                        continue
                    factor = math.exp(language.table[text[-1] if text else 0, one]) if language else 1.0
                    before = blank if text[-1:] == (one,) else blank + stayed + new
                    grown.setdefault(longer, [0.0, 0.0, 0.0])[2] += before * probs[one] * factor
            ranked = sorted((text for text in grown if any(grown[text])), key=lambda text: -sum(grown[text]))
            complete = [text for text in ranked[width:] if grammar and text in grammar.texts]
            beam = {text: tuple(grown[text]) for text in ranked[:width] + complete[:width]}
            began |= {text: column for text, (blank, stayed, new) in beam.items() if new > blank + stayed}
            history.append({text: sum(masses) for text, masses in beam.items()})
        ends = {text: language.end(text[-1] if text else 0) if language else 0.0 for text in beam}
        scores = {text: math.log(mass) + ends[text] for text, mass in history[-1].items()}
        self.scores = {text: scores[text] for text in sorted(scores, key=scores.__getitem__, reverse=True)}
        if grammar:
            self.scores = {text: score for text, score in self.scores.items() if text in grammar.texts}
        self.began, self.history = began, history

    def shares(self) -> list[float]:
        """Of each character of the best text: how much of the mass, of texts that have those before it, has it too,
        in the last column before most of the next character's mass began."""
        best, shares = next(iter(self.scores)), []
        for length in range(1, len(best) + 1):
            last = self.began[best[: length + 1]] - 1 if length < len(best) else len(self.history) - 1
            beam = self.history[max(last, self.began[best[:length]])]
            before, agreed = (
                math.fsum(mass for text, mass in beam.items() if text[:count] == best[:count])
                for count in (length - 1, length)
            )
            shares.append(agreed / before)
        return shares


@pytest.mark.parametrize("seed", range(20))
def test_a_narrow_beam_drops_what_a_textbook_drops(seed):
    """And it asks the language model about few of the characters that the columns offer."""
    found, language = random_columns(12, 5, seed), Bigrams(seed)
    for width in (1, 2, 3, 7):
        language.asked = 0
        searched, expected = beam_search(*found, width, language), Textbook(found, width, language, None)
        assert [one.ids for one in searched.hypotheses] == list(expected.scores)
        assert [one.score for one in searched.hypotheses] == pytest.approx(list(expected.scores.values()), abs=1e-3)
        assert searched.shares == pytest.approx(expected.shares(), abs=1e-3)
        assert language.asked < 0.75 * 12 * width * 5


def some_texts(found: Candidates, seed: int) -> Texts:
    """A hundred texts of three to six characters, as many as their classes allow."""
    rng, classes = np.random.default_rng(seed), found.ids[0, 1:]
    return Texts(*{tuple(rng.choice(classes, rng.integers(3, 7)).tolist()) for _ in range(100)})


@pytest.mark.parametrize("language", [None, Bigrams(1)], ids=["columns", "language"])
@pytest.mark.parametrize("seed", range(10))
def test_complete_texts_are_kept_beside_a_narrow_beam(seed, language):
    found = random_columns(9, 4, seed)
    grammar = some_texts(found, seed)
    for width in (1, 2, 5):
        searched, expected = beam_search(*found, width, language, grammar), Textbook(found, width, language, grammar)
        assert [one.ids for one in searched.hypotheses] == list(expected.scores)
        assert [one.score for one in searched.hypotheses] == pytest.approx(list(expected.scores.values()), rel=1e-9)
        assert searched.shares == pytest.approx(expected.shares() if expected.scores else [], rel=1e-9)
