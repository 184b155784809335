"""A network's columns by PyTorch's compiler, which fuses what lies between the products of matrices, for training.

What was compiled holds for every number of pieces; the first step waits for it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import BackendError
from .network import Network


def compiled(network: Network, mode: str | None = None) -> Callable[[Tensor], Tensor]:
    """`network.encode` compiled in a mode of `torch.compile`; its weights stay where they are, under their own names.

    Raises BackendError, when it is first called, where the compiler lacks something.
    """
    encode = torch.compile(network.encode, mode=mode)

    def encode_compiled(grey: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # here, for importing it takes seconds

        torch._dynamo.maybe_mark_dynamic(grey, 0)
        try:
            return encode(grey)
        except TorchDynamoException as error:
            raise BackendError(
                f"PyTorch {torch.__version__} cannot compile the network ({str(error).strip().splitlines()[0]}); "
                "for a GPU it needs Triton, for a CPU a C++ compiler; install that, or set train.compile to false"
            ) from error

    return encode_compiled
