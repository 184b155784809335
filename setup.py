"""Packaging of ms_ocr_handwritten: metadata, dependencies, extras, the console script `ms-ocr`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "ms_ocr_handwritten/__init__.py").read_text("utf-8"), re.M)[1]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18"]
LM = ["ufal.kenlm>=26.4; platform_system == 'Linux'"]
SYNTH = ["fonttools>=4.50", "brotli>=1.1"]

setup(
    name="ms_ocr_handwritten",
    version=VERSION,
    description="Reads handwritten text lines (Chinese and English) inside the ModelScope ecosystem",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ms_ocr_handwritten", "ms_ocr_handwritten.*"]),
    package_data={"ms_ocr_handwritten": ["assets/*"]},
    install_requires=[
        "torch>=2.10",  # weights_only=True of earlier ones could be made to run code: CVE-2025-32434, CVE-2026-24747
        "modelscope[datasets,framework]>=1.35",  # datasets: oss2, without which 1.35 is not even imported
        "opencv-python>=4.8",
        "numpy>=1.26",
        "lmdb>=1.4",
        "datasets>=3.0",
        "Pillow>=10.3",
        "rapidfuzz>=3.0",
        "tqdm>=4.60",
        "click>=8.1",
    ],
    extras_require={
        "onnx": ONNX,
        "openvino": ["openvino>=2025.0"],
        "lm": LM,
        # Neither openvino nor peer is in `test`: workers forked from a process that used OpenVINO have crashed, and
        # rapidocr brings opencv-python-headless, which writes its cv2 over that of opencv-python.
        "peer": ["rapidocr>=3.10", "onnxruntime>=1.18"],
        "page": ["rapidocr>=3.10", "onnxruntime>=1.18", "pypdfium2>=5.0", "shapely>=2.0"],
        "synth": SYNTH,
        # cryptography: the certificate of the tests' hub
        "test": ["pytest>=8.0", "cryptography>=41.0", "webdataset>=0.2", *ONNX, *SYNTH, *LM],
    },
    entry_points={"console_scripts": ["ms-ocr = ms_ocr_handwritten.cli:main"]},
)
