"""CRNN: convolutions down to one row of columns of 4 px, then two bidirectional LSTMs over all columns of a line.

Architecture: Shi et al., "An End-to-End Trainable Neural Network for Image-based Sequence Recognition", arXiv
1507.05717, with batch norm after every convolution. Parameter names and shapes are those of ModelScope
`ocr_recognition/modules/CRNN/main_model.py` (Apache-2.0), so that its weights load under their own names; the code is
ours.

Notation: N lines, W px canvas width, T = W / 4 columns, D features, C classes.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..recognisers import CrnnConfig
from .network import Network, rgb_to_grey


def convolutions(before: int, *after: int) -> nn.Sequential:
    """3x3 convolutions, each with batch norm and ReLU: (N, before, H, W) to (N, after[-1], H, W)."""
    layers: list[nn.Module] = []
    for channels in after:
        layers += [nn.Conv2d(before, channels, kernel_size=3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers)


class BidirectionalLSTM(nn.Module):
    """Columns (T, N, before) to columns (T, N, after), each with the context of the whole line."""

    def __init__(self, before: int, hidden: int, after: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(before, hidden, bidirectional=True)
        self.embedding = nn.Linear(2 * hidden, after)

    def forward(self, columns: Tensor) -> Tensor:
        return self.embedding(self.rnn(columns)[0])


class CRNN(Network):
    """From whole lines to logits."""

    config: CrnnConfig
    learns_from_batch = True

    def __init__(self, config: CrnnConfig = CrnnConfig()) -> None:
        super().__init__()
        self.config = config
        first, second, third, last = config.channels
        self.conv0 = convolutions(1, first)
        self.conv1 = convolutions(first, second)
        self.conv2 = convolutions(second, third, third)
        self.conv3 = convolutions(third, last, last)
        self.conv4 = nn.Sequential(
            nn.Conv2d(last, last, kernel_size=(2, 1), stride=(2, 1)), nn.BatchNorm2d(last), nn.ReLU()
        )
        hidden = config.hidden
        self.rnn = nn.Sequential(BidirectionalLSTM(last, hidden, hidden), BidirectionalLSTM(hidden, hidden, 2 * hidden))
        self.cls = nn.Linear(2 * hidden, config.num_classes, bias=False)

    @property
    def classifier(self) -> nn.Linear:
        return self.cls

    def trunk(self, grey: Tensor) -> Tensor:
        """Grey lines (N, 1, 32, W) in [0, 1] to features (N, channels[3], 1, T)."""
        x = F.max_pool2d(self.conv0(grey), 2)  # (N, ., 16, W / 2)
        x = F.max_pool2d(self.conv1(x), 2)  # (N, ., 8, T)
        x = F.max_pool2d(self.conv2(x), (2, 1))  # (N, ., 4, T)
        x = F.max_pool2d(self.conv3(x), (2, 1))  # (N, ., 2, T)
        return self.conv4(x)

    def sequence(self, features: Tensor) -> Tensor:
        """Features (N, channels[3], 1, T) to encoded columns (N, T, D)."""
        return self.rnn(features.squeeze(2).permute(2, 0, 1)).transpose(0, 1)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey lines (N, 1, 32, W) in [0, 1] to encoded columns (N, T, D)."""
        return self.sequence(self.trunk(grey))

    def forward(self, images: Tensor) -> Tensor:
        """RGB lines (N, 3, 32, 640) in [0, 1] to logits (N, 160, C)."""
        return self.classify(self.encode(rgb_to_grey(images)))

    def modules_of(self, part: str) -> Sequence[nn.Module]:
        if part == "trunk":
            return [self.conv0, self.conv1, self.conv2, self.conv3, self.conv4]
        return [{"encoder": self.rnn, "head": self.cls}[part]]
