"""One HTTP request: its body within size and time limits, its response within a time limit, or an error with reason."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ..errors import BusyError, OcrError, RequestError
from .doors import Door, Row
from .options import ServeOptions

if TYPE_CHECKING:
    from starlette.requests import Request

_FORM_BYTES = 16 * 1024  # allowance for a form or JSON around the image
_STATUS_OF_PICTURES = 422  # the request was understood, but its image cannot be read
GONE = 499  # as in nginx: the client hung up, so nobody sees this


class GoneError(Exception):
    """The client hung up."""


class Edge:
    """Receives bodies and waits for results; runs only in the network thread."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self._received = 0  # bytes of all bodies in memory

    async def answer(self, request: "Request", door: Door) -> Row:
        """The row of a request.

        Raises:
            OcrError: why there is none; `status_of` gives the status.
            GoneError: the client hung up.
        """
        deadline = time.monotonic() + self.options.seconds
        body = bytearray()
        try:
            await self._receive(request, body, door.limits.max_bytes)
            place = asyncio.wrap_future(door.begin(request.headers.get("content-type", ""), bytes(body)))
            return await self._result(request, place, deadline)
        finally:
            self._received -= len(body)

    async def _receive(self, request: "Request", body: bytearray, max_bytes: int) -> None:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError("the body is compressed; send it without Content-Encoding", 415)
        most = max_bytes * 4 // 3 + _FORM_BYTES  # as base64
        if int(request.headers.get("content-length", 0)) > most:  # the protocol rejects anything but a number
            raise _too_long(most)
        try:
            await asyncio.wait_for(self._receive_all(request, body, most), self.options.receive_seconds)
        except asyncio.TimeoutError:
            seconds = self.options.receive_seconds
            raise RequestError(f"the body was not received within {seconds:g} s; send a smaller picture", 408) from None

    async def _receive_all(self, request: "Request", body: bytearray, most: int) -> None:
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            part = message.get("body", b"")
            body += part
            self._received += len(part)
            if len(body) > most:
                raise _too_long(most)
            if self._received > self.options.received_bytes:
                raise BusyError("too many bodies are being received; try again in 1 s")
            more = message.get("more_body", False)

    async def _result(self, request: "Request", place: "asyncio.Future[Row]", deadline: float) -> Row:
        hung_up = asyncio.ensure_future(request.receive())  # the body is complete, so it can only report a disconnect
        left = max(0.0, deadline - time.monotonic())
        try:
            await asyncio.wait((place, hung_up), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if place.done():
                return place.result()
            if hung_up.done():
                raise GoneError
            raise BusyError(f"not answered within {self.options.seconds:g} s; try again later")
        finally:
            hung_up.cancel()
            place.cancel()  # frees its place, if it is still waiting


def _too_long(most: int) -> RequestError:
    return RequestError(f"the body is over the limit of {most} bytes; send a smaller picture", 413)


def status_of(error: OcrError) -> int:
    """The HTTP status for an error."""
    from ..errors import BackendError, ImageError

    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, BusyError):
        return 503
    if isinstance(error, ImageError):
        return _STATUS_OF_PICTURES
    return 501 if isinstance(error, BackendError) else 500


def error_row(error: Exception) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error)}
