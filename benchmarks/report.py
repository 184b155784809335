"""The results of a section, and how they are printed: tables, promised figures, and all numbers as JSON."""

import json
import os
import sys
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path

Cell = str | float | int | None  # None: not measured, or not meaningful


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    note: str = ""

    def text(self, markdown: bool) -> str:
        """The table with its title and note, in Markdown or in aligned columns."""
        rows = [self.columns, *([_shown(cell) for cell in row] for row in self.rows)]
        if markdown:
            body = [f"| {' | '.join(row)} |" for row in rows]
            body.insert(1, f"|{' --- |' * len(self.columns)}")
        else:
            widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
            body = [
                "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths)).rstrip()
                for row in rows
            ]
        heading = f"### {self.title}" if markdown else self.title
        return "\n".join([heading, "", *body, *(["", self.note] if self.note else [])])


@dataclass(frozen=True)
class Claim:
    """A promised figure. `required`: the run fails if it is not met, whatever the machine."""

    what: str
    wanted: str
    found: float | None
    met: bool | None  # None: could not be measured
    required: bool = False

    @classmethod
    def at_least(cls, what: str, bound: float, found: float | None) -> "Claim":
        return cls(what, f"at least {_shown(bound)}", found, None if found is None else found >= bound)

    @classmethod
    def at_most(cls, what: str, bound: float, found: float | None, required: bool = False) -> "Claim":
        return cls(what, f"at most {_shown(bound)}", found, None if found is None else found <= bound, required)


@dataclass(frozen=True)
class Section:
    """`samples`: the individual measurements behind the tables, for the JSON file."""

    tables: list[Table]
    claims: list[Claim] = field(default_factory=list)
    samples: dict = field(default_factory=dict)


def claims_table(claims: list[Claim]) -> Table:
    answers = {True: "yes", False: "no", None: "not measured"}
    return Table(
        "What was promised",
        ("figure", "wanted", "found", "met"),
        [(claim.what, claim.wanted, claim.found, answers[claim.met]) for claim in claims],
    )


def facts_table(facts: dict[str, str]) -> Table:
    return Table("Machine", ("", ""), list(facts.items()))


def save_json(path: Path, facts: dict[str, str], sections: dict[str, Section]) -> None:
    """Write all results so far; the file appears only once complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    content = {"machine": facts, "sections": {name: asdict(section) for name, section in sections.items()}}
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(partial, path)


def progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _shown(cell: Cell) -> str:
    """Numbers with about three digits."""
    if cell is None:
        return "–"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
