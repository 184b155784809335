"""ModelScope's preprocessor `ocr-recognition`: images to the input of the official network."""

from typing import Any

import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.constant import ModeKeys

from ..config import Configuration
from ..errors import ImageError
from ..geometry import scaled_width
from ..image import load_image, rgb_pieces
from .building import RefusesUnknown


@PREPROCESSORS.register_module("cv", module_name="ocr-recognition")
class OCRRecognitionPreprocessor(RefusesUnknown, Preprocessor):
    """Anything that `load_image` accepts, or a list of it, to {'image': float32 (N, 3, 32, W) in [0, 1]}.

    For a ConvNextViT, N is 3 per line and W is 300; for the other recognisers 1 and 640.
    """

    def __init__(self, model_dir: str, mode: str = ModeKeys.INFERENCE) -> None:
        super().__init__(mode)
        self.model_dir = model_dir
        self.layout = Configuration.load(model_dir).network.layout

    def __call__(self, inputs: Any) -> dict[str, torch.Tensor]:
        """Raises ImageError, also for a line longer than the official canvas, which is the limit of `forward`; the
        pipeline and `Recognizer` read longer lines."""
        images = [load_image(item) for item in (inputs if isinstance(inputs, list) else [inputs])]
        official = self.layout.official_width
        for index, (height, width) in enumerate(image.shape[:2] for image in images):
            needed = self.layout.canvas_width(scaled_width(width, height))
            if needed > official:
                raise ImageError(
                    f"image {index}: needs a canvas of {needed} px, the network's own forward takes {official} px; "
                    "read it with the pipeline or with Recognizer"
                )
        return {"image": torch.cat([torch.from_numpy(rgb_pieces(image, self.layout)) for image in images])}
