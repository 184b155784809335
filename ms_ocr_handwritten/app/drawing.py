"""Results as HTML: the image with the positions of its characters, the text coloured by confidence.

Everything that comes from an image, a model or an error is escaped.
"""

from collections.abc import Sequence
from html import escape

from ..image.uri import picture_uri
from ..page.reader import PageCharacter, Polygon
from .reading import ReadPicture
from .texts import text

SHOWN_PIXELS = 1_500_000  # an image is scaled down to this
LEAST_LINE = 48  # minimum height in px at which a line is shown; long lines scroll
_QUALITY = 85  # of the JPEG

STYLE = """
.ocr { font-family: var(--font); color: var(--body-text-color); }
.ocr .picture { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: 6px; background: #fff; }
.ocr svg { display: block; width: 100%; height: auto; max-height: 70vh; }
.ocr .line-picture svg { max-width: none; max-height: 96px; }
.ocr polygon { fill: transparent; stroke: none; cursor: default; }
.ocr polygon.lit { fill: rgb(37 99 235 / .25); stroke: rgb(37 99 235); vector-effect: non-scaling-stroke; }
.ocr .text { font-size: 1.5rem; line-height: 2; overflow-wrap: anywhere; white-space: pre-wrap; margin: .5rem 0; }
.ocr .page-text { font-size: 1.1rem; }
.ocr .text span { border-bottom: 3px solid; cursor: default; }
.ocr .text span.lit { background: rgb(37 99 235 / .25); }
.ocr .told { font-size: .875rem; min-height: 1.5em; margin: .25rem 0; overflow-wrap: anywhere; }
.ocr .advice { font-size: .875rem; }
.ocr ol { margin: .25rem 0 0 1.5rem; padding: 0; list-style: decimal; }
.ocr li { overflow-wrap: anywhere; }
.ocr .error { border-left: 4px solid #dc2626; padding: .25rem .75rem; overflow-wrap: anywhere; }
.ocr .done { border-left: 4px solid #16a34a; padding: .25rem .75rem; overflow-wrap: anywhere; }
"""

# A character is highlighted in image and text together, and its details are shown below.
SCRIPT = """
<script>
document.addEventListener("mouseover", (event) => {
  const at = event.target.closest && event.target.closest("[data-at]");
  const shown = event.target.closest && event.target.closest(".ocr");
  document.querySelectorAll(".ocr .lit").forEach((one) => one.classList.remove("lit"));
  if (!at || !shown) return;
  shown.querySelectorAll(`[data-at="${at.dataset.at}"]`).forEach((one) => one.classList.add("lit"));
  const told = shown.querySelector(".told");
  if (told) told.textContent = at.dataset.told;
});
</script>
"""


def reading_html(read: ReadPicture, language: str) -> str:
    """The image, the text and, for a line, its alternatives."""
    parts = [_picture(read, language)]
    if any(line.text for line in read.lines):
        parts.append(_text(read, language))
        parts.append(f'<p class="told" aria-live="polite">{text("hover", language)}</p>')
    else:
        parts.append(f"<p>{text('nothing_read', language)}</p>")
    if read.advice:
        parts.append(f'<p class="advice">⚠ {escape(read.advice)}</p>')
    if len(read.alternatives) > 1:
        rows = "".join(f"<li>{escape(other)} <small>({score:.2f})</small></li>" for other, score in read.alternatives)
        parts.append(f"<details open><summary>{text('alternatives', language)}</summary><ol>{rows}</ol></details>")
    return _block(parts)


def error_html(error: Exception, language: str) -> str:
    return _block([f'<p class="error" role="alert">{text("error", language)}: {escape(str(error))}</p>'])


def done_html(done: str, notes: Sequence[str], language: str) -> str:
    """done: what was done; notes: what needs attention, if anything."""
    parts = [f'<p class="done" role="status">{escape(done)}</p>']
    if notes:
        rows = "".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f'<p class="advice">⚠ {text("notes", language)}</p><ul>{rows}</ul>')
    return _block(parts)


def said_html(said: str) -> str:
    return _block([f"<p>{escape(said)}</p>"])


def _block(parts: Sequence[str]) -> str:
    return f'<div class="ocr">{"".join(parts)}</div>'


def _picture(read: ReadPicture, language: str) -> str:
    height, width = read.rgb.shape[:2]
    places = "".join(
        f'<polygon points="{_points(char.polygon)}" {_told(char, f"{at}-{index}", language)}></polygon>'
        for at, line in enumerate(read.lines)
        for index, char in enumerate(line.chars)
    )
    shown = picture_uri(read.rgb, (SHOWN_PIXELS / (width * height)) ** 0.5, form="JPEG", quality=_QUALITY)
    kind, least = (" line-picture", LEAST_LINE * width / height) if read.of_line else ("", 0)
    return (
        f'<div class="picture{kind}"><svg viewBox="0 0 {width} {height}" style="min-width: {least:.0f}px" '
        f'preserveAspectRatio="xMinYMid" role="img" aria-label="{escape(read.text)}">'
        f'<image width="{width}" height="{height}" href="{shown}"></image>'
        f"{places}</svg></div>"
    )


def _points(polygon: Polygon) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in polygon)


def _text(read: ReadPicture, language: str) -> str:
    lines = "\n".join(
        "".join(
            f'<span style="border-color: {confidence_colour(char.score)}" '
            f"{_told(char, f'{at}-{index}', language)}>{escape(char.character)}</span>"
            for index, char in enumerate(line.chars)
        )
        for at, line in enumerate(read.lines)
    )
    score = f" <small>({read.lines[0].score:.3f})</small>" if read.of_line else ""
    return f'<p class="text{"" if read.of_line else " page-text"}">{lines}{score}</p>'


def _told(char: PageCharacter, at: str, language: str) -> str:
    """The attributes that link a position to its character, and the details of both."""
    xs = [x for x, _ in char.polygon]
    told = f"{char.character}  {text('confidence', language)} {char.score:.3f}  x {min(xs):.0f}–{max(xs):.0f} px"
    return f'data-at="{at}" data-told="{escape(told)}"'


def confidence_colour(score: float) -> str:
    """A CSS colour, green for 1, red for 0; most of the range is above 0.8, where it matters."""
    return f"hsl({120 * score**4:.0f} 85% 42%)"
