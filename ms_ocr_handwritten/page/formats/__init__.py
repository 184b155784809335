"""A page as a file that others read: one format a module, each with `written(source, page) -> str`; PDF on its own."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..reader import Page


@dataclass(frozen=True)
class SourcePage:
    """Where a page came from.

    path: as the user named it
    number: of the page in it, from 1
    image: name of the file that holds the page's picture, beside the output or as `path` names it
    """

    path: str
    number: int
    image: str


# name -> (module here, suffix of files)
_TEXTUAL = {
    "text": ("text", ".txt"),
    "json": ("json_lines", ".json"),
    "alto": ("alto", ".alto.xml"),
    "page": ("page_xml", ".page.xml"),
    "hocr": ("hocr", ".hocr"),
}
FORMATS = (*_TEXTUAL, "pdf")


def writer_of(name: str) -> Callable[[SourcePage, Page], str]:
    """What makes the file of a page in one of the FORMATS but pdf."""
    return import_module(f".{_TEXTUAL[name][0]}", __name__).written


def suffix_of(name: str) -> str:
    return _TEXTUAL[name][1] if name in _TEXTUAL else f".{name}"
