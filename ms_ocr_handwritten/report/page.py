"""The report as one self-contained HTML page: its contents, and the file."""

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import naming_what_cannot_be_written, write_atomically
from ..errors import DataError, OutputError
from ..image import load_image
from .breakdown import (
    Confusion,
    Figures,
    by_confidence,
    by_length,
    by_width,
    character_confidences,
    confusions,
    figures,
    missed,
    parts,
    units_of,
)
from .lines import Evaluation, Reading, ReportedLine
from .pictures import CHARACTER_PX, LINE_PX, bounds, small
from .plots import bars_svg, check_installed, reliability_svg
from .statistics import calibration_error, compare, reliability
from .texts import TEXTS

PAGE_FILE = "index.html"
PICTURED_LINES = 300  # the worst ones
MOST_CONFUSIONS = 200  # rows, which may have images
MOST_ROWS = 500  # in the other tables, so that 10,000 lines open in a second

_KINDS = {(True, True): "s", (True, False): "d", (False, True): "i"}  # (in the label, read)


def check_report_dir(folder: Path) -> None:
    """Check before any slow work that a report can be written to `folder`.

    Raises:
        BackendError: A package of the extra `report` is missing.
        OutputError: The folder is not empty, or its path is taken.
    """
    check_installed()
    with naming_what_cannot_be_written(folder):
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise OutputError(f"{folder}: exists already and is left as it is; choose another --report")


def write_report(folder: Path, evaluation: Evaluation, pictured_lines: int = PICTURED_LINES) -> Path:
    """Write the page into `folder`, which is created; returns its path.

    Raises:
        BackendError, OutputError: as `check_report_dir`.
        DataError: There are no lines.
        ImageError: An image that was read before can no longer be read.
    """
    check_report_dir(folder)
    if not evaluation.lines:
        raise DataError("no line was read, so there is nothing to report; name sets with readable lines")
    path = folder / PAGE_FILE
    write_atomically(path, page_html(evaluation, pictured_lines).encode("utf-8", "replace"))
    return path


def page_html(evaluation: Evaluation, pictured_lines: int = PICTURED_LINES) -> str:
    """The page. `evaluation` has at least one line."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {"percent": _percent, "shown": _shown}
    script = _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    context = _context(evaluation, pictured_lines)
    for plots in ("bars", "reliabilities"):
        context[plots] = [(key, Markup(svg), *rest) for key, svg, *rest in context[plots]]
    return environment.from_string(_resource("report.html.j2")).render(
        texts=TEXTS,
        style=Markup(_resource("report.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        **context,
    )


def _context(evaluation: Evaluation, pictured_lines: int) -> dict[str, Any]:
    lines = evaluation.lines
    readings, units = [line.reading for line in lines], units_of(lines)
    groups, found = parts(lines, lambda line: line.group), confusions(lines)
    characters = missed(lines, lambda character: not evaluation.vocabulary.unknown(character), evaluation.training)
    lengths, widths = by_length(lines), by_width(lines)
    pictures, examples = _pictures(evaluation, found[:MOST_CONFUSIONS], pictured_lines)
    claims = {
        "of_characters": character_confidences(readings),
        "of_lines": _line_confidences(readings),
    }
    return {
        "about": evaluation.about,
        "figures": _figures(evaluation),
        "by_groups": len(set(units)) < len(lines),
        **_comparison(lines, units),
        "shows": ("all", "wrong", *(("only_first", "only_second") if len(evaluation.readers) > 1 else ())),
        "confusions": [(row, examples[row.there, row.read]) for row in found[:MOST_CONFUSIONS]],
        "confusions_left_out": len(found[MOST_CONFUSIONS:]),
        "missed": characters[:MOST_ROWS],
        "missed_left_out": len(characters[MOST_ROWS:]),
        "with_training": evaluation.training is not None,
        "groups": groups[:MOST_ROWS],
        "groups_left_out": len(groups[MOST_ROWS:]),
        "lengths": lengths,
        "widths": widths,
        "confidences": by_confidence(lines),
        "bars": [(key, bars_svg(rows, key)) for key, rows in (("length", lengths), ("width", widths)) if rows],
        "reliabilities": [
            (key, reliability_svg(bins, key), calibration_error(bins))
            for key, bins in ((key, reliability(*claim)) for key, claim in claims.items())
        ],
        "unreadable": evaluation.unreadable,
        "words": {key: TEXTS[key] for key in ("errors", "confidence")},
        "lines": _rows(evaluation),
        "pictures": pictures,
    }


def _figures(evaluation: Evaluation) -> list[tuple[str, Figures]]:
    """(reader, scores) of all lines, and of each set if there are several."""
    sets = list(dict.fromkeys(line.set for line in evaluation.lines))
    chosen = {"": evaluation.lines}
    if len(sets) > 1:
        chosen |= {name: [line for line in evaluation.lines if line.set == name] for name in sets}
    rows = []
    for name, lines in chosen.items():
        of_each = ([line.reading for line in lines], [line.other for line in lines if line.other])
        for reader, readings in zip(evaluation.readers, of_each):
            rows.append((reader, figures(name, readings, units_of(lines))))
    return rows


def _comparison(lines: Sequence[ReportedLine], units: Sequence[str]) -> dict[str, Any]:
    if lines[0].other is None:
        return {"difference": None}
    pairs = [(line.reading, line.other) for line in lines if line.other]
    first, second = np.array([[one.counts.errors, other.counts.errors] for one, other in pairs]).T
    difference = compare(first, second, np.array([len(one.label) for one, _ in pairs]), units)
    return {
        "difference": difference,
        "only_first": int(((first == 0) & (second > 0)).sum()),
        "only_second": int(((first > 0) & (second == 0)).sum()),
    }


def _line_confidences(readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one.score for one in readings]), np.array([one.text == one.label for one in readings])


def _pictures(
    evaluation: Evaluation, shown: Sequence[Confusion], pictured_lines: int
) -> tuple[dict[int, Any], dict[tuple[str, str], list[str]]]:
    """For the worst lines: (image, [[left, right in percent, confidence] of each character]); for each confusion its
    examples' images.
    """
    lines = evaluation.lines
    worst = set(_worst(lines, pictured_lines))
    cut: dict[int, list[tuple[tuple[str, str], int]]] = {}
    for row in shown:
        for number, at in row.examples:
            cut.setdefault(number, []).append(((row.there, row.read), at))
    pictures: dict[int, Any] = {}
    examples: dict[tuple[str, str], list[str]] = {(row.there, row.read): [] for row in shown}
    for number, source in evaluation.pictures(worst | set(cut)):
        rgb, chars = load_image(source), lines[number].reading.chars
        height, width = rgb.shape[:2]
        if number in worst:
            places = [
                [round(100 * char.x0 / width, 2), round(100 * char.x1 / width, 2), round(char.score, 3)]
                for char in chars
            ]
            pictures[number] = (small(rgb, LINE_PX), places)
        for (there, read), at in cut.get(number, ()):
            left, right = bounds(chars, at, not read, width, height)
            examples[there, read].append(small(rgb[:, left:right], CHARACTER_PX))
    return pictures, examples


def _worst(lines: Sequence[ReportedLine], most: int) -> list[int]:
    """Indices of the lines with the most errors; for two readers, also as many that only one got right."""
    order = sorted(range(len(lines)), key=lambda i: (-lines[i].reading.counts.errors, lines[i].reading.score))
    alone = [
        i
        for i, line in enumerate(lines)
        if line.other is not None and (line.reading.counts.errors == 0) != (line.other.counts.errors == 0)
    ]
    return order[:most] + alone[:most]


def _rows(evaluation: Evaluation) -> dict[str, Any]:
    """The lines in the form that report.js expects."""
    sets = list(dict.fromkeys(line.set for line in evaluation.lines))
    number = {name: index for index, name in enumerate(sets)}
    rows = []
    for line in evaluation.lines:
        row = [line.name, number[line.set], line.group, line.reading.label, *_told(line.reading)]
        rows.append(row + (_told(line.other) if line.other else []))
    return {"sets": sets, "readers": list(evaluation.readers), "rows": rows}


def _told(reading: Reading) -> list[Any]:
    return [round(reading.score, 4), reading.counts.errors, reading.text, _edits(reading)]


def _edits(reading: Reading) -> str:
    """ "12= 1s 2d 1i": numbers of characters equal, substituted, deleted, inserted."""
    kinds = ("=" if there == read else _KINDS[bool(there), bool(read)] for there, read in reading.pairs)
    return " ".join(f"{sum(1 for _ in run)}{kind}" for kind, run in groupby(kinds))


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def _shown(character: str) -> str:
    if not character:
        return "∅"
    if character.isspace() or not character.isprintable():
        return "␣" if character == " " else f"U+{ord(character):04X}"
    return character


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
