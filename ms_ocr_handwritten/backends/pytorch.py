"""PyTorch: on a CPU with its weights packed for reading, on a GPU as it is."""

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..ctc import in_doubt
from ..errors import BackendError
from ..geometry import CHUNK_WIDTH, LINE_HEIGHT
from ..nets import packed
from ..nets.kernels import fill_up
from ..nets.precision import bf16_is_faster
from .base import ChunkBackend, ColumnPath

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16+fp32": torch.bfloat16, "fp16": torch.float16}
STEPS = 2**-6  # two to four steps of bf16, as a share of a logit: what writing logits down in bf16 may hide
NOISE_CHUNKS = 2  # on which the error of bf16 is measured
NOISE_TIMES = 4.0  # that error, as a standard deviation: two logits nearer than that may change places in fp32
LIKELY = 0.04  # probability below which the best class of a column says nothing, so that fp32 is not asked
CHECKED_AT_ONCE = 8  # chunks read twice; oneDNN keeps memory for every number of them that it has met
CHUNKS_PER_GPU_BATCH = 256
NEGLIGIBLE = -80.0  # logits this far below the best add nothing in float32, but exp of less is slow


class TorchBackend(ChunkBackend):
    """A ConvNextViT network, on the device where it is; on a CPU with its weights packed for reading."""

    name = "torch"

    def __init__(self, network, precision: str) -> None:
        """precision: one of DTYPES ("fp16" on GPUs alone) or "auto". Raises BackendError.

        "bf16+fp32" computes in bf16, and once more in fp32 the chunks whose text may differ there: `checked` counts
        those, `computed` all.
        """
        device = network.vitstr.cls_token.device
        if precision == "fp16" and device.type == "cpu":
            raise BackendError("precision 'fp16' needs a GPU with backend 'torch'; use 'bf16' or 'fp32'")
        self.network, self.precision = network, automatic_precision(device) if precision == "auto" else precision
        self.chunks_per_batch = self.chunks_per_batch if device.type == "cpu" else CHUNKS_PER_GPU_BATCH
        self.computed = self.checked = 0  # chunks
        self._version: int | None = None

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        self._prepare()
        self.computed += len(grey)
        with torch.inference_mode():
            columns, logits = self._fast(self._on_device(grey))
            if self.precision != "bf16+fp32":
                ids, log_probs, _ = best_columns(logits)
                return ids.cpu().numpy(), log_probs.cpu().numpy()
            ids, log_probs, rivals = best_columns(logits, STEPS + self._noise)
            settle(ids, rivals, columns, self.network.vitstr.head, self._noise)
            ids, log_probs, rivals = ids.cpu().numpy(), log_probs.cpu().numpy(), rivals.cpu().numpy()
            doubtful = [index for index, found in enumerate(zip(ids, rivals)) if in_doubt(*found)]
            self.checked += len(doubtful)
            if doubtful and self._exact is None:
                self._exact = self._reading_network(torch.float32)
            for start in range(0, len(doubtful), CHECKED_AT_ONCE):
                part = doubtful[start : start + CHECKED_AT_ONCE]
                exact_ids, exact_log_probs, _ = best_columns(self._exact(self._on_device(grey[part]))[1])
                ids[part], log_probs[part] = exact_ids.cpu().numpy(), exact_log_probs.cpu().numpy()
            return ids, log_probs

    def _on_device(self, grey: np.ndarray) -> Tensor:
        return torch.from_numpy(grey[:, None]).to(self.network.vitstr.cls_token.device)

    def padding_columns(self) -> ColumnPath:
        self._prepare()  # forgets them if the weights have changed
        return super().padding_columns()

    def _prepare(self) -> None:
        """Pack the weights anew, and forget the padding's columns, where the weights have changed since."""
        version = sum(parameter._version for parameter in self.network.parameters())  # grows with every change
        if version != self._version:
            self._fast, self._padding, self._version = self._reading_network(DTYPES[self.precision]), None, version
            self._exact = None  # until something is in doubt
            if self.precision == "bf16+fp32":
                self._noise = NOISE_TIMES * self._measured_noise()

    def _measured_noise(self) -> float:
        """The error that columns in bf16 leave in the distance of the two best logits, as a share of the best.

        The bound that 68 % of errors keep, as a standard deviation is, but not led astray by logits near 0.
        """
        grey = np.random.default_rng(0).random((NOISE_CHUNKS, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        with torch.inference_mode():
            best, ids = self.network.classify(self.network.encode(self._on_device(grey))).topk(2, -1)
            rounded = self.network.classify(self._fast(self._on_device(grey))[0].float())
            error = rounded.gather(-1, ids) - best
            return ((error[..., 0] - error[..., 1]) / best[..., 0]).abs().quantile(0.68).item()

    def _reading_network(self, dtype: torch.dtype) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Grey chunks (N, 1, 32, 300) to columns (N, 75, D) and their logits (N, 75, C)."""
        device = self.network.vitstr.cls_token.device
        if device.type == "cpu" and packed.available(dtype):
            return packed.PackedNetwork(self.network, dtype)

        def read(grey: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32), without_tf32():
                filled = fill_up(grey, sizes=1) if device.type == "cuda" else grey
                columns = self.network.encode(filled)[: len(grey)]
                return columns, self.network.classify(columns)
        return read


def best_columns(logits: Tensor, near: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, T, C) of any float type to what each of the columns (N, T) reads: ids, log-probabilities, rivals.

    int64, float32, int64. A rival is the second best id where its logit is within `near`, a share of the best one, and
    the best is LIKELY; else, and where `near` is 0, the best again. On a CPU chunk by chunk in one buffer, so that the
    thousands of classes of a chunk are read from memory once.
    """
    ids = logits.new_empty(logits.shape[:2], dtype=torch.int64)
    log_probs, rivals = logits.new_empty(logits.shape[:2], dtype=torch.float32), torch.empty_like(ids)
    at_once = 1 if logits.device.type == "cpu" else len(logits)
    buffer = logits.new_empty((at_once, *logits.shape[1:]), dtype=torch.float32)
    for start in range(0, len(logits), at_once):
        part = slice(start, start + at_once)
        chunks = logits[part].float()
        top, best = chunks.max(-1, keepdim=True)
        torch.sub(chunks, top, out=buffer).clamp_(min=NEGLIGIBLE).exp_()
        likely = buffer.sum(-1, keepdim=True).log_().neg_()
        ids[part], log_probs[part], rivals[part] = best[..., 0], likely[..., 0], best[..., 0]
        if near:
            ratio, second = buffer.scatter_(-1, best, 0).max(-1, keepdim=True)  # exp of the distance to the best
            contested = (ratio.log_() >= -near * top.abs()) & (likely >= math.log(LIKELY))
            rivals[part] = torch.where(contested, second, best)[..., 0]
    return ids, log_probs, rivals


def settle(ids: Tensor, rivals: Tensor, columns: Tensor, head: torch.nn.Linear, noise: float) -> None:
    """Compare the two candidates of contested columns by logits in fp32: the better one becomes the id, in place.

    ids and rivals int64 (N, T), columns (N, T, D). The other stays its rival where it is within `noise`, a share of the
    better logit.
    """
    at = (ids != rivals).nonzero(as_tuple=True)
    candidates = torch.stack([ids[at], rivals[at]])  # (2, M)
    logits = (columns[at].float() * head.weight[candidates]).sum(-1) + head.bias[candidates]
    (better, worse), order = logits.sort(dim=0, descending=True, stable=True)
    first, second = candidates.gather(0, order)
    ids[at], rivals[at] = first, torch.where(better - worse <= noise * better.abs(), second, first)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Within it cuDNN's convolutions in fp32 are that; by PyTorch's default they round to TF32's 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def automatic_precision(device: torch.device) -> str:
    """What "auto" stands for: on a CPU that computes bf16 faster, bf16 with fp32 where that leaves doubt; else fp32.

    On a GPU fp32 is no slower: the network is small there, and starting its kernels takes longer than running them.
    """
    packs = device.type == "cpu" and packed.available(torch.bfloat16)
    return "bf16+fp32" if packs and bf16_is_faster(device) else "fp32"


def torch_device(device: str) -> torch.device:
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU it is the CPU, as upstream."""
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a certain one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
