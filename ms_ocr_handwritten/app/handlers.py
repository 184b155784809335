"""What happens when somebody drops a picture or saves a correction; knows HTML and paths, but nothing of Gradio."""

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
    """A picture that was given: `image` a file or the bytes of one, `name` what its owner calls it."""

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
    """A line that waits for its correction; `text` is None until it was read."""

    source: Source
    text: str | None = None
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """The answer to a reading: HTML, the text, and its lines as they may be corrected."""

    html: str
    text: str = ""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Handlers:
    """What the page does.

    corrections: the LMDB for corrected readings; None: no corrections
    alternatives: how many texts are shown of a line
    """

    recognizers: Recognizers
    corrections: Path | None = None
    alternatives: int = 5
    limits: Limits = field(default_factory=Limits)

    def drawing(self, data_url: str) -> Source:
        """Raises ImageError."""
        return Source(drawn_line(data_url, self.limits), "drawing.png")

    def read(self, source: Source, choice: Choice, language: str) -> Shown:
        """Read a line or a page; what is wrong with the picture, the model or the machine becomes the HTML."""
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
        """The queue with its first line read, that line as HTML or why it could not be read, and how many are left."""
        if not queue:
            return queue, "", said_html(text("queue_empty", language))
        item, *others = queue
        left = said_html(text("queue", language, count=len(queue)))
        try:
            read = self._read(item.source, replace(choice, kind=LINE))
        except (OcrError, MemoryError) as error:
            return [replace(item, text=item.text or ""), *others], error_html(error, language), left
        known = _item(item.source, read.lines[0], read)
        if item.text is not None:  # of a page, on which the line was read with what stands around it
            known = replace(known, text=item.text)
        return [known, *others], reading_html(replace(read, alternatives=()), language), left

    def save(self, queue: list[Item], corrected: str, choice: Choice, language: str) -> tuple[list[Item], str]:
        """Append the first line of the queue with its corrected text; it leaves the queue once it is on the disk.

        Returns:
            The queue afterwards, where what was refused keeps its text, and what was done or why not, as HTML.
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
