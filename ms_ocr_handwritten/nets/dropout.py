"""Dropout on a CPU by random bytes and a table.

PyTorch draws its masks with one thread, number by number, at many times the cost of NumPy's SFC64 and a table.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUT_TYPES = {2: torch.int16, 4: torch.float32, 8: torch.float64}  # of OpenCV's tables, by their bytes


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`; on a CPU its random numbers are others, and follow from torch's random state.

    There a random byte decides of each number: as many of the 256 bytes drop it as the rate says, where that lies
    between two numbers of bytes now the one and now the other, so that the rate is kept in the mean of calls.
    """
    if x.device.type != "cpu" or not training or not 0.0 < rate < 1.0 or not x.numel():
        return F.dropout(x, rate, training)
    random = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    dropping = int(256 * rate + random.random())
    table = torch.full((256,), 1 / (1 - rate)).to(x.dtype).masked_fill_(torch.arange(256) < dropping, 0.0)
    words = random.integers(2**64 - 1, size=-(-x.numel() // 8), dtype=np.uint64, endpoint=True)
    bytes_ = words.view(np.uint8)[None, : x.numel()]
    factors = cv2.LUT(bytes_, table.view(LUT_TYPES[table.element_size()]).numpy())
    return x * torch.from_numpy(factors).view(x.dtype).view(x.shape)
