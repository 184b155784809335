"""The characters of our own vocabulary, in a fixed order.

Space, printable ASCII, accented Latin, signs, Chinese punctuation, then the 6,763 hanzi of GB 2312 in code order.
The full-width forms U+FF01-FF5E and U+3000 are folded to ASCII before a label is encoded, so they are not here.
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
def characters() -> tuple[str, ...]:
    """The whole vocabulary without the blank, each character once, in order."""
    return tuple(dict.fromkeys(ASCII + ACCENTED + SIGNS + CHINESE_MARKS + hanzi()))


def write_vocabulary(path: Path) -> None:
    r"""Write one character a line, UTF-8, '\n' only; the first line holds the space."""
    path.write_bytes("".join(character + "\n" for character in characters()).encode("utf-8"))
