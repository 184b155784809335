"""`ms-ocr lmdb build | inspect | validate`: thin over `lmdb.build` and `lmdb.check`.

Text for people, or with --json one JSON object, goes to stdout; progress goes to stderr, and only to a terminal.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..lmdb.build import BuildReport
    from ..lmdb.check import Spread, Summary, ValidationReport

_SHOWN = 20  # problems, skipped rows or characters in the text for people; --json has them all

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_path_argument = click.argument("path", type=click.Path(path_type=Path))


@click.group()
def lmdb() -> None:
    """Make and check the LMDB of lines that training reads."""


@lmdb.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("labels_file", type=click.Path(path_type=Path))
@click.option("--image-root", type=click.Path(path_type=Path), help="Folder of the images [default: the table's].")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are no sample, and list them; else they stop it.")
@_json_option
def build(out: Path, labels_file: Path, image_root: Path | None, skip_bad: bool, as_json: bool) -> None:
    """Make the LMDB folder OUT of LABELS_FILE and its images.

    LABELS_FILE is UTF-8: a .tsv of `file TAB text`, or a .csv of `file,text`. Exit code 1 when rows were left out.
    """
    from ..lmdb.build import build_lmdb

    with _progress("build") as progress:
        report = build_lmdb(out, labels_file, image_root, "skip" if skip_bad else "error", progress)
    _print(report, as_json, _build_lines(report))
    _exit_with_problems(bool(report.skipped))


@lmdb.command()
@_path_argument
@_json_option
def inspect(path: Path, as_json: bool) -> None:
    """Sum up the LMDB at PATH: sizes, formats, label lengths, characters."""
    from ..lmdb.check import inspect_lmdb

    with _progress("inspect") as progress:
        summary = inspect_lmdb(path, progress)
    _print(summary, as_json, _summary_lines(summary))
    _exit_with_problems(bool(summary.unreadable))


@lmdb.command()
@_path_argument
@click.option("--vocab", type=click.Path(path_type=Path), help="vocab.txt: check characters and alignment as well.")
@_json_option
def validate(path: Path, vocab: Path | None, as_json: bool) -> None:
    """List every fault of the LMDB at PATH; exit code 1 when there is one."""
    from ..lmdb.check import validate_lmdb
    from ..vocab import Vocabulary

    vocabulary = None if vocab is None else Vocabulary.load(vocab)
    with _progress("validate") as progress:
        report = validate_lmdb(path, vocabulary, progress)
    _print(report, as_json, _validation_lines(report, vocabulary is not None))
    _exit_with_problems(not report.ok)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total); its bar on stderr appears only on a terminal."""
    from tqdm import tqdm

    with tqdm(desc=title, unit="line", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _print(report: "BuildReport | Summary | ValidationReport", as_json: bool, lines: list[str]) -> None:
    if as_json:
        lines = [json.dumps(dataclasses.asdict(report), ensure_ascii=False, indent=2)]
    click.echo("\n".join(lines))


def _exit_with_problems(found: bool) -> None:
    if found:
        click.get_current_context().exit(1)


def _build_lines(report: "BuildReport") -> list[str]:
    lines = [f"{report.path}: {report.written} samples written, {len(report.skipped)} rows left out"]
    return lines + _first([f"  {skipped.reason}" for skipped in report.skipped])


def _summary_lines(summary: "Summary") -> list[str]:
    formats = ", ".join(f"{name} {number}" for name, number in summary.image_formats.items())
    percentiles = ", ".join(f"{p} % up to {length:g}" for p, length in summary.label_percentiles.items())
    characters = [f"{character!r} {number}" for character, number in summary.characters.items()]
    rest = f", and {len(characters) - _SHOWN} more" if len(characters) > _SHOWN else ""
    lines = [
        f"{summary.path}: {summary.samples} samples",
        f"formats:    {formats}",
        f"width:      {_spread(summary.widths)} px",
        f"height:     {_spread(summary.heights)} px",
        f"ratio:      {_spread(summary.aspects)} (width to height)",
        f"labels:     {percentiles} characters, the longest {max(summary.label_lengths, default=0)}",
        f"characters: {len(characters)} different: {', '.join(characters[:_SHOWN])}{rest}",
    ]
    if summary.unreadable:
        lines.append(f"unreadable: {len(summary.unreadable)} records; `ms-ocr lmdb validate` says why")
    return lines + _first([f"  {key}" for key in summary.unreadable])


def _validation_lines(report: "ValidationReport", with_vocabulary: bool) -> list[str]:
    lines = [f"{report.path}: {report.samples} samples looked at, {len(report.problems)} problems"]
    if not with_vocabulary:
        lines.append("characters and alignment were not checked: give --vocab")
    lines += [f"{kind}: {number}" for kind, number in report.kinds.items()]
    return lines + _first([f"  {problem.key}  {problem.kind}: {problem.detail}" for problem in report.problems])


def _spread(spread: "Spread") -> str:
    return f"{spread.minimum:.4g} to {spread.maximum:.4g}, median {spread.median:.4g}"


def _first(lines: list[str]) -> list[str]:
    """The first `_SHOWN` lines, and how many more there are."""
    if len(lines) <= _SHOWN:
        return lines
    return lines[:_SHOWN] + [f"  ... and {len(lines) - _SHOWN} more; --json lists all"]
