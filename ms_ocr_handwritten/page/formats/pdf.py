"""Searchable PDF: page images with their text at its position, invisible.

The text uses Type 3 fonts with empty glyphs: they need no font file for any script, and their ToUnicode maps give the
characters. Each page is written as soon as it is given, so a whole book needs no more memory.
"""

import zlib
from typing import BinaryIO

import cv2
import numpy as np

from ..reader import Page, PageLine
from ..words import Word, words_of

_QUALITY = 90  # of the JPEGs
_GLYPH = 500  # width of every glyph in thousandths of the font's size
_FOOT, _LETTERS = 0.25, 0.6  # in line heights: the baseline, and the height of letters
_CODES = 256  # per font
_CATALOG, _PAGES, _FONTS, _EMPTY_GLYPH = 1, 2, 3, 4  # object numbers that others refer to


class PdfWriter:
    """Writes pages to an open file; `close` completes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offsets: dict[int, int] = {}  # object -> byte offset
        self._pages: list[int] = []  # objects
        self._codes: dict[str, int] = {}  # character -> font * _CODES + code
        self._next = _EMPTY_GLYPH + 1
        file.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

    def add(self, page: Page, pixels: np.ndarray, points_per_pixel: float) -> None:
        """Append a page. `pixels`: uint8 (H, W, 3) BGR, upright; a point is 1/72 inch."""
        height, width = pixels.shape[:2]
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        head = f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB"
        image = self._stream(f"{head} /BitsPerComponent 8 /Filter /DCTDecode", jpeg)
        # Everything is drawn in px of the page, y downwards: the first matrix converts these to points.
        scale = points_per_pixel
        drawn = [f"{scale:.6f} 0 0 {-scale:.6f} 0 {height * scale:.3f} cm"]
        drawn += [f"q {width} 0 0 {-height} 0 {height} cm /page Do Q", "BT 3 Tr"]
        for line in page.lines:
            drawn += self._line(line)
        content = self._stream("/Filter /FlateDecode", zlib.compress("\n".join([*drawn, "ET"]).encode("ascii")))
        box = f"[0 0 {width * scale:.3f} {height * scale:.3f}]"
        resources = f"<< /XObject << /page {image} 0 R >> /Font {_FONTS} 0 R >>"
        self._pages.append(
            self._object(
                f"<< /Type /Page /Parent {_PAGES} 0 R /MediaBox {box} /Resources {resources} /Contents {content} 0 R >>"
            )
        )

    def close(self) -> None:
        """Write what all pages share, and the cross-reference table. The file itself stays open."""
        fonts = " ".join(f"/F{font} {self._font(font)} 0 R" for font in range(-(-len(self._codes) // _CODES)))
        self._object(f"<< {fonts} >>", _FONTS)
        glyph = f"{_GLYPH} 0 0 0 {_GLYPH} 1000 d1"  # draws nothing, but has a box: PDFium drops words that have none
        self._object(f"<< /Length {len(glyph)} >>\nstream\n{glyph}\nendstream", _EMPTY_GLYPH)
        kids = " ".join(f"{page} 0 R" for page in self._pages)
        self._object(f"<< /Type /Pages /Kids [{kids}] /Count {len(self._pages)} >>", _PAGES)
        self._object(f"<< /Type /Catalog /Pages {_PAGES} 0 R >>", _CATALOG)
        start = self._file.tell()
        rows = "".join(f"{self._offsets[number]:010d} 00000 n \n" for number in range(1, self._next))
        table = f"xref\n0 {self._next}\n0000000000 65535 f \n{rows}"
        trailer = f"trailer\n<< /Size {self._next} /Root {_CATALOG} 0 R >>\nstartxref\n{start}\n%%EOF\n"
        self._file.write((table + trailer).encode("ascii"))

    def _line(self, line: PageLine) -> list[str]:
        """Operators that show a line word by word, each stretched to its width on the page up to the next word."""
        words = words_of(line)
        drawn = []
        for word, following in zip(words, [*words[1:], None]):
            origin, along, up = _directions(word, upright=line.baseline is not None)
            length = float(np.linalg.norm(along))
            direction = along / max(length, 1e-6)
            text = word.text
            if following is not None:
                text += " "
                start = _directions(following, upright=line.baseline is not None)[0]
                length = max(length, float(np.dot(start - origin, direction)))
            size = max(float(np.linalg.norm(up)), 1e-3)
            stretch = 100 * length / (len(text) * size * _GLYPH / 1000)
            matrix = " ".join(f"{value:.4f}" for value in (*direction, *up / size, *origin))
            drawn.append(f"{matrix} Tm {max(stretch, 1e-3):.3f} Tz")
            drawn += self._shown(text, size)
        return drawn

    def _shown(self, text: str, size: float) -> list[str]:
        """Operators that show a text: one font for each run of characters in the same font."""
        runs: list[tuple[int, str]] = []
        for character in text:
            font, code = divmod(self._codes.setdefault(character, len(self._codes)), _CODES)
            if runs and runs[-1][0] == font:
                runs[-1] = (font, runs[-1][1] + f"{code:02x}")
            else:
                runs.append((font, f"{code:02x}"))
        return [f"/F{font} {size:.3f} Tf <{codes}> Tj" for font, codes in runs]

    def _font(self, font: int) -> int:
        characters = list(self._codes)[font * _CODES : (font + 1) * _CODES]
        last = len(characters) - 1
        rows = [f"<{code:02x}> <{text.encode('utf-16-be').hex()}>" for code, text in enumerate(characters)]
        chunks = [rows[start : start + 100] for start in range(0, len(rows), 100)]  # maximum in a block of a CMap
        body = "".join(f"{len(chunk)} beginbfchar\n" + "\n".join(chunk) + "\nendbfchar\n" for chunk in chunks)
        cmap = (
            "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
            f"/CMapName /F{font} def\n/CMapType 2 def\n1 begincodespacerange\n<00> <ff>\nendcodespacerange\n"
            f"{body}endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend"
        )
        unicode_map = self._stream("/Filter /FlateDecode", zlib.compress(cmap.encode("ascii")))
        names = " ".join(f"/g{code}" for code in range(last + 1))
        glyphs = " ".join(f"/g{code} {_EMPTY_GLYPH} 0 R" for code in range(last + 1))
        widths = " ".join([str(_GLYPH)] * (last + 1))
        return self._object(
            f"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 {_GLYPH} 1000] /FontMatrix [0.001 0 0 0.001 0 0] "
            f"/FirstChar 0 /LastChar {last} /Widths [{widths}] "
            f"/Encoding << /Type /Encoding /Differences [0 {names}] >> "
            f"/CharProcs << {glyphs} >> /Resources << >> /ToUnicode {unicode_map} 0 R >>"
        )

    def _stream(self, entries: str, data: bytes) -> int:
        head = f"<< {entries} /Length {len(data)} >>\nstream\n".encode("ascii")
        return self._object(head + data + b"\nendstream")

    def _object(self, body: str | bytes, number: int | None = None) -> int:
        """Write an object, by default under the next free number; returns its number."""
        if number is None:
            number, self._next = self._next, self._next + 1
        self._offsets[number] = self._file.tell()
        data = body if isinstance(body, bytes) else body.encode("ascii")
        self._file.write(f"{number} 0 obj\n".encode("ascii") + data + b"\nendobj\n")
        return number


def _directions(word: Word, upright: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The start of a word, its length along the writing, and its height upwards, in px; `upright`: it runs rightwards.

    Letters stand above the lower quarter of their line; with the full height, readers would merge two lines.
    """
    upper_left, upper_right, lower_right, lower_left = np.asarray(word.polygon, np.float64)[:4]
    if upright:
        start, along, up = lower_left, lower_right - lower_left, upper_left - lower_left
    else:
        start, along, up = upper_left, lower_left - upper_left, upper_right - upper_left
    return start + _FOOT * up, along, _LETTERS * up
