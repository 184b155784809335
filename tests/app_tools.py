"""What the tests of the page share: whether Gradio is here, and a page that is served."""

import importlib.metadata

import pytest

from ms_ocr_handwritten.app.interface import LEAST_GRADIO


def require_gradio() -> None:
    """Skip the module where Gradio is missing or too old, without importing it: an old one may not even load."""
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if tuple(map(int, version.split(".")[:2])) < LEAST_GRADIO:
        least = ".".join(map(str, LEAST_GRADIO))
        reason = f"needs gradio {least} or newer, {'none' if version == '0' else version} is here: the extra `app`"
        pytest.skip(reason, allow_module_level=True)
