"""LightweightEdge for inference on a CPU: each convolution is fused with the operations that follow it.

- Batch norms are folded into the convolution before them; PReLU is computed inside that convolution.
- Depthwise kernels that are summed, or that split the channels among them, become one kernel of the largest size.
- Maps are channels-last.

`torch.ops.mkldnn._convolution_pointwise` is the operator that PyTorch's own compiler emits for these patterns;
`convolves` checks whether it is available. Without it the same is computed in two steps.

Notation: N lines, W px canvas width, T = W / 4 columns, D features, C classes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folded import folded
from .lightweight_edge import (
    AllKernels,
    Block,
    LightweightEdge,
    MixedKernels,
    OneKernel,
    SqueezeExcitation,
    SummedKernels,
)
from .packed import operators_work

Layer = Callable[[Tensor], Tensor]


class FusedEdge:
    """Grey lines float32 (N, 1, 32, W) in [0, 1] to columns (N, T, D) and their logits (N, T, C), in fp32.

    It holds a copy of the network's weights, so later changes have no effect.
    """

    def __init__(self, network: LightweightEdge) -> None:
        network = folded(network)
        trunk = network.our_nas_model
        self.first = layer(trunk.first_conv)
        self.blocks = [block for block in map(fused_block, cast(Sequence[Block], trunk.blocks)) if block]
        self.classify = network.classify

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        columns = self.encode(grey)
        return columns, self.classify(columns)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey lines float32 (N, 1, 32, W) in [0, 1] to columns (N, T, D)."""
        x = self.first(grey).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return x.squeeze(2).transpose(1, 2)


def fused_block(block: Block) -> Layer | None:
    """None for an empty block."""
    if block.empty:
        return None
    inner = fused(block.mobile_inverted_conv)
    return (lambda x: inner(x).add_(x)) if block.residual else inner


def fused(inner: nn.Module) -> Layer:
    """The inner layers of a block, whose batch norms are already folded."""
    if isinstance(inner, OneKernel):
        return chained(layer(inner.inverted_bottleneck), layer(inner.depth_conv), layer(inner.point_conv))
    if isinstance(inner, SummedKernels):
        kernels = cast(Sequence[nn.Sequential], inner.rep_conv)
        weights, biases = same_size(kernels)
        summed = convolution(first_of(kernels[0]), sum(weights[1:], weights[0]), sum(biases[1:], biases[0]), inner.act)
        return chained(layer(inner.inverted_bottleneck), summed, layer(inner.point_conv))
    if isinstance(inner, MixedKernels):
        kernels = cast(Sequence[nn.Sequential], inner.mix_conv)
        weights, biases = same_size(kernels)
        mixed = convolution(first_of(kernels[0]), torch.cat(weights), torch.cat(biases))
        slopes = [cast(nn.PReLU, one[2]).weight.detach().expand(len(weight)) for one, weight in zip(kernels, weights)]
        active = functools.partial(F.prelu, weight=torch.cat(slopes))
        return chained(layer(inner.inverted_bottleneck), mixed, active, layer(inner.point_conv))
    if isinstance(inner, AllKernels):
        several = [layer(one) for one in cast(Sequence[nn.Sequential], inner.mix_conv)]
        narrow, slope = layer(inner.point_conv), inner.act.weight.detach()
        return lambda x: narrow(F.prelu(torch.cat([one(x) for one in several], dim=1), slope))
    assert isinstance(inner, SqueezeExcitation)
    return inner


def chained(*layers: Layer) -> Layer:
    return lambda x: functools.reduce(lambda found, one: one(found), layers, x)


def first_of(sequence: nn.Sequential) -> nn.Conv2d:
    """The convolution; PyTorch's containers do not type their modules."""
    return cast(nn.Conv2d, sequence[0])


def bias_of(one: nn.Conv2d) -> Tensor:
    """The bias, which every convolution has after a batch norm was folded into it."""
    assert one.bias is not None
    return one.bias


def layer(sequence: nn.Sequential) -> Layer:
    """A convolution, its folded batch norm (an identity), and PReLU if it has one."""
    first = first_of(sequence)
    active = cast(nn.PReLU, sequence[2]) if len(sequence) > 2 else None
    return convolution(first, first.weight, bias_of(first), active)


def same_size(kernels: Sequence[nn.Sequential]) -> tuple[list[Tensor], list[Tensor]]:
    """Depthwise weights, zero-padded to the size of the largest one, and biases."""
    convolutions = [first_of(one) for one in kernels]
    high, wide = (max(one.kernel_size[dim] for one in convolutions) for dim in (0, 1))
    frames = [((wide - one.kernel_size[1]) // 2, (high - one.kernel_size[0]) // 2) for one in convolutions]
    weights = [F.pad(one.weight, (side, side, end, end)) for one, (side, end) in zip(convolutions, frames)]
    return weights, [bias_of(one) for one in convolutions]


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor, active: nn.PReLU | None = None) -> Layer:
    """A convolution with an odd kernel and "same" padding, followed by PReLU if there is one."""
    weight = weight.detach().contiguous(memory_format=torch.channels_last)
    bias, stride, groups = bias.detach(), like.stride, len(weight) if like.groups > 1 else 1
    padding = [size // 2 for size in weight.shape[2:]]
    slope = [active.weight.item()] if active else []
    if convolves():
        name = "leaky_relu" if active else "none"
        operator = torch.ops.mkldnn._convolution_pointwise
        return lambda x: operator(x, weight, bias, padding, stride, [1, 1], groups, name, slope, "")

    def plain(x: Tensor) -> Tensor:
        x = F.conv2d(x, weight, bias, stride, padding, groups=groups)
        return F.leaky_relu_(x, *slope) if slope else x

    return plain


@functools.cache
def convolves() -> bool:
    """Whether oneDNN's convolution with fused PReLU works in this PyTorch and on this CPU."""
    return operators_work(_try_convolution)


def _try_convolution() -> None:
    """Run a tiny convolution; raises its exception, or ArithmeticError if its result differs from PyTorch's own."""
    numbers = torch.linspace(-1, 1, 2 * 8 * 5 * 5)
    x, weight, bias = numbers.view(2, 8, 5, 5), numbers[:72].view(8, 1, 3, 3), numbers[:8]
    expected = F.leaky_relu(F.conv2d(x, weight, bias, 2, 1, groups=8), 0.5)
    found = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, [1, 1], [2, 2], [1, 1], 8, "leaky_relu", [0.5], "")
    if not torch.allclose(found, expected, atol=1e-5):
        raise ArithmeticError("a convolution with PReLU inside finds other values")
