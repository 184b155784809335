"""Padding batches to few distinct sizes, so that libraries rarely have to select or compile kernels.

oneDNN compiles kernels for each batch size, and evicts them from its cache after some twenty other sizes; cuDNN, on a
GPU, searches for kernels at each new batch size, which takes most of a second.
"""

import torch
from torch import Tensor


def pad_batch(grey: Tensor) -> Tensor:
    """Pad chunks (N, 1, 32, 300) with black ones, so that few batch sizes occur."""
    lacking = padded_count(len(grey), sizes=8) - len(grey)
    return torch.cat([grey, grey.new_zeros(lacking, *grey.shape[1:])]) if lacking else grey


def padded_count(number: int, sizes: int) -> int:
    """Round `number` up to the next batch size in use: `sizes` of them in each doubling, fewer for small numbers."""
    step = max(1, 2 ** (number.bit_length() - 1) // sizes)
    return number + -number % step
