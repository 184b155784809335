"""Loading images to canvases in several threads, in order, a few ahead of the consumer."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import BackendError, ImageError
from .canvas import LineCanvas

LOADERS = 4  # threads that load and scale images; may exceed the cores, since URLs involve waiting


@dataclass(frozen=True)
class Stop:
    """The last item: `error` is to be raised after the preceding items."""

    error: Exception


Loaded = LineCanvas | ImageError | Stop


def load_canvases(
    images: Iterable[object], canvas_of: Callable[[object], LineCanvas], ahead: int, *, stop: bool
) -> Iterator[Loaded]:
    """Yield the canvas of each image, or its ImageError, in order; `ahead` images are loaded in advance.

    If `images` itself raises, the images taken before come first.

    Args:
        images: anything that `canvas_of` accepts.
        canvas_of: called in other threads; raises ImageError.
        ahead: number of images taken before the first canvas is yielded.
        stop: whether to stop at the first image that cannot be read.

    Raises:
        BackendError: the iteration continues in a forked process, which does not have the threads.
    """
    pool, process = ThreadPoolExecutor(LOADERS, "ms-ocr-load"), os.getpid()
    pending: deque[Future[LineCanvas | ImageError]] = deque()

    def oldest() -> Loaded:
        if os.getpid() != process:
            raise BackendError("read_many continues in another process than it began in; call it in each process")
        found = pending.popleft().result()
        return Stop(found) if stop and isinstance(found, ImageError) else found

    def load(index: int, image: object) -> LineCanvas | ImageError:
        try:
            return canvas_of(image)
        except ImageError as error:
            if not isinstance(image, (str, os.PathLike)):  # its message names the path
                error.index = index
            return error

    end = None
    try:
        taken = enumerate(images)
        while True:
            try:
                index, image = next(taken)
            except StopIteration:
                break
            except Exception as error:  # from the caller's own iterator
                end = Stop(error)
                break
            pending.append(pool.submit(load, index, image))
            if len(pending) > ahead:
                yield oldest()
        while pending:
            yield oldest()
        if end:
            yield end
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
