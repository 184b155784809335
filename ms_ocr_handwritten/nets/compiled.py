"""Encoding compiled by torch.compile, which fuses the operations between matrix products, for training.

It is compiled once for all batch sizes, during the first step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import BackendError
from .network import Network


def compiled(network: Network, mode: str | None = None) -> Callable[[Tensor], Tensor]:
    """`network.encode` compiled in a mode of `torch.compile`; the network's weights keep their names and storage.

    The first call raises BackendError if a requirement of the compiler is missing.
    """
    encode = torch.compile(network.encode, mode=mode)

    def encode_compiled(grey: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # imported here, since it takes seconds

        torch._dynamo.maybe_mark_dynamic(grey, 0)
        try:
            return encode(grey)
        except TorchDynamoException as error:
            raise BackendError(
                f"PyTorch {torch.__version__} cannot compile the network ({str(error).strip().splitlines()[0]}); "
                "for a GPU it needs Triton, for a CPU a C++ compiler; install that, or set train.compile to false"
            ) from error

    return encode_compiled
