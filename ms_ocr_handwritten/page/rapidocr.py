"""RapidOCR, opened with the weights that its package brings; nothing is ever fetched."""

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

    purpose, extra: what it is for, and the extra of this package that installs it: for messages.
    weights: part of the engine ("Det", "Cls", "Rec") -> file in rapidocr's folder models/.
    parameters: further ones of RapidOCR.

    Raises BackendError where rapidocr, onnxruntime or the weights are missing, or do not work.
    """
    install = f"ms_ocr_handwritten[{extra}]"
    try:
        import onnxruntime  # noqa: F401  (what rapidocr computes with, but does not install)
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
    # A path given to it is neither checked against the hub's checksum nor replaced by a download.
    paths = {f"{part}.model_path": str(folder / name) for part, name in weights.items()}
    try:
        engine = rapidocr.RapidOCR(params={"Global.log_level": "critical", **parameters, **paths})
        engine(first, **steps)
    except Exception as error:  # rapidocr has no common base of what it raises
        raise BackendError(
            f"rapidocr cannot be opened ({one_line(error)}); `pip install --force-reinstall {install}`"
        ) from error
    return engine


def one_line(error: Exception) -> str:
    """What rapidocr raised: it puts whole tracebacks into its messages, or nothing."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
