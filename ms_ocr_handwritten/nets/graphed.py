"""Inference on a GPU with CUDA graphs: a function is recorded once, then replayed as a whole.

The network consists of hundreds of small kernels, and launching them one by one from Python takes longer than running
them. A CUDA graph launches them all at once (PyTorch's "CUDA semantics", section CUDA Graphs).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .batch_shapes import padded_count

SIZES = 2  # recorded batch sizes in each doubling of the number of pieces

Function = Callable[[Tensor], tuple[Tensor, ...]]
Recording = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]  # graph, static input, static outputs


class GraphedFunction:
    """`function` maps pieces (N, 1, 32, W) to tensors (N, ...), one row per piece.

    It is recorded for some batch sizes of each width; smaller batches leave the previous content in the remaining
    rows. Tensors that `function` reads besides its argument must stay at their address, but may change in place. Not
    thread-safe.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        """device: the GPU of the tensors that `function` takes and returns."""
        self.function, self.device = function, device
        self.recordings: dict[tuple[int, int], Recording] = {}  # by number and width
        # Memory pool shared by all recordings, since only one is replayed at a time.
        self.pool: torch.cuda._POOL_HANDLE | None = None

    def __call__(self, grey: Tensor) -> tuple[Tensor, ...]:
        """grey: on any device, in pinned memory for an asynchronous copy. The result is valid until the next call."""
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
            self.function(given)  # warm-up: libraries select their kernels, which must not be recorded
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph, self.pool, aside, capture_error_mode="thread_local"):
            found = self.function(given)
        self.pool = self.pool or graph.pool()
        return graph, given, found
