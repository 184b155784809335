"""ConvNextViT for inference on a CPU: weights are prepacked, activations fused into matrix products.

It computes the same as `convnextvit.py`. Matrix products have fp32 or bf16 inputs and outputs; all else is in fp32,
which takes no more time than bf16 and leaves half to three quarters of the error. Three optimisations:
- the weights of every linear layer are reordered once for oneDNN's kernels, not in every call;
- GELU is fused into the product before it, instead of another pass over memory;
- ConvNeXt's layer scale is folded into the product before it, and kernel rows that only meet padding are left out.

`torch.ops.mkldnn._linear_pointwise` is the operator that PyTorch's own compiler emits for these patterns (upstream file
torch/_inductor/fx_passes/mkldnn_fusion.py); `available` checks whether it works in this PyTorch and on this CPU.

Notation: N chunks, H rows, T = 75 columns, C channels or classes, D features. Activations are channels-last throughout.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import COLUMN_WIDTH, LINE_HEIGHT
from .convnext import Block as ConvBlock
from .convnextvit import ConvNextViT
from .depthwise import DepthwiseConv
from .vit import Block as VitBlock

logger = logging.getLogger(__name__)

Layer = Callable[[Tensor], Tensor]
FIRST_ROWS = LINE_HEIGHT // COLUMN_WIDTH  # of the stem's output
LAYOUT_ROWS = 600  # batch rows for which oneDNN packs the weights; other numbers run as fast


@functools.cache
def available(dtype: torch.dtype) -> bool:
    """Whether the operators used here work in this PyTorch and on this CPU, tested by using each once."""
    return operators_work(functools.partial(_try_operators, dtype), optional=dtype is not torch.float32)


def operators_work(use: Callable[[], None], optional: bool = False) -> bool:
    """Whether `use`, which calls oneDNN's operators, raises nothing.

    They are private, so a later PyTorch may change them: then a warning is logged, once, and plain PyTorch is used.
    There is no warning if they are `optional` and raise a RuntimeError, as for bf16 without AVX-512.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        use()
    except Exception as error:  # a changed operator may raise anything
        if not (optional and isinstance(error, RuntimeError)):
            _warn(f"{type(error).__name__}: {error}".splitlines()[0])
        return False
    return True


def _try_operators(dtype: torch.dtype) -> None:
    """Run a tiny layer; raises its exception, or ArithmeticError if its result differs from PyTorch's own."""
    numbers = torch.linspace(-1, 1, 8 * 16)
    weight, bias, x = numbers.view(16, 8), numbers[:16], numbers[:48].view(2, 3, 8)
    plain = F.linear(x, weight, bias)
    for activation, expected in (("none", plain), ("gelu", F.gelu(plain))):
        found = _Packer(dtype).linear(weight, bias, activation)(x).float()
        if not torch.allclose(found, expected, atol=0.05):  # eight bits of bf16
            raise ArithmeticError(f"{activation} after a product of matrices finds other values")


_warned = False


def _warn(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        logger.warning("reading on this CPU is slower: PyTorch %s has other operators (%s)", torch.__version__, reason)


class PackedNetwork:
    """A ConvNextViT in evaluation mode. It holds a copy of the weights, so later changes have no effect."""

    def __init__(self, network: ConvNextViT, dtype: torch.dtype) -> None:
        """dtype: of the matrix products, torch.float32 or torch.bfloat16. `network` is on the CPU."""
        pack = _Packer(dtype)
        trunk, encoder = network.cnn_model, network.vitstr
        # PyTorch's containers do not type their modules.
        stem, stem_norm = cast(tuple[nn.Conv2d, nn.LayerNorm], trunk.downsample_layers[0])
        halvings = cast(Iterable[tuple[nn.LayerNorm, nn.Conv2d]], trunk.downsample_layers[1:])
        stages = cast(Iterable[Iterable[ConvBlock]], trunk.stages)
        blocks = cast(Iterable[VitBlock], encoder.blocks)
        self.stem, self.stem_norm = pack.stem(stem), pack.norm(stem_norm)
        self.stages = [
            [pack.conv_block(block, FIRST_ROWS >> index) for block in stage] for index, stage in enumerate(stages)
        ]
        self.halvings = [pack.halving(norm, halving) for norm, halving in halvings]
        self.embed = pack.linear(encoder.patch_embed.proj.weight.flatten(1), encoder.patch_embed.proj.bias)
        self.position = pack.tensor(encoder.pos_embed)
        self.blocks = [pack.vit_block(block) for block in blocks]
        self.norm, self.head = pack.norm(encoder.norm), pack.linear(encoder.head.weight, encoder.head.bias)

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Grey chunks float32 (N, 1, 32, 300) in [0, 1] to columns float32 (N, 75, D) and their logits (N, 75, C)."""
        columns = self.encode(grey)
        return columns, self.head(columns)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey chunks float32 (N, 1, 32, 300) in [0, 1] to columns float32 (N, 75, D)."""
        x = grey.contiguous(memory_format=torch.channels_last)
        x = self.stem_norm(self.stem(x).permute(0, 2, 3, 1))  # (N, 8, T, C)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.halvings[index - 1](x).float()  # (N, 8 >> index, T, C)
            for block in stage:
                x += block(x)
        x = self.embed(x.squeeze(1)) + self.position  # (N, T, D)
        for attention, mlp in self.blocks:
            x += attention(x)
            x += mlp(x)
        return self.norm(x)


class _Packer:
    """Layers of the network as functions: products in `dtype`, with inputs of any dtype, the others in fp32."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def tensor(self, value: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor:
        assert value is not None  # all layers of this network have a bias
        return value.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Layer:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(self.dtype), LAYOUT_ROWS)  # makes a copy
        bias = self.tensor(bias, self.dtype)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), packed, bias, activation, [], "none")

    def norm(self, norm: nn.LayerNorm) -> Layer:
        weight, bias, shape, epsilon = self.tensor(norm.weight), self.tensor(norm.bias), norm.normalized_shape, norm.eps
        return lambda x: F.layer_norm(x, shape, weight, bias, epsilon)

    def stem(self, stem: nn.Conv2d) -> Layer:
        weight, bias, stride = self.tensor(stem.weight), self.tensor(stem.bias), stem.stride
        return lambda x: F.conv2d(x, weight, bias, stride)

    def depthwise(self, convolution: DepthwiseConv, rows: int) -> Layer:
        weight, padding = convolution.cropped_kernel(rows)
        weight, bias = self.tensor(weight), self.tensor(convolution.bias)
        return lambda x: F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    def conv_block(self, block: ConvBlock, rows: int) -> Layer:
        depthwise, norm = self.depthwise(block.dwconv, rows), self.norm(block.norm)
        widen = self.linear(block.pwconv1.weight, block.pwconv1.bias, "gelu")
        narrow = self.linear(block.gamma[:, None] * block.pwconv2.weight, block.gamma * block.pwconv2.bias)
        return lambda x: narrow(widen(norm(depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))))

    def halving(self, norm: nn.LayerNorm, halving: nn.Conv2d) -> Layer:
        normed = self.norm(norm)
        linear = self.linear(halving.weight.squeeze(3).transpose(1, 2).flatten(1), halving.bias)
        return lambda x: linear(
            normed(x).to(self.dtype).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
        )  # pairs of rows

    def vit_block(self, block: VitBlock) -> tuple[Layer, Layer]:
        heads, norm1, norm2 = block.attn.heads, self.norm(block.norm1), self.norm(block.norm2)
        qkv = self.linear(block.attn.qkv.weight, block.attn.qkv.bias)
        project = self.linear(block.attn.proj.weight, block.attn.proj.bias)
        widen = self.linear(block.mlp.fc1.weight, block.mlp.fc1.bias, "gelu")
        narrow = self.linear(block.mlp.fc2.weight, block.mlp.fc2.bias)

        def attention(x: Tensor) -> Tensor:
            n, t, d = x.shape
            q, k, v = qkv(norm1(x)).view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)  # each (N, heads, T, -)
            return project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))

        return attention, lambda x: narrow(widen(norm2(x)))
