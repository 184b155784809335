"""`ms-ocr lmdb inspect | validate`, and the command group: thin wrappers around `lmdb.report` and `lmdb.check`.

Readable text, or with --json one JSON object, goes to stdout; progress goes to stderr, only if that is a terminal.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .lmdb_make import build, export, split
from .lmdb_output import SHOWN, describe, exit_with_problems, first, json_option, page_of, print_report, show_progress
from .output import number_of, refuse_existing

if TYPE_CHECKING:
    from ..lmdb.check import Spread, ValidationReport
    from ..lmdb.report import Description

_path_argument = click.argument("path", type=click.Path(path_type=Path))


@click.group()
def lmdb() -> None:
    """Make, check, split and export LMDBs of training lines."""


lmdb.add_command(build)
lmdb.add_command(split)
lmdb.add_command(export)


@lmdb.command()
@_path_argument
@click.option("--vocab", type=click.Path(path_type=Path), help="vocab.txt: report which characters it lacks.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a page with histograms.")
@json_option
def inspect(path: Path, vocab: Path | None, report: Path | None, as_json: bool) -> None:
    """Summarise the LMDB at PATH: sizes, formats, label lengths, characters, duplicates."""
    if report is not None:
        refuse_existing(report, "choose another --report")
    description = describe(path, vocab)
    if report is not None:
        page_of(description, report)
    print_report(description.as_dict(), as_json, _summary_lines(description))
    exit_with_problems(bool(description.summary.unreadable))


@lmdb.command()
@_path_argument
@click.option("--vocab", type=click.Path(path_type=Path), help="vocab.txt: also check characters and alignment.")
@json_option
def validate(path: Path, vocab: Path | None, as_json: bool) -> None:
    """List every problem of the LMDB at PATH; exit code 1 if there is one."""
    from ..lmdb.check import validate_lmdb
    from ..vocab import Vocabulary

    vocabulary = None if vocab is None else Vocabulary.load(vocab)
    with show_progress("validate") as progress:
        report = validate_lmdb(path, vocabulary, progress)
    print_report(report, as_json, _validation_lines(report, vocabulary is not None))
    exit_with_problems(not report.ok)


def _summary_lines(description: "Description") -> list[str]:
    summary = description.summary
    formats = ", ".join(f"{name} {number}" for name, number in summary.image_formats.items())
    percentiles = ", ".join(f"{p} % up to {length:g}" for p, length in summary.label_percentiles.items())
    characters = [f"{character!r} {number}" for character, number in summary.characters.items()]
    lines = [
        f"{summary.path}: {number_of(summary.samples, 'sample')}",
        f"formats:    {formats}",
        f"width:      {_spread(summary.widths)} px",
        f"height:     {_spread(summary.heights)} px",
        f"ratio:      {_spread(summary.aspects)} (width to height)",
        f"labels:     {percentiles} characters, the longest {max(summary.label_lengths, default=0)}",
        f"characters: {len(characters)} different: {_some(characters)}",
    ]
    if description.writers:
        lines.append(f"writers:    {description.writers}")
    if description.doubles:
        lines.append(
            f"doubles:    {number_of(len(description.doubles), 'image')} more than once: {_some(_doubles(description))}"
        )
    if description.classes:
        lines.append(f"vocabulary: {description.covered} of its {description.classes} characters occur")
    if description.lacking:
        lacking = [f"{character!r} {number}" for character, number in description.lacking.items()]
        lines.append(f"lacking:    {number_of(len(lacking), 'character')} that it does not contain: {_some(lacking)}")
    if summary.unreadable:
        lines.append(f"unreadable: {number_of(len(summary.unreadable), 'record')}; `ms-ocr lmdb validate` says why")
    return lines + first([f"  {key}" for key in summary.unreadable])


def _doubles(description: "Description") -> list[str]:
    return [" = ".join(group) for group in description.doubles]


def _some(items: list[str]) -> str:
    rest = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + rest


def _validation_lines(report: "ValidationReport", with_vocabulary: bool) -> list[str]:
    lines = [
        f"{report.path}: {number_of(report.samples, 'sample')} looked at, {number_of(len(report.problems), 'problem')}"
    ]
    if not with_vocabulary:
        lines.append("characters and alignment were not checked: give --vocab")
    lines += [f"{kind}: {number}" for kind, number in report.kinds.items()]
    return lines + first([f"  {problem.key}  {problem.kind}: {problem.detail}" for problem in report.problems])


def _spread(spread: "Spread") -> str:
    return f"{spread.minimum:.4g} to {spread.maximum:.4g}, median {spread.median:.4g}"
