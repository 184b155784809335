"""Which entry of a lexicon a line is: each one's probability, summed over all its alignments, with no beam between.

The forward algorithm of CTC over the tree of the entries, so that what they begin with alike is computed once.
"""

import numpy as np

from .beam import QUIET, Hypothesis, LanguageScorer, Search
from .candidates import Candidates
from .constraints import ROOT, Lexicon

IMPOSSIBLE = -1e9  # nats
NO_TEXT = Search([Hypothesis((), IMPOSSIBLE)], [])  # where none that is allowed fits into the columns


def best_entries(columns: Candidates, lexicon: Lexicon, width: int, language: LanguageScorer | None = None) -> Search:
    """The `width` most probable entries, their scores log-probabilities given that the line is one of them.

    Where none fits into the columns, the empty text with the score IMPOSSIBLE.

    A class that is no candidate of a column is taken for impossible there: ask the backend for those of the lexicon.
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
    """Log-probability of each entry as all that the columns hold, in nats, (entries,); -inf where none fits."""
    parents, classes = np.array(lexicon.parents), np.array(lexicon.node_classes)
    twins = np.flatnonzero(classes == classes[parents])[1:]  # of one class with their parent; the first is ROOT itself
    own = np.array(lexicon.classes, np.intp)
    slots = np.full(max(int(columns.ids.max(initial=0)), *lexicon.node_classes) + 1, len(own))  # the last: no entry's
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
    """Of each character of the best entry, how much of the entries' probability agrees, given those before."""
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
