"""Images: source.py -> file.py -> load.py -> canvas.py; margins.py and straighten.py locate and cut out lines."""

from .canvas import LineCanvas, line_canvas, rgb_pieces
from .limits import Limits
from .load import image_size, load_image

__all__ = ["Limits", "LineCanvas", "image_size", "line_canvas", "load_image", "rgb_pieces"]
