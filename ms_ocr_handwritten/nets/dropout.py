"""Fast dropout on a CPU with random bytes and a lookup table.

PyTorch draws its masks in one thread, number by number, at many times the cost of NumPy's SFC64 and a table.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUT_TYPES = {2: torch.int16, 4: torch.float32, 8: torch.float64}  # of OpenCV's tables, by element size in bytes


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`, with other random numbers on a CPU, which are seeded by torch's random state.

    There a random byte decides for each element: `256 * rate` of the 256 byte values drop it, randomly rounded up or
    down in each call, so that the rate is exact on average.
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
