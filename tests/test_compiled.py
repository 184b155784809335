"""A training with `train.compile`: the same losses, gradients and files, whatever the number of chunks.

Kernels of the compiler take minutes to build on a CPU, so here it traces and differentiates the network, and PyTorch's
own kernels compute what it found; `test_gpu.py` has it build kernels.
"""

import functools

import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir
from training_tools import network_of, prepare, read_weights_file

from ms_ocr_handwritten.errors import BackendError
from ms_ocr_handwritten.nets.compiled import compiled


@pytest.fixture
def model_dir(tmp_path):
    return make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)


@pytest.fixture
def traced(monkeypatch):
    """Graphs that are compiled; each is computed by PyTorch's own kernels."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.backends.registry.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    yield graphs
    torch._dynamo.reset()


def gradients(network, encode, grey):
    network.zero_grad()
    columns = encode(grey)
    (columns * torch.linspace(-1, 1, columns.numel()).view_as(columns)).sum().backward()
    return columns, {name: one.grad.clone() for name, one in network.named_parameters() if one.grad is not None}


def test_every_number_of_chunks_has_the_networks_columns_and_gradients(model_dir, traced):
    network = network_of(model_dir).train()
    encode = compiled(network)
    for chunks in (3, 7, 2, 12):
        grey = torch.rand(chunks, 1, 32, 300)
        (columns, found), (expected, exact) = (gradients(network, one, grey) for one in (encode, network.encode))
        torch.testing.assert_close(columns, expected, atol=1e-5, rtol=1e-5)
        assert found.keys() == exact.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, exact[name], atol=1e-3 * exact[name].abs().max().item(), rtol=1e-3)
    assert len(traced) == 1  # none of the other numbers was compiled anew


def test_a_training_has_the_losses_and_files_of_one_without(model_dir, lines_lmdb, tmp_path, traced):
    losses, weights = {}, {}
    for compile in (False, True):
        training = prepare(model_dir, lines_lmdb, tmp_path / f"work_{compile}", compile=compile, max_epochs=1)
        training.run()
        losses[compile] = training.losses.latest
        weights[compile] = read_weights_file(tmp_path / f"work_{compile}" / "epoch_1.pth")
    assert traced
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    assert weights[True].keys() == weights[False].keys()
    for name, value in weights[True].items():
        torch.testing.assert_close(value, weights[False][name], atol=2e-3, rtol=0)  # two steps of AdamW at 1e-3


def test_a_compiler_that_is_missing_is_named(model_dir, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    encode = compiled(network_of(model_dir))
    with pytest.raises(BackendError, match=r"cannot compile the network .*C\+\+ compiler.* train\.compile to false"):
        encode(torch.rand(2, 1, 32, 300))
