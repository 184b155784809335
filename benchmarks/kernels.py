"""Depthwise convolutions of a ConvNextViT's four stages in bf16, forward and with gradients: cuDNN and Triton."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from report import Table
from torch import Tensor
from torch.nn import functional as F

from ms_ocr_handwritten.geometry import CHUNK_COLUMNS
from ms_ocr_handwritten.nets.depthwise import DepthwiseConv

STAGES = ((96, 8), (192, 4), (256, 2), (512, 1))  # channels and rows of the feature maps
TILES = ((16, 32), (8, 64), (16, 64), (32, 32), (16, 16))  # columns and channels of Triton's programs
TOLERANCE = 1e-2  # of bf16, relative, to float64
Way = Callable[[Tensor], Tensor]


def depthwise_table(
    chunks: int, repeats: int, rounds: int, device: str, seconds: Callable[[Callable[[], object]], float]
) -> tuple[Table, dict[str, float]]:
    """Milliseconds of each implementation, the fastest ones named; and the errors of Triton against float64, by stage.

    Args:
        chunks: per feature map.
        repeats: calls that are timed together.
        rounds: of which the median is reported.
        device: as named by PyTorch; Triton is omitted if it cannot be imported, or without a GPU.
        seconds: the wall time of a task.
    """
    rows, errors = [], {}
    for channels, height in STAGES:
        stage = f"{channels} channels, {height} rows"
        layer = DepthwiseConv(channels).to(device, torch.bfloat16)
        spent: dict[str, tuple[float, float]] = {}
        for name, layout, way in _ways(layer, device):
            x = torch.randn(chunks, channels, height, CHUNK_COLUMNS, device=device, dtype=torch.bfloat16)
            x = x.contiguous(memory_format=layout).requires_grad_()
            parameters = [x, *layer.parameters()]
            if name.startswith("Triton"):
                errors[f"{stage}, {name}"] = _error(way, layer, x[:4])
            upstream = torch.randn_like(x)

            def forward(way: Way = way, x: Tensor = x) -> None:
                with torch.no_grad():
                    way(x)

            def learn(
                way: Way = way, x: Tensor = x, given: list[Tensor] = parameters, upstream: Tensor = upstream
            ) -> None:
                torch.autograd.grad(way(x), given, upstream)

            for task in (forward, learn):
                task()  # so that kernels are selected and compiled
            times = [[_each(task, repeats, seconds) for _ in range(rounds)] for task in (forward, learn)]
            spent[name] = (1000 * float(np.median(times[0])), 1000 * float(np.median(times[1])))
        best = [min(spent, key=lambda name, kind=kind: spent[name][kind]) for kind in (0, 1)]
        for name, (alone, both) in spent.items():
            marks = [what for what, one in zip(("forward", "with gradients"), best) if one == name]
            rows.append((stage, name, alone, both, " and ".join(marks)))
    columns = ("map", "way", "forward, ms", "and backward, ms", "fastest")
    return Table(f"Depthwise convolutions, {chunks} chunks, bf16", columns, rows), errors


def _each(task: Callable[[], None], repeats: int, seconds: Callable[[Callable[[], object]], float]) -> float:
    return seconds(lambda: [task() for _ in range(repeats)]) / repeats


def _ways(layer: DepthwiseConv, device: str) -> Iterator[tuple[str, torch.memory_format, Way]]:
    """The name of each implementation, its memory format, and its function on a feature map."""
    yield "plain, channels-first", torch.contiguous_format, layer
    yield "plain, channels-last", torch.channels_last, layer
    if device == "cpu" or find_spec("triton") is None:
        return
    from triton_depthwise import Tile, depthwise

    for columns, channels in TILES:

        def triton(x: Tensor, tile: Tile = Tile(columns, channels)) -> Tensor:
            return depthwise(x, layer.weight, layer.bias, tile)

        yield f"Triton, {columns} x {channels}", torch.channels_last, triton


def _error(way: Way, layer: DepthwiseConv, x: Tensor) -> float:
    """The maximum relative error of an implementation's result, and of its gradients."""
    given = [one.detach().double().requires_grad_() for one in (x, layer.weight, layer.bias)]
    expected = F.conv2d(*given, padding=3, groups=x.shape[1])
    upstream = torch.randn_like(expected).bfloat16()
    exact = [expected, *torch.autograd.grad(expected, given, upstream.double())]
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    y = way(x)
    found = [y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream)]
    return max(((one.double() - other).norm() / other.norm()).item() for one, other in zip(found, exact))
