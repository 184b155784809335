"""One step's worth of computing: a batch of chunks to the loss of each line, and to what is read there."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..ctc import collapse
from ..nets.batch_shapes import pad_batch
from ..nets.convnextvit import ConvNextViT
from ..vocab import Vocabulary
from .ctc_loss import ctc_loss, rows_at_once
from .dataset import Batch


def encode_columns(encode: Callable[[Tensor], Tensor], grey: Tensor) -> Tensor:
    """Chunks (N, 1, 32, 300) through `encode`, which gives (N, 75, D), to columns (75 N, D); filled up meanwhile."""
    return encode(pad_batch(grey))[: len(grey)].flatten(0, 1)


class LineLoss(nn.Module):
    """The network with its loss, as one module that DistributedDataParallel can wrap."""

    def __init__(self, network: ConvNextViT) -> None:
        super().__init__()
        self.network = network
        network.vitstr.cls_token.requires_grad_(False)  # used by nobody: kept bit for bit, no decay

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each line, CTC's negative log-likelihood over the label's length: float32 (B,); columns (P, D)."""
        device = self.network.vitstr.cls_token.device
        encoded = encode_columns(self.network.encode, batch.grey.to(device))  # (P, D)
        nll = ctc_loss(encoded, self.network.vitstr.head, batch.columns.to(device), batch.lengths.to(device), batch.ids)
        return nll / torch.tensor([max(1, len(ids)) for ids in batch.ids], device=device), encoded


def read_batch(encoded: Tensor, head: nn.Linear, batch: Batch, vocabulary: Vocabulary) -> list[str]:
    """What greedy CTC reads from the columns (P, D) of a batch, one text per line."""
    best = (
        torch.cat([head(rows).argmax(-1) for rows in encoded.split(rows_at_once(encoded.device))]).cpu().numpy()
    )  # (P,)
    texts = []
    for row, length in zip(batch.columns.numpy(), batch.lengths.tolist()):
        ids = best[row[:length]]
        texts.append(vocabulary.decode(run.id for run in collapse(ids, np.zeros(length, np.float32))))
    return texts
