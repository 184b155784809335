"""Faults of a label: by itself, and with respect to a vocabulary and its line."""

import unicodedata
from collections.abc import Iterator

from ..ctc import required_columns
from ..geometry import COLUMN_WIDTH, canvas_columns
from ..image import LineCanvas
from ..vocab import Vocabulary, described, fold_full_width

KINDS = {  # description of a label with the fault
    "empty-label": "without a character",
    "control-character": "with a line break or another control character",
    "spaces": "with a leading, trailing or double space",
    "decomposed": "decomposed; normalise to NFC (`ms-ocr lmdb build --normalise nfc`)",
}
_SPACES = " \u3000"  # the latter is folded to the former before training


def label_faults(label: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, readable detail) of every fault; the kinds are those of KINDS."""
    if not label.strip():
        yield "empty-label", f"the label is {label!r}"
        return
    if any(unicodedata.category(character) == "Cc" for character in label):
        yield "control-character", f"a label is one line of characters: {label!r}"
    places = []
    if label[0] in _SPACES:
        places.append("at the beginning")
    if label[-1] in _SPACES:
        places.append("at the end")
    if any(a in _SPACES and b in _SPACES for a, b in zip(label.strip(_SPACES), label.strip(_SPACES)[1:])):
        places.append("two in a row")
    if places:
        yield "spaces", f"spaces {', '.join(places)}, which are invisible: {label!r}"
    if not unicodedata.is_normalized("NFC", label):
        yield "decomposed", f"decomposed, normalise to NFC (`ms-ocr lmdb build --normalise nfc`): {label!r}"


def vocabulary_faults(label: str, vocabulary: Vocabulary, canvas: LineCanvas | None) -> Iterator[tuple[str, str]]:
    """Yield (kind, detail) of faults with respect to the vocabulary and the canvas of the line (None: unreadable).

    Kinds: `unknown-character` (after folding full-width forms); `alignment`, the label needs more columns than the
    canvas has, so it cannot be learnt; `crowded`, it needs more than the line itself covers, so that some of it
    has to fall on padding. A decomposed label is checked in NFC.
    """
    folded = fold_full_width(unicodedata.normalize("NFC", label))
    if not folded.strip():
        return
    unknown = vocabulary.unknown(folded)
    if unknown:
        yield "unknown-character", f"{described(unknown)} in {label!r}"
        return
    if canvas is None:
        return
    needed, there, covered = (
        required_columns(vocabulary.encode(folded)),
        canvas_columns(canvas.chunks),
        _covered(canvas),
    )
    if needed > there:
        yield "alignment", f"{len(folded)} characters need {needed} columns, the line has {there}: {label!r}"
    elif needed > covered:
        yield (
            "crowded",
            f"{len(folded)} characters need {needed} columns, the line covers {covered} and the rest of its {there} is "
            f"padding; is it the right label, and cut closely above and below? {label!r}",
        )


def _covered(canvas: LineCanvas) -> int:
    """Number of columns covered by the line itself."""
    return -(-canvas.width // COLUMN_WIDTH)
