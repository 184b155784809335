"""PAGE XML, ALTO or hOCR, detected by a file's root element."""

import os
import re
from collections.abc import Iterator

from ..errors import LabelError
from .alto import read_alto
from .hocr import read_hocr
from .page_xml import read_page_xml
from .transcribed_page import TranscribedPage

SUFFIXES = (".xml", ".hocr", ".html", ".htm", ".xhtml")

_READERS = {"alto": read_alto, "PcGts": read_page_xml, "html": read_hocr}
_FIRST_TAG = re.compile(rb"<(?![?!])(?:[\w.-]+:)?([\w.-]+)")
_HEAD = 16 * 1024  # bytes that are searched for the root


def read_transcripts(path: str | os.PathLike[str]) -> Iterator[TranscribedPage]:
    """The pages of a file in any of the formats. Raises LabelError if it is in none of them."""
    root = root_name(path)
    if root not in _READERS:
        raise LabelError(f"{path}: neither PAGE XML, ALTO nor hOCR; convert it to one of them")
    return _READERS[root](path)


def is_transcript(path: str | os.PathLike[str]) -> bool:
    """Whether the file's root element is that of one of the formats."""
    return root_name(path) in _READERS


def root_name(path: str | os.PathLike[str]) -> str:
    """The name of the first element in the file, '' if there is none. Raises LabelError."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    head = re.sub(rb"<!--.*?-->", b"", head, flags=re.DOTALL)
    found = _FIRST_TAG.search(head)
    if not found:
        return ""
    name = found[1].decode("ascii", "replace")
    return name.lower() if name.lower() == "html" else name
