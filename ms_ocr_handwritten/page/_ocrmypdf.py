"""The OCRmyPDF plugin: its hooks, and `PageReader` as its OcrEngine. The only module that imports ocrmypdf."""

import threading
from argparse import ArgumentParser
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ocrmypdf import OcrEngine, OrientationConfidence, hookimpl
from ocrmypdf.exceptions import BadArgsError, InputFileError, MissingDependencyError

from ..errors import BackendError, ImageError, OcrError
from ..recognizer import Recognizer
from .formats import SourcePage, writer_of
from .order import HORIZONTAL, VERTICAL
from .reader import PageReader

_reading = threading.Lock()  # OCRmyPDF's workers are threads or processes; a reader serves one at a time


@cache
def _reader(model: str | None, writing: str) -> PageReader:
    return PageReader(None if model is None else Recognizer.from_pretrained(model), writing=writing)


class HandwritingEngine(OcrEngine):
    """Reads each page with one `PageReader` per process; OCRmyPDF makes the PDF from hOCR."""

    @staticmethod
    def version() -> str:
        return version("ms_ocr_handwritten")

    @staticmethod
    def creator_tag(options: Any) -> str:
        return f"ms_ocr_handwritten {HandwritingEngine.version()}"

    def __str__(self) -> str:
        return HandwritingEngine.creator_tag(None)

    @staticmethod
    def languages(options: Any) -> set[str]:
        """None: a model reads the characters of its vocabulary, regardless of -l."""
        return set()

    @staticmethod
    def get_orientation(input_file: Path, options: Any) -> OrientationConfidence:
        """Unknown, so that --rotate-pages rotates nothing."""
        return OrientationConfidence(angle=0, confidence=0.0)

    @staticmethod
    def generate_hocr(input_file: Path, output_hocr: Path, output_text: Path, options: Any) -> None:
        try:
            with _reading:
                page = _reader(options.ms_ocr_model, options.ms_ocr_writing).read(input_file)
        except ImageError as error:
            raise InputFileError(str(error)) from error
        except BackendError as error:
            raise MissingDependencyError(str(error)) from error
        except OcrError as error:
            raise BadArgsError(f"--ms-ocr-model: {error}") from error
        source = SourcePage(input_file.name, 1, input_file.name)
        output_hocr.write_text(writer_of("hocr")(source, page), encoding="utf-8")
        output_text.write_text(writer_of("text")(source, page), encoding="utf-8")

    @staticmethod
    def generate_pdf(input_file: Path, output_pdf: Path, output_text: Path, options: Any) -> None:
        raise BadArgsError("ms_ocr_handwritten writes no PDF of its own; leave --pdf-renderer sandwich out")


@hookimpl
def add_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Handwriting", "of ms_ocr_handwritten")
    group.add_argument("--ms-ocr-model", metavar="MODEL", help="directory or id; the embedded model if left out")
    group.add_argument("--ms-ocr-writing", choices=(HORIZONTAL, VERTICAL), default=HORIZONTAL)


@hookimpl
def get_ocr_engine(options: Any) -> OcrEngine | None:
    """Ours, unless --ocr-engine names another."""
    return HandwritingEngine() if options is None or options.ocr_engine == "auto" else None
