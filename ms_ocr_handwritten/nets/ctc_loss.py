"""CTC loss over the columns of many lines, without log-probabilities for classes that no label asks for.

CTC needs, of each column, the log-probabilities of the blank and of the label's own characters only; of the other
thousands of classes it needs their sum. So the log-softmax is never materialised: one pass finds the normaliser of each
column, PyTorch's own `ctc_loss` runs on the few classes of each label, and the gradient, softmax minus the posterior of
each class (Graves et al. 2006, equation 16), is written in one more pass. A column shared by many lines (of the one
padding chunk of a batch) is classified once and its gradients are added up.

Notation: P distinct columns, C classes, B lines, T columns of the longest line, K classes of the richest label.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ROWS = 128  # columns handled at a time: 128 x 7,644 floats stay in the cache


def ctc_loss(logits: Tensor, columns: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Negative log-likelihood of each label, float32 (B,); infinite where a label cannot be aligned.

    logits: (P, C), float32 or bfloat16, one row per distinct column.
    columns: (B, T) int64, for each line the rows of its columns, padded with 0 behind its length.
    lengths: (B,) int64, columns of each line.
    labels: B sequences of ids in [1, C).
    """
    return _CtcLoss.apply(logits, columns, lengths, labels)


def _compact(labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Number the classes of each label from 1: (classes (B, K) with 0 for the blank, targets (sum,), target lengths)."""
    numberings = [{id: number for number, id in enumerate(dict.fromkeys(label), start=1)} for label in labels]
    most = 1 + max((len(numbering) for numbering in numberings), default=0)
    classes = torch.tensor([[0, *numbering] + [0] * (most - 1 - len(numbering)) for numbering in numberings])
    targets = torch.tensor([numbering[id] for label, numbering in zip(labels, numberings) for id in label],
                           dtype=torch.int64)
    return classes, targets, torch.tensor([len(label) for label in labels])


class _CtcLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, columns: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
        classes, targets, target_lengths = (tensor.to(logits.device) for tensor in _compact(labels))
        normaliser = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(ROWS)])  # (P,)
        picked = logits[columns[:, :, None], classes[:, None, :]].float()  # (B, T, K)
        log_probs = (picked - normaliser[columns][:, :, None]).transpose(0, 1)  # (T, B, K)
        if not ctx.needs_input_grad[0]:
            return F.ctc_loss(log_probs, targets, lengths, target_lengths, reduction="none")
        with torch.enable_grad():
            leaf = log_probs.detach().requires_grad_()
            loss = F.ctc_loss(leaf, targets, lengths, target_lengths, reduction="none")
            # PyTorch returns softmax - posterior, correct behind a log_softmax; the posterior alone is wanted here
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        posterior = (log_probs.exp() - gradient).transpose(0, 1)  # (B, T, K)
        inside = torch.arange(columns.shape[1], device=logits.device) < lengths[:, None]  # (B, T)
        counted = inside & loss.isfinite()[:, None]
        posterior = torch.where(counted[:, :, None], posterior, 0.0)
        ctx.save_for_backward(logits, normaliser, columns, classes, posterior, counted)
        return loss.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        logits, normaliser, columns, classes, posterior, counted = ctx.saved_tensors
        per_line = torch.where(counted.any(1), upstream, 0.0)  # a line that cannot be aligned teaches nothing
        weight = normaliser.new_zeros(len(logits)).index_put_(
            (columns,), per_line[:, None] * counted, accumulate=True)  # (P,)
        gradient = torch.cat([
            ((rows.float() - norm[:, None]).exp_() * scale[:, None]).to(logits.dtype)
            for rows, norm, scale in zip(logits.split(ROWS), normaliser.split(ROWS), weight.split(ROWS))
        ])
        rows, ids, sums = _summed(columns, classes, posterior * per_line[:, None, None], logits.shape[1])
        # in float32 to the end: near the optimum the two terms are almost equal, and bfloat16 would keep noise alone
        exact = (logits[rows, ids].float() - normaliser[rows]).exp_() * weight[rows] - sums
        return gradient.index_put_((rows, ids), exact.to(gradient.dtype)), None, None, None


def _summed(columns: Tensor, classes: Tensor, values: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (B, T, K) added up by row (B, T) and class (B, K): distinct rows (S,), classes (S,), and sums (S,)."""
    places = (columns[:, :, None] * width + classes[:, None, :]).flatten()
    places, which = places.unique(return_inverse=True)
    sums = values.new_zeros(len(places)).index_add_(0, which, values.flatten())
    return places // width, places % width, sums
