"""onnxruntime: files of our own export, and files as ModelScope publishes them."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..ctc import best_path
from ..errors import BackendError, CheckpointError
from ..geometry import CHUNK_WIDTH, GREY_WEIGHTS, LINE_HEIGHT, OFFICIAL_CHUNKS, kept_columns
from ..image import LineCanvas
from .base import ChunkBackend, ColumnPath

CHUNK_OUTPUTS = ("chunk_ids", "chunk_log_probs")  # that our own ONNX files have beside the official logits


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


def open_onnx(path: Path, threads: int | None):
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
