"""CASIA's offline databases: pages of lines (.dgrl, .dgr; HWDB 2.0-2.2, ICDAR 2013), characters (.gnt; HWDB 1.0-1.2).

All numbers are little-endian; ink is 0 to 254 on a background of 255; bitmaps are stored row by row.

    page     header size 4, format code 8 ("DGRL", "DGR"), illustration (header size - 36), code type 20 ("GB" ...),
             code length 2, bits per pixel 2 (8 or 1); page height 4, page width 4, lines 4; then the lines
    .dgrl    characters 4, codes (code length each), top 4, left 4, height 4, width 4, bitmap
    .dgr     characters 4; of each: code, top 2, left 2, height 2, width 2, bitmap
    .gnt     of each character: sample size 4 (10 + width * height), code 2, width 2, height 2, bitmap

A code of 0xFF bytes marks ink that is not a character. File names begin with the writer: 001-P16.dgrl, 1001-c.gnt.

Source of the format: the databases' own page, nlpr.ia.ac.cn/databases/handwriting/Offline_database.html.
"""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError, LabelError
from .record import BadRecord, ReadOptions, Record, Records

SUFFIXES = (".dgrl", ".dgr", ".gnt")
PAPER = 255

_FIXED_HEADER = 36  # bytes of a page's header without its illustration
_LONGEST_HEADER = 2**20
_LONGEST_LINE = 10_000  # characters; if exceeded, the file is damaged
_MOST_PIXELS = 64_000_000
_ENCODINGS = {"GB": "gb18030", "GBK": "gb18030", "GB2312": "gb18030", "ASCII": "ascii", "SJIS": "shift_jis"}


def files(path: Path) -> list[Path]:
    """The files of the database at `path`, a single file or a folder searched at any depth, in order of name."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def read(path: Path, options: ReadOptions) -> Records:
    """The lines of all pages and the characters of all .gnt files, or with `options.compose` lines composed of these.

    A truncated or damaged file yields the records before the fault, then a BadRecord with the fault's offset.
    """
    base = path if path.is_dir() else path.parent
    for file in files(path):
        name = file.relative_to(base).as_posix()
        try:
            if file.suffix.lower() != ".gnt":
                yield from _page(file, name)
            elif options.compose:
                from .compose import compose

                yield from compose(file, name, options)
            else:
                yield from _single_characters(file, name)
        except DataError as error:
            yield BadRecord(str(file), error)
        except OSError as error:
            yield BadRecord(str(file), DataError(f"{file}: cannot be read ({error.strerror}); check its permissions"))


def count(path: Path, options: ReadOptions) -> int | None:
    """The number of lines according to the pages' headers; None for character files, which have no such header."""
    total = 0
    for file in files(path):
        if file.suffix.lower() == ".gnt":
            return None
        try:
            with open(file, "rb") as stream:
                total += _Bytes(stream, file).header().lines
        except (DataError, OSError):
            continue  # reported when it is read
    return total


class _Bytes:
    """A file read sequentially; reading beyond its end raises DataError with the offset."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path, self.offset = stream, path, 0
        self.size = os.fstat(stream.fileno()).st_size

    def take(self, length: int, what: str) -> bytes:
        if length > self.size - self.offset:
            raise DataError(
                f"{self.path}: truncated: {what} takes {length} bytes from offset {self.offset}, but the file ends at "
                f"{self.size}; copy or unpack it again"
            )
        self.offset += length
        return self.stream.read(length)

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what))

    def refuse(self, what: str, length: int = 0) -> DataError:
        """The error for the last `length` bytes read."""
        return DataError(
            f"{self.path}: {what} at offset {self.offset - length}; the file is damaged, or of another format"
        )

    def header(self) -> "_Header":
        (size,) = self.numbers("i", "the header's size")
        if not _FIXED_HEADER <= size <= _LONGEST_HEADER:
            raise self.refuse(f"a header of {size} bytes ({_FIXED_HEADER} or more expected)", 4)
        code = self.take(8, "the format code")
        if not code.startswith(b"DGR"):
            raise self.refuse(f"the format code {code!r} (DGRL or DGR expected)", 8)
        self.take(size - _FIXED_HEADER, "the illustration")
        name = _text(self.take(20, "the code type"))
        code_length, bits = self.numbers("hh", "code length and bits per pixel")
        if name.upper() not in _ENCODINGS or not 1 <= code_length <= 8:
            raise self.refuse(f"the code type {name!r} of {code_length} bytes ({', '.join(_ENCODINGS)} are read)", 24)
        if bits not in (1, 8):
            raise self.refuse(f"{bits} bits per pixel (1 or 8 expected)", 2)
        _, _, lines = self.numbers("iii", "height, width and number of lines of the page")
        if lines < 0:
            raise self.refuse(f"{lines} lines", 4)
        return _Header(code.startswith(b"DGRL"), _ENCODINGS[name.upper()], code_length, bits, lines)

    def characters(self, line: str) -> int:
        (number,) = self.numbers("i", f"the number of characters of {line}")
        if not 0 <= number <= _LONGEST_LINE:
            raise self.refuse(f"{line} has {number} characters", 4)
        return number

    def bitmap(self, height: int, width: int, bits: int, what: str) -> np.ndarray:
        """uint8 (height, width), background 255."""
        if not (height > 0 and width > 0 and height * width <= _MOST_PIXELS):
            raise self.refuse(f"{what} is {width} x {height} px")
        if bits == 8:
            return np.frombuffer(self.take(height * width, f"the bitmap of {what}"), np.uint8).reshape(height, width)
        row = -(-width // 8)
        packed = np.frombuffer(self.take(height * row, f"the bitmap of {what}"), np.uint8).reshape(height, row)
        return np.where(np.unpackbits(packed, axis=1, count=width), 0, PAPER).astype(np.uint8)


class _Header:
    def __init__(self, whole_lines: bool, encoding: str, code_length: int, bits: int, lines: int) -> None:
        self.whole_lines, self.encoding, self.code_length = whole_lines, encoding, code_length
        self.bits, self.lines = bits, lines


def writer_of(file: Path) -> str:
    return file.stem.partition("-")[0]


def _page(file: Path, name: str) -> Records:
    with open(file, "rb") as stream:
        data = _Bytes(stream, file)
        header = data.header()
        read_line = _line if header.whole_lines else _line_of_characters
        for number in range(1, header.lines + 1):
            where = f"{file}: line {number}"
            try:
                codes, image = read_line(data, header, f"line {number} of {header.lines}")
            except DataError as error:
                yield BadRecord(where, DataError(f"{error}; lines {number} to {header.lines} are lost"))
                return
            try:
                text = "".join(_character(code, header.encoding) for code in codes)
            except LabelError as error:
                yield BadRecord(where, LabelError(f"{where}: {error}"))
                continue
            yield Record(
                where=where, text=text, image=image, source=f"{name}#{number}", writer=writer_of(file), page=file.stem
            )
        if data.offset != data.size:
            yield BadRecord(str(file), data.refuse(f"{data.size - data.offset} bytes beyond its last line"))


def _line(data: _Bytes, header: _Header, line: str) -> tuple[list[bytes], np.ndarray]:
    length = header.code_length
    codes = data.take(length * data.characters(line), f"the label of {line}")
    _, _, height, width = data.numbers("iiii", f"the place of {line}")
    image = data.bitmap(height, width, header.bits, line)
    return [codes[at : at + length] for at in range(0, len(codes), length)], image


def _line_of_characters(data: _Bytes, header: _Header, line: str) -> tuple[list[bytes], np.ndarray]:
    """The codes and the image of a line whose characters are stored one by one; ink that is no character is dropped."""
    codes, places = [], []
    for number in range(1, data.characters(line) + 1):
        what = f"character {number} of {line}"
        code = data.take(header.code_length, f"the code of {what}")
        top, left, height, width = data.numbers("HHHH", f"the place of {what}")
        bitmap = data.bitmap(height, width, header.bits, what)
        if not _is_no_character(code):
            codes.append(code)
            places.append((top, left, bitmap))
    height = max((top + bitmap.shape[0] for top, _, bitmap in places), default=1)
    width = max((left + bitmap.shape[1] for _, left, bitmap in places), default=1)
    if height * width > _MOST_PIXELS:
        raise data.refuse(f"{line} reaches to ({width}, {height}) px")
    return codes, paste(places)


def paste(places: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
    """Bitmaps at their (top, left) on the smallest background that holds them; where they overlap, the darker wins."""
    if not places:
        return np.full((1, 1), PAPER, np.uint8)
    first_row, first_column = min(top for top, _, _ in places), min(left for _, left, _ in places)
    height = max(top + bitmap.shape[0] for top, _, bitmap in places) - first_row
    width = max(left + bitmap.shape[1] for _, left, bitmap in places) - first_column
    paper = np.full((height, width), PAPER, np.uint8)
    for top, left, bitmap in places:
        y, x = top - first_row, left - first_column
        under = paper[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
        np.minimum(under, bitmap, out=under)
    return paper


def characters(file: Path) -> Iterator[tuple[int, bytes, np.ndarray]]:
    """(offset, code, uint8 (height, width)) of the characters of a .gnt file. Raises DataError if it is damaged."""
    with open(file, "rb") as stream:
        data = _Bytes(stream, file)
        while (start := data.offset) < data.size:
            (size,) = data.numbers("I", "a sample's size")
            code = data.take(2, "a code")
            width, height = data.numbers("HH", "a sample's width and height")
            if size != 10 + width * height:
                raise data.refuse(f"a sample of {size} bytes with a bitmap of {width} x {height} px", 10)
            yield start, code, data.bitmap(height, width, 8, "the sample")


def _single_characters(file: Path, name: str) -> Records:
    for number, (offset, code, image) in enumerate(characters(file), start=1):
        where = f"{file}: character {number} at offset {offset}"
        try:
            text = decode(code)
        except LabelError as error:
            yield BadRecord(where, LabelError(f"{where}: {error}"))
            continue
        yield Record(
            where=where, text=text, image=image, source=f"{name}#{number}", writer=writer_of(file), page=file.stem
        )


def decode(code: bytes) -> str:
    """The character for a code of a .gnt file. Raises LabelError if there is none."""
    return _character(code, "gb18030")


@lru_cache(maxsize=30_000)
def _character(code: bytes, encoding: str) -> str:
    if _is_no_character(code):
        raise LabelError("the label marks ink that is not a character (0xFF), so the text is not that of the image")
    try:
        character = code.rstrip(b"\0").decode(encoding)
    except UnicodeDecodeError:
        raise LabelError(f"the code {code.hex(' ')} is not a character of {encoding}") from None
    if len(character) != 1:
        raise LabelError(f"the code {code.hex(' ')} is {len(character)} characters, not one")
    return character


def _is_no_character(code: bytes) -> bool:
    return not code.strip(b"\xff")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace").strip()
