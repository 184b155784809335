"""Memory-saving CTC loss over the columns of many lines, fused with the classifier head: no logits are kept.

For each column CTC needs only the log-probabilities of the blank and of the label's own characters; of the other
thousands of classes it needs their sum. So neither the logits nor their log-softmax are ever held in memory as a whole.
They are computed for some columns at a time: one pass finds the normaliser of each column, PyTorch's own `ctc_loss`
runs on the few classes of each label, and a second pass recomputes the logits and turns them into their gradient,
softmax minus the posterior of each class (Graves et al. 2006, equation 16), and at once into the gradients of columns
and head. A column shared by many lines (of the one padding chunk of a batch) is classified once and its gradients are
summed. Column indices are computed on the host, from the batch, so that a GPU never has to be synchronised.

Notation: P distinct columns, D features, C classes, B lines, T columns of the longest line, K the largest number of
classes in a label.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .transfer import to_device

ROWS = 256  # columns processed at a time on a CPU, so that their logits stay in the cache
ROWS_OF_GPU = 8192


def rows_at_once(device: torch.device) -> int:
    """Number of columns processed at a time on `device`."""
    return ROWS if device.type == "cpu" else ROWS_OF_GPU


def ctc_loss(
    encoded: Tensor, head: nn.Linear, columns: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]
) -> Tensor:
    """Negative log-likelihood of each label, float32 (B,); infinite if a label cannot be aligned.

    encoded: (P, D), floating point, one row per distinct column; head: D to C. Under autocast the logits are computed
    in its dtype, as the head itself would do.
    columns: (B, T) int64 on the CPU, the rows of `encoded` that make up each line, padded with 0 after its length.
    lengths: (B,) int64 on the CPU, number of columns of each line.
    labels: B sequences of ids in [1, C).
    """
    device = encoded.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else encoded.dtype
    wanted = torch.is_grad_enabled() and (encoded.requires_grad or head.weight.requires_grad)
    with torch.autocast(device, enabled=False):
        weight = head.weight.to(dtype)
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.to(dtype)
        return _CtcLoss.apply(encoded.to(dtype), weight, bias, columns, lengths, labels, wanted)


def _compact(labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Number the classes of a label from 1: (classes (B, K) with 0 for the blank, targets (sum,), target lengths)."""
    numberings = [{id: number for number, id in enumerate(dict.fromkeys(label), start=1)} for label in labels]
    most = 1 + max((len(numbering) for numbering in numberings), default=0)
    classes = torch.tensor([[0, *numbering] + [0] * (most - 1 - len(numbering)) for numbering in numberings])
    targets = torch.tensor(
        [numbering[id] for label, numbering in zip(labels, numberings) for id in label], dtype=torch.int64
    )
    return classes, targets, torch.tensor([len(label) for label in labels])


class _CtcLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        weight: Tensor,
        bias: Tensor,
        columns: Tensor,
        lengths: Tensor,
        labels: Sequence[Sequence[int]],
        wanted: bool,
    ) -> Tensor:
        classes, targets, target_lengths = _compact(labels)
        (lines, length), flat, bounds = columns.shape, columns.flatten(), _bounds(columns, encoded)
        inside = torch.arange(length) < lengths[:, None]  # (B, T)
        flat, order, classes, targets, inside = (
            to_device(tensor, encoded.device) for tensor in (flat, flat.argsort(stable=True), classes, targets, inside)
        )
        normaliser = torch.empty(len(encoded), device=encoded.device)  # (P,)
        buffer = normaliser.new_empty(min(rows_at_once(encoded.device), len(encoded)), len(weight))
        picked = torch.empty(lines * length, classes.shape[1], device=encoded.device)  # (B T, K)
        for start, stop, rows in zip(bounds, bounds[1:], _slices(encoded)):
            logits = F.linear(encoded[rows], weight, bias)
            top = logits.amax(-1, keepdim=True).float()
            shares = torch.sub(logits, top, out=buffer[: len(logits)]).exp_()
            normaliser[rows] = shares.sum(-1).log_() + top[:, 0]
            here = order[start:stop]
            picked[here] = logits[(flat[here] - rows.start)[:, None], classes[here // length]].float()
        log_probs = (picked - normaliser[flat][:, None]).view(lines, length, -1).transpose(0, 1)  # (T, B, K)
        if not wanted:
            return F.ctc_loss(log_probs, targets, lengths, target_lengths, reduction="none")
        with torch.enable_grad():
            leaf = log_probs.detach().requires_grad_()
            loss = F.ctc_loss(leaf, targets, lengths, target_lengths, reduction="none")
            # PyTorch returns softmax - posterior, correct after a log_softmax; only the posterior is needed here
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        probabilities = log_probs.exp()
        posterior = (probabilities - gradient).transpose(0, 1)  # (B, T, K)
        counted = inside & loss.isfinite()[:, None]
        posterior = torch.where(counted[:, :, None], posterior, 0.0)
        ctx.bounds = bounds
        ctx.save_for_backward(encoded, weight, bias, normaliser, flat, order, classes, posterior, counted)
        return loss.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        encoded, weight, bias, normaliser, flat, order, classes, posterior, counted = ctx.saved_tensors
        per_line = torch.where(counted.any(1), upstream, 0.0)  # a line that cannot be aligned has no gradient
        share = torch.zeros_like(normaliser).index_add_(0, flat, (per_line[:, None] * counted).flatten())  # (P,)
        posterior = (posterior * per_line[:, None, None]).flatten(0, 1)  # (B T, K)
        of_encoded = torch.empty_like(encoded)
        buffer = normaliser.new_empty(min(rows_at_once(encoded.device), len(encoded)), len(weight))
        of_weight, of_bias = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (weight, bias))
        for start, stop, rows in zip(ctx.bounds, ctx.bounds[1:], _slices(encoded)):
            logits = F.linear(encoded[rows], weight, bias)
            slope = torch.sub(logits, normaliser[rows, None], out=buffer[: len(logits)]).exp_().mul_(share[rows, None])
            # in float32: near the optimum the two terms are almost equal, and bfloat16 would leave only noise
            here = order[start:stop]
            places = (flat[here] - rows.start)[:, None] * slope.shape[1] + classes[here // counted.shape[1]]
            slope.view(-1).index_add_(0, places.flatten(), posterior[here].flatten(), alpha=-1)
            of_bias += slope.sum(0)
            slope = slope.to(encoded.dtype)
            torch.mm(slope, weight, out=of_encoded[rows])
            of_weight += slope.t() @ encoded[rows]
        return of_encoded, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None, None, None, None


def _slices(encoded: Tensor) -> list[slice]:
    rows = rows_at_once(encoded.device)
    return [slice(start, start + rows) for start in range(0, len(encoded), rows)]


def _bounds(columns: Tensor, encoded: Tensor) -> list[int]:
    """The index in the sorted `columns` (B, T) where each slice of `encoded` begins, and where the last one ends."""
    counts = columns.flatten().bincount(minlength=len(encoded))
    return [0, *accumulate(int(part.sum()) for part in counts.split(rows_at_once(encoded.device)))]
