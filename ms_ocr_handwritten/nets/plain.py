"""Networks for inference: their interface, and the unmodified network with its products in a given precision."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .network import Network


class ReadingNetwork(Protocol):
    """A network for inference: grey pieces float32 (N, 1, 32, W) to columns (N, T, D) and logits (N, T, C)."""

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]: ...

    def encode(self, grey: Tensor) -> Tensor:
        """Grey pieces to columns only."""


@dataclass(frozen=True)
class PlainNetwork:
    """The unmodified network, with its products in `dtype`."""

    network: Network
    dtype: torch.dtype
    device: torch.device

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision():
            columns = self.network.encode(grey)
            return columns, self.network.classify(columns)

    def encode(self, grey: Tensor) -> Tensor:
        with self._precision():
            return self.network.encode(grey)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        mixed = self.dtype is not torch.float32
        with (
            torch.autocast(self.device.type, self.dtype, enabled=mixed, cache_enabled=False),
            without_tf32(self.device),
        ):
            yield


@contextlib.contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Compute cuDNN's fp32 convolutions in full precision; PyTorch's default rounds to TF32's 10 bits.

    It uses only the flag for convolutions: once a program has set it, PyTorch refuses to return the older, joint one.
    """
    flags = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # an object that replaces its own module
    before = flags.fp32_precision if device.type == "cuda" else "ieee"
    if before == "ieee":
        yield
        return
    flags.fp32_precision = "ieee"
    try:
        yield
    finally:
        flags.fp32_precision = before
