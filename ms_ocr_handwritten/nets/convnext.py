"""ConvNeXt trunk over a chunk of 32 px height: 8 rows are reduced to 1, the 75 columns are kept.

Architecture: Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545, with one input channel and downsampling in
height only. Parameter names and shapes are those of ModelScope `ocr_recognition/modules/ConvNextViT/convnext.py`
(Apache-2.0), so that the official weights load under their own names; the code is ours.

Notation: N chunks, C channels, H rows, T columns. Activations are stored channels-last.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import COLUMN_WIDTH
from ..recognisers import ConvNextViTConfig
from .depthwise import DepthwiseConv

EPSILON = 1e-6


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a map stored (N, C, H, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Halving(nn.Conv2d):
    """A (2, 1) convolution with stride (2, 1), computed as a matrix product over pairs of rows.

    The convolution kernels would reorder the weights in every call, which costs more than the product itself.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, kernel_size=(2, 1), stride=(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)  # (N, H, T, C)
        pairs = torch.cat([rows[:, 0::2], rows[:, 1::2]], dim=-1)  # (N, H/2, T, 2 C); unflatten would fix N in ONNX
        weight = self.weight.squeeze(3).transpose(1, 2).flatten(1)  # (after, 2 C)
        return F.linear(pairs, weight, self.bias).permute(0, 3, 1, 2)  # (N, after, H/2, T)


class Block(nn.Module):
    """Depthwise 7x7, layer norm, pointwise C -> 4C -> C, layer scale, residual."""

    def __init__(self, channels: int, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv(channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)  # (N, H, T, C)
        y = F.gelu(self.pwconv1(self.norm(y)))
        if self.training:  # so the gradient of gamma needs no pass over the activations
            y = F.linear(y, self.gamma[:, None] * self.pwconv2.weight, self.gamma * self.pwconv2.bias)
        else:
            y = self.gamma.to(y.dtype) * self.pwconv2(y)  # under bf16 the sum stays bf16
        y = y.permute(0, 3, 1, 2)  # (N, C, H, T)
        return x + stochastic_depth(y, self.drop_path, self.training)


def stochastic_depth(branch: Tensor, rate: float, training: bool) -> Tensor:
    """Drop a residual branch for whole samples (Huang et al., arXiv 1603.09382); the rest is scaled by 1/(1-rate)."""
    if rate == 0.0 or not training:
        return branch
    keep = branch.new_empty((branch.shape[0],) + (1,) * (branch.dim() - 1)).bernoulli_(1 - rate)
    return branch * keep / (1 - rate)


class ConvNeXt(nn.Module):
    """Grey chunks (N, 1, 32, 300) in [0, 1] to features (N, dims[3], 1, 75)."""

    def __init__(self, config: ConvNextViTConfig) -> None:
        super().__init__()
        dims = config.dims
        stem = nn.Sequential(
            nn.Conv2d(1, dims[0], kernel_size=COLUMN_WIDTH, stride=COLUMN_WIDTH),
            LayerNorm(dims[0], eps=EPSILON),
        )
        halvings = [
            nn.Sequential(LayerNorm(before, eps=EPSILON), Halving(before, after))
            for before, after in zip(dims, dims[1:])
        ]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        rates = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        self.stages = nn.ModuleList(
            nn.Sequential(*[Block(channels, config.layer_scale, next(rates)) for _ in range(depth)])
            for channels, depth in zip(dims, config.depths)
        )

    def forward(self, grey: Tensor) -> Tensor:
        x = grey.contiguous(memory_format=torch.channels_last)
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))  # (N, dims[i], 8 >> i, 75)
        return x
