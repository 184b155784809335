"""One step's worth of computing: a batch of chunks to the loss of each line, and to what is read there."""

import numpy as np
import torch
from torch import Tensor, nn

from ..ctc import collapse
from ..nets.convnextvit import ConvNextViT
from ..nets.ctc_loss import ROWS, ctc_loss
from ..vocab import Vocabulary
from .dataset import Batch


class LineLoss(nn.Module):
    """The network with its loss, as one module that DistributedDataParallel can wrap."""

    def __init__(self, network: ConvNextViT) -> None:
        super().__init__()
        self.network = network
        network.vitstr.cls_token.requires_grad_(False)  # used by nobody: kept bit for bit, no decay

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each line, CTC's negative log-likelihood over the label's length: float32 (B,); logits (P, C)."""
        device = self.network.vitstr.cls_token.device
        encoded = self.network.encode(batch.grey.to(device))  # (N, 75, D)
        logits = self.network.classify(encoded).flatten(0, 1)  # (P, C)
        with torch.autocast(device.type, enabled=False):
            nll = ctc_loss(logits, batch.columns.to(device), batch.lengths.to(device), batch.ids)
        return nll / torch.tensor([max(1, len(ids)) for ids in batch.ids], device=device), logits


def read_batch(logits: Tensor, batch: Batch, vocabulary: Vocabulary) -> list[str]:
    """What greedy CTC reads from logits (P, C) of a batch, one text per line."""
    best = torch.cat([rows.argmax(-1) for rows in logits.split(ROWS)]).cpu().numpy()  # (P,)
    texts = []
    for row, length in zip(batch.columns.numpy(), batch.lengths.tolist()):
        ids = best[row[:length]]
        texts.append(vocabulary.decode(run.id for run in collapse(ids, np.zeros(length, np.float32))))
    return texts
