"""Recognition of handwritten text lines (Chinese and English) for the ModelScope ecosystem.

Importing this package registers its classes under the names used in ModelScope's configurations; heavy modules are
imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._moved import keep_former_names
from .plugin.registration import register

if TYPE_CHECKING:
    from .model_dir import default_model_dir
    from .page.reader import Page, PageReader
    from .recognizer import Character, Line, Recognizer

__version__ = "0.1.0"

_LAZY = {
    "Recognizer": "recognizer",
    "Line": "recognizer",
    "Character": "recognizer",
    "default_model_dir": "model_dir",
    "PageReader": "page.reader",
    "Page": "page.reader",
}
__all__ = ["Character", "Line", "Page", "PageReader", "Recognizer", "__version__", "default_model_dir"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


keep_former_names()
register()
