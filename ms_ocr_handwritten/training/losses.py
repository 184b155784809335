"""The losses of the last steps, which a GPU may still be computing while the next steps are prepared."""

import math

import torch
from torch import Tensor

from ..errors import OcrError

STEPS_OF_GPU = 16  # steps whose losses are checked together; waiting for each would leave the GPU idle


class Losses:
    """Losses of batches in order, checked after every step on a CPU, every STEPS_OF_GPU steps on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.at_once = 1 if device.type == "cpu" else STEPS_OF_GPU
        self.latest = math.nan  # of those checked
        self._unseen: list[tuple[int, int, Tensor]] = []

    def add(self, epoch: int, batch: int, loss: Tensor) -> None:
        """Add the loss, a scalar, of a batch counted from 1. Raises OcrError as `look` does."""
        self._unseen.append((epoch, batch, loss.detach()))
        if len(self._unseen) >= self.at_once:
            self.look()

    def look(self) -> float:
        """Check all losses and return the last one. Raises OcrError, with epoch and batch, if one is not finite."""
        if self._unseen:
            unseen, self._unseen = self._unseen, []
            values = torch.stack([loss for _, _, loss in unseen]).tolist()
            for (epoch, batch, _), value in zip(unseen, values):
                if not math.isfinite(value):
                    raise OcrError(
                        f"the loss is {value} in epoch {epoch}, batch {batch}; lower train.optimizer.lr, or clip "
                        "gradients with train.optimizer.options.grad_clip.max_norm"
                    )
            self.latest = values[-1]
        return self.latest
