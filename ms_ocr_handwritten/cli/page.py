"""`ms-ocr page`: reads page images, TIFF and PDF, and writes their text, plain or in the formats of other programs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OcrError
from .output import exit_if_unreadable, one_line, progress, report_unreadable
from .reading import decoder_options, open_recognizer, recognizer_options
from .sources import IMAGE_SUFFIXES, Source, expand, is_one_image

if TYPE_CHECKING:
    from ..page.reader import Page, PageReader
    from ..page.sources import PageSource
    from ..recognizer import Recognizer

# Copies of `page.formats.FORMATS` and the writings of `page.order`, as help must not wait for numpy to load.
FORMATS = ("text", "json", "alto", "page", "hocr", "pdf")
WRITINGS = ("horizontal", "vertical")
_FOR_PRINTING = ("text", "json")

_OPTIONS = (
    click.option(
        "--detector", default="rapidocr", show_default=True, metavar="D",
        help="Line detector: rapidocr, or the id or directory of a DBNet model of ModelScope.",
    ),
    click.option("--writing", type=click.Choice(WRITINGS), default="horizontal", show_default=True,
                 help="vertical: columns from right to left."),
)  # fmt: skip


def page_options(command: Callable) -> Callable:
    """Adds --detector and --writing."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--format", "layout", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for one file per page.")
@click.option("--overlay", is_flag=True, help="Also write each page with its lines' outlines and texts (SVG).")
@page_options
@click.option(
    "--dpi",
    type=click.IntRange(50, 1200),
    default=200,
    show_default=True,
    help="Resolution at which PDFs are rendered.",
)
@decoder_options
@recognizer_options
def page(
    paths: tuple[str, ...],
    layout: str,
    out: Path | None,
    overlay: bool,
    detector: str,
    writing: str,
    dpi: int,
    language_model: str | None,
    augment_below: float | None,
    model: str | None,
    backend: str,
    precision: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Detect the lines of whole pages and read them, in reading order.

    PATH is an image, a multi-page TIFF, a PDF, an http(s) URL, a folder (searched for these at any depth, in
    order of name) or a pattern such as 'scans/*.jpg'. Needs `pip install ms_ocr_handwritten[page]`.

    \b
    text   the text alone if PATH is one page, else below ==> PATH, page N <==
    json   one object per page, each on one line: source, page, width, height, lines (text, score, polygon, chars)
    alto   ALTO 4, one file per page in --out; with the page's image if PATH is not an image
    page   PAGE XML 2019, likewise
    hocr   hOCR 1.2, likewise
    pdf    searchable PDF: the images with invisible text, one file per PATH in --out

    Unreadable pages are reported on stderr, the rest is read, and the exit code is 1. A page without text is no error.
    """
    if out is None and (overlay or layout not in _FOR_PRINTING):
        option = "--overlay" if overlay else f"--format {layout}"
        raise click.UsageError(f"{option} writes files; name the folder for them: --out DIR")
    from ..page.sources import read_pages

    recognizer = open_recognizer(model, backend, precision, device, language_model, augment_below=augment_below)
    reader = open_page_reader(detector, writing, recognizer)
    done = unreadable = 0
    with ExitStack() as stack:
        if out is None:
            write = _printer(layout, len(paths) == 1 and is_one_image(paths[0]))
        else:
            from ..page.files import PageFiles

            write = stack.enter_context(PageFiles(out, layout, overlay)).write
        results = read_pages(reader, page_sources(paths, dpi), batch_size)
        for source, result in progress(results, "pages", None):
            done += 1
            try:
                if isinstance(result, OcrError):
                    raise result
                for problem in result.problems:
                    report_unreadable(source.name, problem)
                write(source, result)
            except OcrError as error:
                unreadable += 1
                report_unreadable(source.name, error)
    exit_if_unreadable(unreadable, done)


def open_page_reader(detector: str, writing: str, recognizer: "Recognizer") -> "PageReader":
    """Raises the errors of `PageReader` and `plugin.detector.open_detector`."""
    from ..page.detector import RAPIDOCR
    from ..page.reader import PageReader

    if detector == RAPIDOCR:
        return PageReader(recognizer, writing=writing)
    from ..plugin.detector import open_detector

    return PageReader(recognizer, open_detector(detector), writing=writing)


def page_sources(paths: tuple[str, ...], dpi: int) -> "Iterator[PageSource]":
    """The pages of all paths, in order; a path or file without pages yields one whose opening raises the reason."""
    from ..page.sources import PageSource, open_pages

    def failing(source: Source, error: OcrError) -> PageSource:
        def fail() -> None:
            raise error

        return PageSource(source.name, 1, 1, fail, dpi, False)

    for source in expand(paths, (*IMAGE_SUFFIXES, ".pdf")):
        if isinstance(source.image, OcrError):
            yield failing(source, source.image)
        elif isinstance(source.image, bytes):  # from an LMDB
            yield PageSource(source.name, 1, 1, partial(bytes, source.image), dpi, False)
        else:
            try:
                yield from open_pages(source.image, dpi=dpi)
            except OcrError as error:
                yield failing(source, error)


def _printer(layout: str, alone: bool) -> "Callable[[PageSource, Page], None]":
    from ..page.formats import SourcePage, writer_of

    written = writer_of(layout)

    def write(source: "PageSource", result: "Page") -> None:
        if layout == "text" and not (alone and source.pages == 1):
            click.echo(f"==> {one_line(click.format_filename(source.name))} <==")
        click.echo(written(SourcePage(click.format_filename(source.path), source.number, ""), result), nl=False)

    return write
