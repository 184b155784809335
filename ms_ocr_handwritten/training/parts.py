"""The parts of the network by the names that `train.freeze` knows, and how they are kept as they are."""

from collections.abc import Sequence

from torch import nn

from ..nets.convnextvit import ConvNextViT


def modules_of(network: ConvNextViT, parts: Sequence[str]) -> list[nn.Module]:
    """The modules of the named parts: "trunk" (ConvNeXt), "encoder" (ViT without the head), "head"."""
    encoder = network.vitstr
    modules: dict[str, list[nn.Module]] = {
        "trunk": [network.cnn_model],
        "encoder": [encoder.patch_embed, encoder.blocks, encoder.norm],
        "head": [encoder.head],
    }
    return [module for part in parts for module in modules[part]]


def freeze(network: ConvNextViT, parts: Sequence[str]) -> None:
    """Let no step change the weights of `parts`."""
    for module in modules_of(network, parts):
        module.requires_grad_(False)
    if "encoder" in parts:
        network.vitstr.pos_embed.requires_grad_(False)


def train_mode(network: ConvNextViT, frozen: Sequence[str]) -> None:
    """Training mode, but for `frozen` parts: without dropout they compute what they compute when reading."""
    network.train()
    for module in modules_of(network, frozen):
        module.eval()
