"""Parts of the network that `train.freeze` names are kept as they are."""

from collections.abc import Sequence

from torch import nn

from ..nets.network import Network


def freeze(network: Network, parts: Sequence[str]) -> None:
    """Let no step change the weights of `parts`."""
    for part in parts:
        for one in network.modules_of(part):
            one.requires_grad_(False)


def train_mode(network: Network, frozen: Sequence[str]) -> None:
    """Training mode, but for `frozen` parts: without dropout they compute what they compute when reading."""
    network.train()
    for part in frozen:
        for one in network.modules_of(part):
            if isinstance(one, nn.Module):
                one.eval()
