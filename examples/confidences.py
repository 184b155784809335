"""Draw a line with the text read below it, each character at its position and coloured by confidence, as an SVG.

python confidences.py line.png line.svg [--model DIRECTORY_OR_ID]
"""

import argparse
import base64
import html
from pathlib import Path

from PIL import Image

from ms_ocr_handwritten import Recognizer, default_model_dir

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", type=Path)
parser.add_argument("svg", type=Path)
parser.add_argument("--model", default=default_model_dir())
arguments = parser.parse_args()

line = Recognizer.from_pretrained(arguments.model).read(arguments.image)
width, height = Image.open(arguments.image).size
size = 0.6 * height  # of the letters, in px

parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {2 * height}" width="{width}" font-size="{size:.0f}"'
    ' font-family="sans-serif" text-anchor="middle">',
    f'<image width="{width}" height="{height}" href="data:image/{arguments.image.suffix[1:]};base64,'
    f'{base64.b64encode(arguments.image.read_bytes()).decode()}"/>',
]
for char in line.chars:
    hue = 120 * char.score**4  # green if certain, red if not
    parts.append(
        f'<text x="{(char.x0 + char.x1) / 2:.0f}" y="{1.6 * height:.0f}" fill="hsl({hue:.0f} 90% 33%)">'
        f"{html.escape(char.character)}<title>{char.score:.3f}</title></text>"
    )
arguments.svg.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")
print(line.text, f"{line.score:.3f}")
