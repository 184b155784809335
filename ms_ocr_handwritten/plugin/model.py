"""ModelScope's model `OCRRecognition`: our network with upstream's attribute and parameter names."""

from typing import Any

import torch
from modelscope.models.base.base_torch_model import TorchModel
from modelscope.models.builder import MODELS
from torch import Tensor

from ..config import Configuration
from ..ctc import collapse_lines
from ..model_dir import ModelDir
from ..nets.weights import load_network
from .building import RefusesUnknown


@MODELS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognition(RefusesUnknown, TorchModel):
    """A network with its vocabulary. Raises ConfigurationError, VocabularyError or CheckpointError."""

    def __init__(self, model_dir: str, device: str = "gpu", **model: Any) -> None:
        """Load the network onto the CPU.

        Args:
            model_dir: a model directory.
            device: where a pipeline moves the network.
            model: keys of the section `model` of configuration.json that override those of the file.

        Raises:
            ConfigurationError: a key is unknown, or its value is not allowed.
        """
        super().__init__(model_dir, device=device)
        files = ModelDir.open(model_dir)
        raw = {**files.raw, "model": {**files.raw.get("model", {}), **model}}
        self.vocabulary = files.vocabulary
        self.recognizer = load_network(Configuration.parse(raw).network, files.require_weights())

    def forward(self, images: Tensor) -> Tensor:
        """RGB pieces of official canvases, as made by the preprocessor, to logits (B, T, C)."""
        return self.recognizer(images)

    def postprocess(self, logits: Tensor) -> dict[str, Any]:
        """Logits (B, T, C) to upstream's output: 'preds', B texts, and 'probs', the logits."""
        log_probs, ids = logits.float().log_softmax(-1).max(-1)
        lines = collapse_lines([*ids.cpu().numpy()], [*log_probs.detach().cpu().numpy()])
        return {"preds": [self.vocabulary.decode(run.id for run in line) for line in lines], "probs": logits}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
