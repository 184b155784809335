"""Training curves, plotted from train_log.jsonl files."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import appearing_whole
from ..errors import DataError, OutputError
from .plots import check_installed

LOG_FILE = "train_log.jsonl"
SUFFIXES = (".png", ".svg", ".pdf")
MARKED = 60  # a curve of at most this many points has markers

Points = list[tuple[float, float]]  # epochs, value


@dataclass(frozen=True)
class Curves:
    """The log of one training over epochs (2.5: in the middle of the third)."""

    name: str
    train: dict[str, Points]  # loss, lr, lines_per_second
    evaluation: dict[str, Points]  # cer, accuracy ...


def read_curves(work_dir: Path) -> Curves:
    """The log of a work_dir. Raises DataError, naming file and line, if it is missing, empty or damaged."""
    path = work_dir / LOG_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DataError(f"{path}: cannot be read ({reason}); name the work_dir of a training") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break  # a training is writing it, or was killed while writing
        try:
            entry = json.loads(line)
            if entry["mode"] not in ("train", "eval") or type(entry["epoch"]) is not int:
                raise ValueError
            entries.append(entry)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not an entry of a training log; remove the line") from error
    if not entries:
        raise DataError(f"{path}: has no entries yet; wait for train.logging.interval batches, or name another")
    batches = max((entry["iter"] for entry in entries if _number(entry.get("iter"))), default=1)
    curves = Curves(_name(work_dir), {}, {})
    for entry in entries:
        place = entry["epoch"] - 1 + entry["iter"] / batches if _number(entry.get("iter")) else float(entry["epoch"])
        told = curves.train if entry["mode"] == "train" else curves.evaluation
        for key, value in entry.items():
            if key not in ("epoch", "iter") and _number(value):
                told.setdefault(key, []).append((place, float(value)))
    return curves


def draw_curves(runs: Sequence[Curves], out: Path) -> None:
    """Loss, CER and line accuracy, learning rate and throughput of all runs, as a figure in one of SUFFIXES.

    Raises:
        BackendError: matplotlib is missing.
        OutputError: The suffix is not one of these, the file exists, or it cannot be written.
    """
    check_installed()
    if out.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{out}: the suffix is not one of {', '.join(SUFFIXES)}; choose another --out")
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out}: exists already and is left as it is; choose another --out")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, (title, scale, curves) in zip(panels.flat, _PANELS):
        for color, run in enumerate(runs):
            for style, (label, find) in zip(("-", "--"), curves):
                if points := find(run):
                    places, values = zip(*points)
                    named = " ".join(([run.name] if len(runs) > 1 else []) + [label])
                    marker = "o" if len(points) < MARKED else ""
                    axes.plot(places, values, style, color=f"C{color}", label=named, marker=marker, markersize=3)
        axes.set(title=title, xlabel="epoch", yscale=scale)
        axes.grid(color="#e6e6e6")
        if axes.lines:
            axes.legend(fontsize=8)
    with appearing_whole(out) as temporary:
        figure.savefig(temporary, format=out.suffix[1:].lower(), dpi=120)


def _of(part: str, key: str, factor: float = 1.0) -> Callable[[Curves], Points]:
    return lambda run: [(place, factor * value) for place, value in getattr(run, part).get(key, [])]


_PANELS: tuple[tuple[str, str, tuple[tuple[str, Callable[[Curves], Points]], ...]], ...] = (
    ("loss per line", "log", (("training", _of("train", "loss")), ("evaluation", _of("evaluation", "avg_loss")))),
    (
        "evaluation, percent",
        "linear",
        (("CER", _of("evaluation", "cer", 100)), ("lines right", _of("evaluation", "accuracy", 100))),
    ),
    ("learning rate", "linear", (("learning rate", _of("train", "lr")),)),
    ("lines per second", "linear", (("training", _of("train", "lines_per_second")),)),
)


def _name(work_dir: Path) -> str:
    """The folder's display name; bytes that are not UTF-8 are escaped."""
    return os.fsencode(work_dir.resolve().name).decode("utf-8", "backslashreplace")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
