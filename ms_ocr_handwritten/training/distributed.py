"""Distributed training: the setup given by `torchrun`, and the few collectives that training needs."""

import atexit
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from ..backends.precision import bf16_is_faster
from ..backends.pytorch import torch_device
from ..errors import OcrError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `world` processes; rank 0 writes files and shows progress."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, device: str | None = None) -> "Ranks":
        """Join the process group described by torchrun's variables (nccl on GPUs, gloo on CPUs), if there is one.

        device: 'cpu', 'gpu' (each rank its own), 'gpu:1' ...; None uses a GPU if there is one. Raises BackendError.
        """
        world = int(os.environ.get("WORLD_SIZE", 1))
        place = torch_device(device or "gpu")
        gpu = place.type == "cuda"
        if gpu and place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        if gpu:
            torch.cuda.set_device(place)
        if world > 1 and not distributed.is_initialized():
            # If imported later, it would keep the group alive as a default argument, beyond `destroy_process_group`;
            # and a gloo thread that is still running when Python exits may abort the process.
            importlib.import_module("torch.distributed.nn")
            distributed.init_process_group("nccl" if gpu else "gloo")
            if not gpu:  # nccl would wait for the other ranks, even if this one failed
                atexit.register(_leave)
        return cls(int(os.environ.get("RANK", 0)) if world > 1 else 0, world, place)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def say(self, message: str) -> None:
        """Print a message on stderr, once for all ranks."""
        if self.first:
            print(message, file=sys.stderr)

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def sum(self, value: Any) -> Any:
        """The sum over all ranks of a value that has `+`."""
        first, *others = self.gather(value)
        for other in others:
            first = first + other
        return first

    def first_does(self, act: Callable[[], object]) -> None:
        """Let rank 0 call `act`; its OcrError, if any, is raised by all ranks, so that none waits forever."""
        refusal = None
        if self.first:
            try:
                act()
            except OcrError as error:
                refusal = error
        refusal = self.gather(refusal)[0]
        if refusal is not None:
            raise refusal

    def compute_bf16(self, precision: str) -> bool:
        """Whether all ranks compute in bf16: as named, or for "auto" if it is measured to be faster on each of them."""
        if precision != "auto":
            return precision == "bf16"
        chosen = all(self.gather(bf16_is_faster(self.device)))
        self.say(f"train.precision 'auto': {'bf16' if chosen else 'fp32'}, as measured on this machine")
        return chosen

    def wait(self) -> None:
        if self.world > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Leave the process group at the end; nccl complains if a process exits as a member."""
        _leave()

    def random_state(self) -> dict[str, torch.Tensor]:
        """The random states used by dropout, of the CPU and of this rank's GPU."""
        states = {"cpu": torch.get_rng_state()}
        return {**states, "cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else states

    def set_random_state(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.device)

    def share(self, indices: Iterable[int]) -> list[int]:
        """This rank's disjoint part of `indices`: every world-th one."""
        return list(indices)[self.rank :: self.world]


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
