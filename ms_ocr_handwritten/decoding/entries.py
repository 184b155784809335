"""Choosing a lexicon entry for a line: exact probabilities, summed over all alignments, without a beam.

It runs CTC's forward algorithm over the prefix tree of the entries, so that common prefixes are computed once.
"""

import numpy as np

from .beam import QUIET, Hypothesis, LanguageScorer, Search
from .candidates import Candidates
from .constraints import ROOT, Lexicon

IMPOSSIBLE = -1e9  # nats
NO_TEXT = Search([Hypothesis((), IMPOSSIBLE)], [])  # if no allowed text fits into the columns


def best_entries(columns: Candidates, lexicon: Lexicon, width: int, language: LanguageScorer | None = None) -> Search:
    """The `width` most probable entries, with log-probabilities normalised over all entries as scores.

    If none fits into the columns, the result is the empty text with the score IMPOSSIBLE.

    A class that is not a candidate of a column counts as impossible there: request the lexicon's from the backend.
    """
    scores = log_probabilities(columns, lexicon)
    if language:
        scores = scores + np.array([_language_score(language, entry) for entry in lexicon.entries])
    whole = np.logaddexp.reduce(scores)
    if np.isneginf(whole):
        return NO_TEXT
    scores = scores - whole
    order = np.argsort(-scores, kind="stable")[:width]
    best = lexicon.entries[order[0]]
    hypotheses = [Hypothesis(lexicon.entries[at], float(scores[at])) for at in order]
    return Search(hypotheses, _shares(best, scores, lexicon))


def log_probabilities(columns: Candidates, lexicon: Lexicon) -> np.ndarray:
    """Log-probability of each entry as the whole text of the columns, in nats, (entries,); -inf if it does not fit."""
    parents, classes = np.array(lexicon.parents), np.array(lexicon.node_classes)
    twins = np.flatnonzero(classes == classes[parents])[1:]  # same class as their parent; the first is ROOT
    own = np.array(lexicon.classes, np.intp)
    slots = np.full(max(int(columns.ids.max(initial=0)), *lexicon.node_classes) + 1, len(own))  # last: others
    slots[own] = np.arange(len(own))
    places = slots[classes[1:]]
    blanks = np.full(len(parents), -np.inf)  # alignments that end in a blank
    ends = np.full(len(parents), -np.inf)  # and those that end in the node's class
    blanks[ROOT] = 0.0
    with np.errstate(invalid="ignore"):
        for ids, log_probs in zip(*columns):
            total = np.logaddexp(blanks, ends)
            if log_probs[0] > np.log(QUIET):
                blanks, ends = total + log_probs[0], np.full(len(parents), -np.inf)
                continue
            spread = np.full(len(own) + 1, -np.inf)
            spread[slots[ids[1:]]] = log_probs[1:]
            coming = total[parents]
            coming[twins] = blanks[parents[twins]]
            coming[ROOT] = -np.inf
            ends = np.logaddexp(ends, coming)
            ends[1:] += spread[places]
            blanks = total + log_probs[0]
    return np.logaddexp(blanks, ends)[list(lexicon.ends)]


def _language_score(language: LanguageScorer, entry: tuple[int, ...]) -> float:
    score, state = 0.0, language.start()
    for class_id in entry:
        added, state = language.extend(state, class_id)
        score += added
    return score + language.end(state)


def _shares(best: tuple[int, ...], scores: np.ndarray, lexicon: Lexicon) -> list[float]:
    """For each character of the best entry the share of the entries' probability that agrees, given those before."""
    below = np.zeros(len(lexicon.parents))
    below[list(lexicon.ends)] = np.exp(scores)
    for node in range(len(lexicon.parents) - 1, ROOT, -1):  # a child comes after its parent
        below[lexicon.parents[node]] += below[node]
    shares, node = [], ROOT
    for class_id in best:
        child = lexicon.children[node, class_id]
        shares.append(float(below[child] / below[node]))
        node = child
    return shares
