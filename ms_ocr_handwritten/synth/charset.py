"""The characters of our own vocabulary, in a fixed order.

Space, printable ASCII, accented Latin, signs, Chinese punctuation, the 6,763 hanzi of GB 2312 in code order, then the
common traditional Chinese and Japanese forms that are not among them.
The full-width forms U+FF01-FF5E and U+3000 are folded to ASCII before a label is encoded, so they are omitted here.
"""

from functools import cache
from pathlib import Path

ASCII = "".join(chr(code) for code in range(0x20, 0x7F))
ACCENTED = (
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßŒœŸ"  # French, German, Spanish, Portuguese, Nordic
)
SIGNS = "§°€£¥¢©®™×÷±·•…—–‘’“”«»¡¿ªº¹²³½¼¾µπ√≈≠≤≥∞→←↑↓№※★☆○●□■△▲√℃‰"
CHINESE_MARKS = "、。《》〈〉「」『』【】〔〕￥"


@cache
def hanzi() -> str:
    """The 6,763 hanzi of GB 2312 (rows 16-87) in code order."""
    found = []
    for row in range(16, 88):
        for cell in range(1, 95):
            try:
                found.append(bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312"))
            except UnicodeDecodeError:
                continue
    assert len(found) == 6763
    return "".join(found)


@cache
def other_forms() -> str:
    """The 2,474 hanzi of Big5 level 1 (traditional) and JIS X 0208 (Japanese) not in GB 2312, in code order."""
    rows, low = range(0xA4, 0xC7), (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    big5 = [bytes((row, cell)) for row in rows for cell in low if (row, cell) <= (0xC6, 0x7E)]
    jis = [bytes((0xA0 + row, 0xA0 + cell)) for row in range(16, 48) for cell in range(1, 95)]
    found = [code.decode("big5", "ignore") for code in big5] + [code.decode("euc_jp", "ignore") for code in jis]
    return "".join(sorted(set(found) - set(hanzi()) - {""}))


@cache
def characters() -> tuple[str, ...]:
    """The whole vocabulary without the blank, each character once, in order."""
    return tuple(dict.fromkeys(ASCII + ACCENTED + SIGNS + CHINESE_MARKS + hanzi() + other_forms()))


def write_vocabulary(path: Path) -> None:
    r"""Write one character per line, UTF-8, '\n' only; the first line holds the space."""
    path.write_bytes("".join(character + "\n" for character in characters()).encode("utf-8"))
