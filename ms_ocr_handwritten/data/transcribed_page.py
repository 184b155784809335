"""A page with its transcription, as given by PAGE XML, ALTO and hOCR, and functions shared by their readers."""

import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from ..errors import LabelError

Polygon = tuple[tuple[float, float], ...]

MAX_BYTES = 64 * 1024 * 1024  # per file; a page of a thousand lines has about one MiB
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif")

_SPACES = re.compile(r"[ \t\r\n]+")
_SAME_SHAPE = 0.02  # tolerated difference between the aspect ratios of an image and its transcription


@dataclass(frozen=True)
class TranscribedLine:
    """One line: `name` is its id in the file; polygon and baseline in (x, y) px of the page; text '' if it has none."""

    name: str
    text: str
    polygon: Polygon
    baseline: Polygon | None = None


@dataclass(frozen=True)
class TranscribedPage:
    """One page of a transcription file.

    where: file, and the page within it if there are several, for messages
    image: as named in the file, '' if it is not
    width, height: of the page in the units of its coordinates, 0 if not given
    lines: in the order of the file
    problems: messages about lines that are invalid
    """

    file: Path
    where: str
    image: str
    width: float
    height: float
    lines: tuple[TranscribedLine, ...]
    problems: tuple[LabelError, ...] = ()

    def find_image(self, folder: str | os.PathLike[str] | None = None) -> Path:
        """The file of the page's image: the name given for it, or the transcription's own name with an image
        suffix, in `folder` or beside the transcription. Raises LabelError."""
        # The path may be from another machine and operating system; only its last part is still valid.
        named = unquote(PurePosixPath(PureWindowsPath(self.image).as_posix()).name)
        stem = self.file.name.split(".")[0]
        for place in [self.file.parent] if folder is None else [Path(folder), self.file.parent]:
            candidates = [place / named] if named else []
            candidates += [place / (one + suffix) for one in {self.file.stem: 0, stem: 0} for suffix in IMAGE_SUFFIXES]
            for candidate in candidates:
                if candidate.is_file():
                    return candidate
        raise LabelError(f"{self.where}: its image {named or stem + '.jpg'!r} is not beside it; put it there")

    def scaled_to(self, width: int, height: int) -> "TranscribedPage":
        """The page in px of its image of that size, as files also use tenths of a mm, and images may be scaled down.

        Raises LabelError if page and image differ in aspect ratio.
        """
        if not self.width or not self.height or (self.width, self.height) == (width, height):
            return self
        if abs(math.log((self.width / self.height) / (width / height))) > _SAME_SHAPE:
            raise LabelError(
                f"{self.where}: its coordinates are of a page of {self.width:g}x{self.height:g}, its image has "
                f"{width}x{height} px; is the image rotated, cropped or a different one?"
            )

        def scaled(points: Polygon) -> Polygon:
            return tuple((x * width / self.width, y * height / self.height) for x, y in points)

        lines = tuple(
            replace(line, polygon=scaled(line.polygon), baseline=line.baseline and scaled(line.baseline))
            for line in self.lines
        )
        return replace(self, lines=lines, width=float(width), height=float(height))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a transcription file. Raises LabelError."""
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise LabelError(f"{path}: {size} bytes are over the limit of {MAX_BYTES}; split it into pages")
        return Path(path).read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def read_xml(path: str | os.PathLike[str], root: str) -> ElementTree.Element:
    """The root element, called `root`, without namespaces in any names. Raises LabelError."""
    try:
        tree = ElementTree.fromstring(read_bytes(path))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two for odd encodings
        raise LabelError(f"{path}: not well-formed XML ({error}); write or copy it again") from None
    for element in tree.iter():
        if isinstance(element.tag, str):  # a comment's is a function
            element.tag = local_name(element.tag)
    if tree.tag != root:
        raise LabelError(f"{path}: its root is <{tree.tag}>, where <{root}> is expected; is it of another format?")
    return tree


def local_name(tag: str) -> str:
    return tag.rpartition("}")[2]


def parse_points(text: str) -> Polygon:
    """`x,y x,y`, `x y x y` or any mixture: pairs of finite numbers. Raises ValueError."""
    numbers = [float(one) for one in text.replace(",", " ").split()]
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers do not form pairs")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")
    return tuple(zip(numbers[::2], numbers[1::2]))


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """The corners of an axis-aligned rectangle."""
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def one_spaced(parts: Iterable[str]) -> str:
    """Concatenated parts of a text; white space in the markup becomes one space, and none at the ends."""
    return _SPACES.sub(" ", "".join(parts)).strip(" ")
