"""Prefix beam search: from column scores to the most probable texts, summed over all their alignments.

Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", 2012, chapter 7.5; Hannun et al.,
"First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014.

Texts are nodes of a prefix tree, so that common prefixes are computed once. A text has two masses: that of its
alignments ending in a blank, and that of those ending in its last class. Masses are kept relative to the best text's,
whose logarithm is summed over the columns, which avoids logarithms in the inner loop. The language model's factor for
a character multiplies the mass where the character begins.

Notation: T columns, k classes of each, besides the blank.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapreplace
from operator import itemgetter
from typing import Protocol

import numpy as np

WIDTH = 10  # texts kept after each column, if more than the best path is requested
QUIET = 0.999  # a column whose blank is more probable than that begins no character
UNLIKELY = 1e-3  # classes of a column below this fraction of its best one are ignored
NEGLIGIBLE = 1e-5  # new texts with less than this fraction of the best text's mass are dropped
ROOT = 0  # the empty text


class LanguageScorer(Protocol):
    """The search's interface to a language model, which adds alpha log P + beta, in nats."""

    @property
    def most(self) -> float:
        """Upper bound on the score of a character."""

    def start(self) -> object: ...

    def extend(self, state: object, class_id: int) -> tuple[float, object]:
        """The score of one more character, and the state after it."""

    def end(self, state: object) -> float:
        """The score of the end of the text."""


class Grammar(Protocol):
    """Which texts are allowed, as an automaton over classes."""

    def start(self) -> int: ...

    def step(self, state: int, class_id: int) -> int | None:
        """The state after one more character; None if no allowed text has this prefix."""

    def complete(self, state: int) -> bool:
        """Whether a text may end here."""


@dataclass(frozen=True)
class Hypothesis:
    """A text: class `ids`, and `score` in nats (of the columns and, if there is one, the language model)."""

    ids: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Search:
    """The result of a search: texts, the best first, and for each character of the best one its share.

    shares: in [0, 1], the share of the beam's mass that agreed on it when the next one began, given those before
    """

    hypotheses: list[Hypothesis]
    shares: list[float]


class _Tree:
    """The prefix tree of texts seen so far: for each node its parent, last class, factor and states."""

    def __init__(self, language: LanguageScorer | None, grammar: Grammar | None) -> None:
        self.language, self.grammar = language, grammar
        self.negligible = 0.0 if grammar else NEGLIGIBLE  # allowed texts may be improbable
        self.most = math.inf if grammar else math.exp(language.most) if language else 1.0  # upper bound on all factors
        self.parents, self.classes, self.factors, self.entries = [ROOT], [-1], [1.0], [0]
        self.language_states = [language.start() if language else None]
        self.grammar_states = [grammar.start() if grammar else 0]
        self.children: dict[tuple[int, int], int | None] = {}

    def grow(self, node: int, class_id: int) -> int | None:
        """The node for `node`'s text plus one character; None if the grammar forbids it."""
        grammar_state = 0
        if self.grammar:
            after = self.grammar.step(self.grammar_states[node], class_id)
            if after is None:
                self.children[node, class_id] = None
                return None
            grammar_state = after
        factor, language_state = 1.0, None
        if self.language:
            added, language_state = self.language.extend(self.language_states[node], class_id)
            factor = math.exp(added)
        child = self.children[node, class_id] = len(self.parents)
        self.parents.append(node)
        self.classes.append(class_id)
        self.factors.append(factor)
        self.entries.append(0)
        self.language_states.append(language_state)
        self.grammar_states.append(grammar_state)
        return child

    def path(self, node: int) -> list[int]:
        """The nodes from the first character to `node`."""
        found = []
        while node != ROOT:
            found.append(node)
            node = self.parents[node]
        return found[::-1]


Beam = dict[int, tuple[float, float]]  # of each node the mass ending in a blank, and in its last class
Grown = dict[int, tuple[float, float, float, float]]  # total mass, and its parts: ending in a blank, kept, new
_MASSES = itemgetter(1)


def beam_search(
    ids: np.ndarray,
    log_probs: np.ndarray,
    width: int = WIDTH,
    language: LanguageScorer | None = None,
    grammar: Grammar | None = None,
) -> Search:
    """The at most `width` texts with the greatest mass; none if no allowed text could be reached.

    Args:
        ids: int (T, 1 + k), classes of each column, the blank first and the others by descending log-probability.
        log_probs: float (T, 1 + k), their log-probabilities in nats; -inf for padding.
        width: number of texts kept after each column.
        language: language model that scores each character.
        grammar: the texts allowed; None allows all.
    """
    tree = _Tree(language, grammar)
    beam: Beam = {ROOT: (1.0, 0.0)}
    scale, history = 0.0, []  # of each column that was not quiet: the column, and the beam after it
    unlikely = 0.0 if grammar else UNLIKELY
    for column, blank, classes in _steps(ids, log_probs, unlikely):
        if classes is None:  # quiet columns: all mass now ends in a blank
            beam = {node: (ends_blank + ends_class, 0.0) for node, (ends_blank, ends_class) in beam.items()}
            scale += blank
            continue
        beam, top = _pruned(_grown(beam, blank, classes, tree, width), width, tree, column)
        if not beam:
            return Search([], [])
        scale += math.log(top)
        history.append((column, beam))
    return _finished(beam, scale, history, tree)


def _steps(
    ids: np.ndarray, log_probs: np.ndarray, unlikely: float
) -> Iterator[tuple[int, float, list[tuple[int, float]] | None]]:
    """For each column that matters: its index, the blank's probability, the likely classes.

    Likely are those above `unlikely`, relative to the best class. A run of quiet columns is one step, with the
    log-probability of its blanks, and None.
    """
    quiet = log_probs[:, 0] > math.log(QUIET)
    probs = np.exp(log_probs.astype(np.float64))
    likely = probs[:, 1:] > unlikely * probs.max(-1, keepdims=True)
    counts = likely.sum(-1).tolist()
    rows = zip(quiet.tolist(), probs[:, 0].tolist(), ids[:, 1:].tolist(), probs[:, 1:].tolist(), counts)
    silent: list[float] = []  # log-probabilities of a run's blanks; each may be zero in float32
    for column, (is_quiet, blank, classes, own, count) in enumerate(rows):
        if is_quiet:
            silent.append(float(log_probs[column, 0]))
            continue
        if silent:
            yield column, sum(silent), None
            silent = []
        yield column, blank, list(zip(classes[:count], own[:count]))
    if silent:
        yield len(quiet), sum(silent), None


def _grown(beam: Beam, blank: float, classes: list[tuple[int, float]], tree: _Tree, width: int) -> Grown:
    """The beam after one more column: its texts, including mass from their parents in the beam, and new children.

    A child whose mass cannot be among the `width` greatest is dropped before the language model is queried for it.
    """
    grown = _kept(beam, blank, dict(classes), tree)
    last_classes, factors, children = tree.classes, tree.factors, tree.children
    negligible, most = tree.negligible, tree.most
    greatest = [0.0] * (width - len(grown)) + sorted([masses[0] for masses in grown.values()])[-width:]  # a heap
    floor = max(negligible, greatest[0] / most)
    for node, (ends_blank, ends_class) in beam.items():
        total, last = ends_blank + ends_class, last_classes[node]
        for class_id, probability in classes:
            mass = total * probability
            if mass <= floor:  # the remaining classes are less probable
                break
            if class_id == last:
                mass = ends_blank * probability  # equal neighbours need a blank in between
                if mass <= floor:
                    continue
            key = (node, class_id)
            child = children[key] if key in children else tree.grow(node, class_id)
            if child is None or child in beam:
                continue
            mass *= factors[child]
            grown[child] = mass, 0.0, 0.0, mass
            if mass > greatest[0]:
                heapreplace(greatest, mass)
                if greatest[0] > floor * most:
                    floor = greatest[0] / most
    return grown


def _kept(beam: Beam, blank: float, probabilities: dict[int, float], tree: _Tree) -> Grown:
    """The texts of a beam after one more column, including the mass from those of their parents in the beam."""
    last_classes, parents, factors, negligible = tree.classes, tree.parents, tree.factors, tree.negligible
    kept: Grown = {}
    for node, (ends_blank, ends_class) in beam.items():
        last = last_classes[node]
        blanks = (ends_blank + ends_class) * blank
        if last not in probabilities:
            kept[node] = blanks, blanks, 0.0, 0.0
            continue
        parent, probability, new = parents[node], probabilities[last], 0.0
        stays = ends_class * probability
        if parent in beam:
            mass, of_class = beam[parent]
            if last_classes[parent] != last:
                mass += of_class
            mass *= probability
            if mass > negligible:
                new = mass * factors[node]
        kept[node] = blanks + stays + new, blanks, stays, new
    return kept


def _pruned(grown: Grown, width: int, tree: _Tree, column: int) -> tuple[Beam, float]:
    """The `width` texts with the greatest mass, relative to the first's, and that mass; no text if it is 0.

    With a grammar, up to `width` further complete texts are kept as well.
    """
    ranked = sorted(grown.items(), key=_MASSES, reverse=True)
    kept = ranked[:width]
    if tree.grammar:
        kept += [one for one in ranked[width:] if tree.grammar.complete(tree.grammar_states[one[0]])][:width]
    entries, top, beam = tree.entries, kept[0][1][0], {}
    if top == 0:  # every allowed text is too improbable for a float
        return {}, top
    for node, (_, ends_blank, stays, new) in kept:
        if new > ends_blank + stays:
            entries[node] = column
        beam[node] = ends_blank / top, (stays + new) / top
    return beam, top


def _finished(beam: Beam, scale: float, history: list[tuple[int, Beam]], tree: _Tree) -> Search:
    found = []
    for node, (ends_blank, ends_class) in beam.items():
        mass = ends_blank + ends_class
        if mass <= 0 or (tree.grammar and not tree.grammar.complete(tree.grammar_states[node])):
            continue
        score = scale + math.log(mass)
        if tree.language:
            score += tree.language.end(tree.language_states[node])
        found.append((score, node))
    if not found:
        return Search([], [])
    found.sort(reverse=True)
    paths = [tree.path(node) for _, node in found]
    hypotheses = [
        Hypothesis(tuple(tree.classes[node] for node in path), score) for path, (score, _) in zip(paths, found)
    ]
    return Search(hypotheses, _shares(paths[0], history, tree))


def _shares(path: list[int], history: list[tuple[int, Beam]], tree: _Tree) -> list[float]:
    """The share of the beam that agreed on each character of `path` when the next one began, given those before."""
    at = {column: index for index, (column, _) in enumerate(history)}
    entries = [tree.entries[node] for node in path]  # the column where most of the mass of each began
    shares = []
    for place, node in enumerate(path):
        decided = at[entries[place + 1]] - 1 if place + 1 < len(path) else len(history) - 1
        decided = max(decided, at[entries[place]])
        before, agreed = 0.0, 0.0
        for other, (ends_blank, ends_class) in history[decided][1].items():
            lineage = _lineage(other, tree.parents[node], node, tree)
            before += (ends_blank + ends_class) * (lineage > 0)
            agreed += (ends_blank + ends_class) * (lineage > 1)
        shares.append(agreed / before if before else 0.0)
    return shares


def _lineage(other: int, parent: int, node: int, tree: _Tree) -> int:
    """2 if the text of `other` begins with that of `node`, 1 if only with that of its `parent`, else 0."""
    while other > node:  # a child has a higher number than its parent
        other = tree.parents[other]
    if other == node:
        return 2
    while other > parent:
        other = tree.parents[other]
    return int(other == parent)
