"""The depthwise convolution of `nets.depthwise.DepthwiseConv` in Triton, for channels-last feature maps on a GPU.

Not used by the package yet: `gpu.py --only kernels` times it beside cuDNN's. A program computes some columns of one
row for some channels, by shifted loads within the cache; sums are float32 whatever the type of the map. Kernel rows
that only meet padding are skipped. Needs Triton, which comes with PyTorch's CUDA builds.

Notation: N maps, C channels, H rows, W columns; a kernel of R rows and 7 columns.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 7  # of the kernel


class Tile(NamedTuple):
    """What one program computes at a time: powers of two, not tuned yet."""

    columns: int = 16
    channels: int = 32
    maps: int = 16  # over which it sums the gradient of the weights
    warps: int = 4


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, tile: Tile = Tile()) -> Tensor:
    """x (N, C, H, W), kernels (C, 1, 7, 7) and biases (C,) to (N, C, H, W), both maps channels-last.

    x may have a lower precision than `weight` and `bias`, such as bfloat16, and so has the result; gradients have the
    type of their input.
    """
    return _Depthwise.apply(x, weight, bias, tile)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, tile: Tile) -> Tensor:
        rows = x.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C): a view if x is stored channels-last
        ctx.save_for_backward(rows, weight)
        ctx.tile, ctx.bias_type = tile, bias.dtype
        return _convolved(rows, _taps(weight, rows.shape[1]), bias.contiguous(), tile)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        above = gradient.permute(0, 2, 3, 1).contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _convolved(above, _taps(weight.flip(2, 3), rows.shape[1]), None, ctx.tile)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(rows, above, weight, ctx.tile)
        if ctx.needs_input_grad[2]:
            of_bias = above.sum((0, 1, 2), dtype=torch.float32).to(ctx.bias_type)
        return of_x, of_weight, of_bias, None


def _reach(rows: int) -> int:
    """How far up and down from the middle one of its seven rows the kernel meets some of a map's `rows`."""
    return min(rows - 1, 3)


def _taps(weight: Tensor, rows: int) -> Tensor:
    """Kernels (C, 1, 7, 7) in the layout of the programs, without the rows that only meet padding: (R, 7, C)."""
    reach = _reach(rows)
    return weight[:, 0, 3 - reach : 4 + reach].permute(1, 2, 0).contiguous()


def _convolved(rows: Tensor, taps: Tensor, bias: Tensor | None, tile: Tile) -> Tensor:
    """Maps (N, H, W, C) with taps (R, 7, C): (N, C, H, W), channels-last."""
    number, height, width, channels = rows.shape
    found = torch.empty_like(rows)
    grid = (number * height, triton.cdiv(width, tile.columns), triton.cdiv(channels, tile.channels))
    _convolve[grid](
        rows,
        taps,
        taps if bias is None else bias,
        found,
        height,
        width,
        channels,
        len(taps) // 2,
        COLUMNS // 2,
        bias is not None,
        tile.columns,
        tile.channels,
        num_warps=tile.warps,
    )
    return found.permute(0, 3, 1, 2)


def _weight_gradient(rows: Tensor, above: Tensor, weight: Tensor, tile: Tile) -> Tensor:
    """From maps (N, H, W, C) and their output gradient (N, H, W, C), summed in fixed order, to (C, 1, 7, 7)."""
    number, height, width, channels = rows.shape
    reach = _reach(height)
    parts = triton.cdiv(number, tile.maps)
    sums = rows.new_empty(parts, 2 * reach + 1, COLUMNS, channels, dtype=torch.float32)
    grid = (parts, 2 * reach + 1, triton.cdiv(channels, tile.channels))
    _sum_products[grid](
        rows,
        above,
        sums,
        number,
        height,
        width,
        channels,
        reach,
        COLUMNS // 2,
        tile.maps,
        triton.next_power_of_2(COLUMNS),
        tile.columns,
        tile.channels,
        num_warps=tile.warps,
    )
    found = torch.zeros_like(weight)
    found[:, 0, 3 - reach : 4 + reach] = sums.sum(0).permute(2, 0, 1)
    return found


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    x,
    taps,
    bias,
    found,
    height,
    width,
    channels,
    reach: tl.constexpr,
    side: tl.constexpr,
    biased: tl.constexpr,
    columns: tl.constexpr,
    lanes: tl.constexpr,
):
    """For one row of one map, `columns` positions and `lanes` channels."""
    row = tl.program_id(0) % height
    first = (tl.program_id(0) - row).to(tl.int64) * width * channels  # of the map
    place = tl.program_id(1) * columns + tl.arange(0, columns)[:, None]
    channel = tl.program_id(2) * lanes + tl.arange(0, lanes)[None, :]
    there = channel < channels
    own = first + (row * width + place) * channels + channel
    line = row + tl.zeros((columns, 1), tl.int32)  # not a scalar, for the interpreter's masks
    total = tl.zeros((columns, lanes), tl.float32)
    if biased:
        total += tl.load(bias + channel, there, 0).to(tl.float32)
    for down in range(-reach, reach + 1):
        inside = (line >= -down) & (line < height - down) & there
        for right in tl.static_range(-side, side + 1):
            tap = tl.load(taps + ((down + reach) * (2 * side + 1) + right + side) * channels + channel, there, 0)
            met = (place >= -right) & (place < width - right) & inside
            value = tl.load(x + own + (down * width + right) * channels, met, 0)
            total += value.to(tl.float32) * tap.to(tl.float32)
    tl.store(found + own, total.to(found.dtype.element_ty), (place < width) & there)


@triton.jit
def _sum_products(  # type: ignore[no-untyped-def]
    x,
    above,
    sums,
    number,
    height,
    width,
    channels,
    reach: tl.constexpr,
    side: tl.constexpr,
    maps: tl.constexpr,
    taps: tl.constexpr,
    columns: tl.constexpr,
    lanes: tl.constexpr,
):
    """For one row of the kernel, over `maps` maps: every column of it (`taps`, one too many) for `lanes` channels."""
    part, down = tl.program_id(0), tl.program_id(1) - reach
    place = tl.arange(0, columns)[:, None, None]
    tap = tl.arange(0, taps)[None, :, None]
    channel = tl.program_id(2) * lanes + tl.arange(0, lanes)[None, None, :]
    there = channel < channels
    total = tl.zeros((columns, taps, lanes), tl.float32)
    size = tl.zeros((1, 1, 1), tl.int64) + height * width * channels  # of a map
    for one in range(part * maps, tl.minimum(part * maps + maps, number)):
        first = one * size
        for row in range(tl.maximum(-down, 0), tl.minimum(height - down, height)):
            for start in range(0, width, columns):
                at = start + place
                came = tl.load(above + first + (row * width + at) * channels + channel, (at < width) & there, 0)
                beside = at + tap - side
                met = (beside >= 0) & (beside < width) & there
                value = tl.load(x + first + ((row + down) * width + beside) * channels + channel, met, 0)
                total += value.to(tl.float32) * came.to(tl.float32)
    own = sums + ((part * (2 * reach + 1) + down + reach) * (2 * side + 1) + tap) * channels + channel
    tl.store(own, tl.sum(total, 0)[None], (tap < 2 * side + 1) & there)
