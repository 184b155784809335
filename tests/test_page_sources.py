"""The pages of a file are told without decoding, in a time that the file's bytes bound."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.page.sources import open_pages


def tiff(*shades: int, more: int = 0) -> bytes:
    """A page of each shade, 40 px wide and one px higher than the one before; the last one again `more` times."""
    first, *others = [Image.new("L", (40, 30 + at), shade) for at, shade in enumerate(shades)]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=others)
    content = bytearray(buffer.getvalue())
    place, (start,) = 4, struct.unpack_from("<I", content, 4)
    while start:
        length = 2 + 12 * struct.unpack_from("<H", content, start)[0]
        directory, place = bytes(content[start : start + length]), start + length
        (start,) = struct.unpack_from("<I", content, place)
    for _ in range(more):
        content += b"\0" * (len(content) % 2)
        struct.pack_into("<I", content, place, len(content))
        place = len(content) + len(directory)
        content += directory + b"\0\0\0\0"
    return bytes(content)


def test_a_tiff_of_very_many_pages_is_refused_at_once():
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"^many\.tif: not a readable image, a TIFF of more than 10000 pages"):
        next(open_pages("many.tif", encoded=tiff(200, more=20_000)))
    assert time.monotonic() - started < 2.0  # Pillow takes some six seconds to count them


def test_a_header_of_very_many_chunks_costs_no_time():
    def chunk(kind: bytes, data: bytes = b"") -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ends = chunk(b"IDAT", zlib.compress(b"\0" * 33 * 32)) + chunk(b"IEND")
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0))
    started = time.monotonic()
    (page,) = open_pages("a.png", encoded=header + chunk(b"pHYs", struct.pack(">IIB", 3937, 3937, 1)) + ends)
    assert page.dpi == pytest.approx(100, abs=0.1)
    (page,) = open_pages("a.png", encoded=header + 300_000 * chunk(b"prVt") + ends)
    assert page.dpi == 200 and time.monotonic() - started < 1.0  # in Pillow's reader they take three seconds


@pytest.mark.parametrize("as_file", [False, True])
def test_pages_of_a_tiff_come_in_order_and_one_that_is_damaged_is_named(tmp_path, as_file):
    content = tiff(10, 90, 170)
    path = tmp_path / "three.tif"
    path.write_bytes(content)
    given = {} if as_file else {"encoded": content}
    found = [(page.number, page.pages, page.open()) for page in open_pages(str(path), **given)]
    assert [(number, pages) for number, pages, _ in found] == [(1, 3), (2, 3), (3, 3)]
    assert [(image.height, image.getpixel((5, 5))) for _, _, image in found] == [(30, 10), (31, 90), (32, 170)]

    directories = [struct.unpack_from("<I", content, 4)[0]]
    for _ in range(2):
        tags = struct.unpack_from("<H", content, directories[-1])[0]
        directories.append(struct.unpack_from("<I", content, directories[-1] + 2 + 12 * tags)[0])
    broken = bytearray(content)
    struct.pack_into("<H", broken, directories[-1], 60_000)  # tags
    path.write_bytes(broken)
    given = {} if as_file else {"encoded": bytes(broken)}
    *sound, last = open_pages(str(path), **given)
    assert [page.open().height for page in sound] == [30, 31]
    with pytest.raises(ImageError, match=r"three\.tif, page 3 of 3: cannot be decoded \(a directory of more than 1000"):
        last.open()


def test_a_chain_of_pages_that_leads_back_has_an_end():
    content = bytearray(tiff(10, 90))
    first = struct.unpack_from("<I", content, 4)[0]
    second = struct.unpack_from("<I", content, first + 2 + 12 * struct.unpack_from("<H", content, first)[0])[0]
    struct.pack_into("<I", content, second + 2 + 12 * struct.unpack_from("<H", content, second)[0], first)
    assert [page.number for page in open_pages("loop.tif", encoded=bytes(content))] == [1, 2]
