"""An output folder for pages: a file per page, a PDF per source, overlays, and images where needed."""

import os
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType

import cv2
import numpy as np

from ..atomic import appearing_whole, naming_what_cannot_be_written, write_atomically
from ..errors import OutputError
from ..image import load_image
from ..image.limits import PAGE_LIMITS
from .formats import SourcePage, suffix_of, writer_of
from .formats.overlay import SUFFIX as OVERLAY_SUFFIX
from .formats.overlay import overlay
from .formats.pdf import PdfWriter
from .reader import Page
from .sources import PageSource

_REFER_TO_IMAGE = ("alto", "page", "hocr")
_QUALITY = 92  # of the JPEGs for pages without an image file
_POINTS = 72.0  # per inch


class PageFiles:
    """A context for writing pages; each file appears only once complete, and existing files are not replaced."""

    def __init__(self, folder: str | os.PathLike[str], layout: str, with_overlay: bool = False) -> None:
        """
        Args:
            folder: created if necessary.
            layout: one of `formats.FORMATS`.
            with_overlay: also write NAME.overlay.svg.
        """
        self._folder, self._layout, self._with_overlay = Path(folder), layout, with_overlay
        self._pdf: tuple[str, PdfWriter] | None = None  # of the current source
        self._open = ExitStack()
        self._written: dict[Path, str] = {}  # by this run: file -> path of the source

    def __enter__(self) -> "PageFiles":
        """Makes the folder. Raises OutputError where that cannot be, before anything is read."""
        with naming_what_cannot_be_written(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end_pdf()
        self._open.__exit__(kind, error, trace)

    def write(self, source: PageSource, page: Page) -> None:
        """Raises OutputError naming the file that cannot be written, ImageError if the page's image is gone."""
        stem = _stem(source)
        try:
            if self._layout == "pdf":
                self._pdf_of(source).add(page, _pixels(source), _POINTS / source.dpi)
            else:
                about = SourcePage(source.path, source.number, self._image_of(source, stem))
                self._write(source, stem + suffix_of(self._layout), writer_of(self._layout)(about, page))
            if self._with_overlay:
                self._write(source, stem + OVERLAY_SUFFIX, overlay(page, _pixels(source)))
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{self._folder}: cannot be written ({error.strerror}); choose another --out") from error

    def _image_of(self, source: PageSource, stem: str) -> str:
        """The name of the page's image; it is written if the format needs one and the source is not an image."""
        if source.plain or self._layout not in _REFER_TO_IMAGE:
            return Path(source.path).name
        jpeg = cv2.imencode(".jpg", _pixels(source), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        self._write(source, f"{stem}.jpg", jpeg)
        return f"{stem}.jpg"

    def _pdf_of(self, source: PageSource) -> PdfWriter:
        if self._pdf is None or self._pdf[0] != source.path:
            self._end_pdf()
            path = self._new(source, _stem(source, numbered=False) + ".pdf")
            temporary = self._open.enter_context(appearing_whole(path))
            file = self._open.enter_context(open(temporary, "wb"))  # noqa: SIM115 (the stack closes it)
            self._pdf = source.path, PdfWriter(file)
        return self._pdf[1]

    def _end_pdf(self) -> None:
        if self._pdf is not None:
            self._pdf[1].close()
            self._pdf = None
            self._open.close()

    def _write(self, source: PageSource, name: str, content: str | bytes) -> None:
        path = self._new(source, name)
        write_atomically(path, content.encode("utf-8") if isinstance(content, str) else content)

    def _new(self, source: PageSource, name: str) -> Path:
        path = self._folder / name
        if path in self._written:
            raise OutputError(
                f"{path}: is that of {self._written[path]}, which has the same name; read the two in runs of their "
                "own, each with its --out"
            )
        if path.exists() or path.is_symlink():
            raise OutputError(f"{path}: exists already and is left as it is; choose another --out")
        self._written[path] = source.path
        return path


def _stem(source: PageSource, numbered: bool = True) -> str:
    """The base name of a page's files: that of its source, with the page's number if there are several."""
    stem = PurePosixPath(source.path).name if "://" in source.path else Path(source.path).name
    stem = stem.rsplit(".", 1)[0] or "page"
    return f"{stem}_{source.number:04d}" if numbered and source.pages > 1 else stem


def _pixels(source: PageSource) -> np.ndarray:
    """The upright page, uint8 (H, W, 3) BGR. It is opened again, as keeping all pages would fill the memory."""
    return cv2.cvtColor(load_image(source.open(), limits=PAGE_LIMITS), cv2.COLOR_RGB2BGR)
