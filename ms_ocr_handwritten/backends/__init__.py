"""What computes, and how it is chosen: PyTorch or onnxruntime."""

import importlib.util

from ..errors import BackendError, CheckpointError
from ..model_dir import ModelDir

BACKENDS = ("auto", "torch", "onnxruntime")
PRECISIONS = ("auto", "fp32", "bf16")


def open_backend(model: ModelDir, backend: str, precision: str, device: str | None, threads: int | None):
    """The backend for a model directory. Raises BackendError, or CheckpointError if the files it needs are missing."""
    _check(backend, precision)
    if backend == "auto":
        backend = "torch" if model.weights and importlib.util.find_spec("torch") else "onnxruntime"
    if backend == "torch":
        from ..nets.convnextvit import load_network

        if threads is not None:
            raise BackendError("threads is for backend 'onnxruntime'; for 'torch' call torch.set_num_threads")
        network = load_network(model.configuration.network, model.require_weights())
        return torch_backend(network, precision, device or "gpu")
    if precision == "bf16":
        raise BackendError("precision 'bf16' is not available with backend 'onnxruntime'; use 'fp32' or backend 'torch'")
    if model.onnx is None:
        raise CheckpointError(f"{model.path}: holds no model.onnx; make one with `ms-ocr export`, or use backend='torch'")
    from .onnx import open_onnx

    return open_onnx(model.onnx, threads)


def torch_backend(network, precision: str, device: str | None = None):
    """A backend for a network that is loaded already; without a device it stays where it is."""
    from .pytorch import TorchBackend, torch_device

    _check("torch", precision)
    if device is not None:
        network = network.to(torch_device(device))
    return TorchBackend(network.eval(), "fp32" if precision == "auto" else precision)


def _check(backend: str, precision: str) -> None:
    for name, value, allowed in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if value not in allowed:
            raise BackendError(f"{name} is {value!r}; this version offers {', '.join(map(repr, allowed))}")
