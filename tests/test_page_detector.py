"""RapidOCR's detector as this package opens it."""

import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT

from ms_ocr_handwritten.errors import BackendError
from ms_ocr_handwritten.page.detector import RapidOcrDetector


def test_lines_are_found_at_their_places_whatever_the_size(blocked_network):
    pytest.importorskip("rapidocr")
    page = cv2.imread(str(ROOT / "examples" / "pages" / "english.jpg"))
    detector = RapidOcrDetector(longest_side=640)
    boxes = detector(page)
    assert len(boxes) >= 7 and all(box.shape == (4, 2) for box in boxes)
    inked = page.min(axis=2) < 128
    covered = np.zeros(inked.shape, np.uint8)
    cv2.fillPoly(covered, [box.astype(np.int32) for box in boxes], 1)
    assert (inked & covered.astype(bool)).sum() > 0.9 * inked.sum()
    assert covered.mean() < 0.35
    for height, width in ((1, 1), (3, 900), (900, 3), (31, 33)):
        for box in detector(np.full((height, width, 3), 128, np.uint8)):
            assert (box >= 0).all() and (box <= (width, height)).all()
    assert blocked_network == []


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(BackendError, match=r"pip install ms_ocr_handwritten\[page\]"):
        RapidOcrDetector()
