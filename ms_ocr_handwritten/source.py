"""The encoded bytes of an image, from a file or a URL, never more than the limits allow.

Only `http` and `https` are fetched. Any other `scheme://` is refused rather than taken for a path, `file://`
included: a service that passes on what its users typed must not hand out its own files.
"""

import contextlib
import inspect
import io
import os
import queue
import re
import stat
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from .errors import ImageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"
_READ_SIZE = 64 * 1024  # bytes


@dataclass(frozen=True)
class Limits:
    """What one source may cost. All bounds are inclusive.

    `max_pixels` holds for every kind of source and is checked before decoding; `max_bytes` for encoded images;
    `url_timeout` is the time in s for one URL, from the name look-up to the last byte, redirects included.
    Pillow's own limit (`PIL.Image.MAX_IMAGE_PIXELS`, an error above twice its value) stays in force beside ours.
    """

    max_pixels: int = 64_000_000  # 192 MB as RGB
    max_bytes: int = 64 * 1024 * 1024
    url_timeout: float = 10.0


def read_source(source: str | os.PathLike, limits: Limits) -> bytes:
    """Encoded bytes behind a path or an http(s) URL, 1 to `max_bytes`. Raises ImageError naming it and the remedy."""
    encoded = _read(source, limits)
    check_bytes(len(encoded), shortened(source), limits.max_bytes)
    return encoded


def read_stream(stream: Any, limits: Limits) -> tuple[bytes, str]:
    """Encoded bytes of an object with `read`, 1 to `max_bytes`, from its beginning if it can be wound back; its name.

    Raises ImageError naming it and the remedy.
    """
    name = shortened(getattr(stream, "name", None) or type(stream).__name__)
    try:
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            stream.seek(0)
        encoded = stream.read(limits.max_bytes + 1)  # one more than allowed, for the check to see
    except (OSError, ValueError) as error:  # ValueError of a closed file
        raise ImageError(f"{name}: cannot be read ({error}); open it anew, or give its path") from error
    if not isinstance(encoded, bytes):
        if inspect.iscoroutine(encoded):
            encoded.close()
        raise ImageError(
            f"{name}: its read() gives {type(encoded).__name__}, no bytes; open the file in mode 'rb', or give the "
            "bytes themselves (of an upload: await upload.read())"
        )
    check_bytes(len(encoded), name, limits.max_bytes)
    return encoded, name


def shortened(name: object, length: int = 200) -> str:
    """`name` as text, its middle left out above `length` characters: someone will pass a whole base64 image."""
    text = str(name)
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 :]}"


def check_bytes(count: int, name: str, max_bytes: int) -> None:
    """Raises ImageError if `count` encoded bytes are none at all or too many."""
    if count == 0:
        raise ImageError(f"{name}: empty, there is no image in 0 bytes; write or send it again")
    if count > max_bytes:
        raise ImageError(f"{name}: over the limit of {max_bytes} bytes; shrink the image or raise Limits.max_bytes")


def _read(source: str | os.PathLike, limits: Limits) -> bytes:
    scheme = _SCHEME.match(source) if isinstance(source, str) else None
    if scheme is None:
        return _read_file(source, limits.max_bytes)
    if scheme[1].lower() not in ("http", "https"):
        raise ImageError(
            f"{shortened(source)}: {scheme[1]}:// is not read; give an http(s) URL, a plain path or the bytes"
        )
    return _download_in_time(source, limits)


def _read_file(path: str | os.PathLike, max_bytes: int) -> bytes:
    name = shortened(os.fsdecode(path))
    try:
        # Asked before opening: opening a pipe waits for its writer, perhaps for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "a directory" if os.path.isdir(path) else "no regular file"
            raise ImageError(f"{name}: this is {kind}; give the path of one image file, or its bytes")
        with open(path, "rb") as file:
            return file.read(max_bytes + 1)  # one more than allowed, for the check to see
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file (looked in {os.getcwd()}); check the path") from error
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}; check the path and its permissions") from error
    except ImageError:
        raise
    except ValueError as error:  # a null byte or a lone surrogate
        raise ImageError(f"{name!r}: not a path ({error}); give encoded images as bytes") from error


def _download_in_time(url: str, limits: Limits) -> bytes:
    # urllib's time-out bounds each wait on the socket, not their sum, and not the name look-up: a server that sends
    # a byte a second holds its reader for hours. So a thread reads and we wait. A late one is left behind: it ends
    # with its next read of the body, or when the server lets go of it.
    name = shortened(url)
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_download(url, limits))
        except Exception as error:  # handed to the caller's thread, which raises it
            outcome.put(error)

    threading.Thread(target=work, name="image download", daemon=True).start()
    try:
        result = outcome.get(timeout=limits.url_timeout)
    except queue.Empty:
        result = TimeoutError()
    if isinstance(result, TimeoutError):
        raise ImageError(f"{name}: not received within {limits.url_timeout:g} s; try again or raise Limits.url_timeout")
    if isinstance(result, ImageError):
        raise result
    if isinstance(result, Exception):
        raise ImageError(f"{name}: download failed ({result}); check the address and the network") from result
    return result


def _download(url: str, limits: Limits) -> bytes:
    name = shortened(url)
    deadline = time.monotonic() + limits.url_timeout
    quoted = urllib.parse.quote(url, safe=_URL_SAFE)  # spaces and Chinese characters, as people paste them
    request = urllib.request.Request(quoted, headers={"User-Agent": "ms_ocr_handwritten"})
    body = bytearray()
    with _opener().open(request, timeout=limits.url_timeout) as response:
        check_bytes(int(response.headers.get("Content-Length", 1)), name, limits.max_bytes)
        while part := response.read1(_READ_SIZE):
            body += part
            check_bytes(len(body), name, limits.max_bytes)
            if time.monotonic() > deadline:
                raise TimeoutError
    return bytes(body)


def _opener() -> urllib.request.OpenerDirector:
    """Like urllib's default, proxies of the environment included, but without `file:`, `ftp:` and `data:`."""
    proxies = {scheme: proxy for scheme, proxy in urllib.request.getproxies().items() if scheme in ("http", "https")}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
