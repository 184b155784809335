"""Unusable images, and images over the limits: errors that say which and what to do."""

import io
import os
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import encoded, noise
from PIL import Image, ImageFile

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image import Limits, load_image
from ms_ocr_handwritten.image import load as image_module


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


# Unusable files


def test_missing_and_special_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="nowhere.png: no such file .*check the path"):
        load_image("nowhere.png")
    with pytest.raises(ImageError, match=f"{tmp_path}: this is a directory"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="no such file"):
        load_image("")
    with pytest.raises(ImageError, match="not a path"):
        load_image("null\0byte.png")
    with pytest.raises(ImageError, match="check the path") as caught:
        load_image("A" * 100_000)  # base64 text
    assert len(str(caught.value)) < 500
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe: this is no regular file"):
        load_image(tmp_path / "pipe")


def test_permission(tmp_path):
    path = tmp_path / "closed.png"
    path.write_bytes(encoded(Image.new("L", (4, 4))))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match="closed.png: Permission denied; check the path and its permissions"):
            load_image(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("content", [b"", bytearray()])
def test_empty(tmp_path, content):
    path = tmp_path / "empty.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="empty.png: empty"):
        load_image(path)
    with pytest.raises(ImageError, match="0 encoded bytes: empty"):
        load_image(content)


@pytest.mark.parametrize("content", [b"<!doctype html><p>sign in", b"P2 secret password", b"P2 1 1 255 password"])
def test_no_image_and_no_word_of_what_it_was(tmp_path, content):
    path = tmp_path / "page.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="page.png: (not a readable image|cannot be decoded)") as caught:
        load_image(path)
    assert "give a PNG or JPEG" in str(caught.value) or "write or send it again" in str(caught.value)
    assert not any(word in str(caught.value) for word in ("sign in", "secret", "password"))


def test_a_pdf_is_named_with_what_reads_it(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    with pytest.raises(ImageError, match="scan.png: a PDF, not an image of a line; `ms-ocr page` reads its pages"):
        load_image(tmp_path / "scan.png")


def test_a_deleted_working_directory_is_named_as_such(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ImageError, match=r"x.png: no such file \(looked in a working directory that no longer exists"):
        load_image("x.png")


def test_memory_that_is_missing_is_not_damage(monkeypatch):
    def load(self):
        raise MemoryError

    content = encoded(Image.new("L", (9, 5)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(ImageError, match="9x5 px: not enough memory to decode it; shrink the image"):
        load_image(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated(tmp_path, file_format, kept):
    content = encoded(Image.fromarray(noise(40, 90)), file_format)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ImageError, match=f"{path}: (cannot be decoded|not a readable image)"):
        load_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_closed_pillow_image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "line.png")
    image = Image.open(tmp_path / "line.png")
    image.close()
    with pytest.raises(ImageError, match="Pillow image L 4x4 px: cannot be decoded"):
        load_image(image)


def test_a_pillow_image_of_another_format_is_not_decoded_here():
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", (9, 5), (1, 2, 3)), "TGA")))
    with pytest.raises(
        ImageError, match=r"TGA is not a supported format; give .* copy of the image \(`image.copy\(\)`\)"
    ):
        load_image(image)
    assert load_image(image.copy()).shape == (5, 9, 3)


def test_threads_share_the_memory_for_decoding(monkeypatch):
    """Ten images of 100 pixels, of which the limit lets two be decoded at a time."""
    at_once, most, lock = [0], [0], threading.Lock()
    load = Image.Image.load

    def slow_load(self):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        with lock:
            at_once[0] -= 1
        return load(self)

    monkeypatch.setattr(Image.Image, "load", slow_load)
    images = [Image.new("L", (10, 10), 7) for _ in range(10)]
    with ThreadPoolExecutor(5) as pool:
        for rgb in pool.map(lambda image: load_image(image, limits=Limits(max_pixels=200)), images):
            assert rgb.shape == (10, 10, 3)
    assert most == [2]


def test_strips_give_what_the_whole_gives(monkeypatch):
    rgba = np.random.default_rng(0).integers(0, 256, (37, 50, 4), dtype=np.uint8)
    whole = load_image(Image.fromarray(rgba))
    monkeypatch.setattr(image_module, "_STRIP_PIXELS", 240)  # four rows
    np.testing.assert_array_equal(load_image(Image.fromarray(rgba)), whole)


# Limits


def bomb_bmp(side):
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(100)


def bomb_tiff(side):
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    "content",
    [png_header(100_000, 100_000), bomb_bmp(100_000), bomb_tiff(100_000), b"P6 100000 100000 255\n" + bytes(99)],
    ids=["png", "bmp", "tiff", "ppm"],
)
def test_bombs_are_refused_by_their_header(content):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="10000000000 pixels"):
        load_image(content)
    assert before == Image.MAX_IMAGE_PIXELS


def test_pixel_limit_comes_before_decoding(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(9000, 8000))  # hardly any pixel data: decoding would say "truncated"
    with pytest.raises(ImageError, match="large.png: 9000x8000 px is over the limit of 16000000 pixels"):
        load_image(path)
    limits = Limits(max_pixels=20)
    for source in (np.zeros((3, 7), np.uint8), Image.new("L", (7, 3)), encoded(Image.new("L", (7, 3)))):
        with pytest.raises(ImageError, match="7x3 px is over the limit of 20 pixels; crop .* raise Limits.max_pixels"):
            load_image(source, limits=limits)
    assert load_image(np.zeros((4, 5), np.uint8), limits=limits).shape == (4, 5, 3)


def test_byte_limit(tmp_path):
    content = encoded(Image.new("L", (7, 3)))
    path = tmp_path / "line.png"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match="over the limit of 10 bytes.*raise Limits.max_bytes"):
            load_image(source, limits=Limits(max_bytes=10))
        assert load_image(source, limits=Limits(max_bytes=len(content))).shape == (3, 7, 3)
