"""Shared by the XML formats."""

import re
import xml.etree.ElementTree as ElementTree

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def allowed(text: str) -> str:
    """The text with characters that XML cannot hold replaced by U+FFFD; a vocabulary may contain them."""
    return _FORBIDDEN.sub("\ufffd", text)


def document(root: ElementTree.Element, doctype: str = "") -> str:
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}{ElementTree.tostring(root, encoding="unicode")}\n'
