"""Serves an application on a socket: uvicorn, with limits on the time and size of a request's head."""

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, ConfigurationError

if TYPE_CHECKING:
    from .metrics import Asgi
    from .options import ServeOptions

_BACKLOG = 512  # connections waiting to be accepted
_HEAD_BYTES = 64 * 1024  # of a request's head; httptools, which uvicorn uses if installed, has no limit
_LAST_SECONDS = 5  # a stop waits this much longer than the longest request


def check_installed() -> None:
    """Raises BackendError if a package of the extra `serve` is missing."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"serving needs the package {error.name} ({error}); `pip install ms_ocr_handwritten[serve]`"
        ) from None


def listening(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free port. Raises ConfigurationError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"{host}, port {port}: cannot listen there ({error.strerror}); choose another --host or --port"
        ) from error
    return listener


def serve(app: "Asgi", listener: socket.socket, options: "ServeOptions") -> None:
    """Serve requests until SIGTERM or Ctrl-C, then finish those in progress."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=_protocol(options.receive_seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=options.connections,
        timeout_graceful_shutdown=round(options.seconds) + _LAST_SECONDS,
    )
    # uvicorn raises the signal again after it has stopped, for the handlers that were set before.
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: object) -> None:
    raise SystemExit(0)


def _protocol(head_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection if a request's head takes longer than `head_seconds`, or exceeds
    _HEAD_BYTES.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes
        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0  # received while the timer runs

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            if self._head_timer is None and self.cycle.response_complete:  # the first bytes of another request
                self._expect_head()
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self._head_timer is not None:
                self._head_bytes += len(data)
                if self._head_bytes > _HEAD_BYTES:
                    self.transport.close()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(error)

        def _expect_head(self) -> None:
            self._head_timer, self._head_bytes = self.loop.call_later(head_seconds, self.transport.close), 0

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedProtocol
