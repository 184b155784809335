"""onnxruntime, and what all readers of ONNX files share: files of our own export, and as ModelScope publishes them."""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..ctc import best_path
from ..errors import CheckpointError
from ..geometry import (
    CHUNK_COLUMNS,
    CHUNK_WIDTH,
    GREY_WEIGHTS,
    LINE_HEIGHT,
    OFFICIAL_CHUNKS,
    canvas_columns,
    kept_columns,
)
from ..image import LineCanvas
from ..onnx.inspection import check_onnx_file
from ..onnx.metadata import PRECISION_KEY, WEIGHTS_KEY, read_metadata, require, sha256_of
from .base import Backend, ChunkBackend, ColumnPath, Computed

CHUNK_OUTPUTS = ("chunk_ids", "chunk_log_probs")  # that our own ONNX files have beside the official logits

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # float32 (N, 3, 32, 300), RGB in [0, 1], to `wanted_outputs`


class _FileBackend(Backend):
    def __init__(self, name: str, precision: str, run: Run, reopen: Callable[[], Backend] | None = None) -> None:
        """reopen: opens it anew in a forked process; None where that does not work."""
        self.name, self.precision, self._run, self._reopen = name, precision, run, reopen

    def reopened(self) -> Backend:
        if self._reopen is None:
            return super().reopened()
        # A session that is destroyed waits for its threads, which a fork leaves behind: this one is kept for good.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        return self._reopen()


class OnnxBackend(_FileBackend, ChunkBackend):
    """An ONNX file that this package exported: it has the columns of each chunk as outputs of their own."""

    def begin_chunks(self, grey: np.ndarray) -> Computed[ColumnPath]:
        return Computed(ColumnPath(*self._run(rgb_of_grey(grey))))


class OfficialOnnxBackend(_FileBackend):
    """An ONNX file as ModelScope publishes it: float32 (3, 3, 32, 300), one line, to logits (1, 201, C).

    A longer line is read in windows of three chunks, each of which gives the columns of its middle chunk; the first and
    the last window give those of the line's ends as well.
    """

    def begin(self, lines: Sequence[LineCanvas]) -> Computed[list[ColumnPath]]:
        return Computed([self._read(line) for line in lines])

    def _read(self, line: LineCanvas) -> ColumnPath:
        chunks = np.zeros((line.chunks, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        inked = line.chunk_array()
        chunks[: len(inked)] = inked
        rgb = rgb_of_grey(chunks)
        middle_start = kept_columns(0, OFFICIAL_CHUNKS).stop  # 69 of the window's 201 columns
        inner = kept_columns(1, OFFICIAL_CHUNKS)
        middle_stop = middle_start + inner.stop - inner.start  # 132
        parts, windows = [], line.chunks - OFFICIAL_CHUNKS + 1
        for start in range(windows):
            (logits,) = self._run(rgb[start : start + OFFICIAL_CHUNKS])
            first, last = start == 0, start == windows - 1
            parts.append(best_path(logits[0, 0 if first else middle_start : None if last else middle_stop]))
        return ColumnPath(*map(np.concatenate, zip(*parts)))


def rgb_of_grey(grey: np.ndarray) -> np.ndarray:
    """Grey (N, 32, 300) to the RGB (N, 3, 32, 300) of which the network's own grey is that again.

    Its weights sum to 0.9999, not to 1.
    """
    return np.repeat((grey / np.float32(sum(GREY_WEIGHTS)))[:, None], 3, axis=1)


def wanted_outputs(offered: Sequence[str]) -> list[str]:
    """Of the outputs that a file offers, those that are read: of our own files the columns, of others the logits."""
    return list(CHUNK_OUTPUTS) if set(CHUNK_OUTPUTS) <= set(offered) else [offered[0]]


def file_backend(
    name: str, precision: str, run: Run, wanted: Sequence[str], reopen: Callable[[], Backend] | None = None
) -> Backend:
    """The backend for a file of which `run` computes the outputs `wanted`; `reopen` opens it in a forked process."""
    kind = OnnxBackend if list(wanted) == list(CHUNK_OUTPUTS) else OfficialOnnxBackend
    return kind(name, precision, run, reopen)


def made_from(path: Path, weights: Path) -> bool | None:
    """Whether the ONNX file at `path` was made from the very bytes of `weights`; None if it does not say.

    Raises CheckpointError if one of the two cannot be read.
    """
    try:
        digest = read_metadata(path).get(WEIGHTS_KEY)
        return None if digest is None else digest == sha256_of(weights)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def refuse_other_weights(path: Path, weights: Path | None) -> None:
    """Raise CheckpointError if the file at `path` says that it was made from other weights than those beside it."""
    if weights and made_from(path, weights) is False:
        raise CheckpointError(
            f"{path}: was made from other weights than {weights.name} beside it; export it again "
            "(`ms-ocr export onnx --force`), or move one of the two away"
        )


def open_onnx(path: Path, threads: int | None) -> Backend:
    """A backend for an ONNX file of either kind; its precision is what the file says: "int8", or else "fp32".

    threads: of onnxruntime; None takes all cores. Raises BackendError or CheckpointError.
    """
    require("backend 'onnxruntime'", "onnxruntime")
    check_onnx_file(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # what is wrong is raised
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own extension module
        raise CheckpointError(f"{path}: not readable by onnxruntime ({error}); export or download it again") from error
    wanted = wanted_outputs([output.name for output in session.get_outputs()])
    entrance = session.get_inputs()[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        try:
            found = session.run(wanted, {entrance: images})
        except Exception as error:
            raise CheckpointError(f"{path}: onnxruntime cannot compute it ({error}); export it again") from error
        if not _right_outputs(found, len(images)):
            raise CheckpointError(
                f"{path}: its outputs are {', '.join(f'{one.dtype} {one.shape}' for one in map(np.asarray, found))}, "
                "no columns of a line; make the file with `ms-ocr export onnx`"
            )
        return found

    precision = read_metadata(path).get(PRECISION_KEY, "fp32")
    return file_backend("onnxruntime", precision, run, wanted, functools.partial(open_onnx, path, threads))


def _right_outputs(found: Sequence[np.ndarray], chunks: int) -> bool:
    """Whether they are ids and log-probabilities of the columns of each chunk, or the logits of a whole line."""
    kinds = [(one.dtype.kind, one.shape) for one in map(np.asarray, found)]
    if len(found) == len(CHUNK_OUTPUTS):
        return kinds == [("i", (chunks, CHUNK_COLUMNS)), ("f", (chunks, CHUNK_COLUMNS))]
    kind, shape = kinds[0]
    return kind == "f" and shape[:-1] == (1, canvas_columns(OFFICIAL_CHUNKS)) and shape[-1] > 0
