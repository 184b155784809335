"""ModelScope's exporter: `Exporter.from_model(model).export_onnx(output_dir=...)`."""

import os
from typing import Any

from modelscope.exporters.base import Exporter
from modelscope.exporters.builder import EXPORTERS

from ..export import OPSET, export_onnx
from ..model_dir import ONNX_FILE
from .choice import OursOrUpstreams


@EXPORTERS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognitionExporter(OursOrUpstreams, Exporter):
    """Exports the network of a loaded model; see `export.py` for the file's inputs and outputs."""

    registered_as = ("EXPORTERS", "ocr-recognition", "OCRRecognition")

    def export_onnx(self, output_dir: str, opset: int = OPSET, **kwargs: Any) -> dict[str, str]:
        """Write output_dir/model.onnx and return {'model': its path}. Raises BackendError."""
        if kwargs:
            raise TypeError(f"export_onnx takes output_dir and opset, not {', '.join(kwargs)}: the shape is the "
                            "official (3, 3, 32, 300), and any number of lines or chunks")
        return {"model": str(export_onnx(self.model.recognizer, os.path.join(output_dir, ONNX_FILE), opset))}
