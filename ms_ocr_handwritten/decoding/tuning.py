"""Tuning the weights of a language model on labelled lines, whose columns are computed once."""

from collections.abc import Callable, Iterable, Sequence

from ..metrics import Counts
from ..vocab import Vocabulary, fold_full_width
from .beam import WIDTH, beam_search
from .candidates import Candidates
from .language_model import LanguageModel, Weights

ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)
BETAS = (0.0, 1.0, 2.0, 3.0)
FINER_ALPHA, FINER_BETA = 0.1, 0.5  # steps around the best of those

Lines = Sequence[tuple[Candidates, str]]  # columns and label


def tune(
    lines: Lines,
    vocabulary: Vocabulary,
    model: LanguageModel,
    width: int = WIDTH,
    on_tried: Callable[[Weights, Counts], None] = lambda weights, counts: None,
) -> tuple[Weights, Counts]:
    """The weights with the fewest errors, the smaller ones among equals, and those errors.

    It tries a coarse grid, then finer steps around its best. `on_tried` is called with each one's weights and errors.
    """
    tried: dict[Weights, Counts] = {}

    def best_of(candidates: Iterable[Weights]) -> Weights:
        for weights in candidates:
            if weights not in tried and weights.alpha >= 0:
                tried[weights] = errors(lines, vocabulary, model, weights, width)
                on_tried(weights, tried[weights])
        return min(tried, key=lambda one: (tried[one].errors, one.alpha, abs(one.beta)))

    coarse = best_of(Weights(alpha, beta) for alpha in ALPHAS for beta in BETAS)
    found = best_of(
        Weights(round(coarse.alpha + a * FINER_ALPHA, 6), coarse.beta + b * FINER_BETA)
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
    )
    return found, tried[found]


def errors(lines: Lines, vocabulary: Vocabulary, model: LanguageModel, weights: Weights, width: int) -> Counts:
    """Errors of the texts read with these weights against their labels, both folded."""
    scorer, counts = model.scorer(vocabulary, weights), Counts()
    for columns, label in lines:
        best = beam_search(*columns, width, scorer).hypotheses[0]
        counts.add(fold_full_width(vocabulary.decode(best.ids)), fold_full_width(label))
    return counts
