"""ModelScope's exporter: `Exporter.from_model(model).export_onnx(output_dir=...)`."""

import os
from collections.abc import Sequence

from modelscope.exporters.base import Exporter
from modelscope.exporters.builder import EXPORTERS

from ..errors import BackendError
from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, OFFICIAL_CHUNKS
from ..model_dir import ONNX_FILE, ModelDir
from ..onnx.export import OPSET, export_onnx
from .choice import OursOrUpstreams

OFFICIAL_SHAPE = (OFFICIAL_CHUNKS, 3, LINE_HEIGHT, CHUNK_WIDTH)


@EXPORTERS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognitionExporter(OursOrUpstreams, Exporter):
    """Exports the network of a loaded model; see `onnx/export.py` for the file's inputs and outputs."""

    registered_as = ("EXPORTERS", "ocr-recognition", "OCRRecognition")

    def export_onnx(
        self, output_dir: str, opset: int = OPSET, input_shape: Sequence[int] = OFFICIAL_SHAPE
    ) -> dict[str, str]:
        """Write output_dir/model.onnx and return {'model': its path}. Raises BackendError.

        input_shape, which upstream's exporter asks for, changes nothing: the file takes any number of chunks.
        """
        if len(input_shape) != len(OFFICIAL_SHAPE) or tuple(input_shape[1:]) != OFFICIAL_SHAPE[1:]:
            raise BackendError(
                f"input_shape is {tuple(input_shape)}; the network reads {OFFICIAL_SHAPE}, or any number of such chunks"
            )
        weights = ModelDir.open(self.model.model_dir).weights
        path = export_onnx(self.model.recognizer, os.path.join(output_dir, ONNX_FILE), opset, weights=weights)
        return {"model": str(path)}
