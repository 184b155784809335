"""The PyTorch backend: with prepacked weights on a CPU, with CUDA graphs on a GPU."""

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
CHECKED_AT_ONCE = 8  # pieces per repeated pass; oneDNN keeps memory for every batch size it has met
WIDTH_PER_GPU_BATCH = 256 * CHUNK_WIDTH  # px


class TorchBackend(PieceBackend):
    """Runs a network on the device where it is."""

    name = "torch"

    def __init__(self, network: Network, precision: str) -> None:
        """precision: one of DTYPES ("fp16" on GPUs only) or "auto". Raises BackendError.

        "bf16+fp32" computes in bf16, and repeats in fp32 those pieces whose text may differ there: `checked` counts
        these, `computed` all.
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
        self._lock = threading.RLock()  # guards what is prepared, and a GPU's recorded graphs
        self._prepared: _Prepared | None = None

    @property
    def device(self) -> torch.device:
        return self.network.classifier.weight.device

    @property
    def asynchronous(self) -> bool:
        return self.device.type == "cuda"

    def reopened(self) -> Backend:
        """Reopen with one thread: OpenMP, used by PyTorch, would wait forever for threads that a fork does not copy."""
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
            assert array is not None and better is not None  # "bf16+fp32" always has rivals
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
            known.clear()  # keep only the latest, since lexica change, also between threads
            known[wanted] = found
        return found

    def _search(self, wanted: Wanted) -> Function:
        """A function from grey pieces to candidates of their columns, in fp32 unless the precision is bf16 or fp16."""
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
            prepared.searches.clear()  # keep only the latest, since lexica change
            prepared.searches[wanted] = function
            return function

    def _checked(self, grey: np.ndarray, columns: ColumnPath) -> ColumnPath:
        """The columns (N, T) of pieces (N, 32, W), with those that have rivals replaced by fp32's, without rivals."""
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
        """Exclusive use of a GPU's recorded graphs; on a CPU threads compute independently."""
        return self._lock if self.asynchronous else contextlib.nullcontext()

    def _to_tensor(self, grey: np.ndarray) -> Tensor:
        """Pieces (N, 32, W) as a CPU tensor (N, 1, 32, W), in pinned memory for a GPU's asynchronous copy."""
        given = torch.from_numpy(grey[:, None])
        return given.pin_memory() if self.asynchronous else given

    def _prepare(self) -> "_Prepared":
        """The prepared network for the current weights; it is prepared again if they have changed."""
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
        """The encoder in fp32, prepared when a column is in doubt for the first time."""
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
        """A function from grey pieces to their `best_columns`, without rivals if `noise` is None, else settled ones."""

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
    """The functions prepared for one state of the weights; `version` tells whether it is still current."""

    version: list[tuple[int, int]]  # of each parameter and buffer: changes so far, address
    fast: Function
    exact: Function | None = None  # to columns in fp32, once something was in doubt
    padding: ColumnPath | None = None  # of a black chunk, once needed
    network: ReadingNetwork | None = None  # of the beam search, once needed
    searches: dict[Wanted, Function] = field(default_factory=dict)
    padding_candidates: dict[Wanted, Candidates] = field(default_factory=dict)


@dataclass(frozen=True)
class PendingPieces(Generic[Columns]):
    """Columns of pieces, of class `kind`: its arrays `found`, (N, T, ...), are valid once the event `done` occurred."""

    kind: type[Columns]
    found: Sequence[Tensor]
    done: torch.cuda.Event | None  # None on a CPU

    def result(self) -> Columns:
        if self.done:
            self.done.synchronize()
        return self.kind(*(tensor.numpy() for tensor in self.found))


def pieces_in_doubt(lines: Sequence[LineCanvas], paths: Sequence[ColumnPath]) -> list[int]:
    """Indices of the inked pieces, counted line by line, with columns that may change a line's text."""
    found, start = [], 0
    for line, path in zip(lines, paths):
        assert path.rivals is not None  # "bf16+fp32" always has them
        chunks = {chunk_of_column(column, line.chunks) for column in columns_in_doubt(path.ids, path.rivals)}
        found += [start + chunk for chunk in sorted(chunks) if chunk < line.inked]  # padding is exact
        start += line.inked
    return found


def changes(tensor: Tensor) -> int:
    """How often `tensor` was modified in place; 0 for tensors made in inference mode, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def tensors_of(module: torch.nn.Module) -> list[Tensor]:
    """Parameters and buffers, shared ones possibly twice; called for every batch, and five times as fast as PyTorch's
    own iterators."""
    own = (*module._parameters.values(), *module._buffers.values())
    found = [tensor for tensor in own if tensor is not None]
    for child in module._modules.values():
        if child is not None:
            found += tensors_of(child)
    return found


def automatic_precision(device: torch.device, layout: Layout) -> str:
    """The precision that "auto" selects: "bf16+fp32" on a CPU that computes bf16 faster, else "fp32".

    On a GPU "bf16+fp32" was slower than fp32, since the CPU's work per line takes longer there than the network.
    Networks that take whole lines use fp32: the effect of bf16 on their texts has not been measured.
    """
    packs = layout.chunked and device.type == "cpu" and packed.available(torch.bfloat16)
    return "bf16+fp32" if packs and bf16_is_faster(device) else "fp32"


def faster_in_torch(device: str | None) -> bool:
    """Whether torch on `device`, None for a GPU if there is one, is faster than onnxruntime on the CPU.

    Measured: with AVX-512 torch was faster, with AVX2 only onnxruntime (README, Speed). Other CPUs are treated like
        the former.
    """
    return torch_device(device or "gpu").type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2"


def torch_device(device: str) -> torch.device:
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU the CPU, as upstream."""
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a specific one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
