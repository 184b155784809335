"""How a server processes a request, independent of HTTP: threads load the image, a queue computes the JSON row.

body -> sent_picture (-> fetched) -> prepared -> BatchQueue -> row
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ..errors import BusyError, OcrError, RequestError
from ..image.canvas import LineCanvas
from ..image.download import download
from ..image.limits import Limits, shortened
from ..image.loading import LOADERS
from ..line import line_row
from ..page.formats.json_lines import page_row
from ..page.sources import PageSource, open_pages, read_pages
from .batching import BatchQueue
from .bodies import Sent, sent_picture
from .options import ServeOptions

if TYPE_CHECKING:
    from ..page.reader import PageReader
    from ..recognizer import Recognizer

Item = TypeVar("Item")
Row = dict[str, Any]
Computed = Callable[[int, float], object]

FETCHERS = 16  # concurrent downloads from URLs, for lines and for pages each


class Door(Generic[Item]):
    """Accepts the bodies of requests of one kind, and returns a row for each."""

    def __init__(
        self,
        queue: BatchQueue[Item, Row],
        prepare: Callable[[Sent, bytes], Item],
        limits: Limits,
        *,
        fetches: bool,
    ) -> None:
        """
        Args:
            queue: computes the prepared items.
            prepare: an image to an item; called in several threads.
            limits: of an image; those on addresses apply to URLs.
            fetches: whether URLs are downloaded.
        """
        self.queue, self.limits, self.fetches = queue, limits, fetches
        self._prepare = prepare
        self._loaders = ThreadPoolExecutor(LOADERS, "ms-ocr-load")
        self._fetchers = ThreadPoolExecutor(FETCHERS, "ms-ocr-fetch")
        self._fetching = BoundedSemaphore(FETCHERS)

    def begin(self, content_type: str, body: bytes) -> "Future[Row]":
        """The row for the image in `body`, as a future; if there is none, its exception is an OcrError with the reason.

        Raises BusyError if no place is free.
        """
        place = self.queue.reserve()
        self._loaders.submit(self._guarded, place, self._begin, content_type, body)
        return place

    def close(self) -> None:
        """Accept no more requests, and finish those in progress."""
        self.queue.close()
        self._loaders.shutdown(cancel_futures=True)
        self._fetchers.shutdown(cancel_futures=True)

    def _guarded(self, place: "Future[Row]", step: Callable[..., None], *arguments: Any) -> None:
        """One step of a request, skipped if the client hung up; an exception becomes the request's result."""
        if place.cancelled():
            return
        try:
            step(place, *arguments)
        except Exception as error:
            if place.set_running_or_notify_cancel():
                place.set_exception(error)

    def _begin(self, place: "Future[Row]", content_type: str, body: bytes) -> None:
        sent = sent_picture(content_type, body)
        if sent.encoded is not None:
            self._finish(place, sent, sent.encoded)
        elif not self.fetches:
            raise RequestError("URLs are not fetched here (`ms-ocr serve --urls`); send the picture", 403)
        elif not self._fetching.acquire(blocking=False):  # so that slow URLs cannot occupy all places
            raise BusyError(f"{FETCHERS} URLs are being fetched; try again in 1 s, or send the picture")
        else:
            place.add_done_callback(lambda _: self._fetching.release())
            self._fetchers.submit(self._guarded, place, self._fetch, sent)

    def _fetch(self, place: "Future[Row]", sent: Sent) -> None:
        assert sent.url is not None
        encoded = download(sent.url, self.limits)
        self._loaders.submit(self._guarded, place, self._finish, sent, encoded)

    def _finish(self, place: "Future[Row]", sent: Sent, encoded: bytes) -> None:
        most = self.limits.max_bytes
        if len(encoded) > most:
            raise RequestError(f"{len(encoded)} bytes are over the limit of {most}; send a smaller picture", 413)
        self.queue.put(place, self._prepare(sent, encoded))


def line_door(recognizer: "Recognizer", options: ServeOptions, computed: Computed) -> Door:
    """Reads lines: a row is as in `ms-ocr recognize --format jsonl`. Reads a blank line here as a warm-up."""
    recognizer.read_canvases([recognizer.canvas(np.full((32, 64), 255, np.uint8))])

    def prepare(sent: Sent, encoded: bytes) -> tuple[str | None, LineCanvas]:
        return sent.name, recognizer.canvas(encoded)

    def read(items: list[tuple[str | None, LineCanvas]]) -> list[Row]:
        lines = recognizer.read_canvases([canvas for _, canvas in items])
        return [line_row(name, line) for (name, _), line in zip(items, lines)]

    queue = BatchQueue(
        read,
        name="lines",
        capacity=options.queue,
        most=options.batch_size,
        full=1.0,
        cost=lambda item: item[1].computed_width / recognizer.width_per_batch,
        wait=options.wait,
        computed=computed,
    )
    return Door(queue, prepare, options.fetching(options.limits), fetches=options.urls != "none")


def page_door(reader: "PageReader", options: ServeOptions, computed: Computed) -> Door:
    """Reads pages: a row is {"pages": [...]}, each as in `ms-ocr page --format json`."""
    limits = options.fetching(options.page_limits)

    def prepare(sent: Sent, encoded: bytes) -> tuple[Sent, bytes, float]:
        return sent, encoded, time.monotonic() + options.seconds

    def read(items: list[tuple[Sent, bytes, float]]) -> list[Row]:
        ((sent, encoded, deadline),) = items
        # In this thread only, because PDFium is not thread-safe.
        pages = _bounded(
            open_pages(shortened(sent.name or "the file"), limits, encoded=encoded), options.max_pages, deadline
        )
        return [{"pages": [_row(sent, *one) for one in read_pages(reader, pages, options.batch_size)]}]

    queue = BatchQueue(read, name="pages", capacity=options.page_queue, computed=computed)
    return Door(queue, prepare, limits, fetches=options.urls != "none")


def _row(sent: Sent, source: PageSource, result: Any) -> Row:
    if not isinstance(result, OcrError):
        return page_row(sent.name, source.number, result)
    if source.pages == 1:
        raise result
    return {"source": sent.name, "page": source.number, "error": str(result)}


def _bounded(pages: Iterable[PageSource], most: int, deadline: float) -> Iterator[PageSource]:
    """The pages of a file. Raises RequestError if there are too many, BusyError if no time is left for the next."""
    for page in pages:
        if page.pages > most:
            raise RequestError(
                f"{page.path}: {page.pages} pages are over the limit of {most}; send fewer at a time", 413
            )
        if time.monotonic() > deadline:
            raise BusyError("the time for this request is over; send fewer pages at a time")
        yield page
