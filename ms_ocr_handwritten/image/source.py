"""Reading the encoded bytes of an image from a file or a URL, within the limits.

Only `http` and `https` are fetched. Any other `scheme://`, including `file://`, is refused rather than treated as a
path: a service that passes on input from its users must not expose its own files.
"""

import contextlib
import inspect
import io
import os
import re
from typing import Any

from ..errors import ImageError
from ..files import NotRegularError, current_folder, read_regular
from .download import download
from .limits import Limits, check_bytes, shortened

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def read_source(source: str | os.PathLike, limits: Limits) -> bytes:
    """Encoded bytes of a path or an http(s) URL, 1 to `max_bytes`. Raises ImageError naming it and the remedy."""
    encoded = _read(source, limits)
    check_bytes(len(encoded), shortened(source), limits.max_bytes)
    return encoded


def read_stream(stream: Any, limits: Limits) -> tuple[bytes, str]:
    """Encoded bytes, 1 to `max_bytes`, of an object with `read`, from its beginning if it is seekable; and its name.

    Raises ImageError naming it and the remedy.
    """
    name = shortened(getattr(stream, "name", None) or type(stream).__name__)
    try:
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            stream.seek(0)
        encoded = stream.read(limits.max_bytes + 1)  # one more than allowed, so that the check notices
    except (OSError, ValueError) as error:  # ValueError if the file is closed
        raise ImageError(f"{name}: cannot be read ({error}); open it again, or give its path") from error
    if not isinstance(encoded, bytes):
        if inspect.iscoroutine(encoded):
            encoded.close()
        raise ImageError(
            f"{name}: its read() gives {type(encoded).__name__}, not bytes; open the file in mode 'rb', or give the "
            "bytes themselves (of an upload: await upload.read())"
        )
    check_bytes(len(encoded), name, limits.max_bytes)
    return encoded, name


def _read(source: str | os.PathLike, limits: Limits) -> bytes:
    if not isinstance(source, str) or (scheme := _SCHEME.match(source)) is None:
        return _read_file(source, limits.max_bytes)
    if scheme[1].lower() not in ("http", "https"):
        raise ImageError(
            f"{shortened(source)}: {scheme[1]}:// is not supported; give an http(s) URL, a plain path or the bytes"
        )
    return download(source, limits)


def _read_file(path: str | os.PathLike, max_bytes: int) -> bytes:
    name = shortened(os.fsdecode(path))
    try:
        return read_regular(path, max_bytes + 1)  # one more than allowed, so that the check notices
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file (looked in {current_folder()}); check the path") from error
    except NotRegularError as error:
        raise ImageError(f"{name}: this is {error}; give the path of one image file, or its bytes") from error
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}; check the path and its permissions") from error
    except ValueError as error:  # a null byte or a lone surrogate
        raise ImageError(f"{name!r}: not a path ({error}); give encoded images as bytes") from error
