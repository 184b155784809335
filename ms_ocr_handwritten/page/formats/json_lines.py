"""One JSON object per page, each on one line."""

import json
from typing import Any

from ..reader import Page
from . import SourcePage


def written(source: SourcePage, page: Page) -> str:
    return json.dumps(page_row(source.path, source.number, page), ensure_ascii=False) + "\n"


def page_row(path: str | None, number: int, page: Page) -> dict[str, Any]:
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
    return {"source": path, "page": number, "width": page.width, "height": page.height, "lines": lines}
