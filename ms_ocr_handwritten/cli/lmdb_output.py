"""Shared by the commands of `ms-ocr lmdb`: text or JSON on stdout, a bar on stderr, a report on an LMDB."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..lmdb.report import Description
    from ..lmdb.resumable import SkippedSample

SHOWN = 20  # problems, skipped rows or characters in the readable text; --json lists them all

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextmanager
def show_progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function to call with (done, total); its bar on stderr appears only on a terminal."""
    from tqdm import tqdm

    with tqdm(desc=title, unit="line", disable=None, leave=False) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def print_report(report: Any, as_json: bool, lines: list[str], more: Mapping[str, Any] = {}) -> None:
    """Prints the lines, or as JSON the report (a dataclass or a dict) with the `more` dataclasses added to it."""
    if as_json:
        value = report if isinstance(report, dict) else dataclasses.asdict(report)
        value |= {name: dataclasses.asdict(one) for name, one in more.items()}
        lines = [json.dumps(value, ensure_ascii=False, indent=2)]
    click.echo("\n".join(lines))


def exit_with_problems(found: bool) -> None:
    if found:
        click.get_current_context().exit(1)


def first(lines: list[str]) -> list[str]:
    """The first `SHOWN` lines, followed by the number of further ones."""
    if len(lines) <= SHOWN:
        return lines
    return lines[:SHOWN] + [f"  ... and {len(lines) - SHOWN} more; --json lists all"]


def describe(path: Path, vocab: Path | None) -> "Description":
    from ..lmdb.report import describe_lmdb
    from ..vocab import Vocabulary

    vocabulary = None if vocab is None else Vocabulary.load(vocab)
    with show_progress("inspect") as progress:
        return describe_lmdb(path, vocabulary, progress)


def write_page(file: Path, path: Path, vocab: Path | None, skipped: "Sequence[SkippedSample]" = ()) -> None:
    """Write a report on the LMDB at `path`. Raises OutputError if it cannot be written."""
    page_of(describe(path, vocab), file, skipped)


def page_of(description: "Description", file: Path, skipped: "Sequence[SkippedSample]" = ()) -> None:
    from ..atomic import write_atomically
    from ..lmdb.report import html_page

    write_atomically(file, html_page(description, skipped).encode("utf-8", "backslashreplace"))
