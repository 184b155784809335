"""`ms-ocr evaluate-pages`: how well whole pages are read against their transcriptions, optionally beside a peer."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import LabelError, OcrError
from .output import aligned, exit_if_unreadable, progress, report_unreadable
from .page import open_page_reader, page_options
from .peer import PEERS, RapidOcr
from .reading import open_recognizer, recognizer_options

if TYPE_CHECKING:
    from ..data.transcribed_page import TranscribedPage
    from ..image.straighten import Points

GIVEN = "own polygons"

_COLUMNS = {
    "reader": "reader",
    "pages": "pages",
    "lines": "lines",
    "found": "found",
    "invented": "invented",
    "cer": "CER",
    "cer_loose": "CER loose",
    "page_cer": "page CER",
    "page_cer_loose": "page loose",
    "seconds_a_page": "s a page",
}

# A page's image and its ground truth -> (text, polygon) lines.
ReadPage = Callable[["Path", "TranscribedPage"], "list[tuple[str, Points]]"]


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--own-polygons", is_flag=True, help="Also read the lines cut by the transcription's own polygons.")
@click.option("--peer", type=click.Choice(PEERS), help="Also read the pages with this program.")
@page_options
@recognizer_options
def evaluate_pages(
    folders: tuple[Path, ...],
    layout: str,
    own_polygons: bool,
    peer: str | None,
    detector: str,
    writing: str,
    model: str | None,
    backend: str,
    precision: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Compare what is read from pages with their transcriptions.

    DIR holds PAGE XML, ALTO or hOCR files (at any depth) with their images beside them.

    \b
    found      lines of the transcription matched by a detected line (polygons with IoU 0.5 or more)
    invented   detected lines without a counterpart in the transcription
    CER        errors per character over the lines found; loose: without spaces, punctuation, symbols and case
    page CER   the same over all lines, including missed and invented ones
    s a page   time from the file to the text; readers take turns page by page

    A page that cannot be read is reported on stderr and left out for every reader; the exit code is then 1.
    """
    from ..page.evaluate import PageScores

    files = [file for folder in folders for file in _transcripts(folder)]
    reader = open_page_reader(detector, writing, open_recognizer(model, backend, precision, device))
    readers: dict[str, ReadPage] = {
        "model": lambda image, page: [(line.text, line.polygon) for line in reader.read(image).lines]
    }
    if own_polygons:
        readers[GIVEN] = lambda image, page: [
            (line.text, line.polygon) for line in reader.read(image, [line.polygon for line in page.lines]).lines
        ]
    if peer:
        rapidocr = RapidOcr()
        readers[peer] = lambda image, page: rapidocr.read_page(image)
    scores = {name: PageScores() for name in readers}
    done = unreadable = 0
    for page in progress(_pages(files), "pages", None):
        done += 1
        try:
            if isinstance(page, OcrError):
                raise page
            for problem in page.problems:
                report_unreadable(page.where, problem)
            image, fitted = _picture(page)
            results = {name: _timed(read, image, fitted) for name, read in readers.items()}
        except OcrError as error:
            unreadable += 1
            report_unreadable(str(error) if isinstance(page, OcrError) else page.where, error)
            continue
        for name, (lines, seconds) in results.items():
            scores[name].add(lines, fitted.lines, seconds)
    rows = [{"reader": name, **score.row()} for name, score in scores.items()]
    if layout == "json":
        click.echo(json.dumps({"detector": detector, "readers": rows}, ensure_ascii=False, indent=2))
    else:
        click.echo(_table(rows))
    exit_if_unreadable(unreadable, done)


def _transcripts(folder: Path) -> list[Path]:
    from ..data.transcribed import files as transcriptions

    if not folder.is_dir():
        raise LabelError(f"{click.format_filename(folder)}: no such folder; name one with transcribed pages")
    files = transcriptions(folder)
    if not files:
        raise LabelError(f"{click.format_filename(folder)}: holds no PAGE XML, ALTO or hOCR file; name another")
    return files


def _pages(files: list[Path]) -> "Iterator[TranscribedPage | OcrError]":
    from ..data.transcripts import read_transcripts

    for file in files:
        try:
            yield from read_transcripts(file)
        except OcrError as error:
            yield error


def _picture(page: "TranscribedPage") -> "tuple[Path, TranscribedPage]":
    """The page's image, and the page with polygons in px of that image."""
    from ..image import image_size
    from ..image.limits import PAGE_LIMITS

    image = page.find_image()
    return image, page.scaled_to(*image_size(image, limits=PAGE_LIMITS))


def _timed(read: ReadPage, image: Path, page: "TranscribedPage") -> "tuple[list[tuple[str, Points]], float]":
    start = time.perf_counter()
    return read(image, page), time.perf_counter() - start


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [list(_COLUMNS.values()), *([_cell(row[key], key) for key in _COLUMNS] for row in rows)]
    return aligned(cells)


def _cell(value: float | int | str | None, key: str) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if key == "seconds_a_page" else f"{100 * value:.2f} %"
    return "-" if value is None else str(value)
