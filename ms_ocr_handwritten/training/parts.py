"""Freezing of the parts of the network that `train.freeze` names."""

from collections.abc import Sequence

from torch import nn

from ..nets.network import Network


def freeze(network: Network, parts: Sequence[str]) -> None:
    """Exclude the weights of `parts` from training."""
    for part in parts:
        for one in network.modules_of(part):
            one.requires_grad_(False)


def train_mode(network: Network, frozen: Sequence[str]) -> None:
    """Training mode, except for `frozen` parts, which compute the same as in inference, without dropout."""
    network.train()
    for part in frozen:
        for one in network.modules_of(part):
            if isinstance(one, nn.Module):
                one.eval()
