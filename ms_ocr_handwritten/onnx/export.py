"""Exports a network as an ONNX file that works with the model card's own snippet, verified against PyTorch.

Input `images`: float32 (3 B, 3, 32, 300), RGB in [0, 1], three chunks for each of B lines. First output `logits`:
float32 (B, 201, C). So far this is upstream's contract, with B = 1 there. Two more outputs give the columns of each
chunk separately, `chunk_ids` int64 (N, 75) and `chunk_log_probs` float32 (N, 75), for any number N of chunks; these are
used by `Recognizer`. For a network that takes whole lines, the chunks are the lines: `images` (B, 3, 32, W) for any W
of 640 px or more, `logits` (B, T, C) and the other two (B, T), T = W / 4.
"""

import copy
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..atomic import appearing_whole
from ..backends.onnx import CHUNK_OUTPUTS
from ..errors import BackendError
from ..geometry import CHUNK_COLUMNS, CHUNK_WIDTH, LINE_HEIGHT, OFFICIAL_CHUNKS, WHOLE_STEP, Layout
from ..nets.convnextvit import join_chunks
from ..nets.network import Network, rgb_to_grey
from ..nets.weights import read_weights
from .metadata import CHANGED_WEIGHTS, VERSION_KEY, WEIGHTS_KEY, package_version, require, sha256_of

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

OPSET = 17  # the first with LayerNormalization
OPSETS = range(14, 21)  # from the first in which attention can be written to the last that PyTorch's exporter supports
TOLERANCE = 1e-3  # maximum difference of logits, relative to the largest logit
OTHER_RUNTIME = "try another onnxruntime or opset"


class _Exported(nn.Module):
    """Outputs in the forms that onnxruntime computes fastest: its argmax and log-sum-exp of floats are slow.

    It computes the logits of whole lines even if only the other outputs are requested, so they are a single copy.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        columns = self.network.encode(rgb_to_grey(images)).flatten(0, 1)  # (75 N, D)
        logits = self.network.classify(columns)  # (75 N, C)
        by_chunk = logits.unflatten(0, (-1, CHUNK_COLUMNS))  # (N, 75, C)
        return logits[_line_rows(images.shape[0])], *_best(by_chunk)


class _ExportedWhole(nn.Module):
    """The outputs of a network that takes whole lines."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.network.classify(self.network.encode(rgb_to_grey(images)))  # (B, T, C)
        return logits, *_best(logits)


def _best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, T, C) to the best id of each column, the first in a tie, and its log-probability, (N, T)."""
    is_top = logits >= logits.amax(-1, keepdim=True)
    return is_top.to(torch.uint8).argmax(-1), logits.log_softmax(-1).amax(-1)


def _line_rows(chunks: int) -> Tensor:
    """The indices, into all columns (75 N, ...) in one row, of those that each whole line keeps, (B, 201)."""
    columns = torch.arange(OFFICIAL_CHUNKS * CHUNK_COLUMNS).view(1, OFFICIAL_CHUNKS, CHUNK_COLUMNS, 1)
    starts = torch.arange(chunks // OFFICIAL_CHUNKS) * (OFFICIAL_CHUNKS * CHUNK_COLUMNS)
    return starts[:, None] + join_chunks(columns).flatten()


def export_onnx(
    network: Network,
    path: str | os.PathLike[str],
    opset: int = OPSET,
    *,
    half_weights: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> Path:
    """Write `network` to `path`; an existing file is replaced only if the new one passes the check.

    Args:
        network: not modified or moved.
        path: of the new file.
        opset: one of OPSETS.
        half_weights: store the weights as float16, but compute in float32. This halves the file, and is lossless
            if the weights are float16 values.
        weights: the file that `network` was loaded from. The new file records its digest (`backends.onnx.made_from`),
            so that it is never used beside other weights; if `network` was changed since, no digest is recorded.

    Raises:
        BackendError: onnx or onnxruntime is missing, the opset is not one of OPSETS, or the texts or logits differ;
            no new file is left.
        CheckpointError: `weights` cannot be read.
    """
    require("exporting to ONNX", "onnx", "onnxruntime")
    if opset not in OPSETS:  # PyTorch would report this too, after printing the whole graph
        raise BackendError(f"opset {opset} is not in {OPSETS[0]} to {OPSETS[-1]}; try {OPSET}")
    path = Path(path)
    digest = None if weights is None else weights_digest(network, weights)
    network = copy.deepcopy(network).eval().cpu().float()  # the caller's network is not changed
    with appearing_whole(path) as temporary:
        _write(network, temporary, opset)
        _complete(temporary, half_weights, digest)
        check_onnx(network, temporary, "export without half weights" if half_weights else OTHER_RUNTIME)
    return path


def weights_digest(network: Network, path: str | os.PathLike[str]) -> str:
    """Hex digest of the weights file at `path` if its weights are those of `network`, else CHANGED_WEIGHTS."""
    saved, own = read_weights(path), network.state_dict()
    same = saved.keys() == own.keys()
    if same and all(torch.equal(value.cpu().float(), saved[name].float()) for name, value in own.items()):
        return sha256_of(path)
    logger.warning("%s: its weights differ from those of the exported network, so they are not used together", path)
    return CHANGED_WEIGHTS


def _write(network: Network, path: str, opset: int) -> None:
    layout = network.config.layout
    axes = {"images": {0: "chunks"}, "logits": {0: "lines"}, **{name: {0: "chunks"} for name in CHUNK_OUTPUTS}}
    if not layout.chunked:
        axes = {name: {0: "lines", 1: "columns"} for name in axes} | {"images": {0: "lines", 3: "width"}}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's notes on tracing; the result is verified afterwards
            torch.onnx.export(
                (_Exported if layout.chunked else _ExportedWhole)(network).eval(),
                (torch.rand(2 * layout.pieces(0), 3, LINE_HEIGHT, layout.official_piece),),
                path,
                input_names=["images"],
                output_names=["logits", *CHUNK_OUTPUTS],
                opset_version=opset,
                dynamo=False,
                dynamic_axes=axes,
            )
    except RuntimeError as error:  # base class of torch.onnx.errors
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"PyTorch cannot export this network with opset {opset} ({reason}); try {OPSET}") from error


def _complete(path: str, half_weights: bool, digest: str | None) -> None:
    """Add the metadata, and halve the weights if requested."""
    import onnx

    model = onnx.load(path)
    if half_weights:
        _halve_weights(model.graph)
    known = {VERSION_KEY: package_version()} | ({WEIGHTS_KEY: digest} if digest else {})
    onnx.helper.set_model_props(model, known)
    onnx.save(model, path)


def _halve_weights(graph: "onnx.GraphProto") -> None:
    """Store the float32 weights as float16, each followed by a cast back to float32.

    Runtimes fold the casts when they open the file.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        name, stored = weight.name, f"{weight.name}.half"
        with np.errstate(over="ignore"):  # values that become infinite fail the check
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.float", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def check_onnx(network: Network, path: str | os.PathLike[str], remedy: str = OTHER_RUNTIME) -> float:
    """Maximum difference of logits between `network` and the file at `path`, relative to the largest logit.

    Raises BackendError if it exceeds TOLERANCE, if a column that is not near a tie gets another class, or if
    onnxruntime cannot run the file; its message ends with `remedy`.
    """
    run = _session(path, remedy)
    layout, greatest = network.config.layout, 0.0
    for pieces, width in _tried(layout):
        images = np.random.default_rng(0).random((pieces, 3, LINE_HEIGHT, width), np.float32)
        logits, ids, log_probs = run(images)
        with torch.inference_mode():
            by_chunk = network.classify(network.encode(rgb_to_grey(torch.from_numpy(images))))  # (N, T, C)
            by_line = by_chunk
            if layout.chunked:
                lines = pieces // OFFICIAL_CHUNKS
                by_line = join_chunks(by_chunk[: lines * OFFICIAL_CHUNKS].unflatten(0, (lines, OFFICIAL_CHUNKS)))
            best = by_chunk.log_softmax(-1).max(-1)
            two = by_chunk.topk(2, dim=-1).values
        scale = max(1.0, float(by_chunk.abs().max()))
        differences = np.abs(logits - by_line.numpy()).max(initial=0), np.abs(log_probs - best.values.numpy()).max()
        difference = float(np.max(differences)) / scale  # nan if either is
        certain = (two[..., 0] - two[..., 1]).numpy() > TOLERANCE * scale
        if not difference <= TOLERANCE or (ids != best.indices.numpy())[certain].any():
            raise BackendError(
                f"{path}: the exported model differs from PyTorch's by {difference:.1e} of the greatest "
                f"logit (at most {TOLERANCE:.0e}); it was not kept. To remedy it, {remedy}"
            )
        greatest = max(greatest, difference)
    logger.info("%s: differs from PyTorch by %.1e of the greatest logit", path, greatest)
    return greatest


def _tried(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Numbers and widths of the pieces with which a new file is tested."""
    if layout.chunked:
        return (3 * OFFICIAL_CHUNKS, CHUNK_WIDTH), (OFFICIAL_CHUNKS, CHUNK_WIDTH), (1, CHUNK_WIDTH)
    return (3, layout.official_width), (1, layout.official_width + WHOLE_STEP)


def _session(path: str | os.PathLike[str], remedy: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from images to logits, ids and log-probabilities, which raises BackendError."""
    import onnxruntime

    def refused(error: Exception) -> BackendError:
        return BackendError(
            f"{path}: onnxruntime cannot run the exported model ({error}); it was not kept. To remedy it, {remedy}"
        )

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised anyway
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own extension module
        raise refused(error) from error

    def run(images: np.ndarray) -> list[np.ndarray]:
        try:
            return session.run(["logits", *CHUNK_OUTPUTS], {"images": images})
        except Exception as error:
            raise refused(error) from error

    return run
