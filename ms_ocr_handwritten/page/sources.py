"""The pages of a file: one for an image, several for a TIFF or a PDF, opened one at a time."""

import io
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from ..errors import BackendError, ImageError, OcrError
from ..image.file import open_image
from ..image.limits import PAGE_LIMITS, Limits
from ..image.source import read_source
from ..image.structure import StructureError, tiff_pages
from .reader import Page, PageReader

PDF_DPI = 200  # for rendering PDFs; at this resolution lines of handwriting are 60 px high and more

_PDF_MAGIC = b"%PDF-"
_PDF_HEAD = 1024  # bytes within which the magic number may begin
_POINTS = 72  # per inch
_USUAL_DPI = (50.0, 1300.0)  # values in an image beyond this range are not resolutions


@dataclass(frozen=True)
class PageSource:
    """One page, not opened yet.

    path: of its file, as given by the user
    number: of the page in the file, from 1, out of `pages`
    open: returns an input of `load_image`; raises ImageError naming file and page
    dpi: px per inch, for the size of a page on paper
    plain: the file is an image of this page, stored upright, so that other programs can show it
    """

    path: str
    number: int
    pages: int
    open: Callable[[], Any]
    dpi: float
    plain: bool

    @property
    def name(self) -> str:
        return self.path if self.pages == 1 else f"{self.path}, page {self.number}"


def open_pages(
    path: str, limits: Limits = PAGE_LIMITS, dpi: int = PDF_DPI, *, encoded: bytes | None = None
) -> Iterator[PageSource]:
    """The pages of an image, TIFF or PDF, in order.

    Args:
        path: of a file, or an http(s) URL.
        limits: for each page.
        dpi: for rendering PDFs.
        encoded: the file's content; `path` is then only used in messages and is not opened.

    Raises:
        ImageError: the file is broken, encrypted or not an image.
        BackendError: it is a PDF, and pypdfium2 is missing.
    """
    is_file = encoded is None and os.path.isfile(path)
    if encoded is None and not is_file:
        encoded = read_source(path, limits)  # download a URL only once
    source = path if encoded is None else encoded
    head = _head(path) if isinstance(source, str) else source[:_PDF_HEAD]
    if _PDF_MAGIC in head:
        yield from _pdf_pages(path, source, limits, dpi)
        return
    sound, fault = _tiff_pages(path, source)
    pages = sound + (fault is not None)
    if pages > 1:
        for index in range(pages):
            opener = _frame_opener(path, source, index, pages, limits, None if index < sound else fault)
            yield PageSource(path, index + 1, pages, opener, dpi, False)
    else:
        own_dpi, upright = _looks(source, limits)
        yield PageSource(path, 1, 1, lambda: source, own_dpi or dpi, is_file and upright)


def read_pages(
    reader: PageReader, sources: Iterable[PageSource], batch_size: int
) -> Iterator[tuple[PageSource, Page | OcrError]]:
    """Each page with its reading, or with the reason why there is none; no images are kept."""
    waiting: deque = deque()

    def images() -> Iterator:
        for source in sources:
            try:
                image = source.open()
            except OcrError as error:
                waiting.append((source, error))
            else:
                waiting.append((source, None))
                yield image

    for result in reader.read_many(images(), batch_size, errors="yield"):
        while waiting[0][1] is not None:
            yield waiting.popleft()
        yield waiting.popleft()[0], result
    yield from waiting


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_PDF_HEAD)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _tiff_pages(path: str, source: str | bytes) -> tuple[int, StructureError | None]:
    """As `structure.tiff_pages`. Raises ImageError if there are too many."""
    try:
        if isinstance(source, bytes):
            return tiff_pages(source)
        if not os.path.getsize(source):  # an empty file cannot be mapped
            return 0, None
        with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return tiff_pages(content)
    except StructureError as error:
        raise ImageError(f"{path}: not a readable image, {error}; split it") from error


def _looks(source: str | bytes, limits: Limits) -> tuple[float, bool]:
    """px per inch according to the image, 0.0 if not given; and whether it is stored upright."""
    try:
        encoded = source if isinstance(source, bytes) else read_source(source, limits)
        with open_image(encoded, "", limits) as image:
            dpi = float(image.info.get("dpi", (0, 0))[0])
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # for broken headers Pillow's readers raise almost anything; `load_image` reports the reason
        return 0.0, False
    return (dpi if _USUAL_DPI[0] <= dpi <= _USUAL_DPI[1] else 0.0), upright


def _frame_opener(
    path: str, source: str | bytes, index: int, frames: int, limits: Limits, fault: StructureError | None
) -> Callable[[], Image.Image]:
    def open_frame() -> Image.Image:
        name = f"{path}, page {index + 1} of {frames}"
        try:
            if fault:
                raise fault
            with Image.open(source if isinstance(source, str) else io.BytesIO(source), formats=("TIFF",)) as image:
                image.seek(index)
                _check_pixels(image.width, image.height, name, limits)
                return image.copy()
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name}: cannot be decoded ({error}); write it again, or leave it out") from error

    return open_frame


def _pdf_pages(path: str, source: str | bytes, limits: Limits, dpi: int) -> Iterator[PageSource]:
    try:
        import pypdfium2
    except ImportError as error:
        raise BackendError(
            f"{path}: reading PDF needs the package pypdfium2 ({error}); `pip install ms_ocr_handwritten[page]`"
        ) from None
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        remedy = "save it without its password" if encrypted else "write or download it again"
        raise ImageError(f"{path}: the PDF cannot be opened ({error}); {remedy}") from None
    pages = len(document)
    if not pages:
        raise ImageError(f"{path}: the PDF has no pages; write or download it again")

    def opener(index: int) -> Callable[[], Image.Image]:
        def draw() -> Image.Image:
            name = f"{path}, page {index + 1} of {pages}"
            try:
                page = document[index]
                try:
                    scale = dpi / _POINTS
                    width, height = (max(1, round(side * scale)) for side in page.get_size())
                    _check_pixels(width, height, name, limits)
                    return page.render(scale=scale).to_pil().convert("RGB")
                finally:
                    page.close()
            except pypdfium2.PdfiumError as error:
                raise ImageError(f"{name}: cannot be drawn ({error}); write the PDF again, or leave it out") from None

        return draw

    # The document stays open as long as one of its pages may be requested.
    for index in range(pages):
        yield PageSource(path, index + 1, pages, opener(index), dpi, False)


def _check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} px are over the limit of {limits.max_pixels} pixels; "
            "scan or draw it at a lower resolution"
        )
