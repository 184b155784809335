"""Corrected readings, appended to an LMDB for the next fine-tuning."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..data.record import Record
from ..errors import LabelError
from ..image import line_canvas, load_image
from ..lmdb.append import append_record
from ..lmdb.labels import KINDS, label_faults, vocabulary_faults
from ..vocab import Vocabulary

_REFUSED = ("empty-label", "control-character", "alignment")  # unusable for training


@dataclass(frozen=True)
class Correction:
    """A stored correction: the LMDB now holds `samples` lines; `notes` list possible problems for training."""

    samples: int
    notes: tuple[str, ...] = ()


def save_correction(
    lmdb: str | os.PathLike[str], picture: Path | bytes, text: str, source: str, vocabulary: Vocabulary
) -> Correction:
    """Append a line and its text to the LMDB folder `lmdb`; `lmdb.append` is safe against crashes.

    Args:
        lmdb: Created if it does not exist.
        picture: An encoded image, stored byte for byte.
        text: Stored without leading and trailing spaces.
        source: The image's name.
        vocabulary: Of the model that will be fine-tuned.

    Raises:
        LabelError: The text is empty, contains control characters or is too long for the line.
        ImageError, LmdbError: As `append_record`.
    """
    text = text.strip()
    canvas = line_canvas(load_image(picture))
    faults = [*label_faults(text), *vocabulary_faults(text, vocabulary, canvas)]
    for kind, detail in faults:
        if kind in _REFUSED:
            raise LabelError(f"{source}: {KINDS.get(kind, 'not aligned')}: {detail}; correct the text")
    samples = append_record(lmdb, Record(source, text, picture, source))
    return Correction(samples, tuple(detail for _, detail in faults))
