"""Optimiser, learning rate schedule and moving average, built from the configuration with PyTorch's classes."""

import functools
import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import OptimizerConfig, SchedulerConfig
from ..errors import ConfigurationError

HORIZONS = ("T_max", "total_steps", "total_iters")  # arguments that mean "until the end", set if absent


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimiser of class `config.type` of torch.optim, fused if possible. Raises ConfigurationError."""
    kind = _class(torch.optim, config.type, torch.optim.Optimizer)
    if kind is None or kind is torch.optim.LBFGS:  # LBFGS evaluates the loss several times per step
        raise ConfigurationError(
            f"train.optimizer.type is {config.type!r}, which torch.optim does not have, or which "
            "needs more than gradients; use e.g. 'AdamW'"
        )
    arguments = dict(config.arguments)
    allowed = _allowed(kind, "train.optimizer", arguments)
    if "fused" in allowed and not {"fused", "foreach"} & arguments.keys():
        arguments["fused"] = True
    return _build(kind, "train.optimizer", [p for p in parameters if p.requires_grad], arguments)


def load_kept(optimizer: torch.optim.Optimizer, kept: dict[int, dict[str, Any]]) -> None:
    """Load the per-parameter state of the optimiser; learning rates and the like remain those of the configuration."""
    optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})


class Schedule:
    """A scheduler of torch.optim with linear warm-up; call `before_step` and `after_step` around each step."""

    def __init__(
        self, config: SchedulerConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int, epochs: int
    ) -> None:
        self.config, self.optimizer, self.steps = config, optimizer, 0
        self.rate = 0.0  # of the last step, including warm-up
        kind = _class(torch.optim.lr_scheduler, config.type or "ConstantLR", torch.optim.lr_scheduler.LRScheduler)
        if kind is None or kind is torch.optim.lr_scheduler.ReduceLROnPlateau:
            raise ConfigurationError(
                f"train.lr_scheduler.type is {config.type!r}, which torch.optim.lr_scheduler does not "
                "have, or which follows a metric; use e.g. 'MultiStepLR', 'CosineAnnealingLR', 'OneCycleLR'"
            )
        arguments = dict(config.arguments) if config.type else {"factor": 1.0}
        allowed = _allowed(kind, "train.lr_scheduler", arguments)
        for horizon in HORIZONS:
            if horizon in allowed and config.type:
                arguments.setdefault(horizon, epochs if config.by_epoch else epochs * steps_per_epoch)
        self._start = [
            {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        ]
        self._build = functools.partial(_build, kind, "train.lr_scheduler", optimizer, arguments)
        self.scheduler, self.advances = self._build(), 0

    def before_step(self) -> None:
        """Apply the warm-up to the rate of the next step."""
        if self.steps < self.config.warmup_iters:
            progress = self.steps / self.config.warmup_iters
            factor = self.config.warmup_ratio + (1 - self.config.warmup_ratio) * progress
            self._scale(factor)
        self.rate = self.optimizer.param_groups[0]["lr"]

    def after_step(self) -> None:
        """Undo the warm-up (schedulers compute the next rate from the current one) and advance, unless by epoch."""
        self._scale(1.0)
        self.steps += 1
        if not self.config.by_epoch:
            self._advance()

    def after_epoch(self) -> None:
        if self.config.by_epoch:
            self._advance()

    def _advance(self) -> None:
        self.scheduler.step()
        self.advances += 1

    def _scale(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr()):
            group["lr"] = rate * factor

    def state_dict(self) -> dict:
        return {"steps": self.steps, "advances": self.advances}

    def load_state_dict(self, state: dict) -> None:
        """Replay the schedule, after the optimiser is loaded, so that a larger max_epochs moves its end."""
        for group, start in zip(self.optimizer.param_groups, self._start):
            group.update(start)
        self.scheduler, self.advances, self.steps = self._build(), 0, state["steps"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch warns that the optimiser makes no steps meanwhile
            while self.advances < state["advances"]:
                self._advance()


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights: average <- decay * average + (1 - decay) * weights."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def learning_plan(optimizer: OptimizerConfig, scheduler: SchedulerConfig) -> dict[str, Any]:
    """The settings that must not change on resuming: all but the horizon, which max_epochs may move."""
    return {
        "train.optimizer": {"type": optimizer.type, **optimizer.arguments},
        "train.lr_scheduler": {
            "type": scheduler.type,
            "by_epoch": scheduler.by_epoch,
            "warmup_iters": scheduler.warmup_iters,
            "warmup_ratio": scheduler.warmup_ratio,
            **{k: v for k, v in scheduler.arguments.items() if k not in HORIZONS},
        },
    }


def _class(module: Any, name: str, base: type) -> type | None:
    kind = getattr(module, name, None)
    return kind if inspect.isclass(kind) and issubclass(kind, base) and kind is not base else None


def _build(kind: type, where: str, subject: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return kind(subject, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{where}: torch's {kind.__name__} refuses {dict(arguments)} ({error})") from error


def _allowed(kind: type, where: str, arguments: dict) -> set[str]:
    allowed = set(inspect.signature(kind).parameters) - {"params", "optimizer"}
    unknown = sorted(arguments.keys() - allowed)
    if unknown:
        raise ConfigurationError(
            f"unknown key {', '.join(f'{where}.{key}' for key in unknown)}; "
            f"torch's {kind.__name__} takes {', '.join(sorted(allowed))}"
        )
    return allowed
