"""The common interface of all recognisers' networks, for inference, training and export of any kind.

Notation: N pieces of canvases (`geometry.Layout`), W px width, T = W / 4 columns, D features, C classes, B lines.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..geometry import GREY_WEIGHTS
from ..recognisers import NetworkConfig


class Network(nn.Module):
    """From pieces of lines to logits, in two steps, `encode` and `classify`; `forward` has upstream's signature."""

    config: NetworkConfig
    learns_from_batch = False  # whether training on a piece depends on the rest of its batch, as with batch norm

    @property
    def classifier(self) -> nn.Linear:
        """The last layer, D to C."""
        raise NotImplementedError

    def encode(self, grey: Tensor) -> Tensor:
        """Grey pieces (N, 1, 32, W) in [0, 1] to encoded columns (N, T, D)."""
        raise NotImplementedError

    def classify(self, columns: Tensor) -> Tensor:
        """Encoded columns (..., D) to logits (..., C)."""
        return self.classifier(columns)

    def forward(self, images: Tensor) -> Tensor:
        """RGB pieces of official canvases (N, 3, 32, W) in [0, 1], grouped by line, to logits (B, T, C)."""
        raise NotImplementedError

    def modules_of(self, part: str) -> Sequence[nn.Module | nn.Parameter]:
        """The modules and parameters of one of `config.parts`, for `train.freeze`."""
        raise NotImplementedError

    def unused(self) -> Sequence[nn.Parameter]:
        """Parameters in upstream's files that nothing uses; they are kept bit for bit."""
        return ()


def rgb_to_grey(images: Tensor) -> Tensor:
    """RGB (N, 3, H, W) to grey (N, 1, H, W), same range and dtype."""
    red, green, blue = GREY_WEIGHTS
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue
