"""PyTorch: on a CPU with its weights packed for reading, on a GPU as it is."""

import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import BackendError
from ..nets import packed
from .base import ChunkBackend, ColumnPath

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHUNKS_PER_GPU_BATCH = 256
WORTHWHILE = 1.5  # times faster that products in bf16 must be for "auto" to take it; emulated bf16 is slower than fp32
NEGLIGIBLE = -80.0  # logits this far below the best add nothing in float32, but exp of less is slow
GEMM_SIZE = 768  # rows, columns and depth of the products measured


class TorchBackend(ChunkBackend):
    """A ConvNextViT network, on the device where it is; on a CPU with its weights packed for reading."""

    name = "torch"

    def __init__(self, network, precision: str) -> None:
        """precision: "fp32", "bf16", "fp16" (GPUs alone) or "auto". Raises BackendError."""
        device = network.vitstr.cls_token.device
        if precision == "fp16" and device.type == "cpu":
            raise BackendError("precision 'fp16' needs a GPU with backend 'torch'; use 'bf16' or 'fp32'")
        self.network, self.precision = network, automatic_precision(device) if precision == "auto" else precision
        self.chunks_per_batch = self.chunks_per_batch if device.type == "cpu" else CHUNKS_PER_GPU_BATCH
        self._version: int | None = None

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        self._prepare()
        device = self.network.vitstr.cls_token.device
        with torch.inference_mode():
            ids, log_probs = best_columns(self._logits(torch.from_numpy(grey[:, None]).to(device)))
            return ids.cpu().numpy(), log_probs.cpu().numpy()

    def padding_columns(self) -> ColumnPath:
        self._prepare()  # forgets them if the weights have changed
        return super().padding_columns()

    def _prepare(self) -> None:
        """Pack the weights anew, and forget the padding's columns, where the weights have changed since."""
        version = sum(parameter._version for parameter in self.network.parameters())  # grows with every change
        if version != self._version:
            self._logits, self._padding, self._version = self._reading_network(), None, version

    def _reading_network(self) -> Callable[[Tensor], Tensor]:
        """Grey chunks (N, 1, 32, 300) to logits (N, 75, C) in the precision asked for."""
        device, dtype = self.network.vitstr.cls_token.device, DTYPES[self.precision]
        if device.type == "cpu" and packed.available():
            return packed.PackedNetwork(self.network, dtype)

        def logits(grey: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                return self.network.classify(self.network.encode(grey))
        return logits


def best_columns(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) of any float type to the best id of each column, int64 (N, T), and its log-probability, float32.

    On a CPU chunk by chunk in one buffer, so that the thousands of classes of a chunk are read from memory once.
    """
    if logits.device.type != "cpu":
        top, ids = logits.float().max(-1)
        return ids, top - logits.float().logsumexp(-1)
    ids = logits.new_empty(logits.shape[:2], dtype=torch.int64)
    log_probs = logits.new_empty(logits.shape[:2], dtype=torch.float32)
    buffer = logits.new_empty(logits.shape[1:], dtype=torch.float32)
    for chunk, chunk_ids, chunk_log_probs in zip(logits, ids, log_probs):
        chunk = chunk.float()
        top, best = chunk.max(-1, keepdim=True)
        chunk_ids.copy_(best[:, 0])
        total = torch.sub(chunk, top, out=buffer).clamp_(min=NEGLIGIBLE).exp_().sum(-1)
        torch.neg(total.log_(), out=chunk_log_probs)
    return ids, log_probs


def automatic_precision(device: torch.device) -> str:
    """What "auto" stands for: bf16 where it computes faster, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    rates = gemm_rates()
    return "bf16" if packed.available() and rates["bf16"] > WORTHWHILE * rates["fp32"] else "fp32"


@functools.cache
def gemm_rates() -> dict[str, float]:
    """GFLOP/s of this CPU's matrix products by precision, with PyTorch's present number of threads: the best of five."""
    rates = {}
    for name in ("fp32", "bf16"):
        a, b = torch.ones(2, GEMM_SIZE, GEMM_SIZE, dtype=DTYPES[name])
        seconds = []
        for _ in range(6):  # the first is not counted
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * GEMM_SIZE**3 / min(seconds[1:]) / 1e9
    return rates


def torch_device(device: str) -> torch.device:
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU it is the CPU, as upstream."""
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a certain one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
