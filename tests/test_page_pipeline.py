"""Whole pages through ModelScope: the task ocr-page, and ModelScope's own detectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, encoded, make_model_dir, noise, render, weaken_positions
from PIL import Image

from ms_ocr_handwritten import PageReader, Recognizer
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.plugin.detector import open_detector

WORDS = ("ab12", "cafe", "h3")


def sheet() -> np.ndarray:
    page = np.full((200, 200, 3), 255, np.uint8)
    for index, word in enumerate(WORDS):
        line = render(word)
        page[10 + 60 * index : 50 + 60 * index, 10 : 10 + line.shape[1]] = line
    return page


def boxes(page: np.ndarray) -> list[list[int]]:
    return [[10, 10 + 60 * index, 90, 10 + 60 * index, 90, 50 + 60 * index, 10, 50 + 60 * index] for index in (2, 0, 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page_pipeline") / "model"
    return weaken_positions(make_model_dir(folder, ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture(scope="module")
def dbnet_dir(tmp_path_factory) -> Path:
    """DBNet on proxylessnas in the layout of the official model's repository, with random weights."""
    pytest.importorskip("pyclipper")
    pytest.importorskip("shapely")
    from modelscope.models.cv.ocr_detection.modules.dbnet import DBNasModel

    folder = tmp_path_factory.mktemp("dbnet")
    settings = {
        "framework": "pytorch",
        "task": "ocr-detection",
        "model": {
            "type": "OCRDetection",
            "model_type": "DBNet",
            "backbone": "proxylessnas",
            "inference_kwargs": {"image_short_side": 96, "thresh": 0.2, "return_polygon": False},
        },
        "preprocessor": {"type": "ocr-detection"},
        "pipeline": {"type": "resnet18-ocr-detection"},
    }
    (folder / "configuration.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(0)
    torch.save(DBNasModel().state_dict(), folder / "pytorch_model.pt")
    return folder


def test_a_page_through_the_pipeline(model, blocked_network):
    from modelscope.pipelines import pipeline

    reader = pipeline("ocr-page", model=str(model), detector=boxes, precision="fp32", device="cpu")
    page = sheet()
    result = reader(page)
    expected = PageReader(Recognizer.from_pretrained(model, precision="fp32"), boxes).read(page)
    assert result["text"] == [line.text for line in expected.lines] and len(set(result["text"])) == 3
    assert result["scores"] == pytest.approx([line.score for line in expected.lines], abs=1e-5)
    assert [polygon[:2] for polygon in result["polygons"]] == [[10, 10], [10, 70], [10, 130]]
    assert (result["width"], result["height"]) == (200, 200)
    png = encoded(Image.fromarray(page[:, :, ::-1]))
    assert reader([png, {"image": page}]) == [result, result]
    assert next(iter(reader(iter([page])))) == result
    assert blocked_network == []


def test_what_the_pipeline_does_not_take_is_refused(model):
    from modelscope.pipelines import pipeline

    with pytest.raises(ConfigurationError, match="no preprocessor"):
        pipeline("ocr-page", model=str(model), detector=boxes, preprocessor=object())
    with pytest.raises(ConfigurationError, match="writing is 'up'"):
        pipeline("ocr-page", model=str(model), detector=boxes, writing="up")


def test_dbnet_of_modelscope_finds_what_it_finds(dbnet_dir, blocked_network):
    from modelscope.pipelines import pipeline

    page = noise(96, 160)
    alone = pipeline("ocr-detection", model=str(dbnet_dir), device="cpu")
    expected = alone(page)["polygons"]
    for detector in (str(dbnet_dir), alone):
        found = list(open_detector(detector, "cpu")(page))
        assert np.array_equal(np.array(found), np.array(expected))
    assert blocked_network == []


def test_seglink_is_refused_by_the_id_of_what_works(tmp_path):
    (tmp_path / "configuration.json").write_text(json.dumps({"model": {"type": "OCRDetection"}}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="damo/cv_resnet18_ocr-detection-db-line-level_damo"):
        open_detector(str(tmp_path))
