"""From logits to the best class of each column, its log-probability, and its rival if the two are close."""

import math

import torch
from torch import Tensor

from ..decoding.beam import QUIET

LIKELY = 0.04  # probability below which the best class of a column is not worth checking in fp32
COLUMNS_AT_ONCE = 128  # columns processed together on a CPU, so that their logits stay in the cache
SEARCHED_AT_ONCE = 32  # the same for beam search, which needs a second buffer
BLOCK = 64  # classes
NEGLIGIBLE = -80.0  # logits this far below the best add nothing in float32, but exp of lower ones is slow


def best_columns(logits: Tensor, near: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, T, C) of any float type to ids (int64), log-probabilities (float32) and rivals (int64), all (N, T).

    The rival is the second best id if its logit is within `near`, relative to the best one, and the best is LIKELY;
    otherwise, and if `near` is 0, it is the best id again. A CPU processes some columns at a time in one buffer, so
    that their thousands of classes are read from memory once.
    """
    columns, classes = logits.flatten(0, 1), logits.shape[-1]
    ids, log_probs = (
        columns.new_empty(len(columns), dtype=torch.int64),
        columns.new_empty(len(columns), dtype=torch.float32),
    )
    rivals = torch.empty_like(ids)
    at_once = COLUMNS_AT_ONCE if logits.device.type == "cpu" else len(columns)
    buffer = columns.new_full(
        (min(at_once, len(columns)), -(-classes // BLOCK) * BLOCK), -math.inf, dtype=torch.float32
    )
    for start in range(0, len(columns), at_once):
        part = slice(start, min(start + at_once, len(columns)))
        padded = buffer[: part.stop - start]
        scores = padded[:, :classes].copy_(columns[part])
        top, best, runner_up, second = two_best(padded) if near else 2 * highest(padded)
        likely = scores.sub_(top).clamp_(min=NEGLIGIBLE).exp_().sum(-1, keepdim=True).log_().neg_()
        contested = (runner_up - top >= -near * top.abs()) & (likely >= math.log(LIKELY))
        ids[part], log_probs[part] = best[:, 0], likely[:, 0]
        rivals[part] = torch.where(contested, second, best)[:, 0]
    return ids.view(logits.shape[:2]), log_probs.view(logits.shape[:2]), rivals.view(logits.shape[:2])


def two_best(scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The highest and second highest of scores (M, C), C a multiple of BLOCK: value, id, value, id, each (M, 1).

    The first of equal ones wins.
    """
    top, best = highest(scores)
    runner_up, second = highest(scores.scatter_(-1, best, -math.inf))
    scores.scatter_(-1, best, top)
    return top, best, runner_up, second


def highest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of scores (M, C), C a multiple of BLOCK, the first of equal ones: value, id, each (M, 1).

    It works by blocks, since PyTorch's argmax takes ten times as long as its amax on a CPU.
    """
    blocks = scores.unflatten(-1, (-1, BLOCK))
    top, at = blocks.amax(-1).max(-1, keepdim=True)
    place = blocks.gather(1, at[..., None].expand(-1, -1, BLOCK)).argmax(-1)
    return top, at * BLOCK + place


def candidate_columns(logits: Tensor, count: int, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) of any float type to the candidates of each column: int32, float32, both (N, T, 1 + k).

    count, classes: as in `decoding.candidates.Wanted`, but with the blank as the first class.
    On a CPU quiet columns, which are the majority, get only the blank; a GPU would have to wait for their number.
    """
    columns = logits.flatten(0, 1)
    if classes is not None:
        columns = columns[:, classes]
    on_cpu, width = logits.device.type == "cpu", columns.shape[-1]
    count = min(count, width - 1)
    ids = torch.zeros(len(columns), 1 + count, dtype=torch.int32, device=logits.device)
    log_probs = torch.full(ids.shape, -math.inf, device=logits.device)
    at_once = SEARCHED_AT_ONCE if on_cpu else len(columns)
    buffer = columns.new_full((min(at_once, len(columns)), -(-width // BLOCK) * BLOCK), -math.inf, dtype=torch.float32)
    powers = torch.empty_like(buffer)
    for start in range(0, len(columns), at_once):
        part = slice(start, min(start + at_once, len(columns)))
        scores = buffer[: part.stop - start]
        scores[:, :width] = columns[part]
        blanks = scores[:, :1].clone()
        scores[:, 0] = -math.inf
        peaks = scores.unflatten(-1, (-1, BLOCK)).amax(-1)
        top = torch.maximum(peaks.amax(-1, keepdim=True), blanks)
        whole = torch.sub(scores, top, out=powers[: len(scores)]).clamp_(min=NEGLIGIBLE).exp_().sum(-1, keepdim=True)
        normaliser = top + (whole + (blanks - top).exp()).log()
        blanks -= normaliser
        log_probs[part, :1] = blanks
        if on_cpu:
            busy = (blanks[:, 0] <= math.log(QUIET)).nonzero()[:, 0]
        else:
            busy = torch.arange(len(scores), device=logits.device)
        best, places = highest_many(scores, peaks, busy, count)
        log_probs[start + busy, 1:] = best - normaliser[busy]
        ids[start + busy, 1:] = (places if classes is None else classes[places]).int()
    return ids.unflatten(0, logits.shape[:2]), log_probs.unflatten(0, logits.shape[:2])


def highest_many(scores: Tensor, peaks: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of `rows` (R,) of scores (M, C): values in descending order and indices, (R, count).

    C is a multiple of BLOCK. They lie in the blocks with the highest `peaks` (M, C / BLOCK), so few classes need to be
    sorted.
    """
    blocks = peaks.shape[-1]
    if blocks <= count:
        return scores[rows].topk(count, -1)
    chosen = peaks[rows].topk(count, -1, sorted=False).indices
    near = scores.view(-1, BLOCK).index_select(0, (rows[:, None] * blocks + chosen).flatten())
    top, at = near.view(-1, count * BLOCK).topk(count, -1)
    return top, chosen.gather(1, at // BLOCK) * BLOCK + at % BLOCK
