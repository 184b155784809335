"""A depthwise convolution that avoids unnecessary work, above all when training on a CPU.

- The weight gradient is computed in float32: oneDNN takes three times as long for it in bfloat16.
- If a map has fewer rows than the kernel, the libraries also process kernel rows that only meet padding. cuDNN
  is fast with kernels of seven rows or one, but takes five times as long for the three that a map of two rows needs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv(nn.Conv2d):
    """A 7x7 depthwise convolution, (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        on_cpu, rows = x.device.type == "cpu", x.shape[2]
        as_others_have_it = on_cpu and not torch.is_grad_enabled()  # as exported for other programs
        if as_others_have_it or (not on_cpu and rows > 1):
            return super().forward(x)
        weight, padding = self.cropped_kernel(rows)
        if on_cpu and torch.is_autocast_enabled("cpu"):
            return _Bf16Depthwise.apply(x, weight, self.bias, padding)
        return F.conv2d(x, weight, self.bias, padding=padding, groups=len(weight))

    def cropped_kernel(self, rows: int) -> tuple[Tensor, tuple[int, int]]:
        """The rows of the kernel (at most seven) that overlap a map of `rows` rows, and the padding they need."""
        reach = min(rows - 1, 3)  # above and below the middle row
        return self.weight[:, :, 3 - reach : 4 + reach], (reach, 3)


class _Bf16Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        channels = len(weight)
        of_x = F.conv2d(gradient, weight.flip(2, 3), padding=ctx.padding, groups=channels)
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(),
            x.float(),
            weight.float(),
            [channels],
            [1, 1],
            ctx.padding,
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, True, False],
        )
        return of_x, of_weight, gradient.sum((0, 2, 3), dtype=torch.float32), None
