"""The prefix beam against a table computed by hand and against all strings; the alignment; candidates of logits."""

import itertools
import math

import numpy as np
import pytest
import torch

from ms_ocr_handwritten.backends.columns import BLOCK, candidate_columns, highest_many
from ms_ocr_handwritten.ctc import best_path, collapse
from ms_ocr_handwritten.decoding.alignment import align
from ms_ocr_handwritten.decoding.beam import beam_search
from ms_ocr_handwritten.decoding.candidates import Candidates, Wanted, candidates
from ms_ocr_handwritten.decoding.decoder import plain_search

A, B = 2, 3  # classes; 0 is the blank

# Columns of blank, a, b. Probabilities of all texts by hand, over the alignments of two columns (- is the blank):
#   ''  --                 .5 * .3                     = .15
#   a   a- -a aa           .3*.3 + .5*.5 + .3*.5       = .49
#   b   b- -b bb           .2*.3 + .5*.2 + .2*.2       = .20
#   ab  ab                 .3*.2                       = .06
#   ba  ba                 .2*.5                       = .10
BY_HAND = [[0.5, 0.3, 0.2], [0.3, 0.5, 0.2]]
TEXTS = {(): 0.15, (A,): 0.49, (B,): 0.20, (A, B): 0.06, (B, A): 0.10}


def columns(probabilities, classes=(A, B)) -> Candidates:
    """Candidates of columns of the blank's probability, then those of `classes`."""
    probabilities = np.array(probabilities, np.float64)
    order = np.argsort(-probabilities[:, 1:], 1, kind="stable")
    ids = np.concatenate([np.zeros((len(order), 1), int), np.array(classes)[order]], 1).astype(np.int32)
    sorted_ = np.take_along_axis(probabilities[:, 1:], order, 1)
    with np.errstate(divide="ignore"):
        return Candidates(ids, np.log(np.concatenate([probabilities[:, :1], sorted_], 1)))


def random_columns(number: int, classes: int, seed: int) -> Candidates:
    rng = np.random.default_rng(seed)
    return columns(
        rng.dirichlet(np.full(classes + 1, 0.7), number) * 0.98 + 0.02 / (classes + 1), range(2, classes + 2)
    )


def every_text(found: Candidates) -> dict[tuple[int, ...], float]:
    """The probability of every text, by adding up every path."""
    texts: dict[tuple[int, ...], float] = {}
    rows = [list(zip(ids.tolist(), np.exp(log_probs).tolist())) for ids, log_probs in zip(*found)]
    for path in itertools.product(*rows):
        text = tuple(id for id, _ in itertools.groupby(id for id, _ in path) if id)
        texts[text] = texts.get(text, 0.0) + math.prod(probability for _, probability in path)
    return texts


def test_every_prefix_of_a_matrix_by_hand():
    found = beam_search(*columns(BY_HAND), width=10)
    assert {one.ids: math.exp(one.score) for one in found.hypotheses} == pytest.approx(TEXTS)
    assert [one.ids for one in found.hypotheses] == [(A,), (B,), (), (B, A), (A, B)]


def test_the_most_probable_text_is_not_the_best_path():
    ids, log_probs = columns([[0.4, 0.6, 0.0001], [0.6, 0.4, 0.0001]])
    assert beam_search(ids, log_probs, width=1).hypotheses[0].ids == (A,)
    ids, log_probs = columns([[0.6, 0.4, 0.0001], [0.6, 0.4, 0.0001]])
    path = ids[np.arange(2), log_probs.argmax(1)]
    assert collapse(path, log_probs.max(1)) == []
    best = beam_search(ids, log_probs).hypotheses[0]
    assert best.ids == (A,) and math.exp(best.score) == pytest.approx(0.4 * 0.4 + 2 * 0.6 * 0.4)


@pytest.mark.parametrize("seed", range(8))
def test_all_strings_of_a_tiny_vocabulary(seed):
    found = random_columns(6, 3, seed)
    texts = every_text(found)
    searched = beam_search(*found, width=len(texts))
    scores = {one.ids: math.exp(one.score) for one in searched.hypotheses}
    likely = {text: probability for text, probability in texts.items() if probability > 1e-3}
    assert {text: scores[text] for text in likely} == pytest.approx(likely, abs=1e-4)
    assert math.fsum(math.exp(one.score) for one in searched.hypotheses) == pytest.approx(1, abs=1e-3)
    assert searched.hypotheses[0].ids == max(texts, key=texts.__getitem__)


def exact(logits: np.ndarray, texts: list[tuple[int, ...]]) -> list[float]:
    """Log-probabilities of texts by PyTorch's CTC loss over the whole matrix."""
    log_probs = torch.from_numpy(logits).double().log_softmax(-1)[:, None].expand(-1, len(texts), -1)
    labels = torch.tensor([id for text in texts for id in text], dtype=torch.int64)
    lengths = torch.full((len(texts),), len(logits)), torch.tensor([len(text) for text in texts])
    return (-torch.nn.functional.ctc_loss(log_probs, labels, *lengths, reduction="none")).tolist()


def greedy(logits: np.ndarray) -> tuple[int, ...]:
    return tuple(run.id for run in collapse(*best_path(logits)))


def random_logits(sharpness: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, sharpness, (rng.integers(1, 30), rng.integers(2, 12))).astype(np.float32) for _ in range(60)]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_best_text_is_never_less_probable_than_the_best_paths(sharpness):
    """Of matrices whose columns are all loud; the candidates hold them whole."""
    saved = 0
    for logits in random_logits(sharpness):
        logits[:, 0] = np.minimum(logits[:, 0], logits[:, 1:].max(1) + 5)  # a blank of 0.993
        found, path = candidates(logits, Wanted()), greedy(logits)
        for width in (2, 3, 10):
            searched = plain_search(found, width)
            best, beams = searched.hypotheses[0], beam_search(*found, width).hypotheses[0]
            ours, theirs, beam_alone = exact(logits, [best.ids, path, beams.ids])
            assert ours >= theirs - 1e-5 and ours >= beam_alone - 1e-5
            assert best.score <= ours + 1e-4
            saved += beam_alone < theirs - 1e-5
            if best.ids == path != beams.ids:
                assert best.score == pytest.approx(theirs, abs=1e-4)
            scores = [one.score for one in searched.hypotheses]
            assert scores == sorted(scores, reverse=True) and len(scores) <= width
            assert len({one.ids for one in searched.hypotheses}) == len(scores)
            assert len(searched.shares) == len(best.ids)
    assert saved or sharpness == 3.0  # the beam alone would have lost some


def test_a_beam_of_one_is_the_best_path():
    for logits in random_logits(1.0):
        searched = plain_search(candidates(logits, Wanted()), 1)
        (best,), runs = searched.hypotheses, collapse(*best_path(logits))
        assert best.ids == greedy(logits)
        assert searched.shares == pytest.approx([run.score for run in runs], abs=1e-5)


class Bigrams:
    """A language model of its own: made-up factors of pairs of classes and of the end."""

    def __init__(self, seed: int) -> None:
        self.table = np.random.default_rng(seed).normal(0, 1.5, (8, 8))
        self.most = float(self.table.max())
        self.asked = 0

    def start(self) -> int:
        return 0

    def extend(self, state, class_id):
        self.asked += 1
        return float(self.table[state, class_id]), class_id

    def end(self, state):
        return float(self.table[state, 7])

    def of(self, text) -> float:
        return math.fsum(self.table[a, b] for a, b in zip((0, *text), (*text, 7)))


@pytest.mark.parametrize("seed", range(4))
def test_a_language_model_weighs_every_string(seed):
    found, language = random_columns(5, 3, seed), Bigrams(seed)
    texts = {text: math.log(probability) + language.of(text) for text, probability in every_text(found).items()}
    best = sorted(texts, key=texts.__getitem__)[::-1][:5]
    searched = beam_search(*found, 400, language).hypotheses[:5]
    assert [one.ids for one in searched] == best
    assert [one.score for one in searched] == pytest.approx([texts[text] for text in best], abs=1e-3)


def test_equal_neighbours_need_a_blank_between():
    doubled = beam_search(*columns([[0.01, 0.98, 0.01], [0.98, 0.01, 0.01], [0.01, 0.98, 0.01]]))
    assert doubled.hypotheses[0].ids == (A, A)
    joined = beam_search(*columns([[0.01, 0.98, 0.01]] * 3))
    assert joined.hypotheses[0].ids == (A,)


def test_quiet_columns_part_equal_neighbours_and_only_scale():
    loud, quiet = [0.01, 0.98, 0.01], [0.9994, 0.0003, 0.0003]
    found = columns([quiet, loud, quiet, quiet, loud, quiet])
    best = beam_search(*found).hypotheses[0]
    assert best.ids == (A, A)
    assert best.score == pytest.approx(math.log(every_text(found)[A, A]), abs=0.01)


def test_a_line_of_thousands_of_columns_does_not_underflow():
    found = columns([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]] * 2000)
    best = beam_search(*found).hypotheses[0]
    assert len(best.ids) > 1000 and -6000 < best.score < -500


def test_shares_are_local_doubt():
    sure, quiet = [0.004, 0.992, 0.004], [0.9995, 0.00025, 0.00025]
    doubtful = [0.01, 0.33, 0.66]
    searched = beam_search(*columns([sure, quiet, doubtful, quiet, sure, quiet, sure]))
    assert searched.hypotheses[0].ids == (A, B, A, A)
    assert searched.shares == pytest.approx([0.992, 0.66, 0.992, 0.992], abs=0.02)


def test_alignment_finds_the_columns_of_each_character():
    quiet = [0.9995, 0.00025, 0.00025]
    found = columns([quiet, [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], quiet, [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], quiet])
    assert align((A, A, B), found) == [(1, 3), (4, 5), (5, 6)]
    assert align((), found) == []


@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_the_best_of_all(seed):
    found = random_columns(6, 2, seed)
    probs = [dict(zip(ids.tolist(), np.exp(log_probs).tolist())) for ids, log_probs in zip(*found)]
    for text in ((A, B), (A, A), (B,)):
        paths = [
            path
            for path in itertools.product((0, A, B), repeat=6)
            if tuple(id for id, _ in itertools.groupby(path) if id) == text
        ]
        best = max(paths, key=lambda path: math.prod(row[id] for row, id in zip(probs, path)))
        runs = collapse(np.array(best), np.zeros(6))
        assert align(text, found) == [(run.start, run.end) for run in runs]


LOGITS = np.random.default_rng(0).normal(0, 3, (75, 701)).astype(np.float32)
LOGITS[:40, 0] += 40  # quiet columns


def test_characters_that_no_column_lists_are_aligned_too():
    assert align((A, 9), columns(BY_HAND)) == [(0, 1), (1, 2)]
    assert align((8, 9), columns(BY_HAND)) == [(0, 1), (1, 2)]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("classes", [None, (3, 40, 41, 600)])
def test_candidates_of_logits(classes):
    found = candidates(LOGITS, Wanted(5, classes))
    own = LOGITS if classes is None else LOGITS[:, [0, *classes]]
    probs = softmax(own.astype(np.float64))
    best = np.sort(probs[:, 1:], 1)[:, ::-1][:, : 5 if classes is None else 4]
    quiet = probs[:, 0] > 0.999
    assert quiet[:40].all() and not quiet[40:].all()
    np.testing.assert_allclose(np.exp(found.log_probs[:, 0]), probs[:, 0], rtol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probs[~quiet, 1:]), best[~quiet], rtol=1e-4)
    assert np.isneginf(found.log_probs[quiet, 1:]).all()
    names = np.arange(701) if classes is None else np.array([0, *classes])
    assert (found.ids[~quiet, 1] == names[probs[~quiet, 1:].argmax(1) + 1]).all()


@pytest.mark.parametrize("classes", [None, (3, 40, 41, 600)])
def test_torch_and_numpy_find_the_same_candidates(classes):
    theirs = candidates(LOGITS, Wanted(5, classes))
    chosen = None if classes is None else torch.tensor([0, *classes])
    ids, log_probs = candidate_columns(torch.from_numpy(LOGITS)[None], 5, chosen)
    assert (ids[0].numpy() == theirs.ids).all()
    np.testing.assert_allclose(log_probs[0].numpy(), theirs.log_probs, atol=1e-5)


def test_the_highest_of_many_lie_in_the_highest_blocks():
    scores = torch.from_numpy(LOGITS)[:, : 10 * BLOCK].contiguous()
    peaks, rows = scores.unflatten(-1, (-1, BLOCK)).amax(-1), torch.tensor([2, 40, 74])
    for count in (1, 3, 10, 20):
        top, places = highest_many(scores, peaks, rows, count)
        expected = scores[rows].topk(count, -1)
        assert (top == expected.values).all() and (places == expected.indices).all()


def test_the_best_class_is_that_of_the_best_path():
    ids, log_probs = best_path(LOGITS)
    found = candidates(LOGITS, Wanted())
    rows = np.arange(len(ids))
    assert (found.ids[rows, found.log_probs.argmax(1)] == ids).all()
    np.testing.assert_allclose(found.log_probs.max(1), log_probs, atol=1e-5)
