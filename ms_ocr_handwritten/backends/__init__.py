"""The inference backends, PyTorch, onnxruntime and OpenVINO, and their selection; only the selected one is imported."""

import importlib.util
import os
import shutil
import sys
from typing import TYPE_CHECKING

from ..errors import BackendError, CheckpointError
from ..model_dir import INT8_FILE, ONNX_FILE, ModelDir
from .base import Backend

if TYPE_CHECKING:
    from ..nets.network import Network

PRECISIONS_OF = {  # besides "auto"
    "torch": ("fp32", "bf16", "bf16+fp32", "fp16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16"),
}
BACKENDS = ("auto", *PRECISIONS_OF)
PRECISIONS = ("auto", "fp32", "bf16", "bf16+fp32", "fp16", "int8")


def open_backend(model: ModelDir, backend: str, precision: str, device: str | None, threads: int | None) -> Backend:
    """Open the backend for a model directory. Raises BackendError, or CheckpointError if a file it needs is missing."""
    check(backend, precision)
    chosen = backend
    if backend == "auto":
        chosen, _ = automatic_backend(model, precision, device, torch_imported="torch" in sys.modules)
        check(chosen, precision)
    if chosen == "torch":
        if not importlib.util.find_spec("torch"):
            raise BackendError("backend 'torch' needs the package torch; `pip install torch`, or use 'onnxruntime'")
        from ..nets.weights import load_network

        if threads is not None:
            raise BackendError(
                "threads is for backends 'onnxruntime' and 'openvino'; for 'torch' call torch.set_num_threads"
            )
        network = load_network(model.configuration.network, model.require_weights())
        return torch_backend(network, precision, device or "gpu")
    name, path = (INT8_FILE, model.int8) if precision == "int8" else (ONNX_FILE, model.onnx)
    if path is None:
        kind, instead = ("int8", "precision='fp32'") if precision == "int8" else ("onnx", "backend='torch'")
        raise CheckpointError(f"{model.path}: holds no {name}; make one with `ms-ocr export {kind}`, or use {instead}")
    from .onnx import open_onnx, refuse_other_weights

    if backend != "auto":
        refuse_other_weights(path, model.weights)
    if chosen == "openvino":
        from .openvino import open_openvino

        return open_openvino(path, precision, threads, model.configuration.network.layout)
    return open_onnx(path, threads, model.configuration.network.layout)


def automatic_backend(model: ModelDir, precision: str, device: str | None, torch_imported: bool) -> tuple[str, str]:
    """The backend that "auto" selects, and why.

    onnxruntime if model.onnx was exported from the weights beside it and is faster: while torch is not imported, which
    takes seconds, and on processors with AVX2 but not AVX-512. torch if there is a GPU, if another precision than fp32
    is requested, or without such a file.
    """
    if precision == "int8":
        return "onnxruntime", f"precision 'int8' reads {INT8_FILE}"
    if model.weights is None:
        return "onnxruntime", f"{model.path} holds no weights for torch"
    if not importlib.util.find_spec("torch"):
        return "onnxruntime", "torch is not installed"
    if precision not in ("auto", "fp32"):
        return "torch", f"precision {precision!r} is torch's"
    if torch_imported:
        from .pytorch import faster_in_torch

        if faster_in_torch(device):
            return "torch", "torch is imported already, and is fastest then"
    elif device not in (None, "cpu") or (device is None and gpu_possible()):
        return "torch", "there may be a GPU"
    if model.onnx is None or not importlib.util.find_spec("onnxruntime"):
        return "torch", f"{ONNX_FILE} or onnxruntime is missing"
    from .onnx import made_from

    if not made_from(model.onnx, model.weights):
        return "torch", f"{ONNX_FILE} was not made from {model.weights.name}, or does not say so"
    why = "this processor has AVX2 alone" if torch_imported else "torch is not imported yet"
    return "onnxruntime", f"{ONNX_FILE} was made from {model.weights.name}, and {why}"


def gpu_possible() -> bool:
    """Whether this machine has a GPU driver, as far as can be told without importing torch."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd") or shutil.which("nvidia-smi") is not None


def torch_backend(network: "Network", precision: str, device: str | None = None) -> Backend:
    """A backend for a loaded network, moved to `device` unless that is None. Raises BackendError."""
    from .pytorch import TorchBackend, torch_device

    check("torch", precision)
    if device is not None:
        network = network.to(torch_device(device))
    return TorchBackend(network.eval(), precision)


def check(backend: str, precision: str) -> None:
    """Raise BackendError unless both are known and compatible."""
    for name, value, allowed in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in allowed:
            raise BackendError(f"{name} is {value!r}; this version offers {', '.join(map(repr, allowed))}")
    offered = PRECISIONS_OF.get(backend, PRECISIONS)
    if precision not in ("auto", *offered):
        raise BackendError(
            f"precision {precision!r} is not available with backend {backend!r}, which offers "
            f"{', '.join(map(repr, offered))}"
        )
