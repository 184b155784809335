"""Images: sound ones of each format, bombs, containers within containers, and what keeps a decoder busy."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ms_ocr_handwritten.image import line_canvas, load_image

from .case import READ, REFUSED, Case
from .mutate import mutated

MIB = 2**20
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 20\n%%EndComments\n(gs ran) print quit\n"


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@lru_cache(maxsize=2)
def picture(mode: str = "RGB", width: int = 90, height: int = 24) -> Image.Image:
    """Strokes on paper in a mode of Pillow."""
    rows = np.random.default_rng(0).integers(0, 256, (height, min(width, 64), 4), dtype=np.uint8)
    rgba = Image.fromarray(np.tile(rows, (1, -(-width // rows.shape[1]), 1))[:, :width])
    if mode in ("I;16", "I"):
        return Image.fromarray(np.asarray(rgba.convert("L")).astype(np.uint16) * 257)
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def sound(file_format: str, mode: str = "RGB", **options) -> Callable[[], bytes]:
    return lambda: encoded(picture(mode), file_format, **options)


def large(file_format: str, mode: str, width: int = 4000, height: int = 4000, **options) -> Callable[[], bytes]:
    return lambda: encoded(picture(mode, width, height), file_format, **options)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(chunks: bytes) -> bytes:
    """A PNG with `chunks` after its header."""
    png = encoded(picture(), "PNG")
    return png[:33] + chunks + png[33:]


def blank_png(side: int) -> bytes:
    """A large PNG of few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND")


def iptc(payload: bytes) -> bytes:
    """Pillow's reader of IPTC opens `payload` as an image when it loads."""

    def record(number: int, dataset: int, data: bytes) -> bytes:
        if len(data) < 0x8000:
            return bytes([0x1C, number, dataset]) + struct.pack(">H", len(data)) + data
        return bytes([0x1C, number, dataset, 0x80, 4]) + struct.pack(">I", len(data)) + data

    return (
        record(3, 60, bytes([1, 1]))
        + record(3, 20, struct.pack(">I", 40))
        + record(3, 30, struct.pack(">I", 20))
        + record(3, 120, bytes([5, 1]))
        + record(8, 10, payload)
    )


def ico(payload: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 9, 5, 0, 0, 1, 32, len(payload), 22) + payload


def icns(payload: bytes) -> bytes:
    return b"icns" + struct.pack(">I", 16 + len(payload)) + b"ic09" + struct.pack(">I", 8 + len(payload)) + payload


def mpo(payload: bytes) -> bytes:
    """A JPEG with a directory of pictures of which the second is `payload`."""
    first = encoded(picture(), "MPO", save_all=True, append_images=[picture()])
    return first[: first.index(b"\xff\xd8\xff", 100)] + payload


def tiff(tags: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def tiff_of(width: int, height: int, *tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    common = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff([*common, *tags], data)


def overlapping_tags(size: int) -> bytes:
    """A directory of very many tags that all take their value from the same bytes."""
    return tiff([(tag, 7, size, 8) for tag in range(1, 60_000)], bytes(size))


def jpeg(before: bytes = b"", scans: int = 0, side: int = 0, after: bytes = b"") -> bytes:
    """A JPEG with segments before its tables, and its last scan so many times again."""
    image = picture("RGB", side, side) if side else picture()
    content = encoded(image, "JPEG", progressive=True) if scans else encoded(image, "JPEG")
    if scans:
        last = content.rindex(b"\xff\xda")
        content = content[:-2] + content[last:-2] * scans + content[-2:]
    return content[:2] + before + content[2:] + after


def empty_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG of which each further scan says in a few bytes that nothing changes."""
    content = encoded(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xc4")  # tables and data of the last scan, which is short: the picture is one grey
    return content[:-2] + content[last:-2] * scans + content[-2:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def gif_with(blocks: bytes) -> bytes:
    gif = encoded(picture("P"), "GIF")
    start = 13 + (3 << (gif[10] & 7) + 1)
    return gif[:start] + blocks + gif[start:]


def jp2(header: bytes = b"", **options) -> bytes:
    content = encoded(picture(), "JPEG2000", **options)
    return content[:12] + header + content[12:]


def small_precincts() -> bytes:
    """A JPEG 2000 of 4 megapixels that asks for precincts of one pixel."""
    content = bytearray(encoded(Image.new("L", (2000, 2000), 128), "JPEG2000", precinct_size=(256, 256)))
    cod = content.index(b"\xff\x52")
    levels = content[cod + 9]
    content[cod + 14 : cod + 15 + levels] = b"\0" * (levels + 1)
    return bytes(content)


def many_tiles() -> bytes:
    content = bytearray(encoded(Image.new("L", (2000, 2000), 128), "JPEG2000", no_jp2=True))
    content[24:32] = struct.pack(">II", 1, 1)  # of the tile, after the marker, lengths and the image's size and place
    return bytes(content)


SEEDS: list[tuple[str, Callable[[], bytes], str | None]] = [
    *[
        (f"{file_format} {mode}", sound(file_format, mode), READ)
        for file_format, modes in {
            "PNG": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"),
            "JPEG": ("L", "RGB", "CMYK"),
            "WEBP": ("RGB", "RGBA"),
            "BMP": ("1", "L", "P", "RGB"),
            "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "P", "I;16", "F"),
            "GIF": ("L", "P"),
            "PPM": ("1", "L", "RGB", "I"),
            "JPEG2000": ("L", "RGB", "RGBA", "I;16"),
        }.items()
        for mode in modes
    ],
    ("progressive JPEG", sound("JPEG", progressive=True), READ),
    ("lossless WebP", sound("WEBP", lossless=True), READ),
    ("animated WebP", sound("WEBP", save_all=True, append_images=[picture()]), READ),
    ("animated PNG", sound("PNG", save_all=True, append_images=[picture()]), READ),
    ("animated GIF", sound("GIF", "P", save_all=True, append_images=[picture("P")]), READ),
    *[
        (f"TIFF {name}", sound("TIFF", mode, compression=name), READ)
        for name, mode in (
            ("tiff_lzw", "RGB"),
            ("tiff_deflate", "RGB"),
            ("packbits", "L"),
            ("jpeg", "RGB"),
            ("group4", "1"),
        )
    ],
    ("JPEG with Exif", lambda: encoded(picture(), "JPEG", exif=_exif()), READ),
    ("PNG with Exif", lambda: encoded(picture(), "PNG", exif=_exif()), READ),
    ("WebP with Exif", lambda: encoded(picture(), "WEBP", exif=_exif()), READ),
    ("MPO", lambda: mpo(encoded(picture(), "JPEG")), READ),
    ("J2K codestream", sound("JPEG2000", no_jp2=True), READ),
    ("interlaced GIF", sound("GIF", "P", interlace=1), READ),
    ("plain PGM", lambda: b"P2 2 2 255\n0 9 99 255\n", READ),
    # Formats that are not read, and containers of others
    ("EPS", lambda: POSTSCRIPT, REFUSED),
    ("IPTC of EPS", lambda: iptc(POSTSCRIPT), REFUSED),
    ("IPTC of a bomb", lambda: iptc(blank_png(13_000)), REFUSED),
    ("IPTC of IPTC", lambda: iptc(iptc(iptc(POSTSCRIPT))), REFUSED),
    ("ICO of a bomb", lambda: ico(blank_png(9_000)), REFUSED),
    ("ICNS of a bomb", lambda: icns(blank_png(9_000)), REFUSED),
    ("ICNS of JPEG 2000", lambda: icns(jp2()), REFUSED),
    ("MPO of EPS", lambda: mpo(POSTSCRIPT), READ),
    ("MPO of a bomb", lambda: mpo(blank_png(9_000)), READ),
    ("JPEG with an EPS thumbnail", lambda: jpeg(segment(0xE1, b"Exif\0\0" + POSTSCRIPT)), READ),
    *[
        (file_format, lambda file_format=file_format: encoded(picture(), file_format), REFUSED)
        for file_format in ("DDS", "ICO", "ICNS", "IM", "PCX", "SGI", "TGA", "PDF")
    ],
    ("XPM", lambda: b"/* XPM */\nstatic char * a[] = {\n" + b'"9 9 9 1",\n' * 100_000, REFUSED),
    ("BLP", lambda: b"BLP2" + struct.pack("<IBBBBII", 1, 2, 8, 0, 0, 9000, 9000) + bytes(4000), REFUSED),
    ("FITS", lambda: b"SIMPLE  =                    T" + b" " * 50 + b"HIERARCH" * 100_000, REFUSED),
    ("HTML", lambda: b"<!doctype html><p>sign in", REFUSED),
    # Bombs
    ("PNG of 13000x13000", lambda: blank_png(13_000), REFUSED),
    ("PNG of 8000x8000 RGBA", lambda: blank_png(8_000), REFUSED),
    ("PNG of 4000x4000 RGBA", lambda: blank_png(4_000), READ),
    *[
        (f"large {file_format} {mode}", large(file_format, mode, **options), READ)
        for file_format, mode, options in (
            ("PNG", "RGBA", {"compress_level": 1}),
            ("PNG", "P", {"compress_level": 1}),
            ("PNG", "I;16", {"compress_level": 1}),
            ("JPEG", "RGB", {}),
            ("JPEG", "CMYK", {}),
            ("WEBP", "RGBA", {"method": 0}),
            ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
            ("TIFF", "F", {"compression": "tiff_lzw"}),
            ("GIF", "P", {}),
            ("BMP", "L", {}),
        )
    ],
    ("large progressive JPEG", large("JPEG", "RGB", progressive=True, subsampling=0), READ),
    ("a 12-megapixel photograph", large("JPEG", "RGB", 4032, 3024, quality=92), None),
    ("large JPEG 2000", large("JPEG2000", "RGBA", 2000, 2000), READ),
    ("larger JPEG 2000", large("JPEG2000", "RGB", 2200, 2200), REFUSED),
    ("WebP of 16383x16383", lambda: _webp_canvas(16_383), REFUSED),
    ("GIF frame beyond its screen", lambda: _gif_frame(60_000), REFUSED),
    ("PPM of 100000x100000", lambda: b"P6 100000 100000 255\n" + bytes(999), REFUSED),
    # What keeps a decoder busy
    ("JPEG of 15 million markers", lambda: jpeg(b"\xff\x01" * 15_000_000), REFUSED),
    ("JPEG of padding", lambda: jpeg(b"\xff" * 30_000_000), READ),
    ("JPEG of junk", lambda: jpeg(b"\0" * 30_000_000), REFUSED),
    ("JPEG of 480 Exif segments", lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 480), READ),
    ("JPEG of 5000 comments", lambda: jpeg(segment(0xFE, b"a") * 5_000), REFUSED),
    ("JPEG of Exif with overlapping tags", lambda: jpeg(segment(0xE1, b"Exif\0\0" + _overlapping_exif())), READ),
    ("JPEG of MPF with overlapping tags", lambda: jpeg(segment(0xE2, b"MPF\0" + _overlapping_exif())), READ),
    ("JPEG of 20000 scans", lambda: empty_scans(4000, 20_000), REFUSED),
    ("JPEG of 90 scans", lambda: empty_scans(4000, 80), READ),
    ("JPEG and 30 MB after it", lambda: jpeg(after=b"\xff\xda" * 15_000_000), READ),
    ("PNG of 2.5 million chunks", lambda: with_chunks(png_chunk(b"prVt") * 2_500_000), REFUSED),
    ("PNG of 9000 zlib bombs", lambda: with_chunks(png_chunk(b"iCCP", b"a\0\0" + _deflated(MIB)) * 9_000), READ),
    ("PNG of 9000 texts", lambda: with_chunks(png_chunk(b"zTXt", b"a\0\0" + _deflated(MIB)) * 9_000), READ),
    ("PNG of empty data chunks", lambda: with_chunks(png_chunk(b"IDAT") * 9_000), READ),
    ("PNG of two headers", lambda: with_chunks(png_chunk(b"IHDR", bytes([0, 1, 0, 0] * 2 + [8, 6, 0, 0, 0]))), READ),
    ("PNG of Exif with overlapping tags", lambda: with_chunks(png_chunk(b"eXIf", overlapping_tags(100_000))), READ),
    ("GIF of comments", lambda: gif_with(b"!\xfe\x01a\0" * 5_000_000), REFUSED),
    ("GIF of one long comment", lambda: gif_with(b"!\xfe" + b"\x01a" * 10_000_000 + b"\0"), REFUSED),
    ("GIF of applications", lambda: gif_with(b"!\xff\x01a\x01b\0" * 20_000), READ),
    ("TIFF of overlapping tags", lambda: overlapping_tags(1_000_000), REFUSED),
    ("TIFF of 4 million strips", lambda: _strips(4_000_000), REFUSED),
    ("TIFF of 16 million rows", lambda: tiff_of(1, 16_000_000, (273, 4, 1, 8), (278, 4, 1, 1)), None),
    ("TIFF of a giant tile", lambda: _giant_tile(30_000), REFUSED),
    ("BMP of runs", lambda: _runs(), REFUSED),
    ("PGM as 30 MB of text", lambda: b"P2 4000 3750 255\n" + b"0 " * 15_000_000, REFUSED),
    ("PGM of 30 MB of comment", lambda: b"P5 #" + b"a" * 30_000_000 + b"\n4 4 255\n" + bytes(16), REFUSED),
    ("PPM of another range", lambda: b"P6 3000 3000 254\n" + bytes(27_000_000), REFUSED),
    ("PPM of another range, small", lambda: b"P6 500 600 254\n" + bytes(900_000), READ),
    ("JP2 of boxes", lambda: jp2(struct.pack(">I4s", 8, b"free") * 2_000_000), REFUSED),
    ("JP2 of small precincts", small_precincts, REFUSED),
    ("J2K of small tiles", many_tiles, REFUSED),
]  # fmt: skip
SMALL = 100_000  # bytes: seeds of no more than that are mutated


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a line"
    return exif


def _deflated(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _overlapping_exif() -> bytes:
    return tiff([(tag, 7, 30_000, 8) for tag in range(1, 2500)], bytes(30_000))


def _webp_canvas(side: int) -> bytes:
    """An animated WebP whose header speaks of a canvas of side x side."""
    content = bytearray(encoded(picture(), "WEBP", save_all=True, append_images=[picture("L").convert("RGB")]))
    content[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(content)


def _gif_frame(side: int) -> bytes:
    gif = bytearray(encoded(picture("P"), "GIF"))
    place = gif.index(b",", 13 + (3 << (gif[10] & 7) + 1))
    gif[place + 5 : place + 9] = struct.pack("<HH", side, side)
    return bytes(gif)


def _strips(count: int) -> bytes:
    return tiff_of(4000, 4000, (273, 4, count, 8 + 2 + 9 * 12), (278, 4, 1, 1), data=bytes(4 * count))


def _giant_tile(side: int) -> bytes:
    packed = zlib.compress(bytes(side * 1000), 9)
    place = 8 + 2 + 10 * 12 + 4
    tags = [(256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tiles = [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, place), (325, 4, 1, len(packed))]
    return tiff([*tags, *tiles], packed)


def _runs() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + b"\x01\x00" * 15_000_000


_names = [name for name, *_ in SEEDS]


@lru_cache(maxsize=1)
def _small_seeds() -> list[tuple[str, bytes]]:
    built = [(name, build()) for name, build, _ in SEEDS[: _names.index("IPTC of EPS")]]
    return [(name, content) for name, content in built if len(content) <= SMALL]


def _read(content: bytes) -> None:
    line_canvas(load_image(content))


def case(number: int, folder: Path) -> Case:
    """A seed, or one that was mutated and perhaps put into a container of another format."""
    if number < len(SEEDS):
        name, build, expected = SEEDS[number]
        content = build()
        return Case(name, lambda: load_image(content), expected)
    chance = random.Random(number)
    seeds = _small_seeds()
    name, seed = chance.choice(seeds)
    content = mutated(chance, seed, [other for _, other in seeds])
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2))):
        wrap = chance.choice((iptc, ico, icns, mpo, _in_tiff, _in_jpeg))
        name, content = f"{wrap.__name__.strip('_')} of {name}", wrap(content)
    return Case(f"mutated {name}", lambda: _read(content))


def _in_tiff(payload: bytes) -> bytes:
    """A TIFF whose only strip is `payload`, said to be a JPEG."""
    place = 8 + 2 + 9 * 12 + 4
    tags = [(256, 4, 1, 90), (257, 4, 1, 24), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff([*tags, (273, 4, 1, place), (278, 4, 1, 24), (279, 4, 1, len(payload))], payload)


def _in_jpeg(payload: bytes) -> bytes:
    """A JPEG whose thumbnail is `payload`."""
    return jpeg(segment(0xE1, (b"Exif\0\0" + tiff([(513, 4, 1, 38), (514, 4, 1, len(payload))], payload))[:65_000]))
