"""The text alone, one row per line of the page."""

from ..reader import Page
from . import SourcePage


def written(source: SourcePage, page: Page) -> str:
    return "".join(f"{line.text}\n" for line in page.lines)
