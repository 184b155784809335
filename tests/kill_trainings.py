"""Kill a tiny training at random moments, look at its files, let it go on.

    python kill_trainings.py MODEL LMDB WORK KILLS SEED

The parent imports everything once and computes nothing; each training is a forked child, so that none has to import.
Half of the kills are aimed at the moment when a temporary file is there. Prints a JSON object: what was counted.
"""

import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from training_tools import assert_equal_weights, log, prepare, read_weights_file

from ms_ocr_handwritten.atomic import TEMPORARY_SUFFIX

TRAINING = {
    "max_epochs": 3,
    "dataloader": {"batch_size_per_gpu": 8},
    "ema_decay": 0.5,
    "optimizer": {"type": "AdamW", "lr": 1e-3, "options": {"grad_clip": {"max_norm": 20}}},
    "lr_scheduler": {"type": "OneCycleLR", "max_lr": 3e-3, "options": {"by_epoch": False}},
    "checkpoint": {"period": {"resume_interval": 2}},
    "logging": {"interval": 1},
}
FINAL = ["epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "output/pytorch_model.pt", "output_best/pytorch_model.pt"]


def start(model: Path, lines: Path, work_dir: Path, told: Path) -> int:
    """Fork a child that trains; its process id. What it says goes to the file `told`."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        prepare(model, lines, work_dir, [lines], **TRAINING).run()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def temporary_files(work_dir: Path) -> list[str]:
    return [path.name for path in work_dir.rglob(f".*{TEMPORARY_SUFFIX}")]


def kill_after(pid: int, delay: float, work_dir: Path, aimed: bool) -> bool:
    """Kill the child after `delay` s, if aimed as soon as a temporary file is there; False if it had ended before."""
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline or (aimed and not temporary_files(work_dir)):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)  # a child that has ended is still there to be waited for
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the training failed"
    return False


def check_files(work_dir: Path) -> None:
    """Every file with a final name is whole."""
    for path in work_dir.rglob("*"):
        if path.suffix in (".pth", ".pt"):
            torch.load(path, weights_only=True)
        elif path.suffix == ".json" and not path.name.startswith("."):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.name == "vocab.txt":
            assert path.read_bytes().endswith(b"9\n")


def position(work_dir: Path) -> tuple[int, int] | None:
    """Epochs and batches of the state that resume.json names, None if nothing is saved yet."""
    file = work_dir / "resume.json"
    if not file.exists():
        return None
    state = torch.load(work_dir / json.loads(file.read_text(encoding="utf-8"))["state"], weights_only=True)
    return state["epoch"], state["iteration"]


def said_position(told: Path) -> tuple[int, int] | None:
    """Where a child said that it goes on; None if it did not come so far or began anew."""
    found = re.search(r"resuming after epoch (\d+), batch (\d+)", told.read_text(encoding="utf-8"))
    return (int(found[1]), int(found[2])) if found else None


def evaluations(work_dir: Path) -> dict[int, dict]:
    """The last evaluation of each epoch in the log."""
    return {entry["epoch"]: entry for entry in log(work_dir) if entry["mode"] == "eval"}


def check_end(work_dir: Path, whole: Path) -> None:
    """A training that was killed and went on has left what the uninterrupted one has."""
    for name in FINAL:
        assert_equal_weights(read_weights_file(work_dir / name), read_weights_file(whole / name))
    assert (work_dir / "best.json").read_bytes() == (whole / "best.json").read_bytes()
    assert evaluations(work_dir) == evaluations(whole) and len(evaluations(whole)) == 3
    assert not temporary_files(work_dir)


def main(model: Path, lines: Path, work: Path, kills: int, seed: int) -> Counter:
    chance, counts = random.Random(seed), Counter()
    work.mkdir()
    whole, told = work / "whole", work / "told.txt"
    started = time.monotonic()
    assert not kill_after(start(model, lines, whole, told), 600, whole, aimed=False)
    duration = time.monotonic() - started
    before, killed_last = None, False
    while counts["kills"] < kills or killed_last:  # the last one may end
        work_dir = work / f"training_{counts['finished']}"
        enough = counts["kills"] >= kills
        aimed = chance.random() < 0.5
        pid = start(model, lines, work_dir, told)
        killed_last = kill_after(pid, 600 if enough else chance.uniform(0, duration), work_dir, aimed and not enough)
        begun = said_position(told)
        assert begun in (before, None), f"saved at {before}, went on at {begun}"
        if not killed_last:
            assert begun == before, f"began anew, though {before} was saved"
            check_end(work_dir, whole)
            counts["finished"] += 1
            before = None
            continue
        temporary = temporary_files(work_dir)
        check_files(work_dir)
        now = position(work_dir)
        assert now is not None or before is None, f"the state of {before} is lost"
        assert before is None or now >= before, f"from {before} back to {now}"
        phase = "before the first state" if now is None else "at an epoch's end" if now[1] == 0 else "within an epoch"
        counts.update(["kills", phase, *(["while a file was written"] if temporary else [])])
        counts.update(f"while writing {name.split('.')[1]}" for name in temporary)
        before = now
    return counts


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]))))
