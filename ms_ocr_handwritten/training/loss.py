"""The forward pass of a batch of pieces, to the loss of each line and to its text."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..ctc import collapse_lines
from ..nets.batch_shapes import pad_batch
from ..nets.network import Network
from ..vocab import Vocabulary
from .ctc_loss import ctc_loss, rows_at_once
from .dataset import Batch
from .transfer import to_device

Encode = Callable[[Tensor], Tensor]


def encode_columns(network: Network, grey: Tensor, encode: Encode | None = None) -> Tensor:
    """Pieces (N, 1, 32, W) to encoded columns (N T, D); the batch is padded if that does not affect training.

    encode: a compiled `network.encode`; None uses `network.encode` itself.
    """
    encode = encode or network.encode
    if network.learns_from_batch and network.training:
        return encode(grey).flatten(0, 1)
    return encode(pad_batch(grey))[: len(grey)].flatten(0, 1)


class LineLoss(nn.Module):
    """The network with its loss, as one module that DistributedDataParallel can wrap."""

    def __init__(self, network: Network, encode: Encode | None = None) -> None:
        """encode: as in `encode_columns`."""
        super().__init__()
        self.network, self.encode = network, encode
        for parameter in network.unused():
            parameter.requires_grad_(False)  # so no weight decay either

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss per line, CTC's negative log-likelihood divided by the label's length: float32 (B,); columns (P, D)."""
        device = self.network.classifier.weight.device
        encoded = torch.cat(
            [encode_columns(self.network, to_device(grey, device), self.encode) for grey in batch.pieces]
        )  # (P, D)
        nll = ctc_loss(encoded, self.network.classifier, batch.columns, batch.lengths, batch.ids)
        return nll / to_device(torch.tensor([max(1, len(ids)) for ids in batch.ids]), device), encoded


def read_batch(encoded: Tensor, head: nn.Linear, batch: Batch, vocabulary: Vocabulary) -> list[str]:
    """Greedy CTC decoding of the columns (P, D) of a batch, one text per line."""
    best = (
        torch.cat([head(rows).argmax(-1) for rows in encoded.split(rows_at_once(encoded.device))]).cpu().numpy()
    )  # (P,)
    lines = [best[row[:length]] for row, length in zip(batch.columns.numpy(), batch.lengths.tolist())]
    runs = collapse_lines(lines, [np.zeros(len(ids), np.float32) for ids in lines])
    return [vocabulary.decode(run.id for run in line) for line in runs]
