"""Choosing a learning rate by the loss at rising rates: the range test of Smith, arXiv 1506.01186."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ..errors import ConfigurationError, LmdbError, OcrError
from .dataset import Batch
from .evaluation import make_loader, readable
from .loop import Training
from .parts import train_mode

STEPS, LEAST, MOST = 100, 1e-6, 1e-1  # number of batches, and the rates of the first and the last one
SMOOTHING = 0.9  # decay of the moving average of the loss
DIVERGED = 4.0  # times the lowest loss at which the sweep stops
BELOW_BEST = 10.0  # divisor of the rate with the lowest loss, beyond which the loss is about to rise


@dataclass(frozen=True)
class RateSweep:
    """Learning rates in ascending order, and the smoothed loss at each."""

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest loss, rounded to one digit.

        >>> RateSweep([1e-4, 1e-3, 1e-2], [2.0, 1.0, 3.0]).suggestion
        0.0001
        """
        return float(f"{self.rates[int(np.argmin(self.losses))] / BELOW_BEST:.0e}")


def rising_rate(raw: dict[str, Any]) -> None:
    """Set a learning rate in the configuration `raw` that rises from LEAST to MOST in STEPS steps."""
    train = raw["train"]
    train["optimizer"] = {**(train.get("optimizer") or {}), "lr": LEAST}
    gamma = (MOST / LEAST) ** (1 / (STEPS - 1))
    train["lr_scheduler"] = {"type": "ExponentialLR", "gamma": gamma, "options": {"by_epoch": False}}


def sweep_rates(training: Training) -> RateSweep:
    """Run STEPS steps of a training configured by `rising_rate`, or until the loss is DIVERGED times the lowest.

    Nothing is written, and the trained weights are of no use.

    Raises:
        ConfigurationError: there are several processes.
        LmdbError: no line can be read.
        OcrError: the very first loss is not finite.
    """
    if training.ranks.world > 1:
        raise ConfigurationError("learning rates are tried in one process alone; start it without torchrun")
    train_mode(training.network, training.config.freeze)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for batch in _batches(training):
        try:
            training._learn(batch, 1.0)
            loss = training.losses.look()
        except OcrError:
            if not losses:
                raise
            break
        training._update()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(training.schedule.rate)
        losses.append(mean / (1 - SMOOTHING ** len(rates)))  # bias correction
        if len(rates) == STEPS or losses[-1] > DIVERGED * min(losses):
            break
    return RateSweep(rates, losses)


def _batches(training: Training) -> Iterator[Batch]:
    """Yield the training's batches, epoch after epoch. Raises LmdbError if no line can be read."""
    config, device = training.config, training.ranks.device
    for epoch in count():
        training.epoch = training.dataset.epoch = epoch
        loader = make_loader(training.dataset, training.batches(), config.dataloader, config.skip_padding, device)
        empty = True
        for batch in readable(loader):
            empty = False
            yield batch
        if empty:
            raise LmdbError("the training set holds no line that can be read; see `ms-ocr lmdb inspect`")
