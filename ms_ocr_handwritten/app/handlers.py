"""What happens when a user drops an image or saves a correction; uses HTML and paths, but is independent of Gradio."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ImageError, OcrError
from ..image import Limits
from ..page.reader import PageLine
from .corrections import save_correction
from .drawing import done_html, error_html, reading_html, said_html
from .reading import ReadPicture, Recognizers, drawn_line, read_line, read_page
from .texts import text

LINE, PAGE = "line", "page"


@dataclass(frozen=True)
class Source:
    """A given image: `image` is a file or its bytes, `name` the user's name for it."""

    image: Path | bytes
    name: str


@dataclass(frozen=True)
class Choice:
    """How to read."""

    model: str
    precision: str
    kind: str = LINE


@dataclass(frozen=True)
class Item:
    """A line waiting for correction; `text` is None until it is read."""

    source: Source
    text: str | None = None
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The response to a reading: HTML, the text, and its lines for correction."""

    html: str
    text: str = ""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Handlers:
    """The actions of the page.

    corrections: the LMDB for corrected readings; None: no corrections
    alternatives: number of texts shown per line
    """

    recognizers: Recognizers
    corrections: Path | None = None
    alternatives: int = 5
    limits: Limits = field(default_factory=Limits)

    def drawing(self, data_url: str) -> Source:
        """Raises ImageError."""
        return Source(drawn_line(data_url, self.limits), "drawing.png")

    def read(self, source: Source, choice: Choice, language: str) -> Shown:
        """Read a line or a page; errors of the image, the model or the machine are shown as HTML."""
        try:
            read = self._read(source, choice)
        except (OcrError, MemoryError) as error:
            return Shown(error_html(error, language))
        html = reading_html(read, language)
        if choice.kind == LINE:
            return Shown(html, read.text, (_item(source, read.lines[0], read),))
        stem = Path(source.name).stem
        items = tuple(
            _item(Source(png, f"{stem}-{number:03d}.png"), line, read)
            for number, (png, line) in enumerate(zip(read.line_pictures(), read.lines), start=1)
        )
        return Shown(html, read.text, items)

    def _read(self, source: Source, choice: Choice) -> ReadPicture:
        recognizer = self.recognizers.get(choice.model, choice.precision)
        try:
            if choice.kind == PAGE:
                return read_page(recognizer, source.image)
            return read_line(recognizer, source.image, self.alternatives, self.limits)
        except ImageError as error:
            raise ImageError(f"{source.name}: {error}") from error

    def first(self, queue: list[Item], choice: Choice, language: str) -> tuple[list[Item], str, str]:
        """The queue with its first line read, that line or its error as HTML, and the number of lines left."""
        if not queue:
            return queue, "", said_html(text("queue_empty", language))
        item, *others = queue
        left = said_html(text("queue", language, count=len(queue)))
        try:
            read = self._read(item.source, replace(choice, kind=LINE))
        except (OcrError, MemoryError) as error:
            return [replace(item, text=item.text or ""), *others], error_html(error, language), left
        known = _item(item.source, read.lines[0], read)
        if item.text is not None:  # from a page, where the line was read in context
            known = replace(known, text=item.text)
        return [known, *others], reading_html(replace(read, alternatives=()), language), left

    def save(self, queue: list[Item], corrected: str, choice: Choice, language: str) -> tuple[list[Item], str]:
        """Append the first line of the queue with its corrected text; it leaves the queue once it is on disk.

        Returns:
            The new queue, in which a rejected line keeps its text, and the outcome as HTML.
        """
        if not queue or self.corrections is None:
            return queue, ""
        source = queue[0].source
        try:
            vocabulary = self.recognizers.get(choice.model, choice.precision).vocabulary
            saved = save_correction(self.corrections, source.image, corrected, source.name, vocabulary)
        except (OcrError, MemoryError) as error:
            return [replace(queue[0], text=corrected), *queue[1:]], error_html(error, language)
        done = text("saved", language, count=saved.samples, path=self.corrections)
        return queue[1:], done_html(done, saved.notes, language)


def _item(source: Source, line: PageLine, read: ReadPicture) -> Item:
    return Item(source, line.text, tuple(other for other, _ in read.alternatives))
