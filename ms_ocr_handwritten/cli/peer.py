"""The peer that `--peer` reads beside the model: RapidOCR, PP-OCRv6 small; its recogniser alone, or whole pages.

The weights are those that the package rapidocr brings; a file that is not there is an error and is never fetched.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, ImageError

if TYPE_CHECKING:
    import numpy as np

    from ..image.straighten import Points
    from ..recognizer import Line
    from ..vocab import Vocabulary

PEERS = ("rapidocr",)

_WEIGHTS = "PP-OCRv6_rec_small.onnx"  # in rapidocr's folder models/
_PAGE_WEIGHTS = {"Det": "PP-OCRv6_det_small.onnx", "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx"}  # beside it
_WHOLE = {"use_det": True, "use_cls": True, "use_rec": True}
_ALONE = {"use_det": False, "use_cls": False, "use_rec": True}  # the image is the line: none is looked for in it


class RapidOcr:
    """Reads one line after the other; `vocabulary` holds the characters that it can write."""

    def __init__(self) -> None:
        """Raises BackendError where rapidocr, onnxruntime or the weights are missing, or do not work."""
        try:
            import onnxruntime  # noqa: F401  (what rapidocr computes with, but does not install)
            import rapidocr
        except ImportError as error:
            raise BackendError(
                f"--peer rapidocr needs the packages rapidocr and onnxruntime ({error}); "
                "`pip install ms_ocr_handwritten[peer]`"
            ) from None
        weights = Path(rapidocr.__file__).parent / "models" / _WEIGHTS
        if not weights.is_file():
            raise BackendError(
                f"{weights} is missing, which rapidocr brings from 3.10 on; "
                "`pip install --upgrade ms_ocr_handwritten[peer] rapidocr`"
            )
        try:
            # A path given to it is neither checked against the hub's checksum nor replaced by a download.
            paths = {"Rec": weights, **{kind: weights.parent / name for kind, name in _PAGE_WEIGHTS.items()}}
            parameters = {f"{kind}.model_path": str(path) for kind, path in paths.items()}
            # Any, as what a call returns depends on the steps that it asks for.
            self._engine: Any = rapidocr.RapidOCR(params={"Global.log_level": "critical", **parameters})
            self.vocabulary = self._open()
        except Exception as error:  # rapidocr has no common base of what it raises
            raise BackendError(
                f"rapidocr cannot be opened ({_reason(error)}); "
                "`pip install --force-reinstall ms_ocr_handwritten[peer]`"
            ) from error

    def read_many(self, images: Iterable) -> "Iterator[Line | ImageError]":
        """A line for each image that `load_image` takes, or the ImageError why there is none.

        `score` is rapidocr's own, in [0, 1]: the mean of the characters' (the model's is their geometric mean), 0.0
        for an empty line. `chars` is empty.
        """
        from ..image import load_image

        for image in images:
            try:
                yield self._read(load_image(image))
            except ImageError as error:
                yield error

    def read_page(self, image: object) -> "list[tuple[str, Points]]":
        """(text, polygon (4, 2) in px) of the lines it finds on a page; its own settings throughout.

        Raises ImageError.
        """
        import numpy as np

        from ..image import load_image
        from ..page.reader import PAGE_LIMITS

        rgb = load_image(image, limits=PAGE_LIMITS)
        try:
            result = self._engine(np.ascontiguousarray(rgb[:, :, ::-1]), **_WHOLE)
        except Exception as error:
            height, width = rgb.shape[:2]
            raise ImageError(
                f"rapidocr fails on a page of {width}x{height} px ({_reason(error)}); leave it out"
            ) from error
        texts = getattr(result, "txts", None)
        return list(zip(texts, result.boxes)) if texts else []

    def _read(self, rgb: "np.ndarray") -> "Line":
        """`rgb`: uint8 (H, W, 3). Raises ImageError."""
        import numpy as np

        from ..recognizer import Line

        try:
            result = self._engine(np.ascontiguousarray(rgb[:, :, ::-1]), **_ALONE)
        except Exception as error:
            height, width = rgb.shape[:2]
            raise ImageError(
                f"rapidocr fails on an image of {width}x{height} px ({_reason(error)}); "
                "leave it out of the set for figures on the same lines"
            ) from error
        return Line(result.txts[0], result.scores[0], ()) if result.txts else Line("", 0.0, ())

    def _open(self) -> "Vocabulary":
        """Load the weights, which rapidocr does at the first line it reads; the characters that they know."""
        import numpy as np

        from ..vocab import Vocabulary

        self._engine(np.full((48, 320, 3), 255, np.uint8), **_ALONE)
        return Vocabulary(tuple(self._engine.text_rec.postprocess_op.character[1:]))  # the first is the blank


def _reason(error: Exception) -> str:
    """One line: rapidocr puts whole tracebacks into its messages, or nothing."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
