"""Sanitising encoded images: parts that decoders do not need are removed, and files too costly to decode are refused.

Pillow parses headers in Python, chunk by chunk, and some formats nest others, so that a small file can keep it busy
for minutes, or take gigabytes, before the first pixel. Here each supported format is scanned first: parts that do not
affect the pixels are left out, and the number of remaining parts is limited.
"""

import mmap
import re
import struct
from collections.abc import Callable

SLOW_BYTES = 2**20  # of formats that Pillow decodes in Python; takes about a second
_MAX_PARTS = 10_000  # chunks of a PNG; libpng writes one for 8 KiB
_MAX_SEGMENTS = 1000  # of a JPEG; colour profiles and thumbnails take dozens
_MAX_SCANS = 100  # of a JPEG; encoders write ten. Each one passes over all pixels
_MAX_BLOCKS = 100_000  # sub-blocks of a GIF before its first image
_MAX_TAGS = 1000  # of a TIFF or an Exif directory
_MAX_PAGES = 10_000  # of a TIFF
_MAX_TAGS_OF_PAGES = 300_000  # in total; scanners write some twenty per page
_MAX_STRIPS = 65_536  # strips or tiles of a TIFF
_MAX_J2K_TILES = 1024
_MAX_J2K_LAYERS = 256
_LEAST_J2K_PRECINCT = 5  # log2 px of the whole image; the decoder keeps a tree for each; small files can have millions
_MAX_JP2_HEADER = 100_000  # bytes

_FIRST_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.S)
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])", re.S)  # in a scan, FF 00 is data and D0-D7 are restarts
_PPM_HEADER = re.compile(rb"P(?:[14](?:SEP\d{1,9}){2}|[2356](?:SEP\d{1,9}){2}SEP(?P<greatest>\d{1,5}))\s".replace(
    b"SEP", rb"(?:\s|#[^\r\n]*[\r\n])+"
))  # fmt: skip
_TIFF_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF = rb"II[*+]\0|MM\0[*+]"
_STRIP_OFFSETS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 273, 322, 323, 324
_MAX_TIFF_TILE = 16_777_216  # px; the decoder holds one as a whole


class StructureError(ValueError):
    """The message says why an encoded image is not decoded; it repeats nothing of the image's content."""


def simplified(encoded: bytes) -> tuple[str, bytes]:
    """Pillow's name of the format, and the image without irrelevant parts. Raises StructureError."""
    for start, file_format, simplify in _FORMATS:
        if re.match(start, encoded, re.S):
            try:
                return file_format, simplify(encoded)
            except (struct.error, IndexError):
                raise StructureError("it is truncated or damaged") from None
    raise StructureError("no PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or JPEG 2000 file")


def sound_exif(exif: bytes) -> bool:
    """Whether the first directory of Exif data is safe for Pillow to parse: few tags, within the data."""
    try:
        _check_tiff(exif.removeprefix(b"Exif\0\0"))
    except (StructureError, struct.error, IndexError):
        return False
    return True


def _png(encoded: bytes) -> bytes:
    """The PNG without text, colour profiles, animation and private chunks."""
    kept, once, position = [encoded[:8]], {b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"eXIf", b"IEND"}, 8
    for _ in range(_MAX_PARTS):
        if position + 8 > len(encoded):
            return b"".join(kept)  # Pillow will report that it is truncated
        length, kind = struct.unpack_from(">I4s", encoded, position)
        chunk, position = encoded[position : position + 12 + length], position + 12 + length
        if kind == b"IDAT" or (kind in once and (kind != b"eXIf" or sound_exif(chunk[8:-4]))):
            kept.append(chunk)
        if kind == b"IEND":
            return b"".join(kept)
        once.discard(kind)
    raise StructureError(f"a PNG of more than {_MAX_PARTS} chunks")


def _jpeg(encoded: bytes) -> bytes:
    """The JPEG without comments, colour profiles, thumbnails and further images; at most one Exif and XMP segment."""
    kept, wanted, position = [encoded[:2]], [b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"], 2
    for _ in range(_MAX_SEGMENTS):
        found = _FIRST_JPEG_MARKER.search(encoded, position)
        if found is None or found[1] == b"\xd9":
            raise StructureError("a JPEG without picture")
        marker, position = found[1][0], found.end()
        if marker == 1 or 0xD0 <= marker <= 0xD8:  # these have no length
            continue
        (length,) = struct.unpack_from(">H", encoded, position)
        segment, position = encoded[position - 2 : position + length], position + length
        if length < 2 or position > len(encoded):
            raise StructureError("it is truncated or damaged")
        if marker == 0xDA:
            kept.append(segment + _scans(encoded, position))
            return b"".join(kept)
        if 0xC0 <= marker <= 0xDF:
            kept.append(segment)
        elif beginning := next((one for one in wanted if segment.startswith(one, 4)), None):
            wanted.remove(beginning)
            if beginning != b"Exif\0\0" or sound_exif(segment[4:]):
                kept.append(segment)
    raise StructureError(f"a JPEG of more than {_MAX_SEGMENTS} segments")


def _scans(encoded: bytes, start: int) -> bytes:
    """The data after the first scan header, up to the end of the image."""
    position, scans = start, 1
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(encoded, position)
        if found is None:
            return encoded[start:]
        position = found.end()
        if found[1] == b"\xd9":
            return encoded[start:position]
        if found[1] not in (b"\x01", b"\xd8") and position + 2 <= len(encoded):
            position += max(2, struct.unpack_from(">H", encoded, position)[0])
        scans += found[1] == b"\xda"
        if scans > _MAX_SCANS:
            raise StructureError(f"a JPEG of more than {_MAX_SCANS} scans")
    raise StructureError(f"a JPEG of more than {_MAX_SEGMENTS} segments")


def _gif(encoded: bytes) -> bytes:
    """The GIF without comments and extensions, except the one that defines the transparent colour."""
    position = 13 + ((3 << (encoded[10] & 7) + 1) if encoded[10] & 128 else 0)
    kept, control, blocks = encoded[:position], b"", 0
    while (kind := encoded[position]) != ord(","):
        if kind == ord(";"):
            raise StructureError("a GIF without picture")
        start, position = position, position + (2 if kind == ord("!") else 1)
        while kind == ord("!") and (size := encoded[position]):
            position, blocks = position + size + 1, blocks + 1
            if blocks > _MAX_BLOCKS:
                raise StructureError(f"a GIF of more than {_MAX_BLOCKS} blocks before its picture")
        position, blocks = position + (kind == ord("!")), blocks + 1
        if blocks > _MAX_BLOCKS:
            raise StructureError(f"a GIF of more than {_MAX_BLOCKS} blocks before its picture")
        if encoded[start : start + 2] == b"!\xf9":
            control = encoded[start:position]
    return kept + control + encoded[position:]


def _tiff(encoded: bytes) -> bytes:
    _check_tiff(encoded)
    return encoded


def tiff_pages(encoded: bytes | mmap.mmap) -> tuple[int, StructureError | None]:
    """Number of leading pages of a TIFF that may be decoded, and what is wrong with the next one, if anything.

    Each page's directory is checked as `simplified` checks the first. It is (0, None) for other formats. Raises
    StructureError if there are too many pages, since Pillow's time grows with the square of their number.
    """
    if not re.match(_TIFF, encoded[:4]):
        return 0, None
    found: set[int] = set()  # offsets of their directories; the chain may be cyclic
    tags_in_all = 0
    try:
        order, big, start = _first_directory(encoded)
        while start and start not in found:
            tags, end = _check_directory(encoded, order, big, start)
            found.add(start)
            tags_in_all += tags
            if len(found) > _MAX_PAGES or tags_in_all > _MAX_TAGS_OF_PAGES:
                break
            (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", encoded, end)
        else:
            return len(found), None
    except StructureError as error:
        return len(found), error
    except struct.error:
        return len(found), StructureError("it is truncated or damaged")
    raise StructureError(f"a TIFF of more than {_MAX_PAGES} pages, or of {_MAX_TAGS_OF_PAGES} tags")


def _check_tiff(encoded: bytes) -> None:
    """Raise StructureError if the first directory has too many tags, or more data than the file holds."""
    _check_directory(encoded, *_first_directory(encoded))


def _first_directory(encoded: bytes | mmap.mmap) -> tuple[str, bool, int]:
    """Byte order, whether it is a BigTIFF, and where the first directory begins."""
    order = "<" if encoded[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", encoded, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", encoded, 8 if big else 4)
    return order, big, start


def _check_directory(encoded: bytes | mmap.mmap, order: str, big: bool, start: int) -> tuple[int, int]:
    """Number of tags of the directory at `start`, and the offset of its end. Raises StructureError."""
    if start > len(encoded):
        raise StructureError("it is truncated or damaged")
    (tags,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", encoded, start)
    if tags > _MAX_TAGS:
        raise StructureError(f"a directory of more than {_MAX_TAGS} tags")
    entry, first = (f"{order}HHQQ", start + 8) if big else (f"{order}HHII", start + 2)
    total, tile = 0, [1, 1]
    for index in range(tags):
        place = first + index * struct.calcsize(entry)
        tag, kind, count, value = struct.unpack_from(entry, encoded, place)
        total += count * _TIFF_UNITS.get(kind, 1)
        if total > len(encoded):
            raise StructureError("its tags announce more than the file holds")
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > _MAX_STRIPS:
            raise StructureError(f"a TIFF of more than {_MAX_STRIPS} strips or tiles")
        if tag in (_TILE_WIDTH, _TILE_HEIGHT) and count == 1:
            if kind == 3:
                (value,) = struct.unpack_from(f"{order}H", encoded, place + struct.calcsize(entry) - (8 if big else 4))
            tile[tag - _TILE_WIDTH] = value
    if tile[0] * tile[1] > _MAX_TIFF_TILE:
        raise StructureError(f"a TIFF of tiles of more than {_MAX_TIFF_TILE} pixels")
    return tags, first + tags * struct.calcsize(entry)


def _bmp(encoded: bytes) -> bytes:
    header, compression = struct.unpack_from("<I12xI", encoded, 14)
    if header >= 40 and compression in (1, 2) and len(encoded) > SLOW_BYTES:
        raise StructureError(f"a run-length encoded BMP of more than {SLOW_BYTES} bytes")
    return encoded


def _ppm(encoded: bytes) -> bytes:
    found = _PPM_HEADER.match(encoded[:4096])
    if found is None:
        raise StructureError("it is truncated or damaged")
    slow = encoded[1] in b"123" or found["greatest"] not in (None, b"255", b"65535")
    if slow and len(encoded) > SLOW_BYTES:
        raise StructureError(f"a PPM of more than {SLOW_BYTES} bytes as text, or of another range than 255 or 65535")
    return encoded


def _jp2(encoded: bytes) -> bytes:
    """Check that the codestream of a JP2 file has the size in its header, which is the one compared with the limits."""
    position, size = 0, None
    for _ in range(100):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", encoded, start)
            start += 8
        end = position + length if length else len(encoded)
        if kind == b"jp2c":
            if size != _check_codestream(encoded, start):
                raise StructureError("a JPEG 2000 of two different sizes")
            return encoded
        if kind == b"jp2h":
            if end - start > _MAX_JP2_HEADER:
                raise StructureError(f"a JPEG 2000 whose header has more than {_MAX_JP2_HEADER} bytes")
            at = encoded.find(b"ihdr", start, end)
            height, width = struct.unpack_from(">II", encoded, at + 4) if at >= 0 else (0, 0)
            size = width, height
        if end <= position:
            break
        position = end
    raise StructureError("a JPEG 2000 without an image")


def _j2k(encoded: bytes) -> bytes:
    _check_codestream(encoded, 0)
    return encoded


def _check_codestream(encoded: bytes, start: int) -> tuple[int, int]:
    """Width and height of a JPEG 2000 codestream. Raises StructureError if it has too many tiles or precincts."""
    right, lower, left, upper, *tile = struct.unpack_from(">8I", encoded, start + 8)
    components = struct.unpack_from(">H", encoded, start + 40)[0]
    width, height = right - left, lower - upper
    if width <= 0 or height <= 0 or not tile[0] or not tile[1] or not 1 <= components <= 4:
        raise StructureError("it is truncated or damaged")
    tiles = -(-(right - tile[2]) // tile[0]) * -(-(lower - tile[3]) // tile[1])
    if not 1 <= tiles <= _MAX_J2K_TILES:
        raise StructureError(f"a JPEG 2000 of more than {_MAX_J2K_TILES} tiles")
    position, part_end = start + 2, None
    for _ in range(100_000):
        if position + 4 > len(encoded):
            break  # Pillow will report that it is truncated
        marker, length = struct.unpack_from(">HH", encoded, position)
        if marker == 0xFFD9:
            break
        if marker == 0xFF90:  # start of a tile-part (SOT)
            part = struct.unpack_from(">I", encoded, position + 6)[0]
            part_end = position + part if part else len(encoded)
        elif marker == 0xFF93:
            if part_end is None or part_end <= position:
                break
            position = part_end
            continue
        elif marker in (0xFF52, 0xFF53):
            _check_precincts(encoded[position + 4 : position + 2 + length], marker == 0xFF52)
        position += 2 + max(2, length)
    return width, height


def _check_precincts(segment: bytes, of_all: bool) -> None:
    """Raise StructureError if a COD segment (for all components) or COC segment (for one) is too costly to decode."""
    style, levels, sizes = (segment[0], segment[5], segment[10:]) if of_all else (segment[1], segment[2], segment[7:])
    if of_all and struct.unpack_from(">H", segment, 2)[0] > _MAX_J2K_LAYERS:
        raise StructureError(f"a JPEG 2000 of more than {_MAX_J2K_LAYERS} layers")
    least = (_LEAST_J2K_PRECINCT - max(0, levels - resolution) for resolution in range(len(sizes)))
    if style & 1 and any(min(size & 15, size >> 4) < bound for size, bound in zip(sizes, least)):
        raise StructureError("a JPEG 2000 of very small precincts")


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG", _png),
    (rb"\xff\xd8\xff", "JPEG", _jpeg),
    (rb"RIFF....WEBPVP8[ LX]", "WEBP", lambda encoded: encoded),
    (rb"BM", "BMP", _bmp),
    (_TIFF, "TIFF", _tiff),
    (rb"GIF8[79]a", "GIF", _gif),
    (rb"P[1-6][\s#]", "PPM", _ppm),
    (rb"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000", _jp2),
    (rb"\xff\x4f\xff\x51", "JPEG2000", _j2k),
)
FORMATS = tuple(dict.fromkeys(file_format for _, file_format, _ in _FORMATS))  # Pillow's names
