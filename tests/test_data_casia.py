"""CASIA's files, written here byte by byte from the description on the databases' own page, and lines made of them.

nlpr.ia.ac.cn/databases/handwriting/Offline_database.html:
sizes, order and meaning of the fields. No code of ours writes.
"""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_ocr_handwritten.data.formats import find_format
from ms_ocr_handwritten.errors import DataError
from ms_ocr_handwritten.lmdb.build import BuildOptions, ReadOptions, build_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader

INK = np.array([[255, 0, 255, 254], [7, 255, 255, 255]], np.uint8)


def header(code: bytes, code_type: bytes = b"GB", length: int = 2, bits: int = 8, lines: int = 1) -> bytes:
    illustration = b"#HWDB sample"
    return (
        struct.pack("<i", 36 + len(illustration))
        + code.ljust(8, b"\0")
        + illustration
        + code_type.ljust(20, b"\0")
        + struct.pack("<hh", length, bits)
        + struct.pack("<iii", 3000, 2000, lines)
    )


def codes(text: str) -> bytes:
    """Two bytes a character as the databases store them: GBK, ASCII followed by a zero."""
    return b"".join(character.encode("gbk").ljust(2, b"\0") for character in text)


def dgrl_line(label: bytes, bitmap: np.ndarray, place: tuple[int, int] = (100, 50)) -> bytes:
    return struct.pack("<i", len(label) // 2) + label + struct.pack("<iiii", *place, *bitmap.shape) + bitmap.tobytes()


def gnt_sample(code: bytes, bitmap: np.ndarray) -> bytes:
    height, width = bitmap.shape
    return struct.pack("<I2sHH", 10 + height * width, code, width, height) + bitmap.tobytes()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def built(tmp_path: Path, source: Path, **read) -> tuple[list[tuple[np.ndarray, str]], list[str], LmdbReader]:
    """(pixels, label) of the samples, the reasons of what was left out, and the LMDB."""
    report = build_lmdb(tmp_path / "out", source, on_bad_sample="skip", options=BuildOptions(read=ReadOptions(**read)))
    reader = LmdbReader(tmp_path / "out")
    samples = [reader.read(index) for index in range(len(reader))]
    pixels = [np.array(Image.open(io.BytesIO(image))) for image, _ in samples]
    return list(zip(pixels, (label for _, label in samples))), [one.reason for one in report.skipped], reader


def test_a_page_gives_its_lines_pixel_for_pixel_with_writer_and_page(tmp_path):
    page = header(b"DGRL", lines=2) + dgrl_line(codes("中文，A1"), INK) + dgrl_line(codes("啊"), INK.T.copy())
    written(tmp_path / "HWDB2.0Test" / "001-P16.dgrl", page)
    samples, skipped, reader = built(tmp_path, tmp_path / "HWDB2.0Test")
    assert skipped == [] and [label for _, label in samples] == ["中文，A1", "啊"]
    assert np.array_equal(samples[0][0], INK) and np.array_equal(samples[1][0], INK.T)
    assert [reader.beside(1, kind) for kind in ("source", "writer", "page")] == ["001-P16.dgrl#2", "001", "001-P16"]


def test_one_bit_pages_and_other_codes(tmp_path):
    packed = np.packbits(INK != 255, axis=1)
    line = struct.pack("<i", 2) + b"ab" + struct.pack("<iiii", 0, 0, 2, 4) + packed.tobytes()
    written(tmp_path / "in" / "7-P1.dgrl", header(b"DGRL", b"ASCII", 1, 1) + line)
    samples, skipped, _ = built(tmp_path, tmp_path / "in")
    assert skipped == [] and samples[0][1] == "ab"
    assert np.array_equal(samples[0][0], np.where(INK != 255, 0, 255))


def test_a_page_of_characters_is_put_together_without_the_ink_that_is_none(tmp_path):
    def character(code: bytes, top: int, left: int, bitmap: np.ndarray) -> bytes:
        return code + struct.pack("<HHHH", top, left, *bitmap.shape) + bitmap.tobytes()

    dot = np.zeros((1, 1), np.uint8)
    line = struct.pack("<i", 4) + character(codes("中"), 10, 20, INK) + character(b"\xff\xff", 0, 0, dot)
    line += character(codes("。"), 12, 23, dot) + character(codes("丶"), 10, 20, np.full((2, 2), 9, np.uint8))
    samples, skipped, _ = built(tmp_path, written(tmp_path / "003-P2.dgr", header(b"DGR") + line))
    assert skipped == [] and samples[0][1] == "中。丶"
    expected = np.full((3, 4), 255, np.uint8)
    expected[:2], expected[2, 3] = INK, 0
    expected[:2, :2] = [[9, 0], [7, 9]]  # where two overlap, the darker pixel
    assert np.array_equal(samples[0][0], expected)


def test_a_label_with_ink_that_is_no_character_is_left_out_by_name(tmp_path):
    page = header(b"DGRL", lines=3) + dgrl_line(codes("一") + b"\xff\xff", INK)
    page += dgrl_line(b"\x81\x20", INK) + dgrl_line(codes("二"), INK)
    path = written(tmp_path / "001-P1.dgrl", page)
    samples, skipped, _ = built(tmp_path, path)
    assert [label for _, label in samples] == ["二"]
    assert skipped[0].startswith(f"{path}: line 1: the label marks ink that is not a character (0xFF)")
    assert skipped[1] == f"{path}: line 2: the code 81 20 is not a character of gb18030"


def test_a_page_that_is_cut_off_keeps_its_first_lines_and_names_the_offset(tmp_path):
    whole = header(b"DGRL", lines=3) + dgrl_line(codes("一"), INK) * 3
    written(tmp_path / "in" / "b-P1.dgrl", whole)
    path = written(tmp_path / "in" / "a-P1.dgrl", whole[:-35])
    samples, skipped, _ = built(tmp_path, tmp_path / "in")
    assert len(samples) == 1 + 3
    bitmap = len(whole) - 30 - 8
    assert skipped == [
        f"{path}: truncated: the bitmap of line 2 of 3 takes 8 bytes from offset {bitmap}, but the file ends at "
        f"{len(whole) - 35}; copy or unpack it again; lines 2 to 3 are lost"
    ]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x05\0", "truncated: the header's size takes 4 bytes from offset 0, but the file ends at 2"),
        (struct.pack("<i", 12) + b"DGRL", r"a header of 12 bytes \(36 or more expected\) at offset 0"),
        (header(b"PNG") + b"", "the format code b'PNG.* at offset 4; the file is damaged, or of another format"),
        (header(b"DGRL", b"EBCDIC"), "the code type 'EBCDIC' of 2 bytes"),
        (header(b"DGRL", bits=24), "24 bits per pixel"),
        (header(b"DGRL") + struct.pack("<i", -1), "line 1 of 1 has -1 characters at offset"),
        (
            header(b"DGRL") + dgrl_line(b"", INK)[:4] + struct.pack("<iiii", 0, 0, 2**20, 2**20),
            "is 1048576 x 1048576 px",
        ),
        (header(b"DGRL") + dgrl_line(codes("一"), INK) + b"more", "4 bytes beyond its last line at offset"),
    ],
)
def test_damaged_pages_are_named_with_what_and_where(tmp_path, content, message):
    path = written(tmp_path / "in" / "001-P1.dgrl", content)
    with pytest.raises(DataError, match=message) as caught:
        build_lmdb(tmp_path / "out", tmp_path / "in")
    assert str(path) in str(caught.value) and not list(tmp_path.glob("*out*"))


def test_characters_become_lines_of_one(tmp_path):
    samples = gnt_sample(b"\xb0\xa1", INK) + gnt_sample(b"A\0", INK.T.copy()) + gnt_sample(b"\xff\xff", INK)
    path = written(tmp_path / "1001-c.gnt", samples)
    found, skipped, reader = built(tmp_path, path)
    assert [label for _, label in found] == ["啊", "A"]  # 0xb0a1: the description's own example
    assert np.array_equal(found[1][0], INK.T) and reader.beside(1, "writer") == "1001"
    assert len(skipped) == 1 and "character 3 at offset 36" in skipped[0]


@pytest.mark.parametrize("cut, offset", [(3, 18), (9, 18), (30, None)])
def test_characters_cut_off_are_named_by_offset(tmp_path, cut, offset):
    samples = gnt_sample(b"\xb0\xa1", INK) * 2
    _, skipped, _ = built(tmp_path, written(tmp_path / "1-c.gnt", samples[: 18 + cut]))
    if offset is None:
        assert skipped == []
    else:
        assert len(skipped) == 1 and f"from offset {18 + (cut > 4) * 4 + (cut > 6) * 2 + (cut > 10) * 4}" in skipped[0]


def test_a_sample_whose_size_is_not_that_of_its_bitmap_is_refused(tmp_path):
    damaged = struct.pack("<I2sHH", 99, b"A\0", 4, 2) + INK.tobytes()
    with pytest.raises(DataError, match="a sample of 99 bytes with a bitmap of 4 x 2 px at offset 0"):
        build_lmdb(tmp_path / "out", written(tmp_path / "1-c.gnt", damaged))


def test_lines_are_pasted_of_one_writers_characters_and_say_the_texts(tmp_path):
    def glyph(level: int, height: int, width: int) -> np.ndarray:
        return np.full((height, width), level, np.uint8)

    first = gnt_sample(codes("天"), glyph(10, 40, 30)) + gnt_sample(codes("地"), glyph(20, 44, 32))
    first += gnt_sample(codes("，"), glyph(30, 8, 6))
    written(tmp_path / "in" / "001-c.gnt", first)
    written(tmp_path / "in" / "002-c.gnt", gnt_sample(codes("天"), glyph(50, 20, 20)))
    texts = written(tmp_path / "texts.txt", "天，地\n地天\n人\n天 天\n".encode())
    samples, skipped, reader = built(tmp_path, tmp_path / "in", compose=3, texts=texts)
    by_writer = [(reader.beside(index, "writer"), label) for index, (_, label) in enumerate(samples)]
    assert sorted(by_writer) == sorted([("001", "天，地"), ("001", "地天"), ("001", "天 天"), ("002", "天 天")])
    assert len(skipped) == 1 and "002-c.gnt: 1 lines of 3 composed" in skipped[0]
    line = dict(zip(by_writer, (pixels for pixels, _ in samples)))[("001", "天，地")]
    assert [np.count_nonzero(line == level) for level in (10, 20, 30)] == [
        40 * 30,
        44 * 32,
        8 * 6,
    ]  # nothing is covered
    columns = [int(np.flatnonzero((line == level).any(0)).min()) for level in (10, 30, 20)]
    assert columns == sorted(columns) and columns[0] == 0
    rows = [int(np.flatnonzero((line == level).any(1)).max()) for level in (10, 30)]
    assert rows[1] > line.shape[0] / 2  # the comma stands low
    assert set(np.unique(line)) == {10, 20, 30, 255}  # no pixel of another writer


def test_composing_is_drawn_by_the_seed(tmp_path):
    path = written(tmp_path / "001-c.gnt", gnt_sample(codes("天"), INK) + gnt_sample(codes("天"), INK.T.copy()))
    texts = written(tmp_path / "texts.txt", "天天天天天天\n".encode())

    def lines(seed: int, name: str) -> list[bytes]:
        options = BuildOptions(read=ReadOptions(compose=1, texts=texts, seed=seed))
        build_lmdb(tmp_path / name, path, options=options)
        return [LmdbReader(tmp_path / name).image_bytes(0)]

    assert lines(1, "a") == lines(1, "b") != lines(2, "c")


def test_composing_needs_a_text(tmp_path):
    path = written(tmp_path / "001-c.gnt", gnt_sample(codes("天"), INK))
    with pytest.raises(DataError, match="composing lines needs a text to write; name a UTF-8 file"):
        build_lmdb(tmp_path / "out", path, options=BuildOptions(read=ReadOptions(compose=1)))


def test_the_three_suffixes_are_known_and_found_below_a_folder(tmp_path):
    for name in ("a.dgrl", "b.DGR", "c.gnt"):
        assert find_format(written(tmp_path / "deep" / "er" / name, b"x"))[0] == "casia"
    assert find_format(tmp_path) == ("casia", tmp_path)
