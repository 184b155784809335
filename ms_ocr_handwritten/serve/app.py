"""The HTTP interface: paths, status codes, and its OpenAPI description."""

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
    """One line, as in `ms-ocr recognize --format jsonl`. `path` is the name given by the client, if any."""

    path: str | None


@dataclass(frozen=True)
class PageAnswer:
    """The pages of a file, each as in `ms-ocr page --format json`; if one of several cannot be read, it has an
    `error` instead of lines."""

    pages: list[dict[str, Any]]


@dataclass(frozen=True)
class ErrorAnswer:
    """Why the request failed: the name of the error, and what to do about it."""

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
    408: {"description": "The body was received too slowly", "model": ErrorAnswer},
    413: {"description": "Too many bytes or pages", "model": ErrorAnswer},
    415: {"description": "Unsupported content type or encoding", "model": ErrorAnswer},
    422: {"description": "The picture cannot be read", "model": ErrorAnswer},
    503: {"description": "The queue is full, or the time limit is exceeded; Retry-After says when to retry"},
}


def create_app(
    lines: Door, pages: "Door | BackendError", options: ServeOptions, metrics: Metrics, about: dict[str, str]
) -> Asgi:
    """The ASGI application; when its lifespan ends, the doors are closed.

    Args:
        lines: for `/recognize`.
        pages: for `/page`, or the reason why it is unavailable.
        options: limits of a request.
        metrics: for `/metrics`.
        about: what `/healthz` reports besides the status.
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
        docs_url=None,  # these load external scripts; `/docs` below does not
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
        """Read the image of one line."""
        return await answered(request, lines)

    @app.post("/page", response_model=PageAnswer, responses=_ERRORS, openapi_extra=_PICTURE)
    async def page(request: Request) -> Response:
        """Detect and read the lines of a page, or of the pages of a TIFF or PDF."""
        if isinstance(pages, BackendError):
            raise pages
        return await answered(request, pages)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the server is able to read."""
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
    """Report every error as JSON that gives the reason."""
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
        row = {"error": "RequestError", "message": f"{error.detail}; /docs lists the paths"}
        return JSONResponse(row, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def of_others(_: Request, error: Exception) -> "Response":  # uvicorn logs it with its traceback
        row = {"error": type(error).__name__, "message": "internal server error; its log has the details"}
        return JSONResponse(row, 500)
