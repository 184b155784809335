"""What all networks of recognisers have in common, for those who read, teach or export them without knowing the kind.

Notation: N pieces of canvases (`geometry.Layout`), W px of a piece, T = W / 4 columns, D features, C classes, B lines.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..geometry import GREY_WEIGHTS
from ..recognisers import NetworkConfig


class Network(nn.Module):
    """Pieces of lines to logits. `encode` and `classify` are its two halves; `forward` is upstream's contract."""

    config: NetworkConfig
    learns_from_batch = False  # whether what it learns of a piece depends on those beside it, as with batch norm

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
        """RGB pieces of official canvases (N, 3, 32, W) in [0, 1], each line's in turn, to logits (B, T, C)."""
        raise NotImplementedError

    def modules_of(self, part: str) -> Sequence[nn.Module | nn.Parameter]:
        """What belongs to one of `config.parts`, for `train.freeze`."""
        raise NotImplementedError

    def unused(self) -> Sequence[nn.Parameter]:
        """Parameters that upstream's files hold and nothing uses: kept bit for bit."""
        return ()


def rgb_to_grey(images: Tensor) -> Tensor:
    """RGB (N, 3, H, W) to grey (N, 1, H, W), same range and dtype."""
    red, green, blue = GREY_WEIGHTS
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue
