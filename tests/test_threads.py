"""Threads that share a recogniser from its first line on: what is prepared then is prepared once, and for all."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ALPHABET, TINY_NETWORK, make_model_dir

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.image import line_canvas
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network

COLD_STARTS = int(os.environ.get("MS_OCR_COLD_STARTS", "100"))  # 10,000 were run once by hand
THREADS = 32


@pytest.fixture
def eager_threads():
    """Threads take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16+fp32"])
def test_threads_may_share_a_cold_start(tmp_path, precision, eager_threads):
    model = ModelDir.open(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))
    network = load_network(model.configuration.network, model.weights)
    canvas = line_canvas(np.random.default_rng(0).integers(0, 256, (32, 60, 3), np.uint8))
    expected = Recognizer.from_network(network, model.vocabulary, precision).read_canvases([canvas])[0].text
    together = threading.Barrier(THREADS)

    def read(recognizer):
        together.wait()
        return recognizer.read_canvases([canvas])[0].text

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(COLD_STARTS // 2):
            recognizer = Recognizer.from_network(network, model.vocabulary, precision)
            assert set(pool.map(read, [recognizer] * THREADS)) == {expected}
