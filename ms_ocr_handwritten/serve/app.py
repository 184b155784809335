"""The HTTP interface: paths, statuses, and its own description as OpenAPI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, OcrError
from ..line import Line
from .doors import Door
from .edge import GONE, Edge, GoneError, error_row, status_of
from .metrics import Asgi, Metrics
from .options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response


@dataclass(frozen=True, kw_only=True)
class LineAnswer(Line):
    """One line, as `ms-ocr recognize --format jsonl` writes it. `path` is the name that the client gave, if any."""

    path: str | None


@dataclass(frozen=True)
class PageAnswer:
    """The pages of a file, each as `ms-ocr page --format json` writes it; one of several that cannot be read has an
    `error` in place of its lines."""

    pages: list[dict[str, Any]]


@dataclass(frozen=True)
class ErrorAnswer:
    """Why there is no other answer: the name of the error, and what to do about it."""

    error: str
    message: str


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _BINARY["schema"]}}
_JSON = {
    "type": "object",
    "description": "One of the two; URLs are fetched only where the server was started with --urls.",
    "properties": {
        "image": {"type": "string", "format": "byte", "description": "base64"},
        "url": {"type": "string", "format": "uri"},
    },
}
_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": _BINARY,
            "image/*": _BINARY,
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": _JSON},
        },
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No picture in the body", "model": ErrorAnswer},
    403: {"description": "URLs are not fetched here", "model": ErrorAnswer},
    408: {"description": "The body came too slowly", "model": ErrorAnswer},
    413: {"description": "Too many bytes or pages", "model": ErrorAnswer},
    415: {"description": "A content type or encoding that is not taken", "model": ErrorAnswer},
    422: {"description": "The picture cannot be read", "model": ErrorAnswer},
    503: {"description": "All places are taken, or the time is over; Retry-After says when to ask again"},
}


def create_app(
    lines: Door, pages: "Door | BackendError", options: ServeOptions, metrics: Metrics, about: dict[str, str]
) -> Asgi:
    """The ASGI application; when its lifespan ends, the doors are closed.

    Args:
        lines: of `/recognize`.
        pages: of `/page`, or why there is none.
        options: bounds of a request.
        metrics: of `/metrics`.
        about: what `/healthz` says besides the status.
    """
    from fastapi import FastAPI, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response

    from .. import __version__
    from .description import html_of

    doors = [door for door in (lines, pages) if isinstance(door, Door)]
    edge = Edge(options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for door in doors:
            door.close()

    app = FastAPI(
        title="ms-ocr serve",
        version=__version__,
        description="Reads handwriting: lines and pages.",
        docs_url=None,  # these load scripts from elsewhere; `/docs` below does not
        redoc_url=None,
        lifespan=lifespan,
    )

    async def answered(request: Request, door: Door) -> Response:
        try:
            return JSONResponse(await edge.answer(request, door))
        except GoneError:
            return Response(status_code=GONE)

    @app.post("/recognize", response_model=LineAnswer, responses=_ERRORS, openapi_extra=_PICTURE)
    async def recognize(request: Request) -> Response:
        """Read the picture of one line."""
        return await answered(request, lines)

    @app.post("/page", response_model=PageAnswer, responses=_ERRORS, openapi_extra=_PICTURE)
    async def page(request: Request) -> Response:
        """Find and read the lines of a page, or of the pages of a TIFF or PDF."""
        if isinstance(pages, BackendError):
            raise pages
        return await answered(request, pages)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the server computes."""
        alive = all(door.queue.alive for door in doors)
        return JSONResponse({"status": "ok" if alive else "failed", **about}, 200 if alive else 503)

    @app.get("/metrics")
    async def scraped() -> Response:
        """Counters for Prometheus."""
        content, kind = metrics.text()
        return Response(content, headers={"content-type": kind})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(html_of(app.openapi()))

    _answer_errors(app)
    paths = {"/recognize", "/page", "/healthz", "/metrics", "/docs", "/openapi.json"}
    return metrics.counting(app, dict.fromkeys(paths))


def _answer_errors(app: "FastAPI") -> None:
    """Have every error answered as JSON that says why."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    @app.exception_handler(OcrError)
    async def of_ours(_: Request, error: OcrError) -> "Response":
        retry_after = getattr(error, "retry_after", None)
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return JSONResponse(error_row(error), status_of(error), headers)

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> "Response":
        row = {"error": "RequestError", "message": f"{error.detail}; /docs lists what there is"}
        return JSONResponse(row, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def of_others(_: Request, error: Exception) -> "Response":  # uvicorn logs it with its traceback
        row = {"error": type(error).__name__, "message": "an error of the server; its log has the details"}
        return JSONResponse(row, 500)
