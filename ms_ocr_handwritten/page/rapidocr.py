"""RapidOCR, opened with the weights contained in its package; nothing is ever downloaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError


def open_rapidocr(
    purpose: str,
    extra: str,
    weights: Mapping[str, str],
    parameters: Mapping[str, Any],
    first: np.ndarray,
    steps: Mapping[str, bool],
) -> Any:
    """An engine of rapidocr that has read `first`, BGR uint8 (H, W, 3), by `steps`, since only that loads its weights.

    purpose, extra: its use, and the extra of this package that installs it, for messages.
    weights: part of the engine ("Det", "Cls", "Rec") -> file in rapidocr's folder models/.
    parameters: further parameters of RapidOCR.

    Raises BackendError if rapidocr, onnxruntime or the weights are missing or do not work.
    """
    install = f"ms_ocr_handwritten[{extra}]"
    try:
        import onnxruntime  # noqa: F401  (needed by rapidocr, but not installed by it)
        import rapidocr
    except ImportError as error:
        raise BackendError(
            f"{purpose} needs the packages rapidocr and onnxruntime ({error}); `pip install {install}`"
        ) from None
    folder = Path(rapidocr.__file__).parent / "models"
    for name in weights.values():
        if not (folder / name).is_file():
            raise BackendError(
                f"{folder / name} is missing, which rapidocr brings from 3.10 on; "
                f"`pip install --upgrade {install} rapidocr`"
            )
    # For an explicit path, rapidocr neither verifies the hub's checksum nor downloads a replacement.
    paths = {f"{part}.model_path": str(folder / name) for part, name in weights.items()}
    try:
        engine = rapidocr.RapidOCR(params={"Global.log_level": "critical", **parameters, **paths})
        engine(first, **steps)
    except Exception as error:  # the exceptions of rapidocr have no common base
        raise BackendError(
            f"rapidocr cannot be opened ({one_line(error)}); `pip install --force-reinstall {install}`"
        ) from error
    return engine


def one_line(error: Exception) -> str:
    """An error of rapidocr on one line: its messages contain whole tracebacks, or nothing."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
