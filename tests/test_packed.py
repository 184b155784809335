"""The packed network against the plain one: same logits in fp32, near ones in bf16, anew after weights change."""

import numpy as np
import pytest
import torch

from ms_ocr_handwritten.backends.pytorch import TorchBackend
from ms_ocr_handwritten.nets import packed
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.recognisers import ConvNextViTConfig

SMALL = ConvNextViTConfig(depths=(2, 1, 2, 1), dims=(16, 24, 32, 48), embed_dim=48, blocks=2, num_classes=64)


def random_network(config: ConvNextViTConfig) -> ConvNextViT:
    """No parameter is at a neutral value (0, 1, 1e-6), so that each one that is left out shows."""
    torch.manual_seed(0)
    network = ConvNextViT(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.3, 0.9)
        network.vitstr.pos_embed.normal_()
    return network


def logits_of(network: ConvNextViT, grey: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network.classify(network.encode(grey))


@pytest.mark.parametrize("config", [SMALL, ConvNextViTConfig()], ids=["small", "official"])
@pytest.mark.parametrize("chunks", [1, 5])
def test_fp32_gives_the_plain_networks_logits(config, chunks):
    assert packed.available(torch.float32), "this PyTorch lacks oneDNN's operators: reading works, only slower"
    network, grey = random_network(config), torch.rand(chunks, 1, 32, 300)
    expected = logits_of(network, grey)
    with torch.inference_mode():
        difference = (packed.PackedNetwork(network, torch.float32)(grey)[1] - expected).abs().max()
    assert difference < 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("available", [True, False], ids=["as-it-is", "not-packed"])
def test_bf16_is_near(available, monkeypatch):
    """Also on CPUs whose oneDNN does not pack bf16 (those without AVX-512)."""
    if not available:
        monkeypatch.setattr(packed, "available", lambda dtype: False)
    network, grey = random_network(ConvNextViTConfig()), torch.rand(4, 1, 32, 300)
    expected = logits_of(network, grey)
    with torch.inference_mode():
        logits = TorchBackend(network, "bf16")._reading_network(torch.bfloat16)(grey)[1]
    assert logits.dtype is torch.bfloat16
    difference = (logits.float() - expected).abs()
    assert difference.mean() < 0.03 * expected.std()  # 8 bits, 0.4 % a rounding, some 40 layers in a row


def test_reading_follows_a_change_of_the_weights():
    network = random_network(SMALL)
    backend = TorchBackend(network, "fp32")
    grey = np.random.default_rng(0).random((2, 32, 300), np.float32)
    backend.piece_columns(grey), backend.padding_columns()
    with torch.no_grad():
        network.vitstr.head.bias[7] += 100
    ids = backend.piece_columns(grey).ids
    assert (ids == 7).all() and (backend.padding_columns()[0] == 7).all()


@pytest.fixture
def probed(monkeypatch):
    """Operators are tried anew, and a warning is due."""
    monkeypatch.setattr(packed, "_warned", False)
    packed.available.cache_clear()
    yield
    packed.available.cache_clear()


def raising(*arguments):
    raise TypeError("_linear_pointwise() takes 8 positional arguments but 6 were given")


@pytest.mark.parametrize(
    "name, operator",
    [
        ("_linear_pointwise", raising),
        ("_linear_pointwise", lambda x, weight, bias, *rest: x.new_zeros(*x.shape[:-1], len(bias))),
        ("_reorder_linear_weight", raising),
        ("_linear_pointwise", None),  # an operator that is gone
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16+fp32", "auto"])
def test_where_an_operator_has_changed_plain_pytorch_reads(name, operator, precision, probed, monkeypatch, caplog):
    network, grey = random_network(SMALL), np.random.default_rng(0).random((2, 32, 300), np.float32)
    expected = logits_of(network, torch.from_numpy(grey[:, None])).argmax(-1).numpy()
    monkeypatch.setattr(torch.ops.mkldnn, name, operator)
    backend = TorchBackend(network, precision)
    assert (backend.piece_columns(grey).ids == expected).mean() > 0.95  # bf16 alone is not checked here
    assert precision != "auto" or backend.precision == "fp32"
    assert [record.levelname for record in caplog.records if record.name == packed.__name__] == ["WARNING"]
    assert "reading on this CPU is slower" in caplog.text
