"""SVG plots embedded in the page; their axes are described beside them, in both languages."""

import importlib.util
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendError
from .breakdown import Figures
from .statistics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#2f5f9e", "#9a9a9a"
NEEDED = ("matplotlib", "jinja2")


def check_installed() -> None:
    """Raises BackendError if a package of the extra `report` is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(
            f"a report needs the package {' and '.join(missing)}; `pip install ms_ocr_handwritten[report]`"
        )


def reliability_svg(bins: Sequence[Bin], name: str) -> str:
    """Accuracy over confidence, with Wilson intervals, above the number of characters or lines in each bin."""
    figure = _figure(3.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    there = [one for one in bins if one.count]
    share = np.array([one.share for one in there])
    if there:
        low, high = np.array([one.interval for one in there]).T
        upper.errorbar(
            [one.mean for one in there],
            share,
            np.clip([share - low, high - share], 0, None),
            fmt="o",
            markersize=4,
            color=BLUE,
            ecolor=GREY,
            elinewidth=1,
            capsize=2,
        )
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar([one.low for one in bins], [one.count for one in bins], width=0.1, align="edge", color=GREY)
    _plain(upper)
    _plain(lower)
    return _svg(figure, name)


def bars_svg(rows: Sequence[Figures], name: str) -> str:
    """CER of each subset in percent, with its interval."""
    figure = _figure(2.6)
    axes = figure.subplots()
    cer = 100 * np.array([row.cer for row in rows])
    low, high = 100 * np.array([row.cer_interval for row in rows]).reshape(-1, 2).T
    axes.bar(range(len(rows)), cer, color=BLUE, width=0.7)
    axes.errorbar(
        range(len(rows)), cer, np.nan_to_num(np.clip([cer - low, high - cer], 0, None)), fmt="none", ecolor="#444"
    )
    axes.set_xticks(range(len(rows)), [row.name for row in rows], rotation=30, ha="right")
    axes.set_ylim(bottom=0)
    _plain(axes)
    return _svg(figure, name)


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(4.8, height), layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _svg(figure: "Figure", name: str) -> str:
    """The <svg> element alone. `name` keeps the ids of different plots distinct."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
