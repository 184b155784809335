"""ConvNextViT, the complete network: from chunks to columns to logits of a line.

Parameter names and shapes are those of ModelScope `ocr_recognition/modules/ConvNextViT/main_model.py` (Apache-2.0).
Notation: N chunks, B lines, n chunks per line, T columns, D features, C classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..geometry import OFFICIAL_CHUNKS, kept_columns
from ..recognisers import ConvNextViTConfig
from .convnext import ConvNeXt
from .network import Network, rgb_to_grey
from .vit import ViTEncoder


class ConvNextViT(Network):
    """From chunks of lines to logits, each chunk independently."""

    config: ConvNextViTConfig

    def __init__(self, config: ConvNextViTConfig = ConvNextViTConfig()) -> None:
        super().__init__()
        self.config = config
        self.cnn_model = ConvNeXt(config)
        self.vitstr = ViTEncoder(config)

    @property
    def classifier(self) -> nn.Linear:
        return self.vitstr.head

    def encode(self, grey: Tensor) -> Tensor:
        """Grey chunks (N, 1, 32, 300) in [0, 1] to encoded columns (N, 75, D)."""
        return self.vitstr(self.cnn_model(grey))

    def forward(self, images: Tensor) -> Tensor:
        """RGB chunks (3 B, 3, 32, 300) in [0, 1], three consecutive ones per line, to logits (B, 201, C)."""
        columns = self.encode(rgb_to_grey(images))
        return self.classify(join_chunks(columns.unflatten(0, (-1, OFFICIAL_CHUNKS))))

    def modules_of(self, part: str) -> Sequence[nn.Module | nn.Parameter]:
        encoder = self.vitstr
        if part == "encoder":
            return [encoder.patch_embed, encoder.blocks, encoder.norm, encoder.pos_embed]
        return [{"trunk": self.cnn_model, "head": encoder.head}[part]]

    def unused(self) -> Sequence[nn.Parameter]:
        return [self.vitstr.cls_token]


def join_chunks(columns: Tensor) -> Tensor:
    """Columns of each chunk (B, n, 75, D) to the columns of the line (B, 63 n + 12, D)."""
    n = columns.shape[1]
    return torch.cat([columns[:, i, kept_columns(i, n)] for i in range(n)], dim=1)
