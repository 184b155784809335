"""The OpenVINO backend for CPUs: the same ONNX files as onnxruntime, in fp32 or, if the CPU supports it, bf16."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BackendError, CheckpointError
from ..geometry import CHUNKED, Layout
from ..onnx.inspection import check_onnx_file
from ..onnx.metadata import PRECISION_KEY, read_metadata
from .base import Backend
from .onnx import file_backend

if TYPE_CHECKING:
    import openvino

_DEVICE = "CPU"
_HINTS = {"auto": "f32", "fp32": "f32", "bf16": "bf16"}  # without a hint, OpenVINO uses bf16 if the CPU has it


def open_openvino(path: Path, precision: str, threads: int | None, layout: Layout = CHUNKED) -> Backend:
    """A backend for an ONNX file of either kind (see `open_onnx`).

    Args:
        path: the file.
        precision: "fp32", "bf16", or "auto", which is fp32; an int8 file computes with int8 as well.
        threads: number of threads of OpenVINO; None uses all cores.
        layout: how its network expects lines.

    Raises:
        BackendError: OpenVINO is not installed, or the precision is unknown or not available on this CPU.
        CheckpointError: OpenVINO cannot read the file.
    """
    try:
        import openvino
    except ImportError:
        raise BackendError(
            "backend 'openvino' needs the package openvino; `pip install ms_ocr_handwritten[openvino]`"
        ) from None
    if precision not in _HINTS:
        raise BackendError(
            f"precision {precision!r} is not available with backend 'openvino', which offers "
            f"{', '.join(map(repr, _HINTS))}"
        )
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("precision 'bf16' needs a CPU that computes with it, and this one does not; use 'fp32'")
    settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    check_onnx_file(path, layout)

    def runner(wanted: Sequence[str]) -> _Run:
        model = core.read_model(path)
        for result in model.get_results():
            if result.input_value(0).get_names().isdisjoint(wanted):
                model.remove_result(result)  # so that what only it needs is not computed
        return _Run(core.compile_model(model, _DEVICE, settings).create_infer_request(), wanted)

    computes = read_metadata(path).get(PRECISION_KEY, "bf16" if precision == "bf16" else "fp32")
    try:
        offered = [output.get_any_name() for output in core.read_model(path).outputs]
        return file_backend("openvino", computes, offered, runner, layout=layout)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines before name places in OpenVINO's sources
        raise CheckpointError(f"{path}: not readable by OpenVINO ({reason}); export or download it again") from error


class _Run:
    """Images to the outputs `wanted`, one call at a time, since an InferRequest is not thread-safe."""

    def __init__(self, request: "openvino.InferRequest", wanted: Sequence[str]) -> None:
        self.request, self.wanted, self.lock = request, wanted, threading.Lock()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        with self.lock:
            results = self.request.infer({0: images}, share_inputs=True)
            return [results[name] for name in self.wanted]
