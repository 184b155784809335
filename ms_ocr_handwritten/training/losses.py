"""The losses of the last steps: a GPU may still compute them while the next steps are prepared."""

import math

import torch
from torch import Tensor

from ..errors import OcrError

STEPS_OF_GPU = 16  # whose losses are looked at together: waiting for each would leave it idle in between


class Losses:
    """Losses of batches in order, looked at after every step on a CPU, after STEPS_OF_GPU on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.at_once = 1 if device.type == "cpu" else STEPS_OF_GPU
        self.latest = math.nan  # of those looked at
        self._unseen: list[tuple[int, int, Tensor]] = []

    def add(self, epoch: int, batch: int, loss: Tensor) -> None:
        """One more, of a batch counted from 1; `loss` is a scalar. Raises OcrError as `look` does."""
        self._unseen.append((epoch, batch, loss.detach()))
        if len(self._unseen) >= self.at_once:
            self.look()

    def look(self) -> float:
        """The last loss, after all were looked at. Raises OcrError, with epoch and batch, at one that is no number."""
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
