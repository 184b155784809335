"""ModelScope's own text detection (DBNet at line level) as the line detector of a page reader."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..config_file import CONFIGURATION_FILE, read_json
from ..errors import BackendError, ConfigurationError
from ..page.detector import RAPIDOCR, Detector
from ..page.detector import open_detector as open_plain
from .hub import resolve_model

TASK = "ocr-detection"
DBNET = "damo/cv_resnet18_ocr-detection-db-line-level_damo"  # suggested in errors when another model cannot be used


def open_detector(detector: "str | Detector", device: str = "gpu") -> Detector:
    """Open the detector for a `PageReader`.

    Args:
        detector: "rapidocr"; the directory or id of a DBNet model; a pipeline of ModelScope's task ocr-detection; or a
            function from a page to polygons.
        device: for a model that is opened here; "gpu" falls back to the CPU, as in ModelScope.

    Raises:
        ConfigurationError: the directory or model is not a DBNet.
        HubError: the model of this id cannot be obtained.
        BackendError: the model cannot be opened.
    """
    from modelscope.pipelines.base import Pipeline

    if isinstance(detector, Pipeline):
        return _polygons_of(detector)
    if callable(detector) or detector == RAPIDOCR:
        return open_plain(detector)
    return _polygons_of(_open_dbnet(os.fspath(detector), device))


def _open_dbnet(model: str, device: str) -> Callable[[np.ndarray], dict[str, Any]]:
    from modelscope.pipelines import pipeline

    directory = resolve_model(model)
    settings = read_json(os.path.join(directory, CONFIGURATION_FILE)).get("model", {})
    if settings.get("model_type") != "DBNet":  # SegLink++ does not set it
        raise ConfigurationError(
            f"{model}: it is not a DBNet (model.model_type is {settings.get('model_type')!r}), and "
            "SegLink++ needs layers of TensorFlow 1, which current releases lack; "
            f"name a DBNet at line level: {DBNET}"
        )
    try:
        return pipeline(TASK, model=directory, device=device)
    except ImportError as error:
        raise BackendError(
            f"{model}: ModelScope's detection needs {error.name}; `pip install pyclipper shapely`"
        ) from error


def _polygons_of(detect: Callable[[np.ndarray], dict[str, Any]]) -> Detector:
    return lambda page: detect(page)["polygons"]
