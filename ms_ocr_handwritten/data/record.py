"""The items that every reader of an external format yields: a line, or in its place the reason why there is none."""

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
    text: as in the data set, neither folded nor trimmed
    image: a path or bytes of an encoded image, stored unchanged; an array uint8, grey (H, W) or BGR (H, W, 3), to be
        encoded; or a function that returns bytes or an array, possibly called concurrently
    source: the record's name within its data set ("train/001-P16.dgrl#3"); the part up to the last "/" is its folder
    writer, page: '' if unknown
    """

    where: str
    text: str
    image: Picture
    source: str
    writer: str = ""
    page: str = ""


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be read, its place `where`, and the reason."""

    where: str
    error: OcrError


Records: TypeAlias = Iterator[Record | BadRecord]


def checked_text(value: object, what: str) -> str:
    """The text given as `what` in a file; numbers are accepted. Raises DataError if there is none."""
    if value is None or isinstance(value, (list, dict)):
        raise DataError(f"{what} is {'empty (null)' if value is None else f'a {type(value).__name__}'}, not a text")
    return str(value)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table or data set; '' for the usual names."""

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
        """Kind ("image", "text", "writer", "page") -> column among `there`; the kinds in `needed` are always found.

        Raises DataError if a named column does not exist, or a needed column has none of the usual names.
        """
        found = {}
        lower = {name.strip().lower(): name for name in reversed(there)}
        for kind, usual in self.USUAL.items():
            asked = getattr(self, kind)
            if asked and asked not in there:
                raise DataError(f"{where}: no column {asked!r}; available: {', '.join(there)}")
            name = asked or next((lower[name] for name in usual if name in lower), "")
            if name:
                found[kind] = name
            elif kind in needed:
                raise DataError(
                    f"{where}: which column holds the {kind}? Available: {', '.join(there)}; rename it to {kind}, "
                    f"or name it (--{kind}-column)"
                )
        return found


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader beside the path.

    image_root: base folder for relative image names [beside the table]
    subset: the subset to read of a data set with several (train, test ...)
    compose: number of lines to compose per writer of single characters (0: the characters themselves), using `texts`
    """

    image_root: Path | None = None
    columns: Columns = field(default_factory=Columns)
    subset: str = ""
    compose: int = 0
    texts: Path | None = None
    seed: int = 0
