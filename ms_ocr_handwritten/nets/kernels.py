"""What costs PyTorch's own kernels much time, when a network learns on a CPU above all, done otherwise.

- The weight gradient of a depthwise convolution: oneDNN takes three times as long for it in bfloat16 as in float32.
- Dropout: PyTorch draws its masks with one thread, number by number, at many times the cost of NumPy's SFC64 and a table.
- Numbers of chunks: oneDNN compiles kernels for each number it meets, and has forgotten them when it has met some
  twenty others; cuDNN, on a GPU, looks for its kernels anew, for most of a second, at each number it meets.
- A depthwise convolution over fewer rows than its kernel has: the libraries go through rows that meet padding alone.

The first two are for learning on a CPU; the others serve wherever they are called. All else is PyTorch's.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


LUT_TYPES = {2: torch.int16, 4: torch.float32, 8: torch.float64}  # of OpenCV's tables, by their bytes


class DepthwiseConv(nn.Conv2d):
    """A 7x7 convolution of each channel on its own, (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            return super().forward(x)  # as a file for other programs is to have it
        weight, padding = self.meeting(x.shape[2])
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return _Bf16Depthwise.apply(x, weight, self.bias, padding)
        return F.conv2d(x, weight, self.bias, padding=padding, groups=len(weight))

    def meeting(self, rows: int) -> tuple[Tensor, tuple[int, int]]:
        """The rows of the kernel, of seven at most, that meet some of a map's `rows`, and the padding they need."""
        reach = min(rows - 1, 3)  # up and down from the middle row
        return self.weight[:, :, 3 - reach : 4 + reach], (reach, 3)


class _Bf16Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        channels = len(weight)
        of_x = F.conv2d(gradient, weight.flip(2, 3), padding=ctx.padding, groups=channels)
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(), x.float(), weight.float(), [channels], [1, 1], ctx.padding, [1, 1], False, [0, 0], channels,
            [False, True, False])
        return of_x, of_weight, gradient.sum((0, 2, 3), dtype=torch.float32), None


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`; on a CPU its random numbers are others, and follow from torch's random state.

    There a random byte decides of each number: as many of the 256 bytes drop it as the rate says, where that lies between
    two numbers of bytes now the one and now the other, so that the rate is kept in the mean of calls.
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


def encode_columns(encode: Callable[[Tensor], Tensor], grey: Tensor) -> Tensor:
    """Chunks (N, 1, 32, 300) through `encode`, which gives (N, 75, D), to columns (75 N, D); filled up meanwhile."""
    return encode(fill_up(grey))[: len(grey)].flatten(0, 1)


def fill_up(grey: Tensor) -> Tensor:
    """Chunks (N, 1, 32, 300) with black ones behind them, so that few numbers of chunks occur."""
    lacking = filled_number(len(grey), sizes=8) - len(grey)
    return torch.cat([grey, grey.new_zeros(lacking, *grey.shape[1:])]) if lacking else grey


def filled_number(number: int, sizes: int) -> int:
    """The least number of at least `number` that is used, of which there are `sizes` in each doubling, fewer below."""
    step = max(1, 2 ** (number.bit_length() - 1) // sizes)
    return number + -number % step
