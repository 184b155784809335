"""`ms-ocr evaluate`: how well a model reads labelled lines. Needs no ModelScope and, for a model in ONNX, no torch."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import LabelError, OcrError, OutputError
from .output import exit_if_unreadable, progress, refuse_existing, report_unreadable, tsv_row
from .reading import ReadMany, open_recognizer, read_sources, reader_of, recognizer_options
from .sources import LMDB_FILE, Source, count, file_source, is_lmdb, lmdb_sources

if TYPE_CHECKING:
    from ..recognizer import Line
    from ..training.metrics import Scores
    from ..vocab import Vocabulary

LABELS_FILE = "labels.tsv"

# Columns of the table: key of `Result.row`, heading. Rates are printed in percent.
_COUNTS = {"lines": "lines", "characters": "chars"}
_RATES = {"cer": "CER", "cer_loose": "CER loose", "accuracy": "lines right", "accuracy_loose": "right loose",
          "AR": "AR", "CR": "CR"}
_PROBLEMS = {"unknown_characters": "unknown chars", "unreadable": "unreadable"}

OnLine = Callable[[Source, "Line | OcrError"], None]


@dataclass
class Result:
    """The scores of one set, what of its labels the model cannot write, and how many lines could not be read."""

    scores: "Scores"
    unknown: Counter[str] = field(default_factory=Counter)  # characters of the folded labels, counted in scores as well
    unreadable: int = 0  # lines left out of the scores

    def row(self, path: str) -> dict[str, Any]:
        summary = self.scores.summary()
        del summary["avg_loss"]  # reading computes no loss
        return {"path": path, **summary, "unknown_characters": self.unknown.total(),
                "unknown": dict(self.unknown.most_common()), "unreadable": self.unreadable}


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--format", "layout", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--per-line", type=click.Path(path_type=Path), metavar="FILE",
              help="Write path, label, text and score of every line to a new TSV file.")
@recognizer_options
def evaluate(paths: tuple[str, ...], layout: str, per_line: Path | None, model: str | None, backend: str,
             precision: str, batch_size: int, device: str | None) -> None:
    """Compare what the model reads with the labels.

    PATH is the folder of an LMDB, or a folder with labels.tsv (file TAB text). One row each; labels and texts are
    folded to half-width first. CER: errors per character; loose: without spaces, punctuation, symbols and case;
    AR = 1 - CER; CR: AR without insertions; unknown chars: characters of the labels that the model's vocabulary
    lacks (they count as errors too). Lines that cannot be read are named on stderr and left out; the exit code is
    then 1.
    """
    sets = [labelled_sources(path) for path in paths]  # checks the paths before anything slow begins
    recognizer = open_recognizer(model, backend, precision, device)
    read = reader_of(recognizer, batch_size)
    with _per_line_writer(per_line) as on_line:
        results = [evaluate_sources(read, progress(sources, path, size), recognizer.vocabulary, on_line)
                   for path, (sources, size) in zip(paths, sets)]
    rows = [result.row(click.format_filename(path)) for path, result in zip(paths, results)]
    if layout == "json":
        report = {"backend": recognizer.backend, "precision": recognizer.precision, "sets": rows}
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        click.echo(_table(rows))
    unreadable = sum(row["unreadable"] for row in rows)
    exit_if_unreadable(unreadable, unreadable + sum(row["lines"] for row in rows))


def evaluate_sources(read: ReadMany, sources: Iterable[Source], vocabulary: "Vocabulary", on_line: OnLine) -> Result:
    """Score what `read` makes of the images against their labels; `read` may be any recogniser's.

    `on_line` is called with each source and its line. Unreadable lines are reported on stderr and counted.
    """
    from ..training.metrics import Scores
    from ..vocab import fold_full_width

    result = Result(Scores.empty())
    for source, line in read_sources(read, sources):
        on_line(source, line)
        if isinstance(line, OcrError):
            result.unreadable += 1
            report_unreadable(source.name, line)
            continue
        result.scores.add(line.text, source.label)
        label = fold_full_width(source.label)
        for character in vocabulary.unknown(label):
            result.unknown[character] += label.count(character)
    return result


def labelled_sources(path: str) -> tuple[Iterable[Source], int]:
    """The lines of an LMDB, or of a folder with labels.tsv, and their number. Raises LabelError if it is neither."""
    if is_lmdb(path):
        return lmdb_sources(path), count((path,))
    table = os.path.join(path, LABELS_FILE)
    if not os.path.isfile(table):
        raise LabelError(f"{click.format_filename(path)}: neither an LMDB (a folder with {LMDB_FILE}) nor a folder "
                         f"with {LABELS_FILE}; name one of the two")
    from ..lmdb_build import read_labels_file

    rows = read_labels_file(table)
    return [file_source(os.fspath(image), label) for image, label in rows], len(rows)


@contextmanager
def _per_line_writer(path: Path | None) -> Iterator[OnLine]:
    """A function that writes a line's row to the new file `path`, or does nothing. Raises OutputError."""
    if path is None:
        yield lambda source, line: None
        return
    refuse_existing(path, "choose another --per-line")
    try:
        file = open(path, "x", encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --per-line") from error
    with file:
        print(tsv_row("path", "label", "text", "score"), file=file)

        def write(source: Source, line: "Line | OcrError") -> None:
            text, score = ("", "") if isinstance(line, OcrError) else (line.text, f"{line.score:.6f}")
            print(tsv_row(source.name, source.label, text, score), file=file)

        yield write


def _table(rows: list[dict[str, Any]]) -> str:
    """Right-aligned columns; the path last, as its width on a terminal is anyone's guess."""
    columns = {**_COUNTS, **_RATES, **_PROBLEMS}
    cells = [[*columns.values(), "path"]]
    cells += [[*(_cell(row[key], key) for key in columns), row["path"]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)][:-1]
    return "\n".join("  ".join([*map(str.rjust, line, widths), line[-1]]) for line in cells)


def _cell(value: float | int | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if key in _RATES else str(value)
