"""`ms-ocr evaluate --report`: collects results during scoring for `report.page`; images are read a second time."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OcrError
from .sources import LABELS_FILE, Source, is_lmdb

if TYPE_CHECKING:
    from ..recognizer import Line
    from ..report.lines import Evaluation, ReportedLine
    from ..vocab import Vocabulary

OpenSources = Callable[[], Iterable[Source]]
Read = tuple[str, str, "Line | OcrError"]  # name, label, what was read


@dataclass
class ReportedSet:
    """The lines of one set as read by each reader, in the order of the set."""

    path: str
    open_sources: OpenSources
    read: dict[str, list[Read]] = field(default_factory=dict)  # by reader
    widths: list[int] = field(default_factory=list)  # px at 32 px height, 0 if unknown

    def add(self, reader: str, source: Source, line: "Line | OcrError") -> None:
        """Record a reader's result for the next line; the image is not kept."""
        first = not self.read or reader == next(iter(self.read))
        self.read.setdefault(reader, []).append((source.name, source.label, line))
        if first:
            self.widths.append(_width(source, line))

    def lines(self) -> "Iterator[tuple[int, ReportedLine]]":
        """The lines that every reader could read, with their index in the set."""
        from ..report.lines import Reading, ReportedLine

        group = _groups(self.path)
        for index, of_each in enumerate(zip(*self.read.values())):
            (name, label, _), lines = of_each[0], [line for _, _, line in of_each]
            if any(isinstance(line, OcrError) for line in lines):
                continue
            readings = [Reading.of(label, line) for line in lines if not isinstance(line, OcrError)]
            shown = click.format_filename(self.path)
            yield index, ReportedLine(name, shown, group(index), self.widths[index], *readings)

    def unreadable(self) -> Iterator[tuple[str, str]]:
        """Name and reason for each line that a reader could not read."""
        for lines in self.read.values():
            yield from ((name, str(line)) for name, _, line in lines if isinstance(line, OcrError))


def evaluation_of(
    sets: Sequence[ReportedSet],
    readers: Sequence[str],
    about: Sequence[str],
    vocabulary: "Vocabulary",
    training: Counter[str] | None,
) -> "Evaluation":
    """The input of `report.page.write_report`. training: from `training_characters`, None if not known."""
    from ..report.lines import Evaluation

    placed = [(number, index, line) for number, one in enumerate(sets) for index, line in one.lines()]
    places = {(number, index): place for place, (number, index, _) in enumerate(placed)}

    def pictures(wanted: set[int]) -> Iterator[tuple[int, str | bytes]]:
        for number, one in enumerate(sets):
            for index, source in enumerate(one.open_sources()):
                place = places.get((number, index))
                if place in wanted and place is not None and not isinstance(source.image, OcrError):
                    yield place, source.image

    return Evaluation(
        readers=readers,
        about=about,
        lines=[line for _, _, line in placed],
        vocabulary=vocabulary,
        pictures=pictures,
        unreadable=list(dict.fromkeys(pair for one in sets for pair in one.unreadable())),
        training=training,
    )


def training_characters(paths: Iterable[str]) -> Counter[str]:
    """Count of each character in the folded labels of LMDBs, or of folders with labels.tsv. Raises OcrError."""
    from ..lmdb.store import LmdbReader
    from ..vocab import fold_full_width

    counts: Counter[str] = Counter()
    for path in paths:
        if is_lmdb(path):
            reader = LmdbReader(path)
            labels = (reader.label(index) for index in range(len(reader)))
        else:
            labels = (label for _, label in _labels(path))
        for label in labels:
            counts.update(fold_full_width(label))
    return counts


def _labels(path: str) -> list[tuple[Path, str]]:
    from ..data.table import read_labels_file

    return read_labels_file(os.path.join(path, LABELS_FILE))


def _width(source: Source, line: "Line | OcrError") -> int:
    from ..geometry import scaled_width
    from ..image import image_size

    if isinstance(line, OcrError) or isinstance(source.image, OcrError):
        return 0
    return scaled_width(*image_size(source.image))


def _groups(path: str) -> Callable[[int], str]:
    """A function that gives the writer of a line, else its page, else its folder, else ''."""
    if is_lmdb(path):
        from ..lmdb.store import SIDE_KEYS, LmdbReader

        reader = LmdbReader(path)
        return lambda index: _group(**{kind: reader.beside(index, kind) for kind in SIDE_KEYS})
    from ..data.record import ReadOptions, Record
    from ..data.table import read

    records = [one for one in read(Path(path, LABELS_FILE), ReadOptions()) if isinstance(one, Record)]
    return lambda index: _group(records[index].source, records[index].writer, records[index].page)


def _group(source: str, writer: str, page: str) -> str:
    return writer or page or source.rpartition("/")[0]
