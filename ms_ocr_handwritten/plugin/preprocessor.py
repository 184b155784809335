"""ModelScope's preprocessor `ocr-recognition`: images to the chunks that the official network takes."""

from typing import Any

import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.constant import ModeKeys

from ..errors import ImageError
from ..geometry import OFFICIAL_CHUNKS, OFFICIAL_WIDTH
from ..image import load_image, rgb_pieces
from .choice import OursOrUpstreams


@PREPROCESSORS.register_module("cv", module_name="ocr-recognition")
class OCRRecognitionPreprocessor(OursOrUpstreams, Preprocessor):
    """Anything that `load_image` takes, or a list of it, to {'image': float32 (3 B, 3, 32, 300) in [0, 1]}."""

    registered_as = ("PREPROCESSORS", "cv", "ocr-recognition")

    def __init__(self, model_dir: str, mode: str = ModeKeys.INFERENCE) -> None:
        super().__init__(mode)
        self.model_dir = model_dir

    def __call__(self, inputs: Any) -> dict[str, torch.Tensor]:
        """Raises ImageError, also for a line of more than 25:1: `forward` takes three chunks a line; the pipeline and
        `Recognizer` read longer ones."""
        chunks = [rgb_pieces(load_image(item)) for item in (inputs if isinstance(inputs, list) else [inputs])]
        for index, line in enumerate(chunks):
            if len(line) != OFFICIAL_CHUNKS:
                raise ImageError(
                    f"image {index}: needs {len(line)} chunks, the network's own forward takes three "
                    f"({OFFICIAL_WIDTH} px); read it with the pipeline or with Recognizer"
                )
        return {"image": torch.cat([torch.from_numpy(line) for line in chunks])}
