"""The metadata of this package's ONNX files, read without the rest of the file.

Torch is not imported here: before choosing a backend, a reader asks from which weights a file was made.
"""

import hashlib
import importlib.metadata
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, overload

from ..errors import BackendError

VERSION_KEY = "ms_ocr_handwritten.version"
WEIGHTS_KEY = "ms_ocr_handwritten.weights_sha256"  # of the weights file that the network was loaded from
CHANGED_WEIGHTS = "none: changed since they were loaded"  # in place of a digest
PRECISION_KEY = "ms_ocr_handwritten.precision"  # "int8"; missing for fp32

# onnx.proto: ModelProto.metadata_props holds one StringStringEntryProto (key = 1, value = 2) per entry.
_METADATA_FIELD = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an ONNX file; takes no longer than skipping its graph.

    Empty for anything that is not an ONNX file; the errors are reported when it is opened. Raises OSError.
    """
    with open(path, "rb") as file:
        try:
            entries = [_exactly(file, length) for number, length in _fields(file) if number == _METADATA_FIELD]
            return dict(_key_and_value(entry) for entry in entries)
        except (ValueError, EOFError):  # UnicodeDecodeError is a ValueError
            return {}


def _key_and_value(entry: bytes) -> tuple[str, str]:
    file = io.BytesIO(entry)
    texts = {number: _exactly(file, length).decode("utf-8") for number, length in _fields(file)}
    return texts.get(1, ""), texts.get(2, "")


def _fields(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Number and length of each length-delimited field; for each, the file is positioned at the field's first byte."""
    while (tag := _varint(file, at_end_ok=True)) is not None:
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, os.SEEK_CUR)
        elif kind == _BYTES:
            length = _varint(file)
            end = file.tell() + length
            yield number, length
            file.seek(end)
        else:
            raise ValueError(f"wire type {kind}")
        if number == 0:
            raise ValueError("a field without a number")


def _exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return content


@overload
def _varint(file: BinaryIO) -> int: ...


@overload
def _varint(file: BinaryIO, at_end_ok: bool) -> int | None: ...


def _varint(file: BinaryIO, at_end_ok: bool = False) -> int | None:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            if at_end_ok and shift == 0:
                return None
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 64 bits")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def package_version() -> str:
    """The installed version; "unknown" for a source tree that is not installed."""
    try:
        return importlib.metadata.version("ms_ocr_handwritten")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def require(purpose: str, *packages: str) -> None:
    """Raise BackendError for the first missing package of the extra `onnx`."""
    for package in packages:
        try:
            __import__(package)
        except ImportError:
            raise BackendError(
                f"{purpose} needs the package {package}; `pip install ms_ocr_handwritten[onnx]`"
            ) from None
