"""The whole network: chunks to columns to logits of a line; building and strict loading of its weights.

Parameter names and shapes are those of ModelScope `ocr_recognition/modules/ConvNextViT/main_model.py` (Apache-2.0).
Notation: N chunks, B lines, n chunks per line, T columns, D features, C classes.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from ..errors import CheckpointError
from ..geometry import GREY_WEIGHTS, OFFICIAL_CHUNKS, kept_columns
from .convnext import ConvNeXt
from .vit import ViTEncoder

PREFIXES = ("module.", "recognizer.")  # of fine-tuned and of DistributedDataParallel files


class ConvNextViT(nn.Module):
    """Chunks of lines to logits. `encode` and `classify` are its two halves; `forward` is upstream's contract."""

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:
        super().__init__()
        self.config = config
        self.cnn_model = ConvNeXt(config)
        self.vitstr = ViTEncoder(config)

    def encode(self, grey: Tensor) -> Tensor:
        """Grey chunks (N, 1, 32, 300) in [0, 1] to encoded columns (N, 75, D)."""
        return self.vitstr(self.cnn_model(grey))

    def classify(self, columns: Tensor) -> Tensor:
        """Encoded columns (..., D) to logits (..., C)."""
        return self.vitstr.head(columns)

    def forward(self, images: Tensor) -> Tensor:
        """RGB chunks (3 B, 3, 32, 300) in [0, 1], three of each line in turn, to logits (B, 201, C)."""
        columns = self.encode(rgb_to_grey(images))
        return self.classify(join_chunks(columns.unflatten(0, (-1, OFFICIAL_CHUNKS))))


def rgb_to_grey(images: Tensor) -> Tensor:
    """RGB (N, 3, H, W) to grey (N, 1, H, W), same range and dtype."""
    red, green, blue = GREY_WEIGHTS
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue


def join_chunks(columns: Tensor) -> Tensor:
    """Columns of each chunk (B, n, 75, D) to the columns of the line (B, 63 n + 12, D)."""
    n = columns.shape[1]
    return torch.cat([columns[:, i, kept_columns(i, n)] for i in range(n)], dim=1)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What torch.save wrote to `path`, read without executing anything in it.

    Raises CheckpointError, naming the file, if it is missing, truncated, or a pickle that holds anything but tensors
    and plain containers (which `weights_only=True` refuses to build).
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; put the weights there or name another model directory") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it is damaged or holds more than tensors (a pickle can run "
            f"code when loaded); get the file again, or save its state_dict() anew. {error}"
        ) from error
    except Exception as error:  # damaged bytes make PyTorch's readers raise almost anything
        raise CheckpointError(
            f"{path}: truncated or not a PyTorch file ({error}); copy or download it again"
        ) from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Names and tensors of a file of weights; prefixes of fine-tuned files are removed. Raises CheckpointError."""
    raw = read_torch_file(path)
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items()):
        raise CheckpointError(f"{path}: holds no mapping of parameter names to tensors; save model.state_dict()")
    weights = {_strip_prefixes(name): value for name, value in raw.items()}
    if len(weights) < len(raw):
        raise CheckpointError(
            f"{path}: holds names that differ by their prefix alone ({' or '.join(PREFIXES)}); keep one of each"
        )
    return weights


def _strip_prefixes(name: str) -> str:
    for _ in PREFIXES:
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    return name


def load_weights(network: ConvNextViT, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Copy `weights` into `network`, strictly; `source` is named in errors.

    Raises CheckpointError, before anything is copied, that counts missing and unexpected names and unequal shapes, or
    where a value is not finite.
    """
    own = network.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    unequal = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{kind}: {some_names(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("other shape", unequal))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{source}: does not fit the network of configuration.json (model.network). " + "; ".join(problems)
        )
    endless = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if endless:
        raise CheckpointError(
            f"{source}: {len(endless)} of its {len(weights)} tensors hold nan or inf, the first is {endless[0]}; "
            "the training that wrote it has diverged: take an earlier epoch, and train on with a lower learning rate"
        )
    network.load_state_dict(weights)


def some_names(names: Sequence[str]) -> str:
    """How many there are and the first three, for a message."""
    return f"{len(names)}, the first {', '.join(names[:3])}" if len(names) > 3 else ", ".join(names)


def load_network(config: NetworkConfig, path: str | os.PathLike[str]) -> ConvNextViT:
    """A network in evaluation mode, fp32, with the weights of `path`. Raises CheckpointError."""
    with torch.inference_mode(False):  # whatever the caller is in: made there, its weights could not be trained on
        network = ConvNextViT(config)
        load_weights(network, read_weights(path), path)
    return network.eval()
