"""The whole network: chunks to columns to logits of a line.

Parameter names and shapes are those of ModelScope `ocr_recognition/modules/ConvNextViT/main_model.py` (Apache-2.0).
Notation: N chunks, B lines, n chunks per line, T columns, D features, C classes.
"""

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from ..geometry import GREY_WEIGHTS, OFFICIAL_CHUNKS, kept_columns
from .convnext import ConvNeXt
from .vit import ViTEncoder


class ConvNextViT(nn.Module):
    """Chunks of lines to logits. `encode` and `classify` are its two halves; `forward` is upstream's contract."""

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:
        super().__init__()
        self.config = config
        self.cnn_model = ConvNeXt(config)
        self.vitstr = ViTEncoder(config)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey chunks (N, 1, 32, 300) in [0, 1] to encoded columns (N, 75, D)."""
        return self.vitstr(self.cnn_model(grey))

    def classify(self, columns: Tensor) -> Tensor:
        """Encoded columns (..., D) to logits (..., C)."""
        return self.vitstr.head(columns)

    def forward(self, images: Tensor) -> Tensor:
        """RGB chunks (3 B, 3, 32, 300) in [0, 1], three of each line in turn, to logits (B, 201, C)."""
        columns = self.encode(rgb_to_grey(images))
        return self.classify(join_chunks(columns.unflatten(0, (-1, OFFICIAL_CHUNKS))))


def rgb_to_grey(images: Tensor) -> Tensor:
    """RGB (N, 3, H, W) to grey (N, 1, H, W), same range and dtype."""
    red, green, blue = GREY_WEIGHTS
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue


def join_chunks(columns: Tensor) -> Tensor:
    """Columns of each chunk (B, n, 75, D) to the columns of the line (B, 63 n + 12, D)."""
    n = columns.shape[1]
    return torch.cat([columns[:, i, kept_columns(i, n)] for i in range(n)], dim=1)
