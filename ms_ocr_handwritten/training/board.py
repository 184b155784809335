"""The training log as TensorBoard events, in addition to train_log.jsonl."""

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

SHOWN_LINES = 8  # first lines of the evaluation set shown with their reading


def check_board() -> None:
    """Raise ConfigurationError if neither tensorboard nor tensorboardX is installed."""
    if not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        raise ConfigurationError(
            "train.logging.tensorboard is true, but neither tensorboard nor tensorboardX is installed; "
            "`pip install tensorboard`, or set it to false"
        )


class Board:
    """Writes events to `folder`; a step is one batch, counted over the whole training."""

    def __init__(self, folder: Path, step: int) -> None:
        """step: where the training resumes; events of later steps from an earlier run are hidden."""
        name = "torch.utils.tensorboard" if importlib.util.find_spec("tensorboard") else "tensorboardX"
        writer = importlib.import_module(name).SummaryWriter
        self._writer = writer(str(folder), purge_step=step + 1 if step else None)

    def add(self, entry: Mapping[str, Any], step: int) -> None:
        """Add the numbers of an entry of train_log.jsonl, as train/loss, eval/cer ..."""
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "iter") and math.isfinite(value):
                self._writer.add_scalar(f"{entry['mode']}/{name}", value, step)

    def add_readings(self, readings: Sequence[tuple[str, str]], step: int) -> None:
        """Add pairs of label and recognised text as a table."""
        rows = [f"| {_cell(label)} | {_cell(text)} |" for label, text in readings]
        self._writer.add_text("eval/lines", "\n".join(["| label | read |", "| --- | --- |", *rows]), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _cell(text: str) -> str:
    """`text` escaped for Markdown."""
    return "".join(f"&#{ord(c)};" if c in "|`*_<>&[]\\~#" or not c.isprintable() else c for c in text)
