"""ModelScope's pipeline for whole pages: `PageReader` behind `pipeline("ocr-page", model=..., detector=...)`."""

from collections.abc import Iterable, Iterator
from typing import Any

from modelscope.pipelines.base import Pipeline
from modelscope.pipelines.builder import PIPELINES
from modelscope.utils.config import Config

from ..errors import ConfigurationError
from ..image.limits import PAGE_LIMITS, Limits
from ..model_dir import ModelDir
from ..page.detector import RAPIDOCR, Detector
from ..page.order import HORIZONTAL
from ..page.reader import Page, PageReader
from ..recognizer import Recognizer
from .detector import open_detector
from .pipeline import _image, _is_image
from .registration import PAGE_TASK


@PIPELINES.register_module(PAGE_TASK, module_name="convnextTiny-ocr-recognition")
class OCRPagePipeline(Pipeline):
    """Detects and reads the lines of pages. One image gives a dict, a list of images a list, an iterable a generator:

    {"text": [text, ...], "scores": [score, ...], "polygons": [[x1, y1, x2, y2, ...], ...], "width": W, "height": H}

    in reading order; polygons in px of the upright page, flattened as in ModelScope's ocr-detection.
    """

    def __init__(
        self,
        model: str,
        detector: "str | Detector" = RAPIDOCR,
        precision: str = "auto",
        backend: str = "auto",
        device: str = "gpu",
        writing: str = HORIZONTAL,
        limits: Limits = PAGE_LIMITS,
        preprocessor: Any = None,
    ) -> None:
        """
        Args:
            model: directory of a recogniser.
            detector: as for `open_detector`: "rapidocr", the id or directory of a DBNet, a pipeline, a function.
            precision, backend, device: as for `Recognizer.from_pretrained`.
            writing, limits: as for `PageReader`.
        """
        if preprocessor is not None or not isinstance(model, str):
            raise ConfigurationError("the task ocr-page takes one model directory or id, and no preprocessor")
        self.model, self.model_dir, self.device_name = model, model, device
        recognizer = Recognizer.from_pretrained(model, backend, precision, device=device)
        self.reader = PageReader(recognizer, open_detector(detector, device), writing=writing, limits=limits)
        self.cfg = Config(ModelDir.open(model).raw)

    def __call__(self, input: Any, batch_size: int = 32) -> Any:
        """Read `input`; see the class for the results, `load_image` for the accepted images. Raises ImageError."""
        if _is_image(input):
            return _result(self.reader.read(_image(input)))
        results = self._results(input, batch_size)
        return list(results) if isinstance(input, (list, tuple)) else results

    def _results(self, images: Iterable, batch_size: int) -> Iterator[dict[str, Any]]:
        for page in self.reader.read_many(map(_image, images), batch_size):
            assert isinstance(page, Page)  # errors are raised
            yield _result(page)

    def forward(self, inputs: Any) -> Any:
        raise NotImplementedError("this pipeline reads in __call__")

    preprocess = postprocess = forward


def _result(page: Page) -> dict[str, Any]:
    return {
        "text": [line.text for line in page.lines],
        "scores": [line.score for line in page.lines],
        "polygons": [[value for point in line.polygon for value in point] for line in page.lines],
        "width": page.width,
        "height": page.height,
    }
