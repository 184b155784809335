"""Constraints on what may be read: a set of characters, the entries of a lexicon, or sequences of entries."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError, LexiconError
from ..vocab import Vocabulary, described, fold_full_width

MODES = ("line", "words")
FIRST_CJK = "\u2e80"  # from here on characters need no space between words
ROOT = 0


def allowed_classes(allowed: Iterable[str], vocabulary: Vocabulary) -> tuple[int, ...]:
    """Classes of the allowed characters, ascending. Raises LexiconError if there is none, or one is unknown."""
    characters = dict.fromkeys(fold_full_width("".join(allowed)))
    if not characters:
        raise LexiconError("allowed is empty; give the characters that may be read, such as '0123456789'")
    unknown = vocabulary.unknown("".join(characters))
    if unknown:
        raise LexiconError(f"allowed holds {described(unknown)}, which the vocabulary lacks; leave them out")
    return tuple(sorted(vocabulary.encode("".join(characters))))


@dataclass(frozen=True)
class Lexicon:
    """Entries as a prefix tree: each node is a prefix of some entry, ROOT of all; a child comes after its parent."""

    entries: tuple[tuple[int, ...], ...]  # classes
    parents: tuple[int, ...]  # of each node; ROOT's is itself
    node_classes: tuple[int, ...]  # the last class of each node; -1 of ROOT
    children: dict[tuple[int, int], int]  # node and class to node
    ends: tuple[int, ...]  # the node of each entry

    @classmethod
    def load(cls, source: "str | os.PathLike[str] | Iterable[str]", vocabulary: Vocabulary) -> "Lexicon":
        """Load a lexicon from a file (UTF-8, one entry per line) or strings; skips empty lines, folds full-width forms.

        Raises LexiconError, naming file and line, if there is no entry or one has characters that the vocabulary
        lacks.
        """
        name, lines = _lines(source)
        entries: dict[tuple[int, ...], None] = {}
        for number, line in enumerate(lines, 1):
            entry = fold_full_width(line.strip("\r\n"))
            if not entry.strip():
                continue
            unknown = vocabulary.unknown(entry)
            if unknown:
                raise LexiconError(
                    f"{name}: line {number}: {entry!r} holds {described(unknown)}, which the vocabulary lacks; such an "
                    "entry can never be read: correct or remove it"
                )
            entries[tuple(vocabulary.encode(entry))] = None
        if not entries:
            raise LexiconError(f"{name}: holds no entry; give one per line")
        return cls.of(entries)

    @classmethod
    def of(cls, entries: Iterable[tuple[int, ...]]) -> "Lexicon":
        parents, node_classes, ends = [ROOT], [-1], []
        children: dict[tuple[int, int], int] = {}
        kept = tuple(entries)
        for entry in kept:
            node = ROOT
            for class_id in entry:
                child = children.setdefault((node, class_id), len(parents))
                if child == len(parents):
                    parents.append(node)
                    node_classes.append(class_id)
                node = child
            ends.append(node)
        return cls(kept, tuple(parents), tuple(node_classes), children, tuple(ends))

    def within(self, classes: Iterable[int]) -> "Lexicon":
        """The entries that consist only of these classes. Raises LexiconError if there is none."""
        allowed = set(classes)
        kept = [entry for entry in self.entries if allowed.issuperset(entry)]
        if not kept:
            raise LexiconError("no entry of the lexicon consists of allowed characters; leave out one of the two")
        return Lexicon.of(kept)

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes of its entries, ascending."""
        return tuple(sorted(set(self.node_classes[1:])))


class WordsGrammar:
    """Accepts sequences of entries, or nothing. Two entries that meet as letters or digits need a space in between;
    beside Chinese characters and punctuation it is optional.

    A text may be split into entries in several ways ("ab" "cd" or "abc" "d"), so a state stands for a set of nodes.
    """

    def __init__(self, lexicon: Lexicon, vocabulary: Vocabulary) -> None:
        self._children, self._classes = lexicon.children, lexicon.node_classes
        self._ends = frozenset(lexicon.ends)
        self._space = vocabulary.encode(" ")[0] if not vocabulary.unknown(" ") else None
        self._spaced = [_needs_space(vocabulary.character(max(one, 0))) for one in lexicon.node_classes]
        self._after_space = len(lexicon.parents)  # a separate node, since the text must not end there
        self._lock = threading.Lock()  # guards the states, as threads may share a recogniser
        self._sets: list[frozenset[int]] = [frozenset({ROOT})]
        self._states = {self._sets[0]: 0}
        self._steps: dict[tuple[int, int], int | None] = {}

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes that a text may hold, ascending."""
        space = set() if self._space is None else {self._space}
        return tuple(sorted(set(self._classes[1:]) | space))

    def start(self) -> int:
        return 0

    def step(self, state: int, class_id: int) -> int | None:
        """The state after one more character; None if no sequence has this prefix."""
        if (state, class_id) not in self._steps:
            nodes = frozenset(after for node in self._sets[state] for after in self._behind(node, class_id))
            with self._lock:
                if nodes and nodes not in self._states:
                    self._states[nodes] = len(self._sets)
                    self._sets.append(nodes)
            self._steps[state, class_id] = self._states[nodes] if nodes else None
        return self._steps[state, class_id]

    def complete(self, state: int) -> bool:
        return any(node == ROOT or node in self._ends for node in self._sets[state])

    def _behind(self, node: int, class_id: int) -> Iterator[int]:
        begun = self._children.get((ROOT, class_id))
        if node == self._after_space:
            node = ROOT
        elif node in self._ends:
            if class_id == self._space:
                yield self._after_space
            if begun is not None and not (self._spaced[node] and self._spaced[begun]):
                yield begun
        further = self._children.get((node, class_id))
        if further is not None:
            yield further


def check_mode(mode: str, has_lexicon: bool) -> None:
    if mode not in MODES:
        raise ConfigurationError(f"lexicon_mode is {mode!r}; one of {', '.join(map(repr, MODES))} expected")
    if mode != MODES[0] and not has_lexicon:
        raise ConfigurationError(f"lexicon_mode is {mode!r}, and there is no lexicon; give one, or leave the mode out")


def _needs_space(character: str) -> bool:
    return character.isalnum() and character < FIRST_CJK


def _lines(source: "str | os.PathLike[str] | Iterable[str]") -> tuple[str, Sequence[str]]:
    if not isinstance(source, (str, os.PathLike)):
        return "lexicon", list(source)
    path = os.fspath(source)
    try:
        return path, Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise LexiconError(f"{path}: cannot be read ({error.strerror}); a lexicon holds one entry per line") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise LexiconError(f"{path}: line {line} is not UTF-8; convert the file to UTF-8") from None
