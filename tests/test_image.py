"""Every kind of source gives the pixels it should, every unusable one an error that says which and what to do."""

import http.server
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image import Limits, line_canvas, load_image, rgb_chunks

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 100))


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


@pytest.mark.parametrize("source", [None, 5, [noise(4, 4)], io.BytesIO(b"x")])
def test_refused_types(source):
    with pytest.raises(ImageError, match=f"{type(source).__name__}: not a source.*give a path"):
        load_image(source)


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


def test_no_image(tmp_path):
    path = tmp_path / "page.png"
    path.write_bytes(b"<!doctype html><p>sign in")
    with pytest.raises(ImageError, match="page.png: no image .*<!doctype html>.*give a PNG or JPEG"):
        load_image(path)


def test_eps_never_reaches_ghostscript():
    with pytest.raises(ImageError, match="EPS is a program for Ghostscript"):
        load_image(encoded(Image.new("L", (4, 4)), "EPS"))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated(tmp_path, file_format, kept):
    content = encoded(Image.fromarray(noise(40, 90)), file_format)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ImageError, match=f"{path}: (cannot be decoded|no image that Pillow reads)"):
        load_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_closed_pillow_image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "line.png")
    image = Image.open(tmp_path / "line.png")
    image.close()
    with pytest.raises(ImageError, match="Pillow image L 4x4 px: cannot be decoded"):
        load_image(image)


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
    assert Image.MAX_IMAGE_PIXELS == before


def test_pixel_limit_comes_before_decoding(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png_header(9000, 8000))  # hardly any pixel data: decoding would say "truncated"
    with pytest.raises(ImageError, match="large.png: 9000x8000 px is over the limit of 64000000 pixels"):
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


# URLs

LINE_PNG = encoded(Image.fromarray(noise(8, 20)))


class Site(http.server.BaseHTTPRequestHandler):
    """One path for each way in which a server can be good, wrong, slow or endless."""

    sent = 0
    stop = threading.Event()

    def log_message(self, *args):
        pass

    def do_GET(self):
        getattr(self, self.path.strip("/").split("?")[0].replace("-", "_"), self.unknown)()

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def unknown(self):
        self.reply(200 if self.path == "/%E6%89%8B%E5%86%99%20a.png" else 404, LINE_PNG)

    def line(self):
        self.reply(200, LINE_PNG)

    def moved(self):
        self.reply(302, Location="/line")

    def loop(self):
        self.reply(302, Location="/loop")

    def to_file(self):
        self.reply(302, Location="file:///etc/hostname")

    def to_ftp(self):
        self.reply(302, Location="ftp://127.0.0.1/line.png")

    def html(self):
        self.reply(200, b"<html>sign in")

    def nothing(self):
        self.reply(200, Content_Length="0")

    def announced(self):
        self.reply(200, Content_Length="999999999")

    def cut(self):
        self.reply(200, LINE_PNG[:200], Content_Length=str(len(LINE_PNG)))

    def endless(self):
        self.reply(200)
        self.trickle(bytes(65536), 0)

    def slow_body(self):
        self.reply(200)
        self.trickle(b"\0", 0.05)

    def slow_header(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        self.trickle(b"a", 0.05)

    def trickle(self, part, pause):
        try:
            while not self.stop.wait(pause):
                self.wfile.write(part)
                Site.sent += len(part)
        except OSError:
            pass  # the reader has gone, as it should


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    Site.sent = 0
    Site.stop.clear()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stop.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["line", "moved", "line?token=a%2Fb", "手写 a.png", "%E6%89%8B%E5%86%99%20a.png"])
def test_url(site, path):
    np.testing.assert_array_equal(load_image(f"{site}/{path}"), noise(8, 20))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.png", "download failed .*404"),
        ("loop", "download failed .*redirect"),
        ("to-file", "download failed .*not allowed"),
        ("to-ftp", "download failed .*ftp"),
        ("html", "no image that Pillow reads, it begins with b'<html>sign in'"),
        ("nothing", "empty"),
        ("announced", "over the limit of 67108864 bytes"),
        ("cut", "cannot be decoded|no image that Pillow reads"),
    ],
)
def test_useless_answers(site, path, message):
    with pytest.raises(ImageError, match=f"{site}/{path}: ({message})"):
        load_image(f"{site}/{path}", limits=Limits(url_timeout=5))


def test_endless_body_is_cut(site):
    with pytest.raises(ImageError, match="endless: over the limit of 1000000 bytes"):
        load_image(f"{site}/endless", limits=Limits(max_bytes=1_000_000))
    time.sleep(0.1)
    assert Site.sent < 20_000_000  # the limit and the socket's buffers, then the server found the door shut


@pytest.mark.parametrize("path", ["slow-body", "slow-header"])
def test_time_limit_is_a_total(site, path):
    start = time.monotonic()
    with pytest.raises(ImageError, match=f"{path}: not received within 0.4 s; try again or raise Limits.url_timeout"):
        load_image(f"{site}/{path}", limits=Limits(url_timeout=0.4))
    assert 0.4 <= time.monotonic() - start < 1.5
    assert Site.sent > 2  # it did trickle: no single wait was over the limit


def test_time_limit_covers_the_name_look_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(5) and [])
    start = time.monotonic()
    with pytest.raises(ImageError, match="not received within 0.2 s"):
        load_image("http://nowhere.invalid/a.png", limits=Limits(url_timeout=0.2))
    assert time.monotonic() - start < 1.5
    release.set()


def test_no_server(site):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        with pytest.raises(ImageError, match=f"{url}: download failed .*check the address and the network"):
            load_image(url)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/a.png", "s3://bucket/a.png", "FILE://x"])
def test_other_schemes(url):
    scheme = url.split(":")[0]
    with pytest.raises(ImageError, match=f"{url}: {scheme}:// is not read; give an http"):
        load_image(url)


# Canvas and chunks


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
    pieces = line.chunk_array()
    assert pieces.shape == (inked, 32, 300) and pieces.dtype == np.float32 and pieces.flags.c_contiguous
    for index in range(inked):
        np.testing.assert_array_equal(pieces[index], line.grey[:, 252 * index : 252 * index + 300])
    colour = rgb_chunks(rgb)
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
        rgb_chunks(np.zeros((32, 20209, 3), np.uint8))


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
    np.testing.assert_array_equal(rgb_chunks(load_image(path)), image.numpy())
    # The first line of upstream's ConvNextViT.forward
    grey = (image[:, 0:1] * 0.2989 + image[:, 1:2] * 0.5870 + image[:, 2:3] * 0.1140).numpy()[:, 0]
    ours = line_canvas(load_image(path)).chunk_array()
    np.testing.assert_array_equal(ours, grey[: len(ours)])
    assert not grey[len(ours) :].any()


def test_no_modelscope_no_torch():
    code = "import sys, ms_ocr_handwritten.image; print({'modelscope', 'transformers', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
