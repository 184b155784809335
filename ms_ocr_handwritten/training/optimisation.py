"""Optimiser, learning rate schedule and moving average, from the configuration: all three are PyTorch's own."""

import inspect
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import OptimizerConfig, SchedulerConfig
from ..errors import ConfigurationError

HORIZONS = ("T_max", "total_steps", "total_iters")  # arguments that mean "until the end": filled in when absent


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The class `config.type` of torch.optim, fused where it can be. Raises ConfigurationError."""
    kind = getattr(torch.optim, config.type, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigurationError(f"train.optimizer.type is {config.type!r}, which torch.optim has not; e.g. 'AdamW'")
    arguments = dict(config.arguments)
    allowed = _allowed(kind, "train.optimizer", arguments)
    if "fused" in allowed and not {"fused", "foreach"} & arguments.keys():
        arguments["fused"] = True
    return kind([parameter for parameter in parameters if parameter.requires_grad], **arguments)


class Schedule:
    """A scheduler of torch.optim with a linear warm-up on top; `before_step` and `after_step` frame each step."""

    def __init__(self, config: SchedulerConfig, optimizer: torch.optim.Optimizer, steps_per_epoch: int,
                 epochs: int) -> None:
        self.config, self.optimizer, self.steps = config, optimizer, 0
        kind = getattr(torch.optim.lr_scheduler, config.type or "ConstantLR", None)
        if kind is None:
            raise ConfigurationError(f"train.lr_scheduler.type is {config.type!r}, which torch.optim.lr_scheduler "
                                     "has not; e.g. 'MultiStepLR', 'CosineAnnealingLR', 'OneCycleLR'")
        arguments = dict(config.arguments) if config.type else {"factor": 1.0}
        allowed = _allowed(kind, "train.lr_scheduler", arguments)
        for horizon in HORIZONS:
            if horizon in allowed and config.type:
                arguments.setdefault(horizon, epochs if config.by_epoch else epochs * steps_per_epoch)
        self.scheduler = kind(optimizer, **arguments)

    def before_step(self) -> None:
        """Apply the warm-up to the rate of the coming step."""
        if self.steps < self.config.warmup_iters:
            progress = self.steps / self.config.warmup_iters
            factor = self.config.warmup_ratio + (1 - self.config.warmup_ratio) * progress
            self._scale(factor)

    def after_step(self) -> None:
        """Undo the warm-up (schedulers compute the next rate from the present one) and advance, unless by epoch."""
        self._scale(1.0)
        self.steps += 1
        if not self.config.by_epoch:
            self.scheduler.step()

    def after_epoch(self) -> None:
        if self.config.by_epoch:
            self.scheduler.step()

    def _scale(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr()):
            group["lr"] = rate * factor

    def state_dict(self) -> dict:
        return {"steps": self.steps, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self.scheduler.load_state_dict(state["scheduler"])


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights: average <- decay * average + (1 - decay) * weights."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _allowed(kind: type, where: str, arguments: dict) -> set[str]:
    allowed = set(inspect.signature(kind).parameters) - {"params", "optimizer"}
    unknown = sorted(arguments.keys() - allowed)
    if unknown:
        raise ConfigurationError(f"unknown key {', '.join(f'{where}.{key}' for key in unknown)}; "
                                 f"torch's {kind.__name__} takes {', '.join(sorted(allowed))}")
    return allowed
