"""Character n-gram models in KenLM's formats (ARPA, gzipped ARPA or binary), queried through `ufal.kenlm`.

Heafield, "KenLM: Faster and Smaller Language Model Queries", WMT 2011.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..errors import LanguageModelError
from ..vocab import Vocabulary, fold_full_width
from .ngrams import END, SPACE, token_of

logger = logging.getLogger(__name__)

NATS = math.log(10)  # nats per log10 unit, which KenLM uses
LEAST = -3.5  # log10, lower bound of a probability: a small model knows too little about rarer characters
GREATEST_LACK = 0.5  # share of the recogniser's characters that a model may lack
ALPHA, BETA = 0.5, 1.5  # defaults without tuning


@dataclass(frozen=True)
class Weights:
    """Weights of a language model: log P(columns) + alpha log P(text) + beta |text|, in nats."""

    alpha: float = ALPHA
    beta: float = BETA

    def but(self, alpha: float | None, beta: float | None) -> "Weights":
        """A copy with the values that are not None replaced."""
        return Weights(self.alpha if alpha is None else alpha, self.beta if beta is None else beta)


class LanguageModel:
    """A character n-gram model."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises LanguageModelError, naming the file, if it is missing, truncated or not a language model."""
        self.path = os.fspath(path)
        self._model, self._state = _load(self.path), _kenlm().State

    @property
    def weights(self) -> Weights:
        """The weights stored beside the model by `save_weights`, else the defaults. Raises LanguageModelError."""
        path = weights_file(self.path)
        if not path.exists():
            return Weights()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return Weights(float(found["alpha"]), float(found["beta"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LanguageModelError(
                f"{path}: not readable as weights ({type(error).__name__}: {error}); "
                'an object with "alpha" and "beta" is expected: remove it, or run `ms-ocr lm tune` again'
            ) from error

    @property
    def order(self) -> int:
        return self._model.order

    def __contains__(self, character: str) -> bool:
        return token_of(character) in self._model

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return LanguageModel, (self.path,)

    def log_prob(self, text: str) -> float:
        """Natural logarithm of the probability of a text, including its end. Full-width forms are folded."""
        return self._model.score(" ".join(map(token_of, fold_full_width(text)))) * NATS

    def perplexity(self, lines: Iterable[str]) -> "Perplexity":
        """Perplexity of lines of text, counting the end of each as a character."""
        found = Perplexity(0, 0, 0, 0.0)
        for line in lines:
            tokens = [token_of(character) for character in fold_full_width(line)]
            scores = list(self._model.full_scores(" ".join(tokens)))
            found = replace(
                found,
                lines=found.lines + 1,
                characters=found.characters + len(tokens),
                unknown=found.unknown + sum(unknown for _, _, unknown in scores),
                log_prob=found.log_prob + NATS * sum(score for score, _, _ in scores),
            )
        return found

    def scorer(self, vocabulary: Vocabulary, weights: Weights) -> "Scorer":
        """A scorer for the beam search. Raises LanguageModelError if the model lacks most of the vocabulary."""
        characters = [character for character in vocabulary.characters if character]
        lacking = [character for character in characters if character not in self]
        share = len(lacking) / len(characters)
        if share > GREATEST_LACK:
            raise LanguageModelError(
                f"{self.path}: lacks {share:.0%} of the recogniser's characters ({_some(lacking)}), so it was made for "
                "another vocabulary, or of words; make one with `ms-ocr lm build --vocab vocab.txt`, the recogniser's"
            )
        if lacking:
            logger.warning(
                "%s: lacks %d of the recogniser's %d characters (%s)",
                self.path,
                len(lacking),
                len(characters),
                _some(lacking),
            )
        tokens = [""] * vocabulary.first_id + [token_of(character) for character in vocabulary.characters]
        return Scorer(self._model, self._state, tokens, weights)


def weights_file(model: str | os.PathLike[str]) -> Path:
    """The file with the weights of a language model: beside it, with .json appended to its name."""
    return Path(f"{os.fspath(model)}.json")


def save_weights(model: str | os.PathLike[str], weights: Weights) -> Path:
    """Store weights beside a language model. Raises OutputError."""
    path = weights_file(model)
    write_atomically(path, (json.dumps(asdict(weights)) + "\n").encode("utf-8"))
    return path


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts lines of text."""

    lines: int
    characters: int
    unknown: int  # characters that the model lacks
    log_prob: float  # nats, of all characters and line ends

    @property
    def value(self) -> float:
        return math.exp(-self.log_prob / (self.characters + self.lines)) if self.lines else math.nan


class Scorer:
    """A weighted language model over the classes of a recogniser."""

    def __init__(self, model: Any, state: Any, tokens: Sequence[str], weights: Weights) -> None:
        self._score, self._state, self._tokens = model.BaseScore, state, tokens
        self._alpha, self._beta = weights.alpha * NATS, weights.beta
        self._begin = state()
        model.BeginSentenceWrite(self._begin)

    @property
    def most(self) -> float:
        """Upper bound on the score of a character, in nats."""
        return max(0.0, self._alpha * LEAST) + self._beta

    def start(self) -> object:
        return self._begin

    def extend(self, state: object, class_id: int) -> tuple[float, object]:
        """The score of one more character, in nats, and the state after it."""
        after = self._state()
        score = self._score(state, self._tokens[class_id], after)
        return self._alpha * max(score, LEAST) + self._beta, after

    def end(self, state: object) -> float:
        """The score of the end of the text, in nats."""
        return self._alpha * max(self._score(state, END, self._state()), LEAST)


def _kenlm() -> Any:
    try:
        import kenlm
    except ImportError:
        raise LanguageModelError(
            "language models need the package ufal.kenlm; `pip install ms_ocr_handwritten[lm]`"
        ) from None
    return kenlm


def _load(path: str) -> Any:
    kenlm = _kenlm()
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    if not os.path.isfile(path):
        raise LanguageModelError(f"{path}: no such file; make a language model with `ms-ocr lm build`")
    try:
        return kenlm.Model(path, config)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise LanguageModelError(
            f"{path}: not readable as a language model ({reason}); it may be truncated, so make or copy it again"
        ) from error


def _some(characters: Sequence[str], most: int = 8) -> str:
    shown = " ".join("SPACE" if token_of(one) == SPACE else one for one in characters[:most])
    return shown + (" ..." if len(characters) > most else "")
