"""What is computed otherwise than PyTorch does it, against PyTorch's own functions."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ms_ocr_handwritten.nets.batch_shapes import pad_batch, padded_count
from ms_ocr_handwritten.nets.depthwise import DepthwiseConv
from ms_ocr_handwritten.nets.dropout import dropout


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_depthwise_gradients_under_bf16_are_those_of_fp32_within_its_rounding(rows):
    torch.manual_seed(rows)
    layer = DepthwiseConv(24)
    x = torch.randn(3, 24, rows, 75).contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(3, 24, rows, 75)

    def gradients(autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
        return [y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream.to(y.dtype))]

    expected = [layer._conv_forward(x, layer.weight, layer.bias)]  # PyTorch's own, in fp32
    expected += torch.autograd.grad(expected[0], [x, layer.weight, layer.bias], upstream)
    for autocast, tolerance in ((False, 1e-5), (True, 6e-3)):
        for found, wanted in zip(gradients(autocast), expected):
            assert (found - wanted).norm() < tolerance * wanted.norm()


@pytest.mark.parametrize("rows, met", [(1, 1), (2, 3), (3, 5), (4, 7), (8, 7)])
def test_over_few_rows_the_middle_ones_of_the_kernel_are_all_that_count(rows, met):
    torch.manual_seed(0)
    layer, x = DepthwiseConv(24), torch.randn(3, 24, rows, 75)
    weight, padding = layer.cropped_kernel(rows)
    assert weight.shape == (24, 1, met, 7)
    found, expected = layer(x), layer._conv_forward(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, F.conv2d(x, weight, layer.bias, padding=padding, groups=24))
    assert (found - expected).norm() < 1e-6 * expected.norm()
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad(y, [layer.weight, layer.bias], upstream) for y in (found, expected)]
    assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(*gradients))


def test_depthwise_parameters_get_gradients_in_fp32():
    layer = DepthwiseConv(4)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(1, 4, 8, 75)).sum().backward()
    assert layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32
    assert layer.bias.grad.tolist() == [600.0] * 4  # each of 8 x 75 places adds 1
    assert layer.weight.grad[:, 0, 3, 3].tolist() == [600.0] * 4 and layer.weight.grad[0, 0, 0, 3] == 375  # 5 rows of 8


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dtype):
    torch.manual_seed(0)
    shares = []
    for _ in range(100):
        y = dropout(torch.ones(150, 99, dtype=dtype), rate, training=True)
        assert y.dtype == dtype
        kept = torch.tensor(1 / (1 - rate)).to(dtype)
        assert torch.equal(y.unique(), torch.stack([torch.zeros_like(kept), kept]))
        shares.append((y == 0).float().mean().item())
    deviation = (
        rate * (1 - rate) / y.numel() + (0.5 / 256) ** 2
    ) ** 0.5  # of a call, whose bytes are at most half between
    assert np.mean(shares) == pytest.approx(rate, abs=4 * deviation / len(shares) ** 0.5)
    assert np.abs(np.array(shares) - rate).max() < 1 / 256 + 4 * (rate * (1 - rate) / y.numel()) ** 0.5


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("axis", [0, 1])
def test_dropout_prefers_no_row_and_no_column(axis, rate):
    torch.manual_seed(0)
    y = dropout(torch.ones(400, 2500), rate, training=True)
    assert ((y == 0).float().mean(axis) - rate).abs().max() < 6 * (rate * (1 - rate) / 400) ** 0.5


def test_dropout_passes_gradients_where_it_kept():
    torch.manual_seed(1)
    x = torch.randn(50, 60, requires_grad=True)
    y = dropout(x, 0.25, training=True)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.where(y == 0, 0.0, 1 / 0.75))
    torch.testing.assert_close(y, x * gradient)


def test_dropout_follows_from_the_random_state():
    x = torch.ones(1000)
    torch.manual_seed(2)
    state, first, second = torch.get_rng_state(), dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5, training=True), first) and torch.equal(dropout(x, 0.5, training=True), second)


def test_dropout_hardly_ever_draws_the_same_twice():
    torch.manual_seed(3)
    masks = {tuple(dropout(torch.ones(64), 0.5, training=True).tolist()) for _ in range(1000)}
    assert len(masks) == 1000


@pytest.mark.parametrize("rate, training", [(0.5, False), (0.0, True), (1.0, True)])
def test_dropout_at_its_ends_is_pytorchs(rate, training):
    x = torch.randn(30)
    assert torch.equal(dropout(x, rate, training), F.dropout(x, rate, training))


def test_dropout_of_no_numbers_gives_none():
    x = torch.empty(0, 75, 8)
    assert torch.equal(dropout(x, 0.1, training=True), x)


@pytest.mark.parametrize(
    "chunks, filled", [(1, 1), (7, 7), (15, 15), (16, 16), (17, 18), (31, 32), (33, 36), (50, 52), (97, 104)]
)
def test_numbers_of_chunks_are_filled_up_with_black_ones(chunks, filled):
    grey = torch.rand(chunks, 1, 4, 6)
    found = pad_batch(grey)
    assert len(found) == filled and torch.equal(found[:chunks], grey) and not found[chunks:].any()


def test_few_numbers_of_chunks_are_used():
    assert [padded_count(number, sizes=1) for number in (1, 2, 3, 4, 5, 9, 64, 65)] == [1, 2, 4, 4, 8, 16, 64, 128]
    assert [padded_count(number, sizes=2) for number in (1, 2, 3, 4, 5, 6, 7, 9, 13, 97)] == [
        1,
        2,
        3,
        4,
        6,
        6,
        8,
        12,
        16,
        128,
    ]
    assert len({padded_count(number, sizes=8) for number in range(1, 257)}) == 16 + 4 * 8


def test_a_network_of_these_learns_as_one_of_pytorchs(tiny_model_dir):
    """The same weights, the same chunks, without dropout: gradients as with nn.Conv2d in the blocks, under bf16."""
    from ms_ocr_handwritten.config import Configuration
    from ms_ocr_handwritten.nets.convnextvit import ConvNextViT

    torch.manual_seed(3)
    network, grey = ConvNextViT(Configuration.load(tiny_model_dir).network).eval(), torch.rand(4, 1, 32, 300)

    def gradients():
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            network.classify(network.encode(grey)).float().logsumexp(-1).mean().backward()
        return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}

    found = gradients()
    for module in network.modules():
        if isinstance(module, DepthwiseConv):
            module.__class__ = nn.Conv2d
    expected = gradients()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 0.05 * value.norm() + 1e-6, name
