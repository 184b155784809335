"""Decoding: files, bytes, Pillow images and arrays to RGB."""

import struct

import cv2
import numpy as np
import pytest
from conftest import encoded, noise
from PIL import Image

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image import load_image

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


# Files and bytes


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_ordinary_files_equal_pillow(tmp_path, file_format, mode):
    path = tmp_path / f"line.{file_format.lower()}"
    Image.fromarray(noise(24, 90)).convert(mode).save(path, file_format)
    expected = np.array(Image.open(path).convert("RGB"))
    content = path.read_bytes()
    for source in (path, str(path), content, bytearray(content), memoryview(content), Image.open(path)):
        loaded = load_image(source)
        assert loaded.dtype == np.uint8
        np.testing.assert_array_equal(loaded, expected)


def test_path_and_imread_read_alike(tmp_path):
    path = str(tmp_path / "手写 line.png")
    Image.fromarray(noise(24, 90)).save(path)
    np.testing.assert_array_equal(load_image(cv2.imread(path)), load_image(path))
    np.testing.assert_array_equal(load_image(path), noise(24, 90))


def test_first_frame_of_several():
    frames = [Image.new("L", (5, 4), grey) for grey in (40, 90)]
    for file_format in ("GIF", "TIFF"):
        content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(load_image(content), np.full((4, 5, 3), 40))


# The eight orientations, undone by hand: stored pixels -> upright pixels
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_orientation(tmp_path, orientation, file_format):
    stored = noise(6, 17)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned"
    Image.fromarray(stored).save(path, file_format, exif=exif)
    for source in (path, path.read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(load_image(source), UPRIGHT[orientation](stored))


def test_corrupt_exif_is_no_orientation():
    content = encoded(Image.new("RGB", (9, 5), (10, 200, 30)), "JPEG", exif=b"Exif\0\0garbage")
    assert load_image(content).shape == (5, 9, 3)


# Pillow modes

COLOUR = (200, 60, 30)
COLOUR_TOLERANCE = {"RGB": 0, "RGBA": 0, "RGBX": 0, "RGBa": 0, "CMYK": 0, "YCbCr": 2, "HSV": 4}


@pytest.mark.parametrize("mode", COLOUR_TOLERANCE)
def test_colour_modes(mode):
    base = Image.new("RGB", (7, 5), COLOUR)
    image = base.convert("RGBA").convert(mode) if mode == "RGBa" else base.convert(mode)
    assert image.mode == mode
    off = np.abs(load_image(image).astype(int) - COLOUR)
    assert off.shape == (5, 7, 3) and off.max() <= COLOUR_TOLERANCE[mode]


def test_lab():
    # The red of sRGB is L* 53.2 (of 100, as 136 of 255), a* 80.1 and b* 67.2 (both above 128).
    off = np.abs(load_image(Image.new("LAB", (3, 2), (136, 208, 195))).astype(int) - (255, 0, 0))
    assert off.shape == (2, 3, 3) and off.max() <= 12


@pytest.mark.parametrize(
    ("mode", "stored", "grey"),
    [
        ("1", 1, 255),
        ("L", 77, 77),
        ("LA", (77, 255), 77),
        ("I", 77, 77),
        ("I", 300, 1),  # over 255, so 16 bits: 300 / 257
        ("I", 65535, 255),
        ("I;16", 77 * 257, 77),
        ("I;16", 77 * 257 + 128, 77),
        ("I;16", 77 * 257 + 129, 78),
        ("I;16L", 77 * 257, 77),
        ("I;16B", 77 * 257, 77),
        ("F", 77.4, 77),
        ("F", 0.5, 128),
    ],
)
def test_grey_modes(mode, stored, grey):
    np.testing.assert_array_equal(load_image(Image.new(mode, (3, 2), stored)), np.full((2, 3, 3), grey))


def test_palette():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([2, 0, 1])
    np.testing.assert_array_equal(load_image(image)[0], [(0, 0, 255), (255, 0, 0), (0, 255, 0)])


@pytest.mark.parametrize(("value", "values"), [(-1, "-1 to 9000"), (65536, "0 to 65536")])
def test_32_bit_grey_out_of_range(value, values):
    with pytest.raises(ImageError, match=f"Pillow image I 3x1 px: 32-bit grey of {values}; scale it"):
        load_image(Image.fromarray(np.array([[0, value, 9000]], np.int32)))


def test_sixteen_bit_grey_files(tmp_path):
    values = np.array([[0, 100, 257, 32768, 65535]], np.uint16)
    expected = np.repeat(np.array([[[0], [0], [1], [128], [255]]]), 3, axis=2)
    for name in ("line.png", "line.tiff", "line.pgm"):
        path = tmp_path / name
        cv2.imwrite(str(path), values)
        np.testing.assert_array_equal(load_image(path), expected, err_msg=name)
        np.testing.assert_array_equal(load_image(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), expected)


def test_dark_sixteen_bit_file_stays_dark(tmp_path):
    """No value above 255, yet it is 16-bit grey: the file says so."""
    path = tmp_path / "dark.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 200))
    np.testing.assert_array_equal(load_image(path), np.array([[[0] * 3, [1] * 3]]))


# Transparency: black ink on nothing is black ink on white paper


def palette_with_clear(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 9, 9, 9, 50, 50, 50])
    image.putdata([0, 1, 2])
    return encoded(image, transparency=transparency)


def test_alpha_on_white():
    pixels = [(0, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 128), (200, 100, 0, 51), (60, 60, 60, 130)]
    # 255 - 128 = 127; 51 is a fifth, so 4/5 of 255 = 204 plus a fifth of the ink; 125 + 60 * 130 / 255 = 155.6
    expected = np.array([[BLACK, WHITE, (127,) * 3, (244, 224, 204), (156,) * 3]])
    rgba = np.array([pixels], np.uint8)
    image = Image.fromarray(rgba)
    for source in (image, encoded(image), encoded(image, "TIFF"), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)):
        np.testing.assert_array_equal(load_image(source), expected)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBa", "PA"])
def test_other_alpha_modes(mode):
    image = Image.fromarray(np.array([[(0, 255), (0, 0), (0, 128)]], np.uint8), "LA")
    if mode == "PA":
        palette_alpha = Image.new("PA", (3, 1))
        palette_alpha.putdata([(0, 255), (0, 0), (0, 128)])
        palette_alpha.putpalette([0, 0, 0])
        image = palette_alpha
    elif mode != "LA":
        image = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode)
    assert image.mode == mode
    np.testing.assert_array_equal(load_image(image), [[BLACK, WHITE, (127,) * 3]])


def test_transparent_colours():
    np.testing.assert_array_equal(load_image(palette_with_clear(1)), [[BLACK, WHITE, (50,) * 3]])
    np.testing.assert_array_equal(load_image(palette_with_clear(b"\xff\x00\x80")), [[BLACK, WHITE, (152,) * 3]])
    grey = Image.fromarray(np.array([[0, 9, 50]], np.uint8))
    np.testing.assert_array_equal(load_image(encoded(grey, transparency=9)), [[BLACK, WHITE, (50,) * 3]])
    rgb = encoded(grey.convert("RGB"), transparency=(9, 9, 9))
    np.testing.assert_array_equal(load_image(rgb), [[BLACK, WHITE, (50,) * 3]])
    deep = Image.fromarray(np.array([[0, 9, 50 * 257]], np.uint16))
    np.testing.assert_array_equal(load_image(encoded(deep, transparency=9)), [[BLACK, WHITE, (50,) * 3]])


# Arrays


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[0, 7 * 257, 65535]], np.uint16), [0, 7, 255]),
        (np.array([[0, 7 * 257, 65535]], ">u2"), [0, 7, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
        (np.array([[0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 0.5, 1.0]], np.float16), [0, 128, 255]),
        (np.array([[0, 0.6, 255.0]], np.float64), [0, 1, 255]),
        (np.array([[0, 1, 255]], np.int64), [0, 1, 255]),
        (np.array([[0, 1, 1]], np.int16), [0, 1, 1]),
        (np.array([[0, 1, 127]], np.int8), [0, 1, 127]),
        (np.array([[0, 1, 255]], np.uint32), [0, 1, 255]),
    ],
)
def test_array_types(values, expected):
    grey = np.repeat(np.array([expected])[:, :, None], 3, axis=2)
    for source in (values, values[:, :, None], np.dstack([values] * 3)):
        np.testing.assert_array_equal(load_image(source), grey)


def test_arrays_are_bgr_and_copied():
    bgr = noise(6, 9)
    view = bgr[::-1, ::2]  # neither contiguous nor forward
    loaded = load_image(view)
    np.testing.assert_array_equal(loaded, view[:, :, ::-1])
    before = bgr.copy()
    loaded[:] = 0
    np.testing.assert_array_equal(bgr, before)


def test_opaque_bgra():
    bgra = np.dstack([noise(6, 9), np.full((6, 9), 255, np.uint8)])
    np.testing.assert_array_equal(load_image(bgra), bgra[:, :, 2::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.0, np.nan]]), "values from nan to nan; give finite values"),
        (np.array([[0.0, np.inf]]), "values from 0.0 to inf; give finite values"),
        (np.array([[-0.1, 1.0]]), "values from -0.1 to 1.0"),
        (np.array([[0, 256.0]]), "values from 0.0 to 256.0"),
        (np.array([[-1, 5]]), "values from -1 to 5"),
        (np.array([[0, 256]], np.int32), "values from 0 to 256"),
        (np.array([[0j, 1]]), "complex128 holds no grey values; give uint8"),
        (np.array([["a"]]), "holds no grey values"),
        (np.zeros((0, 5), np.uint8), "5x0 px holds no pixel; check the crop"),
        (np.zeros((5, 0, 3), np.uint8), "0x5 px holds no pixel"),
        (np.zeros((3, 32, 300), np.uint8), r"array \(3, 32, 300\) uint8: give one image"),
        (np.zeros((1, 5, 9, 3), np.uint8), "give one image"),
        (np.zeros(5, np.uint8), "give one image"),
        (np.zeros((5, 9, 2), np.uint8), "give one image"),
        (np.array(3.0), "give one image"),
    ],
)
def test_refused_arrays(array, message):
    with pytest.raises(ImageError, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [5, [noise(4, 4)]])
def test_refused_types(source):
    with pytest.raises(ImageError, match=f"{type(source).__name__}: not an image source.*give a path"):
        load_image(source)
