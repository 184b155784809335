"""One JSON object a page, in one line."""

import json

from ..reader import Page
from . import SourcePage


def written(source: SourcePage, page: Page) -> str:
    """{"source", "page", "width", "height", "lines": [{"text", "score", "polygon", "chars": [[c, score, polygon]]}]}"""
    lines = [
        {
            "text": line.text,
            "score": round(line.score, 6),
            "polygon": line.polygon,
            "chars": [[char.character, round(char.score, 6), char.polygon] for char in line.chars],
        }
        for line in page.lines
    ]
    row = {"source": source.path, "page": source.number, "width": page.width, "height": page.height, "lines": lines}
    return json.dumps(row, ensure_ascii=False) + "\n"
