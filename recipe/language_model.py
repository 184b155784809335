"""Build the small language model of Chinese and English: fetch texts, write them as plain text, `ms-ocr lm build`.

    python recipe/language_model.py OUT_DIR [--hold-out]

OUT_DIR/text/*.txt are the texts, one sentence or paragraph per line, in the characters of our vocabulary:
    words    words of jieba's dictionary, sampled by their counts, five per line
    prose    Chinese manuals of Debian, and LibreOffice's help
    english  sentences of the fortunes, and Debian's reference
    forms    isolated items: numbers, dates, amounts, codes, single characters, rare ones
OUT_DIR/zh_en.arpa is the model. With --hold-out every eighth file of the handbook and the reference is left out, and
every paragraph elsewhere that shares a sentence with them: they go to OUT_DIR/held_out, in the folders of the
synthesiser's inputs, so that lines for evaluation (even ones) and for tuning (odd ones) can be drawn from them.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ms_ocr_handwritten.synth.charset import characters, write_vocabulary
from ms_ocr_handwritten.synth.fetch import Package, fetch, packages
from ms_ocr_handwritten.synth.text import TextSource, page_text

HTML = ("*.html",)
MORE = (  # in addition to the synthesiser's texts
    Package("apt", "libreoffice-help-zh-cn", "", "text/help", HTML, "MPL-2.0 (read, not kept)"),
    Package("apt", "debian-faq-zh-cn", "", "text/faq", HTML, "GPL-2+ (read, not kept)"),
    Package("apt", "maint-guide-zh-cn", "", "text/guide", HTML, "GPL-2+ (read, not kept)"),
    Package("apt", "debian-reference-en", "", "text/reference_en", HTML, "GPL-2+ (read, not kept)"),
)
HELD_OUT = 8  # one file in this many
SENTENCE = 8  # characters of a sentence that must not occur in both
WORDS, WORDS_A_LINE = 750_000, 5
ENGLISH = 1_200_000  # characters
FORMS = {"numbers": 0.35, "single": 0.35, "rare": 0.2, "mixed": 0.1}
FORM_LINES, FORM_WIDTH = 60_000, 20  # width in hanzi
ORDER, PRUNE = 4, 2.5e-7


def main(out: Path, hold_out: bool) -> None:
    inputs = out / "inputs"
    if not (inputs / "manifest.tsv").exists():
        texts = [package for package in packages() if package.folder.startswith("text")]
        if missing := fetch(inputs, [*texts, *MORE]):
            sys.exit("these packages are missing:\n" + "\n".join(missing))
    source = TextSource(inputs, set(characters()))
    pages = sorted((inputs / "text/handbook").glob("*.html")) + sorted((inputs / "text/reference").glob("*.html"))
    held_out = pages[3::HELD_OUT] if hold_out else []
    for index, page in enumerate(held_out):
        folder = out / "held_out" / ("test" if index % 2 == 0 else "tune") / "text" / page.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, folder)
        shutil.copy(inputs / "text/dict.txt", folder.parent)
    known = {sentence for line in chinese(source, held_out) for sentence in sentences(line)}
    more = [path for folder in ("help", "faq", "guide") for path in sorted((inputs / "text" / folder).glob("*"))]
    prose = dict.fromkeys(chinese(source, [page for page in pages if page not in held_out] + more))
    rng = np.random.default_rng(0)
    folder = out / "text"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "prose.txt", (line for line in prose if known.isdisjoint(sentences(line))))
    write(folder / "words.txt", words(source, inputs / "text/dict.txt", rng))
    write(folder / "english.txt", english(source, inputs / "text/reference_en"))
    write(folder / "forms.txt", (source.sample(rng, FORM_WIDTH, FORMS) for _ in range(FORM_LINES)))
    write_vocabulary(out / "vocab.txt")
    model = out / "zh_en.arpa"
    model.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ms_ocr_handwritten.cli", "lm", "build", *map(str, sorted(folder.glob("*.txt")))]
    options = ["--out", str(model), "--order", str(ORDER), "--prune", str(PRUNE), "--vocab", str(out / "vocab.txt")]
    subprocess.run([*command, *options], check=True)


def chinese(source: TextSource, paths: Iterable[Path]) -> list[str]:
    """The Chinese paragraphs of pages."""
    lines = (source.clean(line) for path in paths for line in page_text(path).replace("|", "").split("\n"))
    return [line for line in lines if len(re.findall("[一-鿿]", line)) > 5]


def sentences(line: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=[。!?;:])", line) if len(sentence) >= SENTENCE]


def words(source: TextSource, dictionary: Path, rng: np.random.Generator) -> Iterable[str]:
    rows = (line.split(" ") for line in dictionary.read_text(encoding="utf-8").splitlines())
    counts = np.cumsum([float(row[1]) for row in rows if set(row[0]) <= source.allowed])
    drawn = np.searchsorted(counts, rng.random(WORDS) * counts[-1], side="right").reshape(-1, WORDS_A_LINE)
    return ("".join(source.words[at] for at in row) for row in drawn.tolist())


def english(source: TextSource, reference: Path) -> Iterable[str]:
    pages = (source.clean(line) for path in sorted(reference.glob("*")) for line in page_text(path).split("\n"))
    left = ENGLISH
    for line in [*source.verses, *(line for line in pages if len(line) > 40)]:
        left -= len(line)
        if left < 0:
            return
        yield line


def write(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the small language model of Chinese and English.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--hold-out", action="store_true", help="Hold out text for evaluation.")
    arguments = parser.parse_args()
    main(arguments.out, arguments.hold_out)
