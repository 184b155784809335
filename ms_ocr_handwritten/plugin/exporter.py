"""ModelScope's exporter: `Exporter.from_model(model).export_onnx(output_dir=...)`."""

import os
from collections.abc import Sequence

from modelscope.exporters.base import Exporter
from modelscope.exporters.builder import EXPORTERS

from ..errors import BackendError
from ..geometry import LINE_HEIGHT
from ..model_dir import ONNX_FILE, ModelDir
from ..onnx.export import OPSET, export_onnx
from .building import RefusesUnknown


@EXPORTERS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognitionExporter(RefusesUnknown, Exporter):
    """Exports the network of a loaded model; `onnx/export.py` describes the file's inputs and outputs."""

    def export_onnx(
        self, output_dir: str, opset: int = OPSET, input_shape: Sequence[int] | None = None
    ) -> dict[str, str]:
        """Write output_dir/model.onnx and return {'model': its path}. Raises BackendError.

        input_shape, required by upstream's exporter, has no effect: the exported file accepts any number of pieces.
        """
        layout = self.model.recognizer.config.layout
        official = (layout.pieces(0), 3, LINE_HEIGHT, layout.official_piece)
        if input_shape is not None and tuple(input_shape[1:]) != official[1:]:
            raise BackendError(
                f"input_shape is {tuple(input_shape)}; the network reads {official}, or any number of such pieces"
            )
        weights = ModelDir.open(self.model.model_dir).weights
        path = export_onnx(self.model.recognizer, os.path.join(output_dir, ONNX_FILE), opset, weights=weights)
        return {"model": str(path)}
