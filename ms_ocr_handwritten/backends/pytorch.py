"""PyTorch: on a CPU with its weights packed for reading, on a GPU as it is."""

from collections.abc import Callable

import numpy as np
import torch

from ..errors import BackendError
from ..nets import packed
from .base import ChunkBackend, ColumnPath


class TorchBackend(ChunkBackend):
    """A ConvNextViT network, on the device where it is; on a CPU with its weights packed for reading."""

    name = "torch"

    def __init__(self, network, precision: str) -> None:
        self.network, self.precision = network, precision
        self._version: int | None = None

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        self._prepare()
        device = self.network.vitstr.cls_token.device
        with torch.inference_mode():
            log_probs, ids = self._logits(torch.from_numpy(grey[:, None]).to(device)).log_softmax(-1).max(-1)
            return ids.cpu().numpy(), log_probs.cpu().numpy()

    def padding_columns(self) -> ColumnPath:
        self._prepare()
        if self._padding is None:
            self._padding = super().padding_columns()
        return self._padding

    def _prepare(self) -> None:
        """Pack the weights anew, and forget the padding's columns, where the weights have changed since."""
        version = sum(parameter._version for parameter in self.network.parameters())  # grows with every change
        if version != self._version:
            self._logits, self._padding, self._version = self._reading_network(), None, version

    def _reading_network(self) -> Callable:
        """Grey chunks (N, 1, 32, 300) to logits (N, 75, C) in the precision asked for."""
        device = self.network.vitstr.cls_token.device
        if device.type == "cpu" and packed.available():
            network = packed.PackedNetwork(self.network, torch.bfloat16 if self.precision == "bf16" else torch.float32)
            return lambda grey: network(grey).float()

        def logits(grey):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                return self.network.classify(self.network.encode(grey)).float()
        return logits


def torch_device(device: str) -> torch.device:
    """A torch device from ModelScope's names ('gpu', 'gpu:1') or torch's; without a GPU it is the CPU, as upstream."""
    try:
        wanted = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError:
        raise BackendError(f"device is {device!r}; give 'cpu', 'gpu' or a certain one, such as 'gpu:1'") from None
    return torch.device("cpu") if wanted.type == "cuda" and not torch.cuda.is_available() else wanted
