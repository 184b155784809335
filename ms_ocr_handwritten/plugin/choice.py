"""Ours or upstream's: CRNN and LightweightEdge models share every name with ConvNextViT ones and stay upstream's."""

import inspect
import os
from typing import Any

from ..config import CONFIGURATION_FILE, read_json
from ..errors import ConfigurationError
from .registration import upstream_class

UPSTREAM_RECOGNIZERS = ("CRNN", "LightweightEdge")


def belongs_upstream(model_dir: str | os.PathLike[str]) -> bool:
    """Whether the model in `model_dir` is of a recogniser that ModelScope's own classes handle."""
    model = read_json(os.path.join(model_dir, CONFIGURATION_FILE)).get("model")
    return isinstance(model, dict) and model.get("recognizer") in UPSTREAM_RECOGNIZERS


class OursOrUpstreams:
    """Mixin for a registered class: `build_from_cfg` calls `_instantiate`, which picks the class by the model."""

    registered_as: tuple[str, str, str]  # registry, group, name

    @staticmethod
    def model_dir_of(arguments: dict[str, Any]) -> str | None:
        """The model directory among the arguments, or None if they do not tell."""
        model = arguments.get("model_dir") or arguments.get("model")
        return model if isinstance(model, str) else getattr(model, "model_dir", None)

    @classmethod
    def _instantiate(cls, **arguments: Any) -> Any:
        model_dir = cls.model_dir_of(arguments)
        if model_dir is not None and belongs_upstream(model_dir):
            return upstream_class(*cls.registered_as)(**arguments)
        cls.refuse_unknown(arguments)
        return cls(**arguments)

    @classmethod
    def refuse_unknown(cls, arguments: dict[str, Any]) -> None:
        """Raise ConfigurationError for arguments that the class does not take, naming those it does."""
        allowed = inspect.signature(cls).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in allowed.values()):
            return
        if unknown := sorted(arguments.keys() - allowed.keys()):
            raise ConfigurationError(f"unknown argument {', '.join(unknown)}; allowed here: {', '.join(allowed)}")
