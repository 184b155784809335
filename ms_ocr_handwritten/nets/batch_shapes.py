"""Few numbers of chunks in a batch, so that libraries need not choose or compile their kernels anew.

oneDNN compiles kernels for each number it meets, and has forgotten them when it has met some twenty others; cuDNN, on a
GPU, looks for its kernels anew, for most of a second, at each number it meets.
"""

import torch
from torch import Tensor


def pad_batch(grey: Tensor) -> Tensor:
    """Chunks (N, 1, 32, 300) with black ones behind them, so that few numbers of chunks occur."""
    lacking = padded_count(len(grey), sizes=8) - len(grey)
    return torch.cat([grey, grey.new_zeros(lacking, *grey.shape[1:])]) if lacking else grey


def padded_count(number: int, sizes: int) -> int:
    """The least number of at least `number` that is used, of which there are `sizes` in each doubling, fewer below."""
    step = max(1, 2 ** (number.bit_length() - 1) // sizes)
    return number + -number % step
