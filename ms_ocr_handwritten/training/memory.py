"""Out-of-memory errors that name what needed the memory and which setting to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import OcrError

_ON_CPUS = ("can't allocate memory", "not enough memory")  # PyTorch raises a plain RuntimeError there


@contextmanager
def naming_what_needs_memory(what: str, key: str = "train.dataloader.batch_size_per_gpu") -> Iterator[None]:
    """Turn out-of-memory errors into an OcrError that names `what` was computed and the configuration's `key`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in _ON_CPUS):
            detail = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise OcrError(
                f"out of memory in {what} ({detail}); lower {key} (in training "
                "train.optimizer.options.cumulative_iters makes up for it); the state last saved is kept"
            ) from error
        raise
