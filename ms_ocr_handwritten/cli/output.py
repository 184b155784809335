"""Output of the commands: TSV rows, errors and progress on stderr; existing files are never overwritten."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from ..errors import OutputError

Item = TypeVar("Item")

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def tsv_row(*fields: str) -> str:
    r"""Fields separated by tabs; backslash, tab, line feed and carriage return are escaped as \\, \t, \n and \r."""
    return "\t".join(field.translate(_ESCAPES) for field in fields)


def one_line(name: str) -> str:
    r"""A name in a form that fits on one line: if it contains control characters, escaped as in Python (\n, \\)."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name.replace("\\", "\\\\"))


def aligned(rows: Sequence[Sequence[str]], last_left: bool = False) -> str:
    """Rows of cells as text: right-aligned columns, separated by two spaces.

    last_left: leave the last column unaligned, for paths, whose width on a terminal is unknown.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    if last_left:
        widths[-1] = 0
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def number_of(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def progress(items: Iterable[Item], title: str, total: int | None) -> Iterable[Item]:
    """The items; a bar on stderr shows the progress if that is a terminal."""
    from tqdm import tqdm

    return tqdm(items, desc=title, total=total, unit="line", disable=None, leave=False)


def report_unreadable(name: str, error: Exception) -> None:
    """One line on stderr that names what could not be read."""
    message = str(error)
    line = f"error: {one_line(message if name in message else f'{name}: {message}')}"
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:  # tqdm would draw its bar anew behind each line, however seldom that was asked for
        click.echo(line, err=True)


def exit_if_unreadable(unreadable: int, total: int) -> None:
    """Exit with code 1 and a summary on stderr if anything could not be read."""
    if unreadable:
        click.echo(f"{unreadable} of {total} could not be read", err=True)
        click.get_current_context().exit(1)


def refuse_existing(path: Path, remedy: str) -> None:
    """Raise OutputError if `path` exists."""
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path}: exists already and is left as it is; {remedy}")
