"""The peer of `--peer`, for comparison with the model: RapidOCR (PP-OCRv6 small), its recogniser alone or whole pages.

The weights are those of the package rapidocr; a missing file is an error and is never downloaded.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    from ..image.straighten import Points
    from ..recognizer import Line

PEERS = ("rapidocr",)

_WEIGHTS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
_WHOLE = {"use_det": True, "use_cls": True, "use_rec": True}
_ALONE = {"use_det": False, "use_cls": False, "use_rec": True}  # the image is one line, so no detection


class RapidOcr:
    """Reads one line at a time; `vocabulary` holds the characters that it can output."""

    def __init__(self) -> None:
        """Raises BackendError if rapidocr, onnxruntime or the weights are missing or do not work."""
        import numpy as np

        from ..page.rapidocr import open_rapidocr
        from ..vocab import Vocabulary

        blank = np.full((48, 320, 3), 255, np.uint8)
        # Any, as the return type of a call depends on the steps requested.
        self._engine: Any = open_rapidocr("--peer rapidocr", "peer", _WEIGHTS, {}, blank, _ALONE)
        characters = self._engine.text_rec.postprocess_op.character
        self.vocabulary = Vocabulary(tuple(characters[1:]))  # the first is the blank

    def read_many(self, images: Iterable) -> "Iterator[Line | ImageError]":
        """A line for each image that `load_image` accepts, or the ImageError that explains why there is none.

        `score` is rapidocr's own, in [0, 1]: the arithmetic mean over the characters (the model's is the geometric
        mean), 0.0 for an empty line. `chars` is empty.
        """
        from ..image import load_image

        for image in images:
            try:
                yield self._read(load_image(image))
            except ImageError as error:
                yield error

    def read_page(self, image: object) -> "list[tuple[str, Points]]":
        """(text, polygon (4, 2) in px) of the lines it detects on a page, with its own settings throughout.

        Raises ImageError.
        """
        import numpy as np

        from ..image import load_image
        from ..image.limits import PAGE_LIMITS
        from ..page.rapidocr import one_line

        rgb = load_image(image, limits=PAGE_LIMITS)
        try:
            result = self._engine(np.ascontiguousarray(rgb[:, :, ::-1]), **_WHOLE)
        except Exception as error:
            height, width = rgb.shape[:2]
            raise ImageError(
                f"rapidocr fails on a page of {width}x{height} px ({one_line(error)}); leave it out"
            ) from error
        texts = getattr(result, "txts", None)
        return list(zip(texts, result.boxes)) if texts else []

    def _read(self, rgb: "np.ndarray") -> "Line":
        """`rgb`: uint8 (H, W, 3). Raises ImageError."""
        import numpy as np

        from ..page.rapidocr import one_line
        from ..recognizer import Line

        try:
            result = self._engine(np.ascontiguousarray(rgb[:, :, ::-1]), **_ALONE)
        except Exception as error:
            height, width = rgb.shape[:2]
            raise ImageError(
                f"rapidocr fails on an image of {width}x{height} px ({one_line(error)}); "
                "leave it out of the set for figures on the same lines"
            ) from error
        return Line(result.txts[0], result.scores[0], ()) if result.txts else Line("", 0.0, ())
