"""The vocabulary: vocab.txt <-> class ids of the network, and the folding of full-width forms.

A vocab.txt holds one character per line. The first line has id 2 with ConvNextViT, or another id that depends on the
recogniser: id 0 is the CTC blank, ids in between are unused. A line with one space is the space. Empty lines keep
their id but stand for no character; the official file ends with two of them, so a ConvNextViT's ids run to 7644 while
the head has 7,644 classes (0 to 7643).

Source of the format: ModelScope `models/cv/ocr_recognition/model.py` (`labelMapping`, `charMapping`).
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .atomic import naming_what_cannot_be_written, write_atomically
from .errors import LabelError, VocabularyError
from .files import read_regular

MOST_BYTES = 8 * 2**20  # of a vocab.txt: all of Unicode takes 5.6 MB

_SHOWN = 8  # code points of an entry that is too long, in messages
_FULL_WIDTH_SHIFT = 0xFEE0
# U+FF00 is unassigned; it is folded to a space because upstream does so.
_FOLDED = {0x3000: " "} | {code: chr(code - _FULL_WIDTH_SHIFT) for code in range(0xFF00, 0xFF5F)}


def fold_full_width(text: str) -> str:
    """Convert full-width forms to half-width ones: U+3000 to a space, U+FF01-FF5E minus 0xFEE0.

    Labels are folded this way before they are encoded, in training and evaluation alike.
    Source: `Q2B` of ModelScope `msdatasets/dataset_cls/custom_datasets/ocr_recognition_dataset.py`.

    >>> fold_full_width("ＡＢ　１２！")
    'AB 12!'
    """
    return text.translate(_FOLDED)


@dataclass(frozen=True)
class Vocabulary:
    """The characters that a network knows, by id. Immutable; `grow` and `load` return new ones.

    `characters` holds the lines of vocab.txt in order, '' for an empty line; `characters[i]` has id `i + first_id`.
    Raises VocabularyError if an entry is longer than one code point, is a line break, or occurs twice.

    >>> vocabulary = Vocabulary(("一", "a", " "))
    >>> vocabulary.encode("a 一"), vocabulary.decode([3, 0, 2])
    ([3, 4, 2], 'a一')
    >>> vocabulary.grow("ba").characters, vocabulary.unknown("abc")
    (('一', 'a', ' ', 'b'), ['b', 'c'])
    """

    characters: tuple[str, ...]
    first_id: int = 2  # class of the first line
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    BLANK = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "characters", tuple(self.characters))
        object.__setattr__(self, "_ids", _ids_by_character(self.characters, self.first_id))

    @classmethod
    def load(cls, path: str | os.PathLike, first_id: int = 2) -> "Vocabulary":
        """Load the vocabulary of the file `path`: UTF-8, one character per line, the first of class `first_id`.

        Raises VocabularyError if the file is missing, not UTF-8, or holds a carriage return or an invalid entry; the
        message names the path and the line.
        """
        text = _read_text(path)
        if "\r" in text:
            line = text.count("\n", 0, text.index("\r")) + 1
            raise VocabularyError(
                f"{path}: line {line} holds a carriage return (Windows line endings?); "
                "save the file with Unix line endings (\\n), for instance with dos2unix"
            )
        lines = text.split("\n")
        if lines[-1] == "":  # nothing follows the last line end
            lines.pop()
        try:
            return cls(tuple(lines), first_id)
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write vocab.txt atomically, so that `load` returns an equal vocabulary.

        An existing file with the same content is left alone. Raises VocabularyError if it holds another vocabulary,
        OutputError if the file cannot be written.
        """
        path, data = Path(path), self.text.encode("utf-8")
        with naming_what_cannot_be_written(path):
            if path.exists():
                if path.read_bytes() == data:
                    return
                raise VocabularyError(
                    f"{path}: exists and holds another vocabulary; choose another path, or move that file away first"
                )
            write_atomically(path, data)

    @property
    def text(self) -> str:
        """The content of vocab.txt: one character per line."""
        return "".join(f"{character}\n" for character in self.characters)

    def __len__(self) -> int:
        """Number of lines, empty ones included; ids run from first_id to first_id + len - 1."""
        return len(self.characters)

    @property
    def classes(self) -> int:
        """Minimum number of classes of a head that covers every character: the highest id in use plus 1."""
        return max(self._ids.values()) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of `text`, one each, without folding; see `fold_full_width`.

        Raises LabelError naming the unknown characters, their code points and their positions (from 0).
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            raise LabelError(self._unknown_message(text)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Characters of `ids`, joined; blank and unused ids are skipped. No CTC collapse: see `ctc`.

        Raises VocabularyError as `character` does.
        """
        return "".join(map(self.character, ids))

    def character(self, id: int) -> str:
        """Character of class `id`; '' for the blank, empty lines, and classes before the first or beyond the last.

        A head may have more classes than the vocabulary has lines, as upstream's does. Raises VocabularyError if
        `id` is negative.
        """
        if id < 0:
            raise VocabularyError(f"class {id} does not exist; ids of classes begin at 0")
        index = id - self.first_id
        return self.characters[index] if 0 <= index < len(self) else ""

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that the vocabulary lacks, each once, in order of appearance."""
        return [character for character in dict.fromkeys(text) if character not in self._ids]

    def grow(self, characters: Iterable[str]) -> "Vocabulary":
        """A vocabulary with `characters` appended; existing ids do not change.

        Characters already known are not added again. The new ones are added in code point order, so that every process
        that grows by the same set gets the same ids. Raises VocabularyError if one is not a valid entry.
        """
        new = sorted(set(characters) - self._ids.keys())
        for character in new:
            _check_entry(character, f"new character {character!r}")
            if character == "":
                raise VocabularyError("an empty string cannot be added to the vocabulary; give single characters")
        return Vocabulary(self.characters + tuple(new), self.first_id)

    def check_head(self, num_classes: int) -> None:
        """Raise VocabularyError if a character's id lies outside a head of `num_classes` classes.

        Empty lines may lie outside. A larger head is accepted: upstream's has 7,644 classes whatever the vocabulary.
        """
        outside = [character for character, id in self._ids.items() if id >= num_classes]
        if outside:
            raise VocabularyError(
                f"the vocabulary needs {self.classes} classes but the head has {num_classes}: "
                f"{len(outside)} characters lie outside, the first is {described(outside[0])}; "
                "use the vocab.txt that the network was trained with, or grow the head with the vocabulary"
            )

    def _unknown_message(self, text: str) -> str:
        parts = []
        for unknown in self.unknown(text):
            positions = [str(i) for i, character in enumerate(text) if character == unknown]
            word = "position" if len(positions) == 1 else "positions"
            parts.append(f"{described(unknown)} at {word} {', '.join(positions)}")
        return (
            f"label {text!r} holds characters outside the vocabulary: {'; '.join(parts)}; "
            "correct the label, drop the sample, or grow the vocabulary"
        )


def _ids_by_character(characters: Sequence[str], first_id: int) -> dict[str, int]:
    ids: dict[str, int] = {}
    for index, character in enumerate(characters):
        _check_entry(character, f"line {index + 1}")
        if character in ids:
            raise VocabularyError(
                f"lines {ids[character] - first_id + 1} and {index + 1} both hold {described(character)}; "
                "empty the one that the network does not use; do not remove the line, as later ids depend on it"
            )
        if character:
            ids[character] = first_id + index
    if not ids:
        raise VocabularyError("holds no character; expected one character a line")
    return ids


def _check_entry(character: str, where: str) -> None:
    """Raise VocabularyError unless `character` can be a line of vocab.txt: at most one code point, no line break."""
    if len(character) > 1:
        raise VocabularyError(
            f"{where} holds {len(character)} code points ({_code_points(character)}) where one is expected; "
            "a label is encoded character by character, so that entry could never be used: split it, "
            "and save the file without a byte order mark"
        )
    if character in ("\n", "\r") or "\ud800" <= character <= "\udfff":
        raise VocabularyError(f"{where} is {_code_points(character)}, which a line of vocab.txt cannot hold; remove it")


def described(characters: Iterable[str]) -> str:
    """Characters formatted for messages.

    >>> described("aŋ")
    "'a' (U+0061), 'ŋ' (U+014B)"
    """
    return ", ".join(f"{character!r} ({_code_points(character)})" for character in characters)


def _code_points(text: str) -> str:
    rest = " ..." if len(text) > _SHOWN else ""
    return " ".join(f"U+{ord(character):04X}" for character in text[:_SHOWN]) + rest


def _read_text(path: str | os.PathLike) -> str:
    try:
        content = read_regular(path, MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise VocabularyError(f"{path}: over {MOST_BYTES} bytes, more than all characters need; name another file")
        return content.decode("utf-8")
    except OSError as error:
        raise VocabularyError(
            f"{path}: cannot be read ({error.strerror or error}); a model folder holds its vocab.txt beside its weights"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise VocabularyError(f"{path}: line {line} is not UTF-8; convert the file to UTF-8") from None
    except ValueError as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(f"{path!r}: not a path ({error})") from error
