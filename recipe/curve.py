"""Draw the two phases of a training as one picture for the model card (needs matplotlib).

    python recipe/curve.py PRETRAINED/pretrain_log.jsonl WORK_DIR/train_log.jsonl ms_ocr_handwritten/assets/curve.svg
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


def main(first: str, second: str, out: str) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = [row["step"] for row in rows(first)]
    left.plot(steps, [row["loss"] for row in rows(first)], color="tab:blue")
    left.set(title="1. columns of synthetic lines", xlabel="steps of 48 chunks", ylabel="cross entropy a character",
             ylim=(0, 6))
    share = left.twinx()
    share.plot(steps, [100 * row["accuracy"] for row in rows(first)], color="tab:orange")
    share.set(ylabel="characters right, %", ylim=(0, 100))
    share.yaxis.label.set_color("tab:orange")
    left.yaxis.label.set_color("tab:blue")
    learnt = [row for row in rows(second) if row["mode"] == "train"]
    right.plot([row["iter"] for row in learnt], [row["loss"] for row in learnt], color="tab:blue", linewidth=0.8)
    right.set(title="2. CTC on synthetic and real lines", xlabel="steps of 32 lines", ylabel="loss a character",
              ylim=(0, None))
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
