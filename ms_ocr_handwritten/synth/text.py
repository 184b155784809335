"""Labels: Chinese words and prose, rare characters, English, accented Latin, numbers, punctuation, single characters,
and words in traditional and Japanese forms.

Every label is NFC, contains only characters of the vocabulary, and neither starts nor ends with a space.
`KINDS` has the weights of the kinds; a label is cut to `max_units`, where a hanzi counts 1 and a Latin letter 0.5.
"""

import gzip
import html
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.synth import charset
from ms_ocr_handwritten.vocab import fold_full_width

KINDS = {
    "words": 0.35,
    "prose": 0.16,
    "rare": 0.10,
    "english": 0.13,
    "accented": 0.045,
    "numbers": 0.09,
    "mixed": 0.055,
    "single": 0.12,
    "forms": 0.08,
}  # share of each kind of label
_NUMERALS = "零一二三四五六七八九十百千万亿"


def fold(text: str) -> str:
    """NFC, full-width ASCII to ASCII, runs of white space to one space."""
    return re.sub(r"\s+", " ", fold_full_width(unicodedata.normalize("NFC", text))).strip()


def units(text: str) -> float:
    """Estimated width in hanzi."""
    return sum(1.0 if character >= "\u2e80" else 0.5 for character in text)


def page_text(path: Path) -> str:
    """The text of an HTML page or a gzipped text; empty for other files."""
    if path.suffix == ".html":
        page = path.read_text(encoding="utf-8", errors="replace")
        page = re.sub(r"(?s)<(script|style|pre|head)\b.*?</\1>", " ", page)
        return html.unescape(re.sub(r"<[^>]+>", "", page))
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    return ""


def _pages(folder: Path) -> str:
    return "\n".join(page_text(path) for path in sorted(folder.glob("*")))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _mapping(path: Path) -> dict[int, str]:
    """A table of OpenCC (a character, a tab, its replacements, the most common first) for str.translate."""
    rows = [line.split("\t") for line in _lines(path) if "\t" in line]
    return {ord(row[0]): row[1].split(" ")[0] for row in rows if len(row[0]) == 1}


class TextSource:
    """Samples labels. `inputs` holds text/ from the fetch script; dict.txt is required, the rest is optional."""

    def __init__(self, inputs: Path, drawable: set[str]):
        folder = inputs / "text"
        rows = [line.split(" ") for line in _lines(folder / "dict.txt")]
        if not rows:
            raise ConfigurationError(f"{folder / 'dict.txt'}: jieba's word list is missing; run the fetch script first")
        self.allowed = {c for c in charset.characters() if c in drawable or c == " "}
        rows = [row for row in rows if all(c in self.allowed for c in row[0])]
        self.words = [row[0] for row in rows]
        self._word_sums = np.cumsum(np.sqrt([float(row[1]) for row in rows]))
        self.rare = [c for c in charset.characters() if c != " " and c in self.allowed]
        self._hanzi = [c for c in charset.hanzi() if c in self.allowed]
        self._other_forms = [c for c in charset.other_forms() if c in self.allowed]
        self._traditional = _mapping(folder / "STCharacters.txt")
        forms = _mapping(folder / "JPShinjitaiCharacters.txt")  # modern to former forms
        self._japanese = {ord(former): chr(today) for today, former in forms.items() if len(former) == 1}
        self._letters = [c for c in charset.ACCENTED if c in self.allowed]
        prose = _pages(folder / "handbook") + _pages(folder / "reference")
        prose = prose.replace("|", "")  # table rules, never written by hand; they would look like ones
        self.prose = [p for p in (self.clean(line) for line in prose.split("\n")) if len(re.findall("[一-鿿]", p)) > 5]
        self.english = [w for w in map(self.clean, _lines(folder / "american-english")) if w] or ["line"]
        self.french = [w for w in map(self.clean, _lines(folder / "french")) if w] or self.english
        self._with_accent = [w for w in self.french if not w.isascii()] or self.french
        self.verses = self._cookies(folder / "fortunes") or self.english
        french = (self.clean(line) for line in _pages(folder / "reference_fr").split("\n"))
        self.french_prose = [line for line in french if len(line) > 30 and not line.isascii()]

    def _cookies(self, folder: Path) -> list[str]:
        """Sentences of fortune's cookie files: texts between lines of "%"."""
        texts = []
        for path in sorted(folder.glob("*")):
            if path.suffix == "" and path.name != "ascii-art":
                texts += path.read_text(encoding="utf-8", errors="ignore").split("\n%")
        return [text for text in map(self.clean, texts) if len(text) > 20]

    def clean(self, text: str) -> str:
        """Folded text without the characters that cannot be drawn."""
        return fold("".join(c for c in fold(text) if c in self.allowed))

    def sample(self, rng: np.random.Generator, max_units: float, kinds: dict[str, float] | None = None) -> str:
        """A label of at least 1 character and at most about `max_units` hanzi wide."""
        kinds = kinds or KINDS
        names = list(kinds)
        weights = np.cumsum(list(kinds.values()))
        while True:
            name = names[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
            text = fold(getattr(self, "_" + name)(rng, float(max_units)))
            text = cut(text, max_units)
            if text and all(c in self.allowed for c in text):
                return text

    def _word(self, rng: np.random.Generator) -> str:
        at = np.searchsorted(self._word_sums, rng.random() * self._word_sums[-1], side="right")
        return self.words[int(at)]

    def _words(self, rng: np.random.Generator, limit: float) -> str:
        parts: list[str] = []
        target = _length(rng, limit)
        while units("".join(parts)) < target:
            parts.append(self._word(rng))
            if rng.random() < 0.12:
                parts.append(_pick(rng, ",,,。。、、、;:?!…·“”《》()「」"))
        return "".join(parts)

    def _prose(self, rng: np.random.Generator, limit: float) -> str:
        return _window(rng, self.prose, _length(rng, limit)) if self.prose else self._words(rng, limit)

    def _rare(self, rng: np.random.Generator, limit: float) -> str:
        count = int(min(limit, 1 + rng.geometric(0.22)))
        pool = self.rare if rng.random() < 0.8 else self._hanzi
        text = "".join(_pick(rng, pool) for _ in range(max(1, count)))
        if rng.random() < 0.3:
            text = text[: count // 2] + self._word(rng) + text[count // 2 :]
        return text

    def _forms(self, rng: np.random.Generator, limit: float) -> str:
        """Words in traditional or Japanese forms, and random sequences of such forms."""
        kind, target = rng.random(), _length(rng, limit)
        if not self._other_forms or kind < 0.15:
            return self._words(rng, limit)
        text = ""
        while units(text) < target:
            word = self._word(rng).translate(self._traditional) if kind < 0.8 else _pick(rng, self._other_forms)
            word = word.translate(self._japanese) if 0.55 < kind < 0.8 else word
            text += word if all(c in self.allowed for c in word) else _pick(rng, self._other_forms)
        return text

    def _english(self, rng: np.random.Generator, limit: float) -> str:
        target, kind = _length(rng, limit), rng.random()
        if kind < 0.4:
            text = _window(rng, self.verses, target)
        else:
            text = ""
            while units(text) < target:
                text += ("" if not text else _pick(rng, ["  ", " ", " ", " ", " ", ", ", "-", ". "])) + _pick(
                    rng, self.english
                )
        return _case(rng, text)

    def _accented_word(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.35:
            return _pick(rng, self._with_accent)
        if kind < 0.75:
            return _pick(rng, self.french)
        word = list(_pick(rng, self.english))
        word[int(rng.integers(len(word)))] = _pick(rng, self._letters)
        return "".join(word)

    def _accented(self, rng: np.random.Generator, limit: float) -> str:
        target, text = _length(rng, limit), self._accented_word(rng)
        if self.french_prose and rng.random() < 0.4:
            return _case(rng, _window(rng, self.french_prose, target))
        while units(text) < target:
            joint = _pick(rng, [" ", " ", " ", " ", " ", ", ", "-", ". ", " l'", " d'", " « ", " » ", " (", ") ", ": "])
            text += joint + self._accented_word(rng)
        return _case(rng, text)

    def _mixed(self, rng: np.random.Generator, limit: float) -> str:
        target, text = _length(rng, limit), ""
        while units(text) < target:
            part = int(rng.integers(5))
            if part < 2:
                text += self._word(rng)
            elif part == 2:
                text += _pick(rng, self.english)
            elif part == 3:
                text += number(rng)
            else:
                text += _pick(rng, " /-:()%+=#@&.,。《》、「」~_*×→°")
        return text

    def _numbers(self, rng: np.random.Generator, limit: float) -> str:
        target, text = _length(rng, limit), number(rng)
        while units(text) < target and rng.random() < 0.6:
            text += _pick(rng, [" ", " ", ", ", "; ", "-", "/", " = ", " + ", " × ", ":", "~"]) + number(rng)
        return text

    def _single(self, rng: np.random.Generator, limit: float) -> str:
        kind = rng.random()
        if kind < 0.40:
            text = _pick(rng, self._hanzi) if rng.random() < 0.6 else _pick(rng, self._word(rng))
        elif kind < 0.57:
            text = _pick(rng, _NUMERALS)
        elif kind < 0.87:  # often: alone, a zero looks like an o, and people write single zeros more often
            text = _pick(rng, "0123456789")
        elif kind < 0.92:
            text = _pick(rng, "abcdefghijklmnopqrstuvwxyz" if rng.random() < 0.65 else "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        elif kind < 0.94:
            text = _pick(rng, self.rare)
        else:
            return "".join(_pick(rng, "0123456789") for _ in range(int(rng.integers(2, 9))))
        if rng.random() < 0.12:
            text += _pick(rng, self._hanzi) if text >= "\u2e80" else _pick(rng, self.rare[:94])
        return text


def _pick(rng: np.random.Generator, pool: Sequence[str]) -> str:
    return pool[int(rng.integers(len(pool)))]


def _length(rng: np.random.Generator, limit: float) -> float:
    """A length in hanzi, at most `limit`, short ones more often."""
    return limit * (0.12 + 0.88 * rng.random() ** 1.2)


def _window(rng: np.random.Generator, texts: list[str], target: float) -> str:
    text = _pick(rng, texts)
    start = int(rng.integers(max(1, len(text) - int(target))))
    if text.isascii():
        start = text.rfind(" ", 0, start) + 1
    return cut(text[start:], target)


def _case(rng: np.random.Generator, text: str) -> str:
    kind = rng.random()
    return text.upper() if kind < 0.13 else text.title() if kind < 0.28 else text.capitalize() if kind < 0.4 else text


def cut(text: str, limit: float) -> str:
    """The longest prefix of `text` of at most `limit` hanzi (at least one character), without spaces at its ends."""
    total = 0.0
    for i, character in enumerate(text):
        total += units(character)
        if total > limit and i:
            return text[:i].strip()
    return text.strip()


def number(rng: np.random.Generator) -> str:
    """A date, time, amount, phone number, share, code or plain number."""

    def n(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    year, month, day = n(1800, 2040), n(1, 13), n(1, 32)
    kinds = (
        lambda: str(n(0, 10 ** n(1, 9))),
        lambda: f"{year}年{month}月{day}日",
        lambda: _pick(
            rng, (f"{year}-{month:02}-{day:02}", f"{day}/{month}/{year}", f"{year}.{month}.{day}", f"{month}/{day}")
        ),
        lambda: f"{n(0, 24)}:{n(0, 60):02}",
        lambda: _pick(rng, "¥￥$€£") + f"{n(0, 10 ** n(2, 7)):,}" + (f".{n(0, 100):02}" if rng.random() < 0.6 else ""),
        lambda: f"{n(0, 10 ** n(1, 6))}.{n(0, 100):02}" + _pick(rng, ("元", "", "", "%", "kg", "cm", "万元")),
        lambda: "1" + "".join(str(n(0, 10)) for _ in range(10)),
        lambda: f"0{n(10, 999)}-{n(10**6, 10**8)}",
        lambda: f"({n(100, 999)}) {n(100, 999)}-{n(0, 10**4):04}",
        lambda: "".join(_pick(rng, _NUMERALS) for _ in range(n(2, 8))) + _pick(rng, ("元", "元整", "", "年", "个")),
        lambda: f"{_pick(rng, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')}{_pick(rng, 'ABCDEFGHJKLMNPQRSTUVWXYZ')}{n(0, 10**5):05}",
        lambda: f"第{n(1, 400)}{_pick(rng, '章条号页次')}",
        lambda: f"{n(1, 100)}{_pick(rng, '+-×÷=<>/*^')}{n(1, 100)}",
        lambda: f"{n(1, 60)}{_pick(rng, ('.', ')', '、', '%', '°', '℃', 'th'))}",
    )
    return kinds[n(0, len(kinds))]()
