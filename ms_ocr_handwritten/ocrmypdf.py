"""The plugin of OCRmyPDF: `ocrmypdf --plugin ms_ocr_handwritten.ocrmypdf in.pdf out.pdf`."""

from importlib.util import find_spec

# ModelScope's loader of plugins imports every module, which must not fail where OCRmyPDF is not installed.
if find_spec("ocrmypdf"):
    from .page._ocrmypdf import add_options, get_ocr_engine

    __all__ = ["add_options", "get_ocr_engine"]
