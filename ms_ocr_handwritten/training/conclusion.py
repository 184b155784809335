"""The final message of a training: the best model, where it is, and the command to read with it."""

import shlex
from pathlib import Path

from .checkpoints import WorkDir


def conclusion(work_dir: WorkDir, epochs: int, patience: int | None) -> str:
    """patience: evaluations without an improvement after which it was stopped; None if it ran to the end."""
    best = work_dir.best()
    told = [] if patience is None else [f"stopped: {patience} evaluations without an improvement"]
    if best is None:
        folder = work_dir.output
        told.append(f"trained {epochs} epoch{'s' * (epochs > 1)}, without evaluation; the network is in {folder}")
    else:
        folder = work_dir.output_best
        within = f", batch {best['iter']}" if "iter" in best else ""
        when = f"{'in' if within else 'after'} epoch {best['epoch']}{within}"
        told.append(f"best {best['metric']}: {best['value']:.6g}, {when} (trained {epochs}); it is in {folder}")
    return "\n".join([*told, f"read with it: {_command(folder)}"])


def _command(folder: Path) -> str:
    return f"ms-ocr recognize --model {shlex.quote(str(folder))} IMAGE"
