"""One request over HTTP: its body within bytes and seconds, its answer within seconds, or an error that says why."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ..errors import BusyError, OcrError, RequestError
from .doors import Door, Row
from .options import ServeOptions

if TYPE_CHECKING:
    from starlette.requests import Request

_FORM_BYTES = 16 * 1024  # what a form or JSON holds beside the picture
_STATUS_OF_PICTURES = 422  # the request was understood, but its picture cannot be read
GONE = 499  # as nginx has it: the client hung up, and nobody sees this


class GoneError(Exception):
    """The client hung up."""


class Edge:
    """Receives bodies and waits for answers; runs in the network's thread alone."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self._received = 0  # bytes of all bodies that are held

    async def answer(self, request: "Request", door: Door) -> Row:
        """The row of a request.

        Raises:
            OcrError: why there is none; `status_of` has the status.
            GoneError: nobody waits for it.
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
        if int(request.headers.get("content-length", 0)) > most:  # the protocol refuses what is no number
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
        hung_up = asyncio.ensure_future(request.receive())  # there is no body left, so it can only tell that
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
            place.cancel()  # gives up its place, if it still waits


def _too_long(most: int) -> RequestError:
    return RequestError(f"the body is over the limit of {most} bytes; send a smaller picture", 413)


def status_of(error: OcrError) -> int:
    """The HTTP status that an error is answered with."""
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
