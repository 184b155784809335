"""PyTorch: on a CPU with its weights packed for reading, on a GPU with its kernels recorded."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import BackendError
from ..nets import packed
from ..nets.graphed import Function, GraphedFunction
from .base import ChunkBackend, ColumnPath
from .columns import best_columns
from .doubt import NOISE_TIMES, STEPS, in_doubt, measured_noise, settle
from .precision import bf16_is_faster

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16+fp32": torch.bfloat16, "fp16": torch.float16}
CHECKED_AT_ONCE = 8  # chunks read twice; oneDNN keeps memory for every number of them that it has met
CHUNKS_PER_GPU_BATCH = 256

ReadingNetwork = Callable[[Tensor], tuple[Tensor, Tensor]]  # (N, 1, 32, 300) to columns (N, 75, D), logits (N, 75, C)


class TorchBackend(ChunkBackend):
    """A ConvNextViT network, on the device where it is."""

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
        self.chunks_per_batch = CHUNKS_PER_GPU_BATCH if self.asynchronous else self.chunks_per_batch
        self.computed = self.checked = 0  # chunks
        self._lock = threading.Lock()
        self._version: list[tuple[int, int]] | None = None  # of each parameter: changes so far, address

    @property
    def device(self) -> torch.device:
        return self.network.vitstr.cls_token.device

    @property
    def asynchronous(self) -> bool:
        return self.device.type == "cuda"

    def begin_chunks(self, grey: np.ndarray) -> "PendingChunks":
        with self._device_lock(), torch.inference_mode():
            self._prepare()
            self.computed += len(grey)
            found = [tensor.to("cpu", non_blocking=True) for tensor in self._fast(self._to_tensor(grey))]
            done = torch.cuda.current_stream(self.device).record_event() if self.asynchronous else None
        return PendingChunks(self, grey, found, done)

    def check(self, grey: np.ndarray, ids: np.ndarray, log_probs: np.ndarray, rivals: np.ndarray) -> None:
        """Compute the chunks whose text is in doubt once more, in fp32; their ids and log_probs are replaced."""
        doubtful = [index for index, found in enumerate(zip(ids, rivals)) if in_doubt(*found)]
        at_once = CHUNKS_PER_GPU_BATCH if self.asynchronous else CHECKED_AT_ONCE
        for start in range(0, len(doubtful), at_once):
            part = doubtful[start : start + at_once]
            with self._device_lock(), torch.inference_mode():
                self._exact = self._exact or self._path_of(self._reading_network(torch.float32))
                found = [tensor.cpu() for tensor in self._exact(self._to_tensor(grey[part]))]
            ids[part], log_probs[part] = (tensor.numpy() for tensor in found[:2])
        self.checked += len(doubtful)

    def _device_lock(self) -> contextlib.AbstractContextManager:
        """Within it no other thread has a GPU's recordings; on a CPU threads do not meet."""
        return self._lock if self.asynchronous else contextlib.nullcontext()

    def _to_tensor(self, grey: np.ndarray) -> Tensor:
        """Chunks (N, 32, 300) as (N, 1, 32, 300) for the network, on a CPU, which a GPU can copy while this goes on."""
        given = torch.from_numpy(grey[:, None])
        return given.pin_memory() if self.asynchronous else given

    def padding_columns(self) -> ColumnPath:
        with self._device_lock():
            self._prepare()  # forgets them if the weights have changed
        return super().padding_columns()

    def _prepare(self) -> None:
        """Pack the weights anew, and forget the padding's columns, where the weights have changed since."""
        version = [(parameter._version, parameter.data_ptr()) for parameter in parameters_of(self.network)]
        if version == self._version:
            return
        network, noise = self._reading_network(DTYPES[self.precision]), None
        if self.precision == "bf16+fp32":
            with torch.inference_mode(), without_tf32():
                noise = NOISE_TIMES * measured_noise(
                    lambda grey: self.network.classify(self.network.encode(grey)),
                    lambda grey: self.network.classify(network(grey)[0].float()),
                    self.device,
                )
        self._fast, self._padding, self._version = self._path_of(network, noise), None, version
        self._exact = None  # until something is in doubt

    def _reading_network(self, dtype: torch.dtype) -> ReadingNetwork:
        if self.device.type == "cpu" and packed.available(dtype):
            return packed.PackedNetwork(self.network, dtype)

        def read(grey: Tensor) -> tuple[Tensor, Tensor]:
            mixed = dtype is not torch.float32
            with torch.autocast(self.device.type, dtype, enabled=mixed, cache_enabled=False), without_tf32():
                columns = self.network.encode(grey)
                return columns, self.network.classify(columns)

        return read

    def _path_of(self, network: ReadingNetwork, noise: float | None = None) -> Function:
        """Grey chunks to what `best_columns` finds, without rivals where `noise` is None, else with settled ones."""

        def path(grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            columns, logits = network(grey)
            if noise is None:
                return best_columns(logits)
            ids, log_probs, rivals = best_columns(logits, STEPS + noise)
            settle(ids, rivals, columns, self.network.vitstr.head, noise)
            return ids, log_probs, rivals

        return GraphedFunction(path, self.device) if self.asynchronous else path


@dataclass(frozen=True)
class PendingChunks:
    """Chunks `grey` of which ids, log-probabilities and rivals are `found`, once `done` has happened."""

    backend: TorchBackend
    grey: np.ndarray  # float32 (N, 32, 300)
    found: Sequence[Tensor]  # int64, float32, int64, each (N, 75)
    done: torch.cuda.Event | None  # None on a CPU, where it has

    def result(self) -> ColumnPath:
        if self.done:
            self.done.synchronize()
        ids, log_probs, rivals = (tensor.numpy() for tensor in self.found)
        if self.backend.precision == "bf16+fp32":
            self.backend.check(self.grey, ids, log_probs, rivals)
        return ColumnPath(ids, log_probs)


def parameters_of(module: torch.nn.Module) -> list[Tensor]:
    """`module.parameters()`, some that have two names twice: in a fifth of the time, which every call here takes."""
    found = [parameter for parameter in module._parameters.values() if parameter is not None]
    for child in module._modules.values():
        found += parameters_of(child)
    return found


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

    On a GPU that was slower than fp32: what the CPU does for each line takes longer there than the network.
    """
    packs = device.type == "cpu" and packed.available(torch.bfloat16)
    return "bf16+fp32" if packs and bf16_is_faster(device) else "fp32"


def faster_in_torch(device: str | None) -> bool:
    """Whether `device`, None for a GPU if there is one, reads faster here than with onnxruntime on the CPU.

    Measured: with AVX-512 torch was faster, with AVX2 alone onnxruntime (README, Speed). Others are taken for the
        former.
    """
    return torch_device(device or "gpu").type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2"


def torch_device(device: str) -> torch.device:
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU it is the CPU, as upstream."""
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a certain one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
