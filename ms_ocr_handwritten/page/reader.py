"""Pages to text: detects the lines, cuts them out straightened, reads those of many pages together, and orders them.

from ms_ocr_handwritten import PageReader
page = PageReader().read("page.jpg")
page.text, [(line.text, line.score, line.polygon) for line in page.lines]
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..errors import ConfigurationError, ImageError
from ..image import load_image
from ..image.limits import PAGE_LIMITS, Limits
from ..image.straighten import LinePicture, Points, corners_of, cut_line_picture
from ..model_dir import default_model_dir
from ..recognizer import Line, Recognizer
from .detector import RAPIDOCR, Detector, checked_polygons, open_detector
from .join import join_boxes
from .order import HORIZONTAL, VERTICAL, reading_order
from .tall import TallPicture, laid_out

_MARGIN = 0.1  # in line heights, around a detector's box; see docs/page.md
_TALL = 3.0  # ratio of height to width from which a line may be vertical
_TALL_ASKED_FOR = 1.5  # the same if vertical writing is expected
_BASELINE = 0.75  # in line heights from the top; an estimate, for programs that need one

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PageCharacter:
    """One character: its confidence in [0, 1], and its part of the line, four corners in px of the page.

    CTC marks a character in the columns where it is certain of it; the borders are half way between these.
    """

    character: str
    score: float
    polygon: Polygon


@dataclass(frozen=True)
class PageLine:
    """`Recognizer`'s reading of one line, and its position: polygon and baseline in px of the upright page.

    `baseline` is an estimate at three quarters of the line's height; None for vertical lines.
    """

    text: str
    score: float
    chars: tuple[PageCharacter, ...]
    polygon: Polygon
    baseline: Polygon | None = None


@dataclass(frozen=True)
class Page:
    """The lines of a page in reading order. `problems`: given polygons along which no line could be cut out."""

    width: int
    height: int
    lines: tuple[PageLine, ...]
    problems: tuple[ImageError, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


@dataclass(eq=False)
class _Region:
    """A line that was cut out: its images, the most confident reading of which counts, and their readings so far."""

    index: int  # among the polygons
    polygon: np.ndarray
    pictures: "list[LinePicture | TallPicture]"
    lines: "list[Line | ImageError]" = field(default_factory=list)


@dataclass(eq=False)
class _OpenPage:
    """A page whose lines are being read."""

    width: int
    height: int
    regions: list[_Region]
    given: bool  # the polygons came from the caller, who gets a line or a problem for each
    problems: list[ImageError]
    error: ImageError | None = None  # why there is no page

    def missing(self) -> _Region | None:
        return next((region for region in self.regions if len(region.lines) < len(region.pictures)), None)


class PageReader:
    """Reads pages with one recogniser and one detector."""

    def __init__(
        self,
        recognizer: Recognizer | None = None,
        detector: str | Detector = RAPIDOCR,
        *,
        writing: str = HORIZONTAL,
        limits: Limits = PAGE_LIMITS,
    ) -> None:
        """
        Args:
            recognizer: None opens the embedded model.
            detector: "rapidocr" (after `pip install ms_ocr_handwritten[page]`), or a function from a page, uint8
                (H, W, 3) BGR as in OpenCV, to polygons, each (n, 2) or flat (2 n,) px.
            writing: "horizontal", or "vertical": top to bottom in columns from right to left.
            limits: per page; by default at most 64 megapixels.

        Raises:
            BackendError: the detector's packages are missing.
            ConfigurationError: another detector or writing.
        """
        if writing not in (HORIZONTAL, VERTICAL):
            raise ConfigurationError(f"writing is {writing!r}; {HORIZONTAL!r} or {VERTICAL!r} expected")
        self._detect = open_detector(detector)
        self.recognizer = Recognizer.from_pretrained(default_model_dir()) if recognizer is None else recognizer
        self.writing, self.limits = writing, limits

    def read(self, image: object, polygons: Sequence[Points] | None = None) -> Page:
        """Read one page.

        Args:
            image: anything that `load_image` accepts.
            polygons: the outlines of its lines, in reading order, in px of the upright page; None detects them.

        Raises:
            ImageError: the image cannot be loaded as a page.

        >>> from ms_ocr_handwritten import PageReader
        >>> page = cv2.putText(np.full((200, 300), 255, np.uint8), "2026", (92, 108), 0, 1.3, 0, 2)
        >>> box = [(80, 70), (205, 70), (205, 115), (80, 115)]
        >>> PageReader(detector=lambda picture: [box]).read(page).text
        '2026'
        """
        (page,) = self._read([image], 32, polygons)
        if isinstance(page, ImageError):
            raise page
        return page

    def read_many(
        self, images: Iterable, batch_size: int = 32, *, errors: str = "raise"
    ) -> Iterator[Page | ImageError]:
        """Read many pages, in input order; memory does not grow with their number.

        Lines of several pages are read together, at most `batch_size` at a time; up to twice as many lines are cut out
        ahead of the page being returned.

        Args:
            images: page images, each anything that `load_image` accepts.
            batch_size: as for `Recognizer.read_many`.
            errors: "raise" stops at the first page that cannot be read; "yield" returns its ImageError in its place.
        """
        if errors not in ("raise", "yield"):
            raise ConfigurationError(f"errors is {errors!r}; 'raise' or 'yield' expected")
        return self._raising(self._read(images, batch_size)) if errors == "raise" else self._read(images, batch_size)

    @staticmethod
    def _raising(pages: Iterator[Page | ImageError]) -> Iterator[Page]:
        for page in pages:
            if isinstance(page, ImageError):
                raise page
            yield page

    def _read(
        self, images: Iterable, batch_size: int, polygons: Sequence[Points] | None = None
    ) -> Iterator[Page | ImageError]:
        pages: deque[_OpenPage] = deque()

        def pictures() -> Iterator[np.ndarray]:
            for image in images:
                page = self._opened(image, polygons)
                pages.append(page)
                yield from (picture.pixels for region in page.regions for picture in region.pictures)

        for line in self.recognizer.read_many(pictures(), batch_size, errors="yield"):
            while (region := pages[0].missing()) is None:
                yield self._closed(pages.popleft())
            region.lines.append(line)
        while pages:
            yield self._closed(pages.popleft())

    def _opened(self, image: object, polygons: Sequence[Points] | None) -> _OpenPage:
        """The page with its lines cut out."""
        try:
            page = cv2.cvtColor(load_image(image, limits=self.limits), cv2.COLOR_RGB2BGR)
            found = [] if polygons is not None else self._ordered(checked_polygons(self._detect(page)))
        except ImageError as error:
            return _OpenPage(0, 0, [], False, [], error)
        opened = _OpenPage(page.shape[1], page.shape[0], [], polygons is not None, [])
        neighbours = _Neighbours(found)
        for index, polygon in enumerate(found if polygons is None else polygons):
            try:
                if opened.given:
                    picture = cut_line_picture(page, polygon)
                else:
                    picture = cut_line_picture(page, polygon, margin=_MARGIN, neighbours=neighbours.of(index))
            except ImageError as error:
                # A detector's box that encloses nothing is not a line; an invalid given polygon is an error.
                if opened.given:
                    opened.problems.append(ImageError(f"polygon {index}: {error}"))
                continue
            opened.regions.append(_Region(index, np.asarray(polygon, np.float64), self._ways_to_read(picture)))
        return opened

    def _ordered(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        corners = [corners_of(polygon) for polygon in polygons]
        polygons = [polygon if four is None else four for polygon, four in zip(polygons, corners)]
        if self.writing == HORIZONTAL:
            polygons = join_boxes(polygons)
        return [polygons[index] for index in reading_order(polygons, self.writing)]

    def _ways_to_read(self, picture: LinePicture) -> "list[LinePicture | TallPicture]":
        height, width = picture.pixels.shape[:2]
        tall = height >= width * (_TALL_ASKED_FOR if self.writing == VERTICAL else _TALL)
        return [*laid_out(picture), picture] if tall else [picture]

    def _closed(self, page: _OpenPage) -> Page | ImageError:
        if page.error is not None:
            return page.error
        lines, problems = [], page.problems
        for region in page.regions:
            read = [(line, way) for line, way in zip(region.lines, region.pictures) if isinstance(line, Line)]
            if read:
                line, way = max(read, key=lambda one: (bool(one[0].text), one[0].score))
                if line.text or page.given:  # a detected box in which nothing is read is not a line
                    lines.append(_on_page(line, way, region.polygon))
            elif page.given:  # nor is a detected box too tall or too long to be read
                problems.append(ImageError(f"polygon {region.index}: {region.lines[0]}"))
        return Page(page.width, page.height, tuple(lines), tuple(problems))


class _Neighbours:
    """The neighbouring polygons of each polygon."""

    _REACH = 1.0  # in shorter sides of a polygon's box: how far its neighbours reach

    def __init__(self, polygons: list[np.ndarray]) -> None:
        self._polygons = polygons
        self._low = np.array([polygon.min(axis=0) for polygon in polygons]).reshape(-1, 2)
        self._high = np.array([polygon.max(axis=0) for polygon in polygons]).reshape(-1, 2)

    def of(self, index: int) -> list[np.ndarray]:
        reach = self._REACH * (self._high[index] - self._low[index]).min()
        near = (self._low < self._high[index] + reach).all(axis=1) & (self._high > self._low[index] - reach).all(axis=1)
        near[index] = False
        return [self._polygons[other] for other in np.flatnonzero(near)]


def _on_page(line: Line, way: "LinePicture | TallPicture", polygon: np.ndarray) -> PageLine:
    """The line with positions in px of the page instead of px of its image."""
    height, width = way.pixels.shape[:2]
    edges = borders([(char.x0, char.x1) for char in line.chars], width)
    chars = tuple(
        PageCharacter(char.character, char.score, _rounded(way.span(x0, x1)))
        for char, x0, x1 in zip(line.chars, edges[:-1], edges[1:])
    )
    baseline = None
    if isinstance(way, LinePicture):
        x = np.linspace(0, width, way.rails.shape[1])
        baseline = _rounded(way.on_page(np.column_stack([x, np.full_like(x, _BASELINE * height)])))
    return PageLine(line.text, line.score, chars, _rounded(polygon), baseline)


def borders(spans: list[tuple[float, float]], width: int) -> list[float]:
    """Adjacent borders for characters at (x0, x1); the outer characters are as wide as the inner ones.

    >>> borders([(10, 20), (30, 40)], 100)
    [2.5, 25.0, 47.5]
    """
    if not spans:
        return []
    inner = [(left[1] + right[0]) / 2 for left, right in zip(spans[:-1], spans[1:])]
    half = (spans[-1][1] - spans[0][0]) / len(spans) / 2
    return [max(0.0, spans[0][0] - half), *inner, min(float(width), spans[-1][1] + half)]


def _rounded(points: np.ndarray) -> Polygon:
    """To a tenth of a px; more precision would only make files larger."""
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in points)
