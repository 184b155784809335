"""What computes: PyTorch or onnxruntime, from chunks to the best class of each column.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. Chunks that hold
only padding give the same columns whatever stands beside them, so they are computed once and reused.

Notation: N chunks, n chunks of a line, T = 63 n + 12 columns of a line, C classes.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .ctc import best_path
from .errors import BackendError, CheckpointError
from .geometry import CHUNK_WIDTH, GREY_WEIGHTS, LINE_HEIGHT, OFFICIAL_CHUNKS, kept_columns
from .image import LineCanvas
from .model_dir import ModelDir

BACKENDS = ("auto", "torch", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16")
CHUNKS_PER_BATCH = 24  # of one forward pass: enough to fill two cores, little enough to stay in the cache
CHUNK_OUTPUTS = ("chunk_ids", "chunk_log_probs")  # that our own ONNX files have beside the official logits

ColumnPath = tuple[np.ndarray, np.ndarray]  # ids int64 (T,), log-probabilities float32 (T,)


class ChunkBackend:
    """A backend that computes chunks one by one, of any number of lines at a time."""

    name: str
    precision: str

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        """Chunks float32 (N, 32, 300) in [0, 1] to ids int64 (N, 75) and log-probabilities float32 (N, 75)."""
        raise NotImplementedError

    def padding_columns(self) -> ColumnPath:
        """The columns of a black chunk, (75,) each."""
        ids, log_probs = self.chunk_columns(np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32))
        return ids[0], log_probs[0]

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        """The column path of each line, over all its chunks."""
        chunks = [line.chunk_array() for line in lines]
        inked = np.concatenate(chunks)
        parts = [self.chunk_columns(inked[start: start + CHUNKS_PER_BATCH])
                 for start in range(0, len(inked), CHUNKS_PER_BATCH)]
        ids, log_probs = (np.concatenate(part) for part in zip(*parts))
        paths, start = [], 0
        for line, own in zip(lines, chunks):
            stop = start + len(own)
            padding = self.padding_columns() if len(own) < line.chunks else None
            paths.append((_join(ids[start:stop], padding and padding[0], line.chunks),
                          _join(log_probs[start:stop], padding and padding[1], line.chunks)))
            start = stop
        return paths


def _join(columns: np.ndarray, padding: np.ndarray | None, chunks: int) -> np.ndarray:
    """Columns of the inked chunks (N, 75), then of padding, to those kept of the line (T,)."""
    return np.concatenate([
        (columns[i] if i < len(columns) else padding)[kept_columns(i, chunks)] for i in range(chunks)
    ])


class TorchBackend(ChunkBackend):
    """A ConvNextViT network, on the device where it is; on a CPU with its weights packed for reading."""

    name = "torch"

    def __init__(self, network, precision: str) -> None:
        self.network, self.precision = network, precision
        self._version: int | None = None

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        import torch

        self._prepare()
        device = self.network.vitstr.cls_token.device
        with torch.inference_mode():
            log_probs, ids = self._logits(torch.from_numpy(grey[:, None]).to(device)).log_softmax(-1).max(-1)
            return ids.cpu().numpy(), log_probs.cpu().numpy()

    def padding_columns(self) -> ColumnPath:
        self._prepare()
        if self._padding is None:
            self._padding = super().padding_columns()
        return self._padding

    def _prepare(self) -> None:
        """Pack the weights anew, and forget the padding's columns, where the weights have changed since."""
        version = sum(parameter._version for parameter in self.network.parameters())  # grows with every change
        if version != self._version:
            self._logits, self._padding, self._version = self._reading_network(), None, version

    def _reading_network(self) -> Callable:
        """Grey chunks (N, 1, 32, 300) to logits (N, 75, C) in the precision asked for."""
        import torch

        from .nets import packed

        device = self.network.vitstr.cls_token.device
        if device.type == "cpu" and packed.available():
            network = packed.PackedNetwork(self.network, torch.bfloat16 if self.precision == "bf16" else torch.float32)
            return lambda grey: network(grey).float()

        def logits(grey):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                return self.network.classify(self.network.encode(grey)).float()
        return logits


class OnnxBackend(ChunkBackend):
    """An ONNX file that this package exported: it has the columns of each chunk as outputs of their own."""

    name, precision = "onnxruntime", "fp32"

    def __init__(self, session) -> None:
        self.session, self._padding = session, None
        self.input = session.get_inputs()[0].name

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        rgb = np.repeat(_undo_grey_weights(grey)[:, None], 3, axis=1)  # (N, 3, 32, 300)
        ids, log_probs = self.session.run(list(CHUNK_OUTPUTS), {self.input: rgb})
        return ids, log_probs

    def padding_columns(self) -> ColumnPath:
        if self._padding is None:
            self._padding = super().padding_columns()
        return self._padding


class OfficialOnnxBackend:
    """An ONNX file as ModelScope publishes it: float32 (3, 3, 32, 300), one line, to logits (1, 201, C).

    A longer line is read in windows of three chunks, each of which gives the columns of its middle chunk; the first and
    the last window give those of the line's ends as well.
    """

    name, precision = "onnxruntime", "fp32"

    def __init__(self, session) -> None:
        self.session = session
        self.input, self.output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return [self._read(line) for line in lines]

    def _read(self, line: LineCanvas) -> ColumnPath:
        chunks = np.zeros((line.chunks, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        inked = line.chunk_array()
        chunks[: len(inked)] = inked
        rgb = np.repeat(_undo_grey_weights(chunks)[:, None], 3, axis=1)
        middle_start = kept_columns(0, OFFICIAL_CHUNKS).stop  # 69 of the window's 201 columns
        inner = kept_columns(1, OFFICIAL_CHUNKS)
        middle_stop = middle_start + inner.stop - inner.start  # 132
        parts, windows = [], line.chunks - OFFICIAL_CHUNKS + 1
        for start in range(windows):
            (logits,) = self.session.run([self.output], {self.input: rgb[start: start + OFFICIAL_CHUNKS]})
            first, last = start == 0, start == windows - 1
            parts.append(best_path(logits[0, 0 if first else middle_start: None if last else middle_stop]))
        ids, log_probs = zip(*parts)
        return np.concatenate(ids), np.concatenate(log_probs)


def _undo_grey_weights(grey: np.ndarray) -> np.ndarray:
    """The value v for which the network's own grey of (v, v, v) is `grey`: its weights sum to 0.9999, not to 1."""
    return grey / np.float32(sum(GREY_WEIGHTS))


def open_backend(model: ModelDir, backend: str, precision: str, device: str | None, threads: int | None):
    """The backend for a model directory. Raises BackendError, or CheckpointError if the files it needs are missing."""
    _check(backend, precision)
    if backend == "auto":
        backend = "torch" if model.weights and importlib.util.find_spec("torch") else "onnxruntime"
    if backend == "torch":
        from .nets.convnextvit import load_network

        if threads is not None:
            raise BackendError("threads is for backend 'onnxruntime'; for 'torch' call torch.set_num_threads")
        network = load_network(model.configuration.network, model.require_weights())
        return torch_backend(network, precision, device or "gpu")
    if precision == "bf16":
        raise BackendError("precision 'bf16' is not available with backend 'onnxruntime'; use 'fp32' or backend 'torch'")
    if model.onnx is None:
        raise CheckpointError(f"{model.path}: holds no model.onnx; make one with `ms-ocr export`, or use backend='torch'")
    return _open_onnx(model.onnx, threads)


def torch_backend(network, precision: str, device: str | None = None) -> TorchBackend:
    """A backend for a network that is loaded already; without a device it stays where it is."""
    _check("torch", precision)
    if device is not None:
        network = network.to(_torch_device(device))
    return TorchBackend(network.eval(), "fp32" if precision == "auto" else precision)


def _check(backend: str, precision: str) -> None:
    for name, value, allowed in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in allowed:
            raise BackendError(f"{name} is {value!r}; this version offers {', '.join(map(repr, allowed))}")


def _torch_device(device: str):
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU it is the CPU, as upstream."""
    import torch

    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a certain one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted


def _open_onnx(path: Path, threads: int | None):
    try:
        import onnxruntime
    except ImportError:
        raise BackendError("backend 'onnxruntime' needs the package onnxruntime; "
                           "`pip install ms_ocr_handwritten[onnx]`") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own extension module
        raise CheckpointError(f"{path}: not readable by onnxruntime ({error}); export or download it again") from error
    outputs = {output.name for output in session.get_outputs()}
    return (OnnxBackend if outputs.issuperset(CHUNK_OUTPUTS) else OfficialOnnxBackend)(session)
