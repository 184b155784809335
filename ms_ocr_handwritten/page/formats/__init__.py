"""Pages as files for other programs: one module per format, with `written(source, page) -> str`; PDF differs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..reader import Page


@dataclass(frozen=True)
class SourcePage:
    """Where a page came from.

    path: as given by the user
    number: of the page in it, from 1
    image: name of the file with the page's image, beside the output or relative to `path`
    """

    path: str
    number: int
    image: str


# name -> (module here, file suffix)
_TEXTUAL = {
    "text": ("text", ".txt"),
    "json": ("json_lines", ".json"),
    "alto": ("alto", ".alto.xml"),
    "page": ("page_xml", ".page.xml"),
    "hocr": ("hocr", ".hocr"),
}
FORMATS = (*_TEXTUAL, "pdf")


def writer_of(name: str) -> Callable[[SourcePage, Page], str]:
    """The function that makes the file of a page in any of the FORMATS except pdf."""
    return import_module(f".{_TEXTUAL[name][0]}", __name__).written


def suffix_of(name: str) -> str:
    return _TEXTUAL[name][1] if name in _TEXTUAL else f".{name}"
