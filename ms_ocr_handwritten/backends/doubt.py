"""Reading in bf16, repeated in fp32 where bf16's rounding may have changed the text.

1. The error of bf16 in the difference of the two best logits is measured on noise (`measured_noise`).
2. If the two best logits of a column differ by less than NOISE_TIMES that error, the second is the column's rival
   (`columns.best_columns`), after the head compared both in fp32 (`settle`).
3. Columns are in doubt if some choice of rivals changes the line's text (`columns_in_doubt`); only the chunks with such
   columns are read again.
"""

from collections.abc import Callable
from itertools import groupby, product

import numpy as np
import torch
from torch import Tensor

from ..ctc import BLANK
from ..geometry import LINE_HEIGHT

STEPS = 2**-6  # two to four steps of bf16, relative to a logit: what rounding logits to bf16 may hide
NOISE_PIECES = 2  # pieces on which the error of bf16 is measured
NOISE_TIMES = 4.5  # times that error, as a standard deviation: closer logits may swap in fp32
LONGEST_DOUBT = 6  # consecutive columns with rivals whose 2^6 readings are compared; longer runs are always in doubt


def measured_noise(
    exact: Callable[[Tensor], Tensor], rounded: Callable[[Tensor], Tensor], width: int, device: torch.device
) -> float:
    """The error of bf16 in the difference of the two best logits, relative to the best.

    exact, rounded: pieces float32 (N, 1, 32, width) on `device` to logits (N, T, C), in fp32 and in bf16. It is the
    68 % quantile of the errors, which corresponds to a standard deviation but is robust to logits near 0.
    """
    random = np.random.default_rng(0).random((NOISE_PIECES, 1, LINE_HEIGHT, width), np.float32)
    grey = torch.from_numpy(random).to(device)
    best, ids = exact(grey).topk(2, -1)
    error = rounded(grey).float().gather(-1, ids) - best
    return ((error[..., 0] - error[..., 1]) / best[..., 0]).abs().quantile(0.68).item()


def settle(ids: Tensor, rivals: Tensor, columns: Tensor, head: torch.nn.Linear, noise: float) -> None:
    """Compare the two candidates of contested columns by fp32 logits: the better one becomes the id, in place.

    ids and rivals int64 (N, T), columns (N, T, D). The other one stays its rival if it is within `noise`, relative to
    the better logit.
    """
    on_cpu = ids.device.type == "cpu"  # on a GPU all columns are compared, to avoid waiting for the number contested
    at = (ids != rivals).nonzero(as_tuple=True) if on_cpu else (slice(None), slice(None))
    candidates = torch.stack([ids[at], rivals[at]])  # (2, M)
    logits = (columns[at].float() * head.weight[candidates]).sum(-1)
    if head.bias is not None:
        logits = logits + head.bias[candidates]
    (better, worse), order = logits.sort(dim=0, descending=True, stable=True)
    first, second = candidates.gather(0, order)
    ids[at], rivals[at] = first, torch.where(better - worse <= noise * better.abs(), second, first)


def columns_in_doubt(ids: np.ndarray, rivals: np.ndarray) -> list[int]:
    """The columns of a line whose rivals may change its text: ids and rivals int (T,), equal if there is no rival.

    Rivals are judged by their effect on their run of columns and its neighbours: where a character ends may be
    uncertain although the character is not. The columns are those of the whole line with its chunks joined, so a
    character at the edge of a chunk is judged together with the next chunk.
    """
    found: list[int] = []
    contested = np.flatnonzero(ids != rivals)
    for run in np.split(contested, np.flatnonzero(np.diff(contested) > 1) + 1):
        if len(run) and (len(run) > LONGEST_DOUBT or _texts_differ(run, ids, rivals)):
            found += run.tolist()
    return found


def _texts_differ(run: np.ndarray, ids: np.ndarray, rivals: np.ndarray) -> bool:
    """Whether the choices of rivals in `run`, consecutive columns, give more than one text."""
    around = slice(max(0, run[0] - 1), run[-1] + 2)
    readings = product(*({a, b} for a, b in zip(ids[around].tolist(), rivals[around].tolist())))
    return len({tuple(id for id, _ in groupby(reading) if id != BLANK) for reading in readings}) > 1
