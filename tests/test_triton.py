"""Kernels in Triton, by its interpreter on a CPU, against PyTorch's own convolution in float64."""

import importlib.util

import pytest
from conftest import ROOT
from fresh import fresh

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton cannot be imported")
SCRIPT = """
import torch
from torch.nn import functional as F
import sys
sys.path.insert(0, VALUES["benchmarks"])
from triton_depthwise import Tile, depthwise

def case(number, channels, rows, columns, dtype, tile):
    torch.manual_seed(rows)
    x, upstream = (torch.randn(number, channels, rows, columns).to(dtype) for _ in range(2))
    weight, bias = torch.randn(channels, 1, 7, 7), torch.randn(channels)

    def values(function, kind):
        given = [tensor.to(kind).requires_grad_() for tensor in (x, weight, bias)]
        given[0] = x.to(kind).contiguous(memory_format=torch.channels_last).requires_grad_()
        if kind is not torch.float64:
            given[1:] = [tensor.clone().requires_grad_() for tensor in (weight, bias)]
        y = function(*given)
        return y, *torch.autograd.grad(y, given, upstream.to(y.dtype))

    found = values(lambda *given: depthwise(*given, tile), dtype)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    expected = values(lambda *given: F.conv2d(*given, padding=3, groups=channels), torch.float64)
    assert [one.dtype for one in found] == [dtype, dtype, torch.float32, torch.float32]
    assert [one.shape for one in found] == [one.shape for one in expected]
    return [((one.double() - other).norm() / other.norm()).item() for one, other in zip(found, expected)]

answer(errors=[case(*sizes, getattr(torch, dtype), Tile(*tile)) for *sizes, dtype, tile in VALUES["cases"]])
"""
CASES = [  # maps, channels, rows, columns, type, tile; few programs, for each takes the interpreter long
    (1, 3, 5, 6, "float32", (8, 4, 1)),  # channels and columns that are no multiple of a tile's
    (3, 4, 2, 3, "float32", (4, 4, 2)),  # more maps than one program sums
    (3, 4, 2, 3, "bfloat16", (4, 4, 2)),
    (2, 6, 1, 6, "float32", (4, 4, 2)),  # channels and columns of several programs
]


def test_depthwise_and_its_gradients_are_those_of_float64(tmp_path):
    errors = fresh(
        SCRIPT, tmp_path, environment={"TRITON_INTERPRET": "1"}, cases=CASES, benchmarks=str(ROOT / "benchmarks")
    )["errors"]
    assert len(errors) == len(CASES)
    for (*_, dtype, _), (y, of_x, of_weight, of_bias) in zip(CASES, errors):
        assert max(y, of_x) < (2e-6 if dtype == "float32" else 4e-3)
        assert max(of_weight, of_bias) < 2e-6  # sums are float32 in either type
