"""The canvas of a line and its chunks: against hand-made values, and against upstream's preprocessor bit for bit."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import noise
from PIL import Image

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image import line_canvas, load_image, rgb_pieces


def hand_grey(rgb):
    red, green, blue = (rgb[:, :, i].astype(np.float64) / 255 for i in range(3))
    return 0.2989 * red + 0.5870 * green + 0.1140 * blue


UNSCALED = [(1, 3, 1), (252, 3, 1), (253, 3, 2), (504, 3, 2), (505, 3, 3), (804, 3, 3), (805, 4, 4), (1057, 5, 5)]


@pytest.mark.parametrize(("width", "chunks", "inked"), UNSCALED)
def test_canvas_of_unscaled_lines(width, chunks, inked):
    """At 32 px height nothing is interpolated, so that the values follow by hand."""
    rgb = noise(32, width)
    line = line_canvas(rgb)
    assert (line.width, line.source_width, line.source_height, line.chunks) == (width, width, 32, chunks)
    expected = np.zeros((32, 252 * inked + 48))
    expected[:, :width] = hand_grey(rgb)
    assert line.grey.dtype == np.float32 and line.grey.shape == expected.shape
    np.testing.assert_allclose(line.grey, expected, rtol=0, atol=2e-7)
    pieces = line.piece_array()
    assert pieces.shape == (inked, 32, 300) and pieces.dtype == np.float32 and pieces.flags.c_contiguous
    for index in range(inked):
        np.testing.assert_array_equal(pieces[index], line.grey[:, 252 * index : 252 * index + 300])
    colour = rgb_pieces(rgb)
    assert colour.shape == (chunks, 3, 32, 300) and colour.dtype == np.float32 and colour.flags.c_contiguous
    whole = np.zeros((3, 32, 252 * chunks + 48), np.float32)
    whole[:, :, :width] = rgb.transpose(2, 0, 1) / 255
    for index in range(chunks):
        np.testing.assert_array_equal(colour[index], whole[:, :, 252 * index : 252 * index + 300])


@pytest.mark.parametrize(
    ("height", "width", "scaled"), [(1, 1, 32), (1, 631, 20192), (32, 1, 1), (64, 801, 400), (200, 4000, 640)]
)
def test_scaled_width(height, width, scaled):
    line = line_canvas(np.full((height, width, 3), 255, np.uint8))
    assert line.width == scaled
    np.testing.assert_allclose(line.grey[:, :scaled], 0.9999, atol=1e-6)
    assert not line.grey[:, scaled:].any()


def test_impossible_shapes():
    with pytest.raises(ImageError, match="image of 1x33 px is 0 px wide at a height of 32 px; .*rotate"):
        line_canvas(np.zeros((33, 1, 3), np.uint8))
    with pytest.raises(ImageError, match=r"632x1 px is 20224 px wide .* 20208 px \(aspect ratio 631.5:1\); cut"):
        line_canvas(np.zeros((1, 632, 3), np.uint8))
    with pytest.raises(ImageError, match="aspect ratio 631.5:1"):
        rgb_pieces(np.zeros((32, 20209, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "canvas_x", "source_x"),
    [
        ((64, 1600), 0, 0),
        ((64, 1600), 400, 800),
        ((64, 1600), 2, 4),
        ((64, 1600), 800, 1600),
        ((64, 1600), 804, 1600),
        ((64, 1600), -3, 0),
        ((16, 100), 50.5, 25.25),
        ((64, 1001), 500, 1001),  # 500.5 px are cut to 500: the end of the canvas is still the end of the line
        ((64, 1001), 250, 500.5),
    ],
)
def test_source_x(size, canvas_x, source_x):
    assert line_canvas(np.zeros((*size, 3), np.uint8)).source_x(canvas_x) == source_x


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    from modelscope.models.cv.ocr_recognition.preprocessor import OCRRecognitionPreprocessor

    folder = tmp_path_factory.mktemp("model")
    arguments = {"img_height": 32, "img_width": 804, "do_chunking": True}
    (folder / "configuration.json").write_text(json.dumps({"model": {"inference_kwargs": arguments}}))
    return OCRRecognitionPreprocessor(str(folder))


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (50, 77), (64, 800), (31, 300), (48, 1199), (37, 925), (100, 2500), (128, 3199)]
)
@pytest.mark.parametrize(("mode", "file_format"), [("RGB", "PNG"), ("RGB", "JPEG"), ("L", "JPEG"), ("P", "PNG")])
def test_parity_with_upstream(tmp_path, upstream, height, width, mode, file_format):
    path = str(tmp_path / "line")
    Image.fromarray(cv2.GaussianBlur(noise(height, width), (5, 5), 0)).convert(mode).save(path, file_format)
    image = upstream(path)["image"]  # float32 (3, 3, 32, 300)
    np.testing.assert_array_equal(rgb_pieces(load_image(path)), image.numpy())
    # The first line of upstream's ConvNextViT.forward
    grey = (image[:, 0:1] * 0.2989 + image[:, 1:2] * 0.5870 + image[:, 2:3] * 0.1140).numpy()[:, 0]
    ours = line_canvas(load_image(path)).piece_array()
    np.testing.assert_array_equal(ours, grey[: len(ours)])
    assert not grey[len(ours) :].any()


def test_no_modelscope_no_torch():
    code = "import sys, ms_ocr_handwritten.image; print({'modelscope', 'transformers', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
