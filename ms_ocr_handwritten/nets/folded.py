"""CRNN for inference on a CPU; batch norms are folded into the convolutions before them.

- 3x3 convolutions take a quarter of the multiplications (`winograd`).
- To the right of a line's ink all columns of the convolutions' output are equal, except those at the end of the canvas:
  they are computed once and repeated. The LSTMs and the classifier process all of them.

Notation: N lines, W px canvas width, T = W / 4 columns, D features, C classes.
"""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..geometry import COLUMN_WIDTH, WHOLE_STEP
from .crnn import CRNN
from .winograd import WinogradConv, maxima

REACH = 24  # px, an upper bound on the receptive field to each side of a column: 19 and 22
AT_ONCE = 4  # lines computed together, so that their maps stay in the cache

Kind = TypeVar("Kind", bound=nn.Module)


class FoldedCRNN:
    """Grey lines float32 (N, 1, 32, W) in [0, 1] to columns (N, T, D) and their logits (N, T, C), in fp32.

    It holds a copy of the network's weights, so later changes have no effect.
    """

    def __init__(self, network: CRNN) -> None:
        self.network = network = folded(network)
        places = ((network.conv0, 0), (network.conv1, 0), (network.conv2, 0), (network.conv2, 3), (network.conv3, 0))
        # PyTorch's containers do not type their modules.
        self.first, *others = (cast(nn.Conv2d, stage[place]) for stage, place in (*places, (network.conv3, 3)))
        maxima_of = ((2, 2), (1, 1), (2, 1), (1, 1), (2, 1))  # rows and columns
        self.convolutions = [WinogradConv(one, *sizes) for one, sizes in zip(others, maxima_of)]

    def __call__(self, grey: Tensor) -> tuple[Tensor, Tensor]:
        columns = self.encode(grey)
        return columns, self.network.classify(columns)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey lines float32 (N, 1, 32, W) in [0, 1] to columns (N, T, D)."""
        return self.network.rnn(self.features(grey).transpose(0, 1)).transpose(0, 1)

    def features(self, grey: Tensor) -> Tensor:
        """Output of the convolutions, (N, T, .), without computing the black right of each line column by column."""
        canvas = grey.shape[-1]
        ends = ((grey.amax((1, 2)) > 0) * torch.arange(1, canvas + 1)).amax(1)  # (N,), px up to the end of a line
        widths = ((ends + 2 * REACH + WHOLE_STEP - 1) // WHOLE_STEP * WHOLE_STEP).clamp(max=canvas)
        parts, order = [], []
        for width in widths.unique().tolist():
            for lines in (widths == width).nonzero()[:, 0].split(AT_ONCE):
                features = self.trunk(grey[lines, :, :, :width])
                alike = (width - REACH) // COLUMN_WIDTH - 1  # a column that sees neither the line nor the end
                repeated = features[:, alike : alike + 1].expand(-1, (canvas - width) // COLUMN_WIDTH, -1)
                parts.append(torch.cat([features[:, : alike + 1], repeated, features[:, alike + 1 :]], dim=1))
                order.append(lines)
        return torch.cat(parts)[torch.cat(order).argsort()]

    def trunk(self, grey: Tensor) -> Tensor:
        """Grey lines (N, 1, 32, W) to features (N, T, .)."""
        x = F.conv2d(grey, self.first.weight, self.first.bias, padding=1).permute(0, 2, 3, 1)
        x = maxima(maxima(x, 1, 2), 2, 2).relu_()
        for convolution in self.convolutions:
            x = convolution(x)
        return self.network.conv4(x.permute(0, 3, 1, 2)).squeeze(2).transpose(1, 2)


def folded(network: Kind) -> Kind:
    """A copy in evaluation mode, with batch norms folded into the convolutions."""
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
