"""`ms-ocr serve`: reads images that are sent over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from ..errors import BackendError
from .page import open_page_reader, page_options
from .reading import open_recognizer, recognizer_options

if TYPE_CHECKING:
    from ..recognizer import Recognizer
    from ..serve.doors import Computed, Door
    from ..serve.options import ServeOptions

URLS = ("none", "public", "any")  # a copy of `serve.options.URLS`, as help must not wait for numpy to load
_MIB = 2**20
_MEGA = 10**6


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 gives the whole network access.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--no-page", is_flag=True, help="Read lines only, no pages: starts faster, takes less memory.")
@click.option(
    "--urls",
    type=click.Choice(URLS),
    default="none",
    show_default=True,
    help="Fetch images from URLs that clients send.",
)
@click.option(
    "--max-mib",
    type=click.FloatRange(0, min_open=True),
    default=32,
    show_default=True,
    help="Largest image of a line in MiB; twice as much for a page.",
)
@click.option(
    "--max-megapixels",
    type=click.FloatRange(0, min_open=True),
    default=16,
    show_default=True,
    help="Largest image of a line in megapixels; four times as much for a page.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="Longest time from a request to its response.",
)
@click.option(
    "--receive-seconds",
    type=click.FloatRange(0, min_open=True),
    default=10,
    show_default=True,
    help="Longest time for receiving the head, and the body.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Lines that may wait; further ones get a 503.",
)
@click.option("--page-queue", type=click.IntRange(min=1), default=8, show_default=True, help="The same for pages.")
@click.option(
    "--wait-ms",
    type=click.FloatRange(0),
    default=5,
    show_default=True,
    help="Longest time a line waits to be computed with others.",
)
@page_options
@click.option("--language-model", metavar="FILE", help="Character n-gram model, from `ms-ocr lm build`.")
@click.option(
    "--trim", type=click.Choice(["never", "auto"]), default="never", show_default=True, help="Cut off wide margins."
)
@recognizer_options
def serve(
    host: str,
    port: int,
    no_page: bool,
    urls: str,
    max_mib: float,
    max_megapixels: float,
    seconds: float,
    receive_seconds: float,
    queue: int,
    page_queue: int,
    wait_ms: float,
    detector: str,
    writing: str,
    language_model: str | None,
    trim: str,
    model: str | None,
    backend: str,
    precision: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Read lines and pages that are sent over HTTP, until SIGTERM or Ctrl-C.

    Needs `pip install ms_ocr_handwritten[serve]`, and `[page]` for pages. There is no authentication and no TLS: if
    others have access, put the server behind a proxy that provides both.

    \b
    POST /recognize   one line: the image's bytes, a form, or JSON {"image": base64} or {"url": ...}
    POST /page        a page, or the pages of a TIFF or PDF
    GET  /healthz     whether it is able to read
    GET  /metrics     counters for Prometheus
    GET  /docs, /openapi.json   the API description
    """
    from ..serve.server import check_installed, listening

    check_installed()
    listener = listening(host, port)
    from ..image.limits import Limits
    from ..serve.app import create_app
    from ..serve.doors import line_door
    from ..serve.metrics import Metrics
    from ..serve.options import ServeOptions
    from ..serve.server import serve as serve_app

    options = ServeOptions(
        limits=Limits(round(max_megapixels * _MEGA), round(max_mib * _MIB)),
        page_limits=Limits(round(4 * max_megapixels * _MEGA), round(2 * max_mib * _MIB)),
        urls=urls,
        queue=queue,
        page_queue=page_queue,
        batch_size=batch_size,
        wait=wait_ms / 1000,
        seconds=seconds,
        receive_seconds=receive_seconds,
    )
    metrics = Metrics()
    thread = ThreadPoolExecutor(1, "ms-ocr-read")  # reads lines and pages
    opening = thread.submit(open_recognizer, model, backend, precision, device, language_model, trim, options.limits)
    recognizer = opening.result().computed_in(thread)
    lines = line_door(recognizer, options, metrics.computed("lines"))
    metrics.watch("lines", lines.queue)
    pages = _pages(no_page, detector, writing, recognizer, options, metrics.computed("pages"))
    if not isinstance(pages, BackendError):
        metrics.watch("pages", pages.queue)
    about = {"backend": recognizer.backend, "precision": recognizer.precision}
    app = create_app(lines, pages, options, metrics, about)
    address, at = listener.getsockname()[:2]
    reading = "lines" if isinstance(pages, BackendError) else "lines and pages"
    click.echo(
        f"reading {reading} with {recognizer.backend}, {recognizer.precision}, at "
        f"http://{f'[{address}]' if ':' in address else address}:{at}; /docs says how",
        err=True,
    )
    serve_app(app, listener, options)


def _pages(
    no_page: bool,
    detector: str,
    writing: str,
    recognizer: "Recognizer",
    options: "ServeOptions",
    computed: "Computed",
) -> "Door | BackendError":
    """The endpoint for pages, or the reason why there is none."""
    from ..serve.doors import page_door

    if no_page:
        return BackendError("this server does not read pages: it was started with --no-page")
    try:
        return page_door(open_page_reader(detector, writing, recognizer), options, computed)
    except BackendError as error:
        return error
