"""What every reader of a foreign format gives, one after the other: a line, or why there is none in its place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np

from ..errors import DataError, OcrError

Picture: TypeAlias = "Path | bytes | np.ndarray | Callable[[], bytes | np.ndarray]"


@dataclass(frozen=True, eq=False)
class Record:
    """A line with its text.

    where: file and record, for messages ("001-P16.dgrl: line 3")
    text: as the data set has it, neither folded nor trimmed
    image: a path or bytes of an encoded image, stored as it is; an array uint8, grey (H, W) or BGR (H, W, 3), to be
        encoded; or a function that gives bytes or an array, called where many may be at work
    source: the record's name within its data set ("train/001-P16.dgrl#3"); up to the last "/" it is its folder
    writer, page: '' where the data set does not say
    """

    where: str
    text: str
    image: Picture
    source: str
    writer: str = ""
    page: str = ""


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be read, `where` it stands, and why."""

    where: str
    error: OcrError


Records: TypeAlias = Iterator[Record | BadRecord]


def checked_text(value: object, what: str) -> str:
    """The text that a file gives as `what`; a number is one. Raises DataError where there is none."""
    if value is None or isinstance(value, (list, dict)):
        raise DataError(f"{what} is {'empty (null)' if value is None else f'a {type(value).__name__}'}, not a text")
    return str(value)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table or data set; '' for the usual ones."""

    image: str = ""
    text: str = ""
    writer: str = ""
    page: str = ""

    USUAL: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("image", "file", "filename", "file_name", "path", "image_path", "img", "img_path", "png", "jpg"),
        "text": ("text", "label", "labels", "transcription", "transcript", "words", "gt", "sentence", "txt"),
        "writer": ("writer", "writer_id", "author", "hand"),
        "page": ("page", "page_id", "document", "form"),
    }

    def find(self, there: list[str], where: str, needed: tuple[str, ...] = ("image", "text")) -> dict[str, str]:
        """Kind ("image", "text", "writer", "page") -> which of the columns `there`; those `needed` are always found.

        Raises DataError where a column that was named is not there, or none of the usual names of one needed is.
        """
        found = {}
        lower = {name.strip().lower(): name for name in reversed(there)}
        for kind, usual in self.USUAL.items():
            asked = getattr(self, kind)
            if asked and asked not in there:
                raise DataError(f"{where}: no column {asked!r}; there are {', '.join(there)}")
            name = asked or next((lower[name] for name in usual if name in lower), "")
            if name:
                found[kind] = name
            elif kind in needed:
                raise DataError(
                    f"{where}: which column holds the {kind}? There are {', '.join(there)}; rename it to {kind}, "
                    f"or name it (--{kind}-column)"
                )
        return found


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may be told beyond the path.

    image_root: where relative names of images are looked up [beside the table]
    subset: of a data set that holds several (train, test ...), this one
    compose: lines to paste of each writer's single characters (0: the characters themselves), following `texts`
    """

    image_root: Path | None = None
    columns: Columns = field(default_factory=Columns)
    subset: str = ""
    compose: int = 0
    texts: Path | None = None
    seed: int = 0
