"""Decoding of columns with the options of a caller: n best texts, a language model, constraints."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import DecoderConfig
from ..ctc import collapse
from ..errors import ConfigurationError
from ..vocab import Vocabulary
from .alignment import align
from .beam import WIDTH, Grammar, Hypothesis, LanguageScorer, Search, beam_search
from .candidates import Candidates, Wanted
from .constraints import Lexicon, WordsGrammar, allowed_classes, check_mode
from .entries import NO_TEXT, best_entries, log_probabilities


@dataclass(frozen=True)
class Decoded:
    """The texts of a line, the best first, and for each character of the best its confidence and its columns.

    The score of a hypothesis is its log-probability: the network's P(text | image), conditioned on the allowed
    characters; with a language model or a lexicon, normalised over the texts that were compared.
    """

    hypotheses: tuple[Hypothesis, ...]
    shares: tuple[float, ...]  # in [0, 1]
    spans: tuple[tuple[int, int], ...]  # columns, first (inclusive) and last (exclusive)


@dataclass(frozen=True)
class Decoder:
    """Decodes lines with fixed options."""

    wanted: Wanted  # from the backend
    width: int = WIDTH
    n_best: int = 1
    language: LanguageScorer | None = None
    grammar: Grammar | None = None
    lexicon: Lexicon | None = None  # of which the line is one entry

    def decode(self, columns: Candidates) -> Decoded:
        """At most `n_best` texts, the best first.

        If no allowed text fits into the columns, the result is the empty text with the score IMPOSSIBLE.
        """
        if self.lexicon:
            found = best_entries(columns, self.lexicon, self.n_best, self.language)
        elif self.language or self.grammar:
            found = _normalised(beam_search(*columns, max(self.width, self.n_best), self.language, self.grammar))
        else:
            found = plain_search(columns, max(self.width, self.n_best))
        spans = align(found.hypotheses[0].ids, columns)
        return Decoded(tuple(found.hypotheses[: self.n_best]), tuple(found.shares), tuple(spans))


def _normalised(found: Search) -> Search:
    """The hypotheses with log-probabilities normalised over them."""
    if not found.hypotheses:  # the prefix of a word left every allowed text too little mass for a float
        return NO_TEXT
    whole = float(np.logaddexp.reduce([one.score for one in found.hypotheses]))
    return Search([Hypothesis(one.ids, one.score - whole) for one in found.hypotheses], found.shares)


def plain_search(columns: Candidates, width: int) -> Search:
    """The most probable texts by the columns alone; a search of width 1 is the best path.

    A beam may drop the best text, so its result is compared with the best path's text, both scored exactly: the first
    text is never less probable than that one. If the best path's wins, its characters' confidences are used as well.
    """
    runs = collapse(*columns.best_path())
    path = tuple(run.id for run in runs)
    beam = beam_search(*columns, width) if width > 1 else Search([], [])
    texts = [path, *(one.ids for one in beam.hypotheses[:1])]
    if texts[-1] == path and beam.hypotheses:
        return beam
    scores = log_probabilities(columns, Lexicon.of(texts))
    if scores.argmax():
        return beam
    others = [one for one in beam.hypotheses if one.ids != path]
    return Search([Hypothesis(path, float(scores[0])), *others][:width], [run.score for run in runs])


class Decoding:
    """Creates decoders for one vocabulary, and one language model or none."""

    def __init__(
        self, vocabulary: Vocabulary, language: LanguageScorer | None = None, beam_width: int | None = None
    ) -> None:
        """beam_width: texts kept after each column; None uses the best path unless something else is requested."""
        self.vocabulary, self.language, self.beam_width = vocabulary, language, beam_width
        self._last: tuple[Any, Decoder] | None = None

    def decoder(
        self,
        n_best: int = 1,
        allowed: Iterable[str] | None = None,
        lexicon: "str | os.PathLike[str] | Iterable[str] | None" = None,
        lexicon_mode: str = "line",
    ) -> Decoder | None:
        """The decoder for these options, which are those of `Recognizer.read`; None means the best path.

        The decoder of the last call is reused if the options are the same.

        Raises:
            ConfigurationError: `n_best` or `lexicon_mode` has an invalid value.
            LexiconError: no text is possible under `allowed` and `lexicon`.
        """
        if n_best < 1:
            raise ConfigurationError(f"n_best is {n_best}; at least 1 expected")
        check_mode(lexicon_mode, lexicon is not None)
        narrow = n_best == 1 and (self.beam_width or 1) == 1
        if narrow and self.language is None and allowed is None and lexicon is None:
            return None
        allowed = None if allowed is None else "".join(allowed)
        if lexicon is not None and not isinstance(lexicon, (str, os.PathLike)):
            lexicon = tuple(lexicon)
        asked = n_best, allowed, lexicon, _changed(lexicon), lexicon_mode
        last = self._last  # another thread may replace it at any time
        if last is None or last[0] != asked:
            loaded = None if lexicon is None else Lexicon.load(lexicon, self.vocabulary)
            last = self._last = asked, self._make(n_best, allowed, loaded, lexicon_mode)
        return last[1]

    def _make(self, n_best: int, allowed: str | None, lexicon: Lexicon | None, mode: str) -> Decoder:
        width = self.beam_width or WIDTH
        classes = None if allowed is None else allowed_classes(allowed, self.vocabulary)
        if lexicon is None:
            return Decoder(Wanted(classes=classes), width, n_best, self.language)
        if classes is not None:
            lexicon = lexicon.within(classes)
        if mode == "line":
            return Decoder(Wanted(len(lexicon.classes), lexicon.classes), width, n_best, self.language, lexicon=lexicon)
        grammar = WordsGrammar(lexicon, self.vocabulary)
        classes = tuple(one for one in grammar.classes if classes is None or one in classes)
        return Decoder(Wanted(classes=classes), width, n_best, self.language, grammar)


def _changed(lexicon: object) -> int | None:
    """Modification time of a lexicon file in nanoseconds; None if it is not a file, or does not exist."""
    try:
        return os.stat(lexicon).st_mtime_ns if isinstance(lexicon, (str, os.PathLike)) else None
    except OSError:
        return None


def open_decoding(
    vocabulary: Vocabulary, config: DecoderConfig, language_model: str | os.PathLike[str] | None
) -> Decoding:
    """Set up decoding with `language_model`, or if None with the configuration's, if any.

    Raises LanguageModelError.
    """
    path = config.language_model if language_model is None else language_model
    if path is None:
        return Decoding(vocabulary, beam_width=config.beam_width)
    from .language_model import LanguageModel

    model = LanguageModel(path)
    weights = model.weights
    if language_model is None or config.language_model is None:  # else those weights are for its own model
        weights = weights.but(config.alpha, config.beta)
    return Decoding(vocabulary, model.scorer(vocabulary, weights), config.beam_width)
