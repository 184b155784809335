"""Weights files, which are never trusted before they are checked, and the strict loading of networks."""

import os
import pickle
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..files import check_regular
from ..recognisers import ConvNextViTConfig, CrnnConfig, LightweightEdgeConfig, NetworkConfig
from .convnextvit import ConvNextViT
from .crnn import CRNN
from .lightweight_edge import LightweightEdge
from .network import Network

LONGEST_NAME = 200  # letters of a class name in a pickle
MOST_PICKLED = 16 * 2**20  # bytes; the official model's pickle has 40,000
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNT = "num_batches_tracked"  # of batch norm, an integer
SHARED_TIMES = 4  # maximum ratio of tensor bytes to file bytes: tensors may share storage
PREFIXES = ("module.", "recognizer.")  # of DistributedDataParallel and fine-tuned files

NETWORKS: dict[type[NetworkConfig], type[Network]] = {
    ConvNextViTConfig: ConvNextViT,
    CrnnConfig: CRNN,
    LightweightEdgeConfig: LightweightEdge,
}


def new_network(config: NetworkConfig) -> Network:
    """A network of the kind and sizes of `config`, with random weights."""
    return NETWORKS[type(config)](config)


def read_torch_file(path: str | os.PathLike[str], most_pickled: int = MOST_PICKLED) -> Any:
    """Load a file written by torch.save, without executing anything in it.

    Args:
        path: a regular file.
        most_pickled: maximum size in bytes of its pickle, which is read in Python, at about a second per MiB.

    Raises:
        CheckpointError: naming the file, if it is missing, truncated, a compressed archive, or a pickle with anything
            but tensors and plain containers (which `weights_only=True` refuses to build).
    """
    try:
        _check_archive(path, check_regular(path), most_pickled)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; put the weights there or name another model directory") from None
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it is damaged or holds more than tensors (a pickle can run "
            f"code when loaded); get the file again, or save its state_dict() again. {error}"
        ) from error
    except Exception as error:  # damaged bytes make PyTorch's readers raise almost anything
        if _out_of_memory(error):
            raise CheckpointError(f"{path}: there is not enough memory to read it; close other programs") from error
        raise CheckpointError(
            f"{path}: truncated or not a PyTorch file ({error}); copy or download it again"
        ) from error


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)  # in PyTorch's allocator message


def _check_archive(path: str | os.PathLike[str], size: int, most_pickled: int) -> None:
    """Raise CheckpointError if the archive declares more bytes than it has; torch.save does not compress."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\3\4":  # the format before PyTorch 1.6, or not a PyTorch file
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_entries(path, archive, entries, size, most_pickled)


def _check_entries(
    path: str | os.PathLike[str],
    archive: zipfile.ZipFile,
    entries: list[zipfile.ZipInfo],
    size: int,
    most_pickled: int,
) -> None:
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(
            f"{path}: announces more than its {size} bytes hold, as only a compressed archive does; "
            "save it again with torch.save, which does not compress"
        )
    pickled = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if pickled > most_pickled:
        raise CheckpointError(f"{path}: its pickle has {pickled} bytes, over the limit of {most_pickled}")
    for entry in entries:
        if not entry.filename.endswith(".pkl"):
            continue
        for operation, name, _ in pickletools.genops(archive.read(entry)):
            if operation.name in ("GLOBAL", "INST") and name and len(name) > LONGEST_NAME:
                # PyTorch refuses it, too, but spends minutes on composing its own message.
                raise CheckpointError(f"{path}: refused, it names a class of {len(name)} letters; get the file again")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Names and tensors of a weights file, without the prefixes of fine-tuned files. Raises CheckpointError."""
    raw = read_torch_file(path)
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in raw.items()):
        raise CheckpointError(f"{path}: holds no mapping of parameter names to tensors; save model.state_dict()")
    _check_tensors(raw, path)
    weights = {_strip_prefixes(name): value for name, value in raw.items()}
    if len(weights) < len(raw):
        raise CheckpointError(
            f"{path}: holds names that differ only by their prefix ({' or '.join(PREFIXES)}); keep one of each"
        )
    return weights


def _check_tensors(weights: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError unless all are dense CPU tensors, no larger in total than the file can hold."""
    for name, value in weights.items():
        plain = not (value.is_nested or value.is_quantized) and value.layout is torch.strided
        allowed = FLOATS if not name.endswith(COUNT) else (*FLOATS, torch.int64)
        if not plain or value.device.type != "cpu" or value.dtype not in allowed:
            kind = "nested" if value.is_nested else f"{value.dtype}, {value.layout}, on {value.device}"
            raise CheckpointError(
                f"{path}: {name} is {kind}; dense tensors of floating point on the CPU expected: "
                "save model.float().cpu().state_dict()"
            )
    held, most = sum(value.nbytes for value in weights.values()), SHARED_TIMES * os.path.getsize(path)
    if held > most:
        raise CheckpointError(f"{path}: its tensors have {held} bytes, of which the file cannot hold more than {most}")


def _strip_prefixes(name: str) -> str:
    for _ in PREFIXES:
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    return name


def load_weights(network: Network, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Copy `weights` into `network`, strictly; `source` is named in errors.

    Raises CheckpointError, before anything is copied, if names are missing or unexpected, shapes differ, or a value is
    not finite.
    """
    _check_fit(network, weights, source)
    network.load_state_dict(weights)


def _check_fit(network: Network, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
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
            "the training that wrote it has diverged: use an earlier epoch, and continue with a lower learning rate"
        )


def some_names(names: Sequence[str]) -> str:
    """The number of names and the first three, for a message."""
    return f"{len(names)}, the first {', '.join(names[:3])}" if len(names) > 3 else ", ".join(names)


def load_network(config: NetworkConfig, path: str | os.PathLike[str]) -> Network:
    """A network in evaluation mode, fp32, with the weights of `path`. Raises CheckpointError.

    Memory for the sizes of `config` is only allocated after the file was found to match them.
    """
    weights = read_weights(path)
    if config.blocks_in_all > len(weights):  # each block has several tensors
        raise CheckpointError(
            f"{path}: does not fit the network of configuration.json (model.network), which has "
            f"{config.blocks_in_all} blocks: {len(weights)} tensors are there"
        )
    try:
        with torch.inference_mode(False), torch.device("meta"):
            network = new_network(config)
    except (RuntimeError, TypeError, OverflowError) as error:  # element counts beyond 64 bits
        raise CheckpointError(f"{path}: no network has the sizes of configuration.json (model.network)") from error
    _check_fit(network, weights, path)
    try:  # tensors created in inference mode could not be trained
        with torch.inference_mode(False):
            own = network.state_dict()
            copies = {name: value.to(own[name].dtype, copy=True) for name, value in weights.items()}
            network.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: there is not enough memory for its network; close other programs") from error
    return network.eval()
