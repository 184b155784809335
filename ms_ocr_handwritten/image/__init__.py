"""Pictures: source.py -> file.py -> load.py -> canvas.py; margins.py and straighten.py find and cut what is a line."""

from .canvas import LineCanvas, line_canvas, rgb_chunks
from .limits import Limits
from .load import load_image

__all__ = ["Limits", "LineCanvas", "line_canvas", "load_image", "rgb_chunks"]
