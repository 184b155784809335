"""The onnxruntime backend, and the common base for ONNX files, our own exports and those published by ModelScope."""

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..ctc import best_path
from ..decoding.candidates import Candidates, Wanted, candidates
from ..errors import BackendError, CheckpointError
from ..geometry import (
    CHUNK_WIDTH,
    CHUNKED,
    COLUMN_WIDTH,
    GREY_WEIGHTS,
    LINE_HEIGHT,
    OFFICIAL_CHUNKS,
    Layout,
    canvas_columns,
    kept_columns,
)
from ..image import LineCanvas
from ..onnx.inspection import check_onnx_file
from ..onnx.metadata import PRECISION_KEY, WEIGHTS_KEY, read_metadata, require, sha256_of
from .base import Backend, ColumnPath, Computed, PieceBackend

INT8_SINCE = (1, 25)  # of onnxruntime; with 1.23 and 1.24 on CPUs with AMX a text depended on the rest of its batch
CHUNK_OUTPUTS = ("chunk_ids", "chunk_log_probs")  # outputs per piece in our own ONNX files, besides the official logits

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # float32 (N, 3, 32, W), RGB in [0, 1], to the requested outputs
Runner = Callable[[Sequence[str]], Run]  # from names of outputs to a function that computes them
Reopen = Callable[[], Backend] | None


class _FileBackend(Backend):
    """An ONNX file of either kind, whose first output is logits: float32 (3, 3, 32, 300), one line, to (1, 201, C).

    If its network takes whole lines: (N, 3, 32, W), N lines, to (N, W / 4, C).
    """

    def __init__(
        self,
        name: str,
        precision: str,
        offered: Sequence[str],
        runner: Runner,
        reopen: Reopen = None,
        layout: Layout = CHUNKED,
    ) -> None:
        """offered: the file's outputs, the logits first.

        runner: opens the file for some outputs.
        reopen: opens it again in a forked process; None if that is not possible.
        """
        self.name, self.precision, self.layout, self._reopen = name, precision, layout, reopen
        self._logits, self._runner = offered[0], runner

    def reopened(self) -> Backend:
        if self._reopen is None:
            return super().reopened()
        # Destroying a session waits for its threads, which a fork does not copy, so this one is never freed.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        return self._reopen()

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Computed[list[Candidates]]:
        """Line by line from the logits, which every file has."""
        parts = ([candidates(logits, wanted) for logits in self._windows(line)] for line in lines)
        return Computed([first.each(lambda *arrays: np.concatenate(arrays), *others) for first, *others in parts])

    @functools.cached_property
    def _run_logits(self) -> Run:
        return self._runner([self._logits])

    def _windows(self, line: LineCanvas) -> Iterator[np.ndarray]:
        """Yield the logits (T, C) of a line, part by part.

        A line of more than three chunks is read in windows of three, of which only the columns of the middle chunk are
        kept; the first and the last window also keep those of the line's ends.
        """
        inked = line.piece_array()
        if not self.layout.chunked:
            yield self._run_logits(rgb_of_grey(inked))[0][0]
            return
        chunks = np.zeros((line.chunks, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        chunks[: len(inked)] = inked
        rgb = rgb_of_grey(chunks)
        middle_start = kept_columns(0, OFFICIAL_CHUNKS).stop  # 69 of the window's 201 columns
        inner = kept_columns(1, OFFICIAL_CHUNKS)
        middle_stop = middle_start + inner.stop - inner.start  # 132
        windows = line.chunks - OFFICIAL_CHUNKS + 1
        for start in range(windows):
            (logits,) = self._run_logits(rgb[start : start + OFFICIAL_CHUNKS])
            first, last = start == 0, start == windows - 1
            yield logits[0, 0 if first else middle_start : None if last else middle_stop]


class OnnxBackend(_FileBackend, PieceBackend):
    """An ONNX file exported by this package, with separate outputs for the columns of each piece."""

    @functools.cached_property
    def _run(self) -> Run:
        return self._runner(CHUNK_OUTPUTS)

    def begin_pieces(self, grey: np.ndarray) -> Computed[ColumnPath]:
        return Computed(ColumnPath(*self._run(rgb_of_grey(grey))))


class OfficialOnnxBackend(_FileBackend):
    """An ONNX file as published by ModelScope, with logits only."""

    def begin(self, lines: Sequence[LineCanvas]) -> Computed[list[ColumnPath]]:
        parts = ([best_path(logits) for logits in self._windows(line)] for line in lines)
        return Computed([ColumnPath(*map(np.concatenate, zip(*paths))) for paths in parts])


def rgb_of_grey(grey: np.ndarray) -> np.ndarray:
    """Grey (N, 32, W) to RGB (N, 3, 32, W) that the network converts back to the same grey.

    The network's grey weights sum to 0.9999, not to 1.
    """
    return np.repeat((grey / np.float32(sum(GREY_WEIGHTS)))[:, None], 3, axis=1)


def file_backend(
    name: str,
    precision: str,
    offered: Sequence[str],
    runner: Runner,
    reopen: Reopen = None,
    layout: Layout = CHUNKED,
) -> Backend:
    """The backend for a file with the outputs `offered`; for the other arguments see `_FileBackend`.

    The file is opened at once, so that errors of `runner` are raised here.
    """
    if set(CHUNK_OUTPUTS) <= set(offered):
        backend = OnnxBackend(name, precision, offered, runner, reopen, layout)
        backend._run  # noqa: B018
        return backend
    official = OfficialOnnxBackend(name, precision, offered, runner, reopen, layout)
    official._run_logits  # noqa: B018
    return official


def made_from(path: Path, weights: Path) -> bool | None:
    """Whether the ONNX file at `path` was exported from exactly the file `weights`; None if it does not say.

    Raises CheckpointError if one of the two cannot be read.
    """
    try:
        digest = read_metadata(path).get(WEIGHTS_KEY)
        return None if digest is None else digest == sha256_of(weights)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def refuse_other_weights(path: Path, weights: Path | None) -> None:
    """Raise CheckpointError if the file at `path` says that it was exported from other weights."""
    if weights and made_from(path, weights) is False:
        raise CheckpointError(
            f"{path}: was made from other weights than {weights.name} beside it; export it again "
            "(`ms-ocr export onnx --force`), or move one of the two away"
        )


def open_onnx(path: Path, threads: int | None, layout: Layout = CHUNKED) -> Backend:
    """A backend for an ONNX file of either kind; its precision is the one declared in the file: "int8", else "fp32".

    Args:
        path: the file.
        threads: number of threads of onnxruntime; None uses all cores.
        layout: how its network expects lines.

    Raises:
        BackendError: onnxruntime is not installed.
        CheckpointError: the file is missing, unsafe, damaged, or of another layout.
    """
    require("backend 'onnxruntime'", "onnxruntime")
    check_onnx_file(path, layout)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised anyway
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions are classes of its extension module
        raise CheckpointError(f"{path}: not readable by onnxruntime ({error}); export or download it again") from error
    offered = [output.name for output in session.get_outputs()]
    entrance = session.get_inputs()[0].name
    precision = read_metadata(path).get(PRECISION_KEY, "fp32")
    if precision == "int8" and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < INT8_SINCE:
        raise BackendError(
            f"{path}: onnxruntime {onnxruntime.__version__} does not read int8 files reliably; install "
            f"{'.'.join(map(str, INT8_SINCE))} or newer (Python 3.11 or newer), or use precision='fp32'"
        )

    def runner(wanted: Sequence[str]) -> Run:
        def run(images: np.ndarray) -> list[np.ndarray]:
            try:
                found = session.run(list(wanted), {entrance: images})
            except Exception as error:
                raise CheckpointError(f"{path}: onnxruntime cannot compute it ({error}); export it again") from error
            if not _right_outputs(found, images, layout):
                raise CheckpointError(
                    f"{path}: its outputs are {', '.join(f'{one.dtype} {one.shape}' for one in map(np.asarray, found))}"
                    ", not the columns of a line; make the file with `ms-ocr export onnx`"
                )
            return found

        return run

    reopen = functools.partial(open_onnx, path, threads, layout)
    return file_backend("onnxruntime", precision, offered, runner, reopen, layout)


def _right_outputs(found: Sequence[np.ndarray], images: np.ndarray, layout: Layout) -> bool:
    """Whether `found` are ids and log-probabilities of the columns of each piece, or the logits of a whole line."""
    kinds = [(one.dtype.kind, one.shape) for one in map(np.asarray, found)]
    pieces = (len(images), images.shape[-1] // COLUMN_WIDTH)
    if len(found) == len(CHUNK_OUTPUTS):
        return kinds == [("i", pieces), ("f", pieces)]
    kind, shape = kinds[0]
    line = (1, canvas_columns(OFFICIAL_CHUNKS)) if layout.chunked else pieces
    return kind == "f" and shape[:-1] == line and shape[-1] > 0
