"""A network as an ONNX file that the model card's own snippet reads, checked against PyTorch before it is handed over.

Input `images`: float32 (3 B, 3, 32, 300), RGB in [0, 1], three chunks of each of B lines. First output `logits`: float32
(B, 201, C). So far upstream's contract, with B = 1 there. Two more outputs give the columns of each chunk by itself,
`chunk_ids` int64 (N, 75) and `chunk_log_probs` float32 (N, 75), for any number N of chunks: `Recognizer` reads those.
"""

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .backends.onnx import CHUNK_OUTPUTS
from .errors import BackendError
from .geometry import CHUNK_WIDTH, LINE_HEIGHT, OFFICIAL_CHUNKS
from .nets.convnextvit import ConvNextViT, join_chunks, rgb_to_grey

OPSET = 17  # the first with LayerNormalization
TOLERANCE = 1e-3  # greatest difference of logits, relative to the greatest logit


class _Exported(nn.Module):
    def __init__(self, network: ConvNextViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chunk_logits = self.network.classify(self.network.encode(rgb_to_grey(images)))  # (N, 75, C)
        whole_lines = chunk_logits.shape[0] // OFFICIAL_CHUNKS * OFFICIAL_CHUNKS
        lines = chunk_logits[:whole_lines].unflatten(0, (-1, OFFICIAL_CHUNKS))  # (B, 3, 75, C)
        top, ids = chunk_logits.max(-1)
        return join_chunks(lines), ids, top - chunk_logits.logsumexp(-1)


def export_onnx(network: ConvNextViT, path: str | os.PathLike[str], opset: int = OPSET) -> Path:
    """Write `network` to `path`; an existing file is replaced only by one that passed the check.

    Raises BackendError, and leaves no new file, if onnx or onnxruntime is missing or if the texts or logits differ.
    """
    _require("onnx", "onnxruntime")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    network = copy.deepcopy(network).eval().cpu().float()  # the caller's stays where and as it is
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    try:
        _write(network, temporary, opset)
        check_onnx(network, temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def _write(network: ConvNextViT, path: str, opset: int) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's notes on tracing; the result is checked afterwards
            torch.onnx.export(
                _Exported(network).eval(), (torch.rand(2 * OFFICIAL_CHUNKS, 3, LINE_HEIGHT, CHUNK_WIDTH),), path,
                input_names=["images"], output_names=["logits", *CHUNK_OUTPUTS], opset_version=opset, dynamo=False,
                dynamic_axes={"images": {0: "chunks"}, "logits": {0: "lines"}} | {
                    name: {0: "chunks"} for name in CHUNK_OUTPUTS},
            )
    except RuntimeError as error:  # torch.onnx.errors derive from it
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"PyTorch cannot export this network with opset {opset} ({reason}); try {OPSET}") from error


def check_onnx(network: ConvNextViT, path: str | os.PathLike[str]) -> float:
    """Greatest difference of logits between `network` and the file at `path`, relative to the greatest logit.

    Raises BackendError if it exceeds TOLERANCE, if a column far from a tie is read as another class, or if onnxruntime
    cannot run the file.
    """
    run = _session(path)
    images = np.random.default_rng(0).random((3 * OFFICIAL_CHUNKS, 3, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
    for chunks in (len(images), OFFICIAL_CHUNKS, 1):  # three lines, one line, one chunk
        part = images[:chunks]
        logits, ids, log_probs = run(part)
        with torch.inference_mode():
            expected = [value.numpy() for value in _Exported(network)(torch.from_numpy(part))]
        scale = max(1.0, float(np.abs(expected[0]).max(initial=0)))
        difference = float(np.abs(logits - expected[0]).max(initial=0)) / scale
        difference = max(difference, float(np.abs(log_probs - expected[2]).max()) / scale)
        with torch.inference_mode():
            two = network.classify(network.encode(rgb_to_grey(torch.from_numpy(part)))).topk(2, dim=-1).values
        certain = (two[..., 0] - two[..., 1]).numpy() > TOLERANCE * scale
        if difference > TOLERANCE or (ids != expected[1])[certain].any():
            raise BackendError(f"{path}: the exported model differs from PyTorch's by {difference:.1e} of the greatest "
                               f"logit (at most {TOLERANCE:.0e}); it was not kept. Try another onnxruntime or opset")
    logging.getLogger(__name__).info("%s: differs from PyTorch by %.1e of the greatest logit", path, difference)
    return difference


def _session(path: str | os.PathLike[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from images to logits, ids and log-probabilities, which raises BackendError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own extension module
        raise _not_run(path, error) from error

    def run(images: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(["logits", *CHUNK_OUTPUTS], {"images": images})
        except Exception as error:
            raise _not_run(path, error) from error

    return run


def _not_run(path: str | os.PathLike[str], error: Exception) -> BackendError:
    return BackendError(f"{path}: onnxruntime cannot run the exported model ({error}); it was not kept. Try another "
                        "onnxruntime or opset")


def _require(*packages: str) -> None:
    for package in packages:
        try:
            __import__(package)
        except ImportError:
            raise BackendError(f"exporting to ONNX needs the package {package}; "
                               "`pip install ms_ocr_handwritten[onnx]`") from None
