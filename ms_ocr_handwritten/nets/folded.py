"""Networks that take lines whole, as a CPU computes them when nothing is learnt.

- Batch norms are part of the convolutions before them.
- Behind the ink of a line all columns that CRNN's convolutions give are the same, but for those at the end of the
  canvas: they are computed once and repeated. The LSTMs and the classifier go over all of them.

Notation: N lines, W px of their canvas, T = W / 4 columns, D features, C classes.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..geometry import COLUMN_WIDTH, WHOLE_STEP
from .crnn import CRNN
from .network import Network

REACH = 24  # px to each side of a column, at most, that CRNN's convolutions see: 19 and 22


class FoldedNetwork:
    """Grey lines float32 (N, 1, 32, W) in [0, 1] to columns (N, T, D) and their logits (N, T, C), in fp32.

    A copy of the network's weights, which later changes do not reach.
    """

    def __init__(self, network: Network) -> None:
        self.network = folded(network)

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        columns = network.sequence(crnn_features(network, grey)) if isinstance(network, CRNN) else network.encode(grey)
        return columns, network.classify(columns)


def folded(network: Network) -> Network:
    """A copy in evaluation mode, without batch norms."""
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if not isinstance(module, nn.Sequential):
            continue
        children = list(module.named_children())
        for (name, convolution), (norm_name, norm) in zip(children, children[1:]):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())
    return copied


def crnn_features(network: CRNN, grey: Tensor) -> Tensor:
    """What `network.trunk` gives, (N, ., 1, T), without computing the black behind each line column by column."""
    canvas = grey.shape[-1]
    ends = ((grey.amax((1, 2)) > 0) * torch.arange(1, canvas + 1)).amax(1)  # (N,), px that hold a line
    widths = ((ends + 2 * REACH + WHOLE_STEP - 1) // WHOLE_STEP * WHOLE_STEP).clamp(max=canvas)
    parts, order = [], []
    for width in widths.unique().tolist():
        lines = (widths == width).nonzero()[:, 0]
        features = network.trunk(grey[lines, :, :, :width])
        alike = (width - REACH) // COLUMN_WIDTH - 1  # a column that sees neither the line nor the end
        left, right = features[..., : alike + 1], features[..., alike + 1 :]
        repeated = features[..., alike : alike + 1].expand(-1, -1, -1, (canvas - width) // COLUMN_WIDTH)
        parts.append(torch.cat([left, repeated, right], dim=-1))
        order.append(lines)
    return torch.cat(parts)[torch.cat(order).argsort()]
