"""`ms-ocr evaluate`: how well a model reads labelled lines, optionally beside a peer.

Does not need ModelScope or, for an ONNX model, torch.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..atomic import appearing_whole
from ..errors import LabelError, OcrError
from .output import aligned, exit_if_unreadable, progress, refuse_existing, report_unreadable, tsv_row
from .peer import PEERS, RapidOcr
from .reading import ReadMany, decoding_options, open_recognizer, read_sources, reader_of, recognizer_options
from .report import ReportedSet, evaluation_of, training_characters
from .sources import LABELS_FILE, LMDB_FILE, Source, count, file_source, is_lmdb, lmdb_sources

if TYPE_CHECKING:
    from ..metrics import Scores
    from ..recognizer import Line, Recognizer
    from ..vocab import Vocabulary

# Columns of the table: key of `Result.row` and heading. Rates are printed in percent.
_COUNTS = {"lines": "lines", "characters": "chars"}
_RATES = {
    "cer": "CER",
    "cer_loose": "CER loose",
    "accuracy": "lines right",
    "accuracy_loose": "right loose",
    "AR": "AR",
    "CR": "CR",
}
_PROBLEMS = {"unknown_characters": "unknown chars", "unreadable": "unreadable"}
_BESIDE_OTHERS = {"in_neither_characters": "in neither", "reader": "reader"}

OnLine = Callable[[Source, "Line | OcrError"], None]


@dataclass(frozen=True)
class Reader:
    """A recogniser under evaluation: the model, or another one beside it."""

    name: str  # '' if the model is the only one
    read: ReadMany
    vocabulary: "Vocabulary"


@dataclass
class Result:
    """The scores of one set, the characters of its labels unknown to the reader, and the number of unreadable lines."""

    scores: "Scores"
    unknown: Counter[str] = field(default_factory=Counter)  # characters of the folded labels, scored as well
    unreadable: int = 0  # lines excluded from the scores

    def row(self, path: str) -> dict[str, Any]:
        summary = self.scores.summary()
        del summary["avg_loss"]  # no loss is computed when reading
        return {
            "path": path,
            **summary,
            "unknown_characters": self.unknown.total(),
            "unknown": dict(self.unknown.most_common()),
            "unreadable": self.unreadable,
        }


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--per-line",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write path, label, text and score of every line to a new TSV file.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write an HTML report, index.html, into this new or empty folder.",
)
@click.option("--against", metavar="DIR_OR_ID", help="Also read the lines with this model, and compare.")
@click.option(
    "--training",
    metavar="PATH",
    multiple=True,
    help="The training data, as PATH: the report then shows how often it has each character; repeatable.",
)
@click.option(
    "--report-lines",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Number of worst lines that the report shows with their image; the others are listed without.",
)
@click.option("--peer", type=click.Choice(PEERS), help="Also read the images with this recogniser.")
@decoding_options
@recognizer_options
def evaluate(
    paths: tuple[str, ...],
    layout: str,
    per_line: Path | None,
    report: Path | None,
    against: str | None,
    training: tuple[str, ...],
    report_lines: int,
    peer: str | None,
    language_model: str | None,
    augment_below: float | None,
    allowed: str | None,
    lexicon: str | None,
    lexicon_mode: str,
    model: str | None,
    backend: str,
    precision: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Compare what the model reads with the labels.

    PATH is the folder of an LMDB, or a folder with labels.tsv (file TAB text). Each gives one row; labels and texts are
    folded to half-width first. CER: errors per character; loose: without spaces, punctuation, symbols and case;
    AR = 1 - CER; CR: AR without insertions; unknown chars: characters of the labels that the model's vocabulary
    lacks (they count as errors too). Unreadable lines are reported on stderr and left out; the exit code is then 1.

    --peer rapidocr (PP-OCRv6 small, after `pip install ms_ocr_handwritten[peer]`) gets its own row below the model's,
    with its own unknown chars and unreadable lines; in neither: unknown chars that are in neither vocabulary (errors
    for both). So does the model of --against, read with the same options. With --report the page compares the two and
    states whether the difference is significant.
    """
    if report is None and training:
        raise click.UsageError("--training has an effect only with --report; give --report DIR, or leave it out")
    if report and against and peer:
        raise click.UsageError("--report compares two readers; leave out --against or --peer")
    sets = [labelled_sources(path) for path in paths]  # checks the paths before anything slow begins
    if report is not None:
        from ..report.page import check_report_dir

        check_report_dir(report)
    seen = training_characters(training) if training else None
    recognizer = open_recognizer(model, backend, precision, device, language_model, augment_below=augment_below)
    asked: dict[str, Any] = {"allowed": allowed, "lexicon": lexicon, "lexicon_mode": lexicon_mode}
    several = against is not None or peer is not None
    readers = [Reader("model" if several else "", reader_of(recognizer, batch_size, **asked), recognizer.vocabulary)]
    about = [_about(model or "the embedded model", recognizer)]
    if against is not None:
        other = open_recognizer(against, backend, precision, device, language_model, augment_below=augment_below)
        readers.append(Reader("against", reader_of(other, batch_size, **asked), other.vocabulary))
        about.append(f"against: {_about(against, other)}")
    if peer:
        rapidocr = RapidOcr()
        readers.append(Reader(peer, rapidocr.read_many, rapidocr.vocabulary))
        about.append(f"against: {peer}")
    rows, reported = [], []
    with _per_line_writer(per_line, several) as on_line:
        for path, (open_sources, size) in zip(paths, sets):
            reported.append(ReportedSet(path, open_sources))
            for reader in readers:
                sources = progress(open_sources(), f"{path} {reader.name}".rstrip(), size)
                listeners: list[OnLine] = [partial(on_line, reader.name)]
                if report is not None:
                    listeners.append(partial(reported[-1].add, reader.name))
                result = evaluate_sources(reader.read, sources, reader.vocabulary, _each(listeners), reader.name)
                row = result.row(click.format_filename(path))
                rows.append(row | _beside_others(result, reader, readers) if several else row)
    if report is not None:
        from .. import __version__
        from ..report.page import write_report

        about.append(f"ms_ocr_handwritten {__version__}, {date.today().isoformat()}")
        names = [reader.name or "model" for reader in readers]
        write_report(
            report, evaluation_of(reported, names, about, recognizer.vocabulary, seen), pictured_lines=report_lines
        )
    if layout == "json":
        told = {"backend": recognizer.backend, "precision": recognizer.precision, "sets": rows}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        click.echo(_table(rows, _COUNTS | _RATES | _PROBLEMS | (_BESIDE_OTHERS if several else {})))
    unreadable = sum(row["unreadable"] for row in rows)
    exit_if_unreadable(unreadable, unreadable + sum(row["lines"] for row in rows))


def _about(model: str, recognizer: "Recognizer") -> str:
    return f"{click.format_filename(model)} ({recognizer.backend}, {recognizer.precision})"


def _each(listeners: list[OnLine]) -> OnLine:
    def on_line(source: Source, line: "Line | OcrError") -> None:
        for listener in listeners:
            listener(source, line)

    return on_line


def evaluate_sources(
    read: ReadMany, sources: Iterable[Source], vocabulary: "Vocabulary", on_line: OnLine, name: str = ""
) -> Result:
    """Score the output of `read` on the images against their labels; `read` may belong to any recogniser.

    `on_line` is called with each source and its line. Unreadable lines are reported on stderr, with the reader's
    `name` if it has one, and counted.
    """
    from ..metrics import Scores
    from ..vocab import fold_full_width

    result = Result(Scores.empty())
    for source, line in read_sources(read, sources):
        on_line(source, line)
        if isinstance(line, OcrError):
            result.unreadable += 1
            report_unreadable(source.name, OcrError(f"{name}: {line}") if name else line)
            continue
        result.scores.add(line.text, source.label)
        label = fold_full_width(source.label)
        for character in vocabulary.unknown(label):
            result.unknown[character] += label.count(character)
    return result


def labelled_sources(path: str) -> tuple[Callable[[], Iterable[Source]], int]:
    """A function that iterates over the lines of an LMDB or a folder with labels.tsv, and the number of lines.

    Raises LabelError if `path` is neither.
    """
    if is_lmdb(path):
        return partial(lmdb_sources, path), count((path,)) or 0
    table = os.path.join(path, LABELS_FILE)
    if not os.path.isfile(table):
        raise LabelError(
            f"{click.format_filename(path)}: neither an LMDB (a folder with {LMDB_FILE}) nor a folder "
            f"with {LABELS_FILE}; name one of the two"
        )
    from ..data.table import read_labels_file

    rows = read_labels_file(table)
    return lambda: (file_source(os.fspath(image), label) for image, label in rows), len(rows)


def _beside_others(result: Result, reader: Reader, readers: list[Reader]) -> dict[str, Any]:
    """The additional columns of a row when several readers are compared."""
    in_neither = {
        character: number
        for character, number in result.unknown.most_common()
        if all(other.vocabulary.unknown(character) for other in readers)
    }
    return {"reader": reader.name, "in_neither_characters": sum(in_neither.values()), "in_neither": in_neither}


@contextmanager
def _per_line_writer(
    path: Path | None, with_reader: bool
) -> "Iterator[Callable[[str, Source, Line | OcrError], None]]":
    """A function that writes a reader's line to `path`, new and there once it is whole, or does nothing.

    Raises OutputError.
    """
    if path is None:
        yield lambda reader, source, line: None
        return
    refuse_existing(path, "choose another --per-line")
    with appearing_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        print(tsv_row("path", *["reader"] * with_reader, "label", "text", "score"), file=file)

        def write(reader: str, source: Source, line: "Line | OcrError") -> None:
            text, score = ("", "") if isinstance(line, OcrError) else (line.text, f"{line.score:.6f}")
            print(tsv_row(source.name, *[reader] * with_reader, source.label, text, score), file=file)

        yield write


def _table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    cells = [[*columns.values(), "path"]]
    cells += [[*(_cell(row[key], key) for key in columns), row["path"]] for row in rows]
    return aligned(cells, last_left=True)


def _cell(value: float | int | str | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if key in _RATES else str(value)
