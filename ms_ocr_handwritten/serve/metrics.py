"""Prometheus metrics of a server."""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from .batching import BatchQueue

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Asgi = Callable[..., Awaitable[None]]


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self._registry = CollectorRegistry()
        self._requests = Counter("ms_ocr_requests", "Answers.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "ms_ocr_request_seconds", "Head to answer.", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "ms_ocr_batch_size",
            "Lines or files computed together.",
            ["queue"],
            buckets=_BATCHES,
            registry=self._registry,
        )
        self._computing = Counter("ms_ocr_computing_seconds", "Time of batches.", ["queue"], registry=self._registry)
        self._places = Gauge("ms_ocr_queue_places", "Places that are taken.", ["queue"], registry=self._registry)
        ProcessCollector(registry=self._registry)

    def watch(self, name: str, queue: BatchQueue) -> None:
        self._places.labels(name).set_function(lambda: queue.taken)

    def computed(self, name: str) -> Callable[[int, float], None]:
        """A queue's callback after each batch."""
        batches, seconds = self._batches.labels(name), self._computing.labels(name)

        def tell(items: int, duration: float) -> None:
            batches.observe(items)
            seconds.inc(duration)

        return tell

    def counting(self, app: Asgi, paths: Mapping[str, Any]) -> Asgi:
        """An ASGI application that counts the responses of `app`; paths outside `paths` share one count."""

        async def counted(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            start, status = perf_counter(), "none"

            async def seen(message: dict[str, Any]) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = str(message["status"])
                await send(message)

            try:
                await app(scope, receive, seen)
            finally:
                path = scope["path"] if scope["path"] in paths else "other"
                self._requests.labels(path, status).inc()
                self._seconds.labels(path).observe(perf_counter() - start)

        return counted

    def text(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
