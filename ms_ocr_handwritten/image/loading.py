"""Images to canvases by several threads, in order, a few ahead of the one that is asked for."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import BackendError, ImageError
from .canvas import LineCanvas

LOADERS = 4  # threads that load and scale images: more than cores, since URLs are waited for


@dataclass(frozen=True)
class Stop:
    """The last item: after those before it, `error` is to be raised."""

    error: Exception


Loaded = LineCanvas | ImageError | Stop


def load_canvases(
    images: Iterable[object], canvas_of: Callable[[object], LineCanvas], ahead: int, *, stop: bool
) -> Iterator[Loaded]:
    """The canvas of each image, or why there is none, in order; `ahead` images are loaded or being loaded.

    Where `images` itself raises, what was taken before comes first.

    Args:
        images: anything that `canvas_of` takes.
        canvas_of: called in other threads; raises ImageError.
        ahead: images taken before the first canvas is given out.
        stop: whether an image that cannot be read is the last.

    Raises:
        BackendError: this goes on in a process that was forked meanwhile, where the threads are not.
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
            if not isinstance(image, (str, os.PathLike)):  # whose message names it
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
            except Exception as error:  # of the caller's own iterator
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
