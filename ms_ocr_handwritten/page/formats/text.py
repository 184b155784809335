"""The text alone, a line of the page in a line."""

from ..reader import Page
from . import SourcePage


def written(source: SourcePage, page: Page) -> str:
    return "".join(f"{line.text}\n" for line in page.lines)
