"""A function of chunks as a GPU computes it when nothing is learnt: recorded once, then replayed as a whole.

The network is hundreds of small kernels, and starting them one by one from Python takes longer than they run. A CUDA
graph starts them all at once (PyTorch's "CUDA semantics", section CUDA Graphs).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .batch_shapes import padded_count

SIZES = 2  # in each doubling of the number of pieces, of which recordings are made

Function = Callable[[Tensor], tuple[Tensor, ...]]
Recording = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]  # what it is given and what it finds stay in place


class GraphedFunction:
    """`function` of pieces (N, 1, 32, W) to tensors (N, ...), each row of which belongs to one piece.

    It is recorded for some numbers of pieces of each width, and others are filled up with what was there before. What
    `function` reads besides its argument must stay where it is in memory; it may change there. Not for two threads at
    once.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        """device: a GPU, on which `function` takes and gives tensors."""
        self.function, self.device = function, device
        self.recordings: dict[tuple[int, int], Recording] = {}  # by number and width
        # Of memory, which all recordings share, since only one is replayed at a time.
        self.pool: torch.cuda._POOL_HANDLE | None = None

    def __call__(self, grey: Tensor) -> tuple[Tensor, ...]:
        """grey: on any device, in pinned memory if it is not to be waited for. The result holds until the next call."""
        key = number, _ = padded_count(len(grey), SIZES), grey.shape[-1]
        with torch.cuda.device(self.device):
            if key not in self.recordings:
                self.recordings[key] = self._record(grey.new_zeros(number, *grey.shape[1:], device=self.device))
            graph, given, found = self.recordings[key]
            given[: len(grey)].copy_(grey, non_blocking=True)
            graph.replay()
        return tuple(tensor[: len(grey)] for tensor in found)

    def _record(self, given: Tensor) -> Recording:
        aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self.function(given)  # so that libraries have chosen their kernels, which must not be recorded
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph, self.pool, aside, capture_error_mode="thread_local"):
            found = self.function(given)
        self.pool = self.pool or graph.pool()
        return graph, given, found
