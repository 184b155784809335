"""The state of a training in memory, and its file, which is never trusted before it is checked."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import OptimizerConfig
from ..errors import CheckpointError
from ..nets.weights import read_torch_file, some_names
from .optimisation import build_optimizer

STATE_SUFFIX = "_trainer_state.pth"
STATE_FORMAT = 3
MOST = 10**8  # epochs, batches or steps that a file may claim, since the schedule is replayed step by step
OTHERWISE = "continue from another epoch with train('.../epoch_N'), or start in a new work_dir"


def state_file(checkpoint: str | os.PathLike[str]) -> Path:
    """The state file for `checkpoint`: itself, or the one of `work_dir/epoch_N`, with or without `.pth`."""
    path = Path(checkpoint)
    if path.name.endswith(STATE_SUFFIX):
        return path
    return path.with_name(path.name.removesuffix(".pth") + STATE_SUFFIX)


@dataclass(frozen=True)
class State:
    """All that is needed to resume."""

    epoch: int  # epochs trained
    iteration: int  # batches trained of the next one
    network: dict[str, Tensor]
    average: dict[str, Tensor] | None  # weights of the moving average, if any
    optimizer: dict[int, dict[str, Any]]  # its state per parameter
    schedule: dict[str, int]  # "steps" and "advances"
    random_states: list[dict[str, Tensor]]  # of each rank
    identity: dict[str, Any]  # see `identity`
    vocabulary: str

    def to_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {"format": STATE_FORMAT, **{field.name: getattr(self, field.name) for field in fields(self)}}

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read a file.

        Raises:
            CheckpointError: It is missing, damaged, written by another program, or holds impossible values.
        """
        raw = read_torch_file(path)
        if not isinstance(raw, Mapping) or raw.get("format") != STATE_FORMAT:
            raise CheckpointError(
                f"{path}: holds no state to resume from (format {STATE_FORMAT}); name the epoch_N of a "
                "training of this version, or start a new work_dir with model= set to its weights"
            )
        check = _Check(raw, path)
        for name in ("epoch", "iteration"):
            check.count(raw.get(name), name)
        check.kind("vocabulary", str)
        for name in ("network", "optimizer", "schedule", "identity"):
            check.kind(name, dict)
        check.kind("average", (dict, type(None)))
        check.kind("random_states", list)
        for name in ("steps", "advances"):
            check.count(raw["schedule"].get(name), f"schedule.{name}")
        if not raw["random_states"] or not all(isinstance(state, dict) for state in raw["random_states"]):
            raise check.fail("random_states", "holds no state of a rank")
        return cls(**{field.name: raw[field.name] for field in fields(cls)})

    def check_fit(
        self,
        network: nn.Module,
        average: nn.Module | None,
        optimizer: OptimizerConfig,
        random_state: Mapping[str, Tensor],
        path: Path,
    ) -> None:
        """Compare names, shapes and types of all tensors with those they will be copied into.

        Raises:
            CheckpointError: They differ; the first three are named.
        """
        _compare(self.network, network.state_dict(), "the network", path)
        if average is not None and self.average is not None:
            _compare(self.average, average.state_dict(), "the moving average", path)
        kept = _flat(self.optimizer)
        if kept or self.schedule["steps"]:
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            _compare(kept, _flat(kept_after_a_step(optimizer, parameters)), "the optimiser", path)
        for state in self.random_states:
            common = {name: value for name, value in state.items() if name in random_state}
            expected = {name: value for name, value in random_state.items() if name in common or name == "cpu"}
            _compare(common, expected, "the random state", path)


class _Check:
    """Checks on the content of a state file."""

    def __init__(self, raw: Mapping[str, Any], path: Path) -> None:
        self.raw, self.path = raw, path

    def fail(self, name: str, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {name} {message}; {OTHERWISE}")

    def kind(self, name: str, kind: type | tuple[type, ...]) -> None:
        if name not in self.raw:
            raise self.fail(name, "is missing")
        if not isinstance(self.raw[name], kind):
            raise self.fail(name, f"is a {type(self.raw[name]).__name__}")

    def count(self, value: Any, name: str) -> None:
        if type(value) is not int or not 0 <= value <= MOST:
            raise self.fail(name, f"is {str(value)[:40]}, which is not a number a training can have")


def kept_after_a_step(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> dict[int, dict[str, Any]]:
    """The per-parameter state of the optimiser of `config`, obtained from a step on zeros."""
    zeros = [nn.Parameter(torch.zeros_like(parameter, device="cpu")) for parameter in parameters]
    for parameter in zeros:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build_optimizer(config, zeros)
    optimizer.step()
    return optimizer.state_dict()["state"]


def _flat(kept: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten to keys "number.name"; values that are not mappings are kept, so that they compare as different."""
    flat: dict[str, Any] = {}
    for number, values in kept.items():
        if isinstance(values, Mapping):
            flat |= {f"{number}.{name}": value for name, value in values.items()}
        else:
            flat[str(number)] = values
    return flat


def _compare(found: Mapping[Any, Any], expected: Mapping[str, Any], what: str, path: Path) -> None:
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [str(name) for name in found if name not in expected],
        "of another shape or type": [
            f"{name} is {_describe(found[name])}, expected {_describe(expected[name])}"
            for name in expected
            if name in found and _describe(found[name]) != _describe(expected[name])
        ],
    }
    told = [f"{kind}: {some_names(names)}" for kind, names in problems.items() if names]
    if told:
        raise CheckpointError(f"{path}: does not fit {what} of this training. {'; '.join(told)}; {OTHERWISE}")


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor) or value.is_nested:
        return f"a {type(value).__name__}"
    kind = "" if value.layout is torch.strided and value.device.type != "meta" else f" {value.layout} {value.device}"
    return f"{tuple(value.shape)} {value.dtype}{kind}"
