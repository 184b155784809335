"""Draw the three phases of a training as one picture for the model card (needs matplotlib).

    python recipe/curve.py COLUMNS/pretrain_log.jsonl WITH_REAL/pretrain_log.jsonl WORK_DIR/train_log.jsonl
        ms_ocr_handwritten/assets/curve.svg
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


def draw_columns(axes: pyplot.Axes, log: list[dict], title: str) -> None:
    """Loss of columns and, where there were any, of real lines; on another scale the share of characters right."""
    steps = [row["step"] for row in log]
    axes.plot(steps, [row["loss"] for row in log], color="tab:blue")
    if any(row.get("real_loss") for row in log):
        axes.plot(steps, [row["real_loss"] for row in log], color="tab:green", label="real lines")
        axes.legend(loc="center right")
    axes.set(title=title, xlabel="steps", ylabel="loss a character", ylim=(0, None))
    axes.yaxis.label.set_color("tab:blue")
    share = axes.twinx()
    share.plot(steps, [100 * row["accuracy"] for row in log], color="tab:orange")
    share.set(ylabel="characters right, %", ylim=(0, 100))
    share.yaxis.label.set_color("tab:orange")


def main(columns: str, with_real: str, lines: str, out: str) -> None:
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 3.2), layout="constrained")
    draw_columns(left, rows(columns), "1. columns of synthetic lines")
    draw_columns(middle, rows(with_real), "2. the same and real lines")
    learnt = [row for row in rows(lines) if row["mode"] == "train"]
    right.plot([row["iter"] for row in learnt], [row["loss"] for row in learnt], color="tab:blue", linewidth=0.8)
    right.set(title="3. CTC on synthetic and real lines", xlabel="steps", ylabel="loss a character", ylim=(0, None))
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
