"""ViT encoder over the 75 columns of a chunk, and the classifier of each column.

Architecture: Dosovitskiy et al., arXiv 2010.11929, as used by ViTSTR (Atienza, arXiv 2105.08582), with CTC in place of
its decoder. Parameter names and shapes are those of ModelScope `ocr_recognition/modules/ConvNextViT/timm_tinyc.py` and
`vitstr.py` (Apache-2.0, after timm); the code is ours.

Notation: N chunks, T = 75 columns, D features, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import CHUNK_COLUMNS
from ..recognisers import ConvNextViTConfig
from .dropout import dropout

EPSILON = 1e-6


class PatchEmbed(nn.Module):
    """A 1x1 convolution from the trunk's channels to D."""

    def __init__(self, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, embed_dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).squeeze(2).transpose(1, 2)  # (N, channels, 1, T) -> (N, T, D)


class Attention(nn.Module):
    """Multi-head self-attention over the columns of one chunk."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each (N, heads, T, -)
        if self.training:  # on CPUs the fused kernel's backward pass is several times slower than this
            weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1, dtype=q.dtype)  # (N, heads, T, T)
            y = dropout(weights, self.dropout, training=True) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(1, 2).reshape(n, t, d)
        return dropout(self.proj(y), self.dropout, self.training)


class Mlp(nn.Module):
    """D -> mlp_ratio * D -> D for each column."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return dropout(self.fc2(x), self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: ConvNextViTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = Attention(dim, config.heads, config.dropout)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViTEncoder(nn.Module):
    """Trunk features (N, channels, 1, 75) to encoded columns (N, 75, D); `head` maps D to C logits."""

    def __init__(self, config: ConvNextViTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))  # in the official file, but unused
        self.pos_embed = nn.Parameter(torch.zeros(1, CHUNK_COLUMNS, dim))
        self.patch_embed = PatchEmbed(config.dims[-1], dim)
        self.blocks = nn.Sequential(*[Block(config) for _ in range(config.blocks)])
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.head = nn.Linear(dim, config.num_classes)
        self.dropout = config.dropout

    def forward(self, features: Tensor) -> Tensor:
        x = self.patch_embed(features) + self.pos_embed  # (N, T, D)
        x = dropout(x, self.dropout, self.training)
        return self.norm(self.blocks(x))
