"""PyTorch: on a CPU with its weights packed for reading, on a GPU with its kernels recorded."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from ..ctc import BLANK
from ..decoding.candidates import Candidates, Wanted
from ..errors import BackendError
from ..geometry import CHUNK_WIDTH, Layout, chunk_of_column
from ..image import LineCanvas
from ..nets import packed
from ..nets.convnextvit import ConvNextViT
from ..nets.crnn import CRNN
from ..nets.folded import FoldedCRNN
from ..nets.fused import FusedEdge
from ..nets.graphed import Function, GraphedFunction
from ..nets.lightweight_edge import LightweightEdge
from ..nets.network import Network
from ..nets.plain import PlainNetwork, ReadingNetwork, without_tf32
from .base import BLACK_CHUNK, Backend, ColumnPath, Columns, PieceBackend
from .columns import best_columns, candidate_columns
from .doubt import NOISE_TIMES, STEPS, columns_in_doubt, measured_noise, settle
from .precision import bf16_is_faster

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16+fp32": torch.bfloat16, "fp16": torch.float16}
CHECKED_AT_ONCE = 8  # pieces read twice; oneDNN keeps memory for every number of them that it has met
WIDTH_PER_GPU_BATCH = 256 * CHUNK_WIDTH  # px


class TorchBackend(PieceBackend):
    """A network, on the device where it is."""

    name = "torch"

    def __init__(self, network: Network, precision: str) -> None:
        """precision: one of DTYPES ("fp16" on GPUs alone) or "auto". Raises BackendError.

        "bf16+fp32" computes in bf16, and once more in fp32 the pieces whose text may differ there: `checked` counts
        those, `computed` all.
        """
        device = network.classifier.weight.device
        if precision == "fp16" and device.type == "cpu":
            raise BackendError("precision 'fp16' needs a GPU with backend 'torch'; use 'bf16' or 'fp32'")
        self.network, self.precision = (
            network,
            (automatic_precision(device, network.config.layout) if precision == "auto" else precision),
        )
        self.layout = network.config.layout
        self.width_per_batch = WIDTH_PER_GPU_BATCH if self.asynchronous else self.width_per_batch
        self.computed = self.checked = 0  # pieces
        self._lock = threading.RLock()  # of what is prepared, and of a GPU's recordings
        self._prepared: _Prepared | None = None

    @property
    def device(self) -> torch.device:
        return self.network.classifier.weight.device

    @property
    def asynchronous(self) -> bool:
        return self.device.type == "cuda"

    def reopened(self) -> Backend:
        """With one thread: OpenMP, which PyTorch computes with, waits for ever for those that a fork leaves behind."""
        if self.asynchronous:
            return super().reopened()
        if torch.get_num_threads() > 1:
            logger.warning("forked after PyTorch was used: process %d reads with one thread", os.getpid())
            torch.set_num_threads(1)
        return TorchBackend(self.network, self.precision)

    def begin_pieces(self, grey: np.ndarray) -> "PendingPieces[ColumnPath]":
        self.computed += len(grey)
        return self._begun(ColumnPath, lambda: self._prepare().fast, grey)

    def begin_piece_candidates(self, grey: np.ndarray, wanted: Wanted) -> "PendingPieces[Candidates]":
        return self._begun(Candidates, lambda: self._search(wanted), grey)

    def _begun(
        self, kind: type[Columns], function: Callable[[], Function], grey: np.ndarray
    ) -> "PendingPieces[Columns]":
        with self._device_lock(), torch.inference_mode():
            found = [tensor.to("cpu", non_blocking=True) for tensor in function()(self._to_tensor(grey))]
            done = torch.cuda.current_stream(self.device).record_event() if self.asynchronous else None
        return PendingPieces(kind, found, done)

    def paths(self, lines: Sequence[LineCanvas], inked: np.ndarray, columns: ColumnPath) -> list[ColumnPath]:
        paths = super().paths(lines, inked, columns)
        doubtful = pieces_in_doubt(lines, paths) if self.precision == "bf16+fp32" else []
        if not doubtful:
            return paths
        exact = self._checked(inked[doubtful], columns.each(itemgetter(doubtful)))
        for array, better in zip(columns, exact):
            assert array is not None and better is not None  # "bf16+fp32" finds rivals, too
            array[doubtful] = better
        return super().paths(lines, inked, columns)

    def padding_columns(self) -> ColumnPath:
        prepared = self._prepare()
        if prepared.padding is None:
            columns = self.piece_columns(BLACK_CHUNK)
            if (columns.ids != columns.rivals).any():
                columns = self._checked(BLACK_CHUNK, columns)
            prepared.padding = columns.each(lambda array: array[0])
        return prepared.padding

    def padding_candidates(self, wanted: Wanted) -> Candidates:
        known = self._prepare().padding_candidates
        found = known.get(wanted)
        if found is None:
            found = super().padding_candidates(wanted)
            known.clear()  # lexica come and go, those of other threads, too
            known[wanted] = found
        return found

    def _search(self, wanted: Wanted) -> Function:
        """Grey pieces to the candidates of their columns, in fp32 unless bf16 or fp16 alone is asked for."""
        with self._lock:
            prepared = self._prepare()
            if (known := prepared.searches.get(wanted)) is not None:
                return known
            if prepared.network is None:
                exact = self.precision == "bf16+fp32"
                prepared.network = self._reading_network(torch.float32 if exact else DTYPES[self.precision])
            network = prepared.network
            classes = None
            if wanted.classes is not None:
                classes = torch.tensor([BLANK, *wanted.classes], device=self.device)

            def search(grey: Tensor) -> tuple[Tensor, Tensor]:
                return candidate_columns(network(grey)[1], wanted.count, classes)

            function = GraphedFunction(search, self.device) if self.asynchronous else search
            prepared.searches.clear()  # lexica come and go
            prepared.searches[wanted] = function
            return function

    def _checked(self, grey: np.ndarray, columns: ColumnPath) -> ColumnPath:
        """The columns (N, T) of pieces (N, 32, W), those that have rivals as fp32 reads them, without rivals."""
        ids, log_probs, rivals = columns
        assert rivals is not None
        ids, log_probs = ids.copy(), log_probs.copy()
        at_once = WIDTH_PER_GPU_BATCH // CHUNK_WIDTH if self.asynchronous else CHECKED_AT_ONCE
        for start in range(0, len(grey), at_once):
            part = slice(start, start + at_once)
            places = (ids[part] != rivals[part]).nonzero()
            with self._device_lock(), torch.inference_mode():
                (encoded,) = self._prepare_exact()(self._to_tensor(grey[part]))
                contested = encoded[tuple(torch.from_numpy(place).to(self.device) for place in places)]  # (M, D)
                found = best_columns(self.network.classify(contested)[None])
            ids[part][places], log_probs[part][places] = (tensor[0].cpu().numpy() for tensor in found[:2])
        self.checked += len(grey)
        return ColumnPath(ids, log_probs, ids)

    def _device_lock(self) -> contextlib.AbstractContextManager:
        """Within it no other thread has a GPU's recordings; on a CPU threads do not meet where they compute."""
        return self._lock if self.asynchronous else contextlib.nullcontext()

    def _to_tensor(self, grey: np.ndarray) -> Tensor:
        """Pieces (N, 32, W) as (N, 1, 32, W) for the network, on a CPU, which a GPU can copy while this goes on."""
        given = torch.from_numpy(grey[:, None])
        return given.pin_memory() if self.asynchronous else given

    def _prepare(self) -> "_Prepared":
        """What reads with the weights as they are: packed anew where they have changed since."""
        with self._lock:
            version = [(changes(tensor), tensor.data_ptr()) for tensor in tensors_of(self.network)]
            if self._prepared is None or self._prepared.version != version:
                network, noise = self._reading_network(DTYPES[self.precision]), None
                if self.precision == "bf16+fp32":
                    with torch.inference_mode(), without_tf32(self.device):
                        noise = NOISE_TIMES * measured_noise(
                            lambda grey: self.network.classify(self.network.encode(grey)),
                            lambda grey: self.network.classify(network(grey)[0].float()),
                            self.layout.official_piece,
                            self.device,
                        )
                self._prepared = _Prepared(version, self._path_of(network, noise))
            return self._prepared

    def _prepare_exact(self) -> Function:
        """The columns in fp32, prepared when the first one is in doubt."""
        with self._lock:
            prepared = self._prepare()
            if prepared.exact is None:
                network = self._reading_network(torch.float32)

                def encode(grey: Tensor) -> tuple[Tensor]:
                    return (network.encode(grey),)

                prepared.exact = GraphedFunction(encode, self.device) if self.asynchronous else encode
            return prepared.exact

    def _reading_network(self, dtype: torch.dtype) -> ReadingNetwork:
        if self.device.type == "cpu":
            if isinstance(self.network, ConvNextViT) and packed.available(dtype):
                return packed.PackedNetwork(self.network, dtype)
            if isinstance(self.network, CRNN) and dtype is torch.float32:
                return FoldedCRNN(self.network)
            if isinstance(self.network, LightweightEdge) and dtype is torch.float32:
                return FusedEdge(self.network)
        return PlainNetwork(self.network, dtype, self.device)

    def _path_of(self, network: ReadingNetwork, noise: float | None = None) -> Function:
        """Grey pieces to what `best_columns` finds, without rivals where `noise` is None, else with settled ones."""

        def path(grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            columns, logits = network(grey)
            if noise is None:
                return best_columns(logits)
            ids, log_probs, rivals = best_columns(logits, STEPS + noise)
            settle(ids, rivals, columns, self.network.classifier, noise)
            return ids, log_probs, rivals

        return GraphedFunction(path, self.device) if self.asynchronous else path


@dataclass
class _Prepared:
    """What reads with the weights of one moment; `version` tells whether they are the same still."""

    version: list[tuple[int, int]]  # of each parameter and buffer: changes so far, address
    fast: Function
    exact: Function | None = None  # to columns in fp32, once something was in doubt
    padding: ColumnPath | None = None  # of a black chunk, once they were asked for
    network: ReadingNetwork | None = None  # that a search reads with, once one was asked for
    searches: dict[Wanted, Function] = field(default_factory=dict)
    padding_candidates: dict[Wanted, Candidates] = field(default_factory=dict)


@dataclass(frozen=True)
class PendingPieces(Generic[Columns]):
    """Pieces of which the arrays of a `kind` of columns are `found`, (N, T, ...), once `done` has happened."""

    kind: type[Columns]
    found: Sequence[Tensor]
    done: torch.cuda.Event | None  # None on a CPU, where it has

    def result(self) -> Columns:
        if self.done:
            self.done.synchronize()
        return self.kind(*(tensor.numpy() for tensor in self.found))


def pieces_in_doubt(lines: Sequence[LineCanvas], paths: Sequence[ColumnPath]) -> list[int]:
    """Which of the inked pieces, one line's after the other's, hold columns that may change a line's text."""
    found, start = [], 0
    for line, path in zip(lines, paths):
        assert path.rivals is not None  # "bf16+fp32" finds them
        chunks = {chunk_of_column(column, line.chunks) for column in columns_in_doubt(path.ids, path.rivals)}
        found += [start + chunk for chunk in sorted(chunks) if chunk < line.inked]  # padding is exact
        start += line.inked
    return found


def changes(tensor: Tensor) -> int:
    """How often it was written to; made under `torch.inference_mode()`, it does not know."""
    return 0 if tensor.is_inference() else tensor._version


def tensors_of(module: torch.nn.Module) -> list[Tensor]:
    """Parameters and buffers, some that have two names twice: in a fifth of the time of PyTorch's own way of asking,
    which every call here takes."""
    own = (*module._parameters.values(), *module._buffers.values())
    found = [tensor for tensor in own if tensor is not None]
    for child in module._modules.values():
        if child is not None:
            found += tensors_of(child)
    return found


def automatic_precision(device: torch.device, layout: Layout) -> str:
    """What "auto" stands for: on a CPU that computes bf16 faster, bf16 with fp32 where that leaves doubt; else fp32.

    On a GPU that was slower than fp32: what the CPU does for each line takes longer there than the network. Networks
    that take lines whole read in fp32: what bf16 does to their texts has not been measured.
    """
    packs = layout.chunked and device.type == "cpu" and packed.available(torch.bfloat16)
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
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a specific one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
