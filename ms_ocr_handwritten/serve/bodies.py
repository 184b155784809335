"""Extracts the single image from the body of a request: raw bytes, a form, or JSON."""

import base64
import binascii
import io
import json
from dataclasses import dataclass
from email.message import Message
from typing import Any

from ..errors import RequestError
from ..image.limits import shortened

JSON_KEYS = ("image", "url")
_MULTIPART, _JSON = "multipart/form-data", "application/json"
_RAW = ("", "application/octet-stream", "application/pdf")


@dataclass(frozen=True)
class Sent:
    """One image: its encoded bytes, or the URL to download it from; `name` is given by the client, if any."""

    encoded: bytes | None
    url: str | None = None
    name: str | None = None


def sent_picture(content_type: str, body: bytes) -> Sent:
    """The image of a request. Raises RequestError, which repeats nothing of the body except short names."""
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == _JSON:
        return _of_json(body)
    if kind == _MULTIPART:
        return _of_form(content_type, body)
    if kind in _RAW or kind.startswith("image/"):
        return Sent(body)
    raise RequestError(
        f"content type {shortened(kind)!r} is not supported; send a picture's bytes as application/octet-stream or "
        f"image/..., a form as {_MULTIPART}, or JSON as {_JSON}",
        415,
    )


def _of_json(body: bytes) -> Sent:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON; send an object with 'image' (base64) or 'url'") from error
    if not isinstance(sent, dict) or len(sent) != 1 or not set(sent) <= set(JSON_KEYS):
        raise RequestError("the body is not an object with one key, 'image' (base64) or 'url'")
    ((key, value),) = sent.items()
    if not isinstance(value, str):
        raise RequestError(f"{key!r} is not a string; send {'base64' if key == 'image' else 'an http(s) URL'}")
    if key == "url":
        if not value.lower().startswith(("http://", "https://")):
            raise RequestError(f"url {shortened(value)!r}: http:// or https:// expected")
        return Sent(None, value, value)
    try:
        return Sent(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError) as error:
        raise RequestError("'image' is not base64; send only base64, without 'data:...;base64,'") from error


def _of_form(content_type: str, body: bytes) -> Sent:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import create_form_parser

    fields: list[Any] = []
    files: list[Any] = []
    size = max(len(body), 1)
    try:
        parser = create_form_parser(
            {"Content-Type": content_type.encode("latin-1")},
            fields.append,
            files.append,
            config={"MAX_MEMORY_FILE_SIZE": size, "MAX_FIELDS": 2, "MAX_FIELD_SIZE": size},  # nothing goes to disk
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError("the body is not a multipart form; send one picture like `curl -F image=@FILE`") from error
    if fields or len(files) != 1:
        raise RequestError(
            f"the form holds {len(files)} files and {len(fields)} other fields; send one picture, as "
            "`curl -F image=@FILE` does"
        )
    (file,) = files
    file.file_object.seek(0, io.SEEK_SET)
    name = file.file_name
    return Sent(file.file_object.read(), None, name.decode("utf-8", "replace") if name else None)
