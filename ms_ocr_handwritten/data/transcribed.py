"""Pages in PAGE XML, ALTO or hOCR: their lines, cut out of the images beside them."""

from pathlib import Path

from ..errors import OcrError
from ..image import image_size
from ..image.limits import PAGE_LIMITS
from .pages import PageImage
from .record import BadRecord, ReadOptions, Record, Records
from .transcribed_page import TranscribedPage
from .transcripts import SUFFIXES, is_transcript, read_transcripts


def files(path: Path) -> list[Path]:
    """The transcriptions at `path`, a single file or a folder searched at any depth, in order of name."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [file for file in found if is_transcript(file)]


def read(path: Path, options: ReadOptions) -> Records:
    base = path if path.is_dir() else path.parent
    for file in files(path):
        try:
            for page in read_transcripts(file):
                yield from _lines(page, file.relative_to(base).as_posix(), options)
        except OcrError as error:
            yield BadRecord(str(file), error)


def _lines(page: TranscribedPage, name: str, options: ReadOptions) -> Records:
    yield from (BadRecord(page.where, problem) for problem in page.problems)
    try:
        image = page.find_image(options.image_root)
        page = page.scaled_to(*image_size(image, limits=PAGE_LIMITS))
    except OcrError as error:
        yield BadRecord(page.where, error)
        return
    picture = PageImage(image)
    for line in page.lines:
        yield Record(
            where=f"{page.where}: line {line.name}",
            text=line.text,
            image=picture.cutter(line.polygon, line.baseline),
            source=f"{name}#{line.name}",
            page=image.stem,
        )
