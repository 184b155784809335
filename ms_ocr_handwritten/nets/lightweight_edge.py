"""LightweightEdge: a small convolutional network over whole lines, found by neural architecture search.

Architecture: inverted bottlenecks with depthwise kernels of several sizes, searched as in Cai et al., "ProxylessNAS",
arXiv 1812.00332, and squeeze-and-excitation (Hu et al., arXiv 1709.01507) after each stage but the last. Parameter
names and shapes are those of ModelScope `ocr_recognition/modules/LightweightEdge` (Apache-2.0), so that its weights
load under their own names; the code is ours.

Notation: N lines, W px canvas width, T = W / 4 columns, C channels or classes, H rows.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..geometry import LINE_HEIGHT
from ..recognisers import LightweightEdgeConfig
from .network import Network, rgb_to_grey

FIRST_CHANNELS = 24
SQUEEZED = 8  # reduction ratio of squeeze-and-excitation
Kernel = int | tuple[int, int]  # size, or height and width
Stride = tuple[int, int]


def padding_of(kernel: Kernel) -> Kernel:
    """The padding with which a map keeps its size at stride 1."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def pointwise(before: int, after: int, *, active: bool = True) -> nn.Sequential:
    """A 1x1 convolution with batch norm, and PReLU if `active`."""
    layers = [("conv", nn.Conv2d(before, after, 1, bias=False)), ("bn", nn.BatchNorm2d(after)), ("act", nn.PReLU())]
    return nn.Sequential(OrderedDict(layers[: 2 + active]))


def depthwise(channels: int, kernel: Kernel, stride: Stride, *, active: bool = True) -> nn.Sequential:
    """A depthwise convolution with batch norm, and PReLU if `active`."""
    convolution = nn.Conv2d(channels, channels, kernel, stride, padding_of(kernel), groups=channels, bias=False)
    layers = [("conv", convolution), ("bn", nn.BatchNorm2d(channels)), ("act", nn.PReLU())]
    return nn.Sequential(OrderedDict(layers[: 2 + active]))


class OneKernel(nn.Module):
    """Expand, one depthwise kernel, project."""

    def __init__(self, before: int, after: int, kernels: Sequence[Kernel], stride: Stride, ratio: int) -> None:
        super().__init__()
        wide = before * ratio
        self.inverted_bottleneck = pointwise(before, wide)
        self.depth_conv = depthwise(wide, kernels[0], stride)
        self.point_conv = pointwise(wide, after, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_bottleneck(x)))


class MixedKernels(nn.Module):
    """Expand, a different depthwise kernel for each group of channels, project."""

    def __init__(self, before: int, after: int, kernels: Sequence[Kernel], stride: Stride, ratio: int) -> None:
        super().__init__()
        wide = before * ratio
        share = -(-wide // len(kernels))
        self.split = [share] * (len(kernels) - 1) + [wide - share * (len(kernels) - 1)]
        self.inverted_bottleneck = pointwise(before, wide)
        self.mix_conv = nn.ModuleList(
            depthwise(channels, kernel, stride) for channels, kernel in zip(self.split, kernels)
        )
        self.point_conv = pointwise(wide, after, active=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inverted_bottleneck(x).split(self.split, dim=1)
        return self.point_conv(torch.cat([layer(part) for layer, part in zip(self.mix_conv, parts)], dim=1))


class AllKernels(nn.Module):
    """Every depthwise kernel over all channels, concatenate, project; without expansion."""

    def __init__(self, before: int, after: int, kernels: Sequence[Kernel], stride: Stride, ratio: int) -> None:
        super().__init__()
        self.mix_conv = nn.ModuleList(depthwise(before, kernel, stride) for kernel in kernels)
        self.act = nn.PReLU()
        self.point_conv = pointwise(before * len(kernels), after, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.act(torch.cat([layer(x) for layer in self.mix_conv], dim=1)))


class SummedKernels(nn.Module):
    """Expand, the sum of several depthwise kernels, project."""

    def __init__(self, before: int, after: int, kernels: Sequence[Kernel], stride: Stride, ratio: int) -> None:
        super().__init__()
        wide = before * ratio
        self.inverted_bottleneck = pointwise(before, wide)
        self.rep_conv = nn.ModuleList(depthwise(wide, kernel, stride, active=False) for kernel in kernels)
        self.act = nn.PReLU()
        self.point_conv = pointwise(wide, after, active=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inverted_bottleneck(x)
        first, *others = (layer(x) for layer in self.rep_conv)
        return self.point_conv(self.act(sum(others, first)))


class SqueezeExcitation(nn.Module):
    """Scale channels by gates computed from the mean over the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZED, 1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // SQUEEZED, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True))))) * x


class Block(nn.Module):
    """One of the above, with a residual connection if the shape is kept; or empty, if the search dropped the block."""

    def __init__(self, inner: nn.Module | None, residual: bool) -> None:
        super().__init__()
        if inner is not None:
            self.mobile_inverted_conv = inner
        self.residual, self.empty = residual, inner is None

    def forward(self, x: Tensor) -> Tensor:
        if self.empty:
            return x
        y = self.mobile_inverted_conv(x)
        return x + y if self.residual else y


Kind = Callable[[int, int, Sequence[Kernel], Stride, int], nn.Module]
Choice = tuple[Kind, tuple[int, ...], int]  # inner module, kernel widths, expansion ratio


@dataclass(frozen=True)
class Stage:
    """Blocks with the same number of channels; the first has the stride. Empty blocks, without weights, follow."""

    stride: Stride
    channels: int
    choices: tuple[Choice, ...]


BLOCKS = 5  # per stage, including empty ones
STAGES = (
    Stage(
        (2, 2),
        32,
        (
            (OneKernel, (5,), 6),
            (SummedKernels, (3, 5), 6),
            (SummedKernels, (1, 3, 5), 2),
            (SummedKernels, (1, 3, 5), 6),
            (OneKernel, (5,), 6),
        ),
    ),
    Stage((2, 1), 64, ((MixedKernels, (3, 5), 6),)),
    Stage(
        (2, 1),
        96,
        ((OneKernel, (5,), 2), (OneKernel, (5,), 6), (AllKernels, (3, 5), 1), (MixedKernels, (3, 5), 4)),
    ),
    Stage(
        (2, 1),
        128,
        ((OneKernel, (5,), 6), (OneKernel, (5,), 6), (SummedKernels, (3, 5), 4), (MixedKernels, (3, 5), 4)),
    ),
)


class Trunk(nn.Module):
    """Grey lines (N, 1, 32, W) in [0, 1] to features (N, 128, 1, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv2d(1, FIRST_CHANNELS, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(FIRST_CHANNELS),
            nn.PReLU(),
        )
        blocks: list[nn.Module] = []
        channels, rows = FIRST_CHANNELS, LINE_HEIGHT // 2
        for stage in STAGES:
            for number in range(BLOCKS):
                blocks.append(_block(channels, rows, stage, number))
                channels = stage.channels
                if number == 0:
                    rows //= stage.stride[0]
            last = stage is STAGES[-1]
            blocks.append(Block(None if last else SqueezeExcitation(channels), residual=False))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, grey: Tensor) -> Tensor:
        x = self.first_conv(grey)
        for block in self.blocks:
            x = block(x)
        return x


def _block(before: int, rows: int, stage: Stage, number: int) -> Block:
    """Block `number` of a stage, over a map of `rows` rows, which bounds the kernel height."""
    if number >= len(stage.choices):
        return Block(None, residual=False)
    kind, widths, ratio = stage.choices[number]
    highest = rows + 1 - rows % 2  # kernel heights are odd
    kernels = [width if width == 1 else (min(width, highest), width) for width in widths]
    stride = stage.stride if number == 0 else (1, 1)
    return Block(kind(before, stage.channels, kernels, stride, ratio), residual=number > 0)


class LightweightEdge(Network):
    """From whole lines to logits."""

    config: LightweightEdgeConfig
    learns_from_batch = True

    def __init__(self, config: LightweightEdgeConfig = LightweightEdgeConfig()) -> None:
        super().__init__()
        self.config = config
        self.our_nas_model = Trunk()
        self.head = nn.Linear(STAGES[-1].channels, config.num_classes)

    @property
    def classifier(self) -> nn.Linear:
        return self.head

    def encode(self, grey: Tensor) -> Tensor:
        """Grey lines (N, 1, 32, W) in [0, 1] to encoded columns (N, T, 128)."""
        return self.our_nas_model(grey).squeeze(2).transpose(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """RGB lines (N, 3, 32, 640) in [0, 1] to logits (N, 160, C)."""
        return self.classify(self.encode(rgb_to_grey(images)))

    def modules_of(self, part: str) -> Sequence[nn.Module]:
        return [{"trunk": self.our_nas_model, "head": self.head}[part]]
