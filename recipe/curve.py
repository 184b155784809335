"""Plot the phases of a training, in order, as one figure for the model card (needs matplotlib).

    python recipe/curve.py OUT.svg FIRST LOG...

FIRST is the number of the first log's phase. A log is the pretrain_log.jsonl of `pretrain.py` or the train_log.jsonl of
`ms-ocr train`.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ms_ocr_handwritten"  # the same file for the same logs
from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def draw_columns(axes: pyplot.Axes, log: list[dict]) -> None:
    """Losses of columns and, if there were any, of texts; on another scale the share of correct characters."""
    steps = [row["step"] for row in log]
    axes.plot(steps, [row["loss"] for row in log], color="tab:blue")
    for name, label, color in (("text_loss", "CTC", "tab:cyan"), ("real_loss", "CTC, real lines", "tab:green")):
        if any(row.get(name) for row in log):
            axes.plot(steps, [row[name] for row in log], color=color, label=label)
            axes.legend(loc="center right")
    share = axes.twinx()
    share.plot(steps, [100 * row["accuracy"] for row in log], color="tab:orange")
    share.set(ylabel="characters right, %", ylim=(0, 100))
    share.yaxis.label.set_color("tab:orange")


def draw_lines(axes: pyplot.Axes, log: list[dict]) -> None:
    """Loss of whole lines."""
    learnt = [row for row in log if row["mode"] == "train"]
    axes.plot([row["iter"] for row in learnt], [row["loss"] for row in learnt], color="tab:blue", linewidth=0.8)


def main(out: str, first: str, *logs: str) -> None:
    figure, panels = pyplot.subplots(1, len(logs), figsize=(4.3 * len(logs), 3.2), layout="constrained", squeeze=False)
    for number, (log, axes) in enumerate(zip(map(rows, logs), panels[0]), start=int(first)):
        columns = "accuracy" in log[0]
        (draw_columns if columns else draw_lines)(axes, log)
        axes.set(title=f"{number}. {'columns' if columns else 'whole lines by CTC'}", xlabel="steps", ylim=(0, None))
        axes.set_ylabel("loss a character", color="tab:blue")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
