"""One rank of a training under torchrun: `distributed_training.py MODEL TRAIN_LMDB EVAL_LMDB WORK OUT`.

Trains two epochs and writes what this rank saw to OUT/rank_N.json: its batches, the lines it evaluated, the scores.
"""

import json
import sys
from pathlib import Path

from training_tools import prepare

from ms_ocr_handwritten.backends import precision
from ms_ocr_handwritten.training.dataset import LineDataset

SGD = {"type": "SGD", "lr": 0.01, "momentum": 0.9}  # unlike Adam it does not blow up gradients of nothing but rounding


class Recorded(LineDataset):
    """Lines, and which of them were read by this process."""

    def __getitem__(self, index: int):
        self.__dict__.setdefault("read", []).append(index)
        return super().__getitem__(index)


def main(model: Path, lines: Path, held_out: Path, work_dir: Path, out: Path) -> None:
    training = prepare(model, lines, work_dir, [held_out], optimizer=SGD)
    training.dataset.__class__ = training.judge.evaluation.__class__ = Recorded
    batches = training.batches()
    summary = training.run()
    ranks = training.ranks
    precision.gemm_rates = lambda: {"fp32": 1.0, "bf16": 1.0 if ranks.rank else 9.0}  # as on two kinds of machines
    automatic = ranks.compute_bf16("auto")
    ranks.leave()
    (out / f"rank_{ranks.rank}.json").write_text(
        json.dumps(
            {
                "world": ranks.world,
                "batches": batches,
                "trained": training.dataset.read,
                "summary": summary,
                "evaluated": training.judge.evaluation.read[
                    : len(training.judge.evaluation.read) // 2
                ],  # of the first of two evaluations
                "bf16": automatic,
                "bias": training.network.vitstr.head.bias.tolist(),
                "threads": sorted(
                    task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
                ),
            }
        )
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
