"""Reading rows in bulk with existing engines: `datasets.Dataset.map`, Ray Data's `map_batches`, process pools.

from ms_ocr_handwritten.bulk import ReadLines
dataset.map(ReadLines(), batched=True, batch_size=256, num_proc=8)
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.rows import bgr, stored_image
from ..errors import ConfigurationError
from ..image import Limits
from .columns import arrow_types, columns_of
from .opening import decoding_digest, model_digest, open_recognizer

if TYPE_CHECKING:
    import pyarrow

    from ..recognizer import Lexicon, Recognizer


@dataclass(frozen=True)
class ReadLines:
    """Reads a batch of rows: adds `text`, `score` and `chars`, or an `error`; the other columns are kept.

    It consists of plain arguments, and only these are pickled. Each process opens the recogniser once, at the first
    batch. Instances that would read alike are equal, so the cache of `datasets` finds only what was read with the same
    files (of the model, of a language model, of a lexicon).

    Args:
        model: a model directory, or an id; None for the embedded model. A directory must exist, under the same path,
            on every machine that reads.
        image: the column of the images: encoded bytes, paths, URLs, what `datasets` stores ({"bytes", "path"}), Pillow
            images, arrays.
        prefix: of the added columns, if the rows already have a `text`.
        rgb: arrays are RGB (as from `ray.data.read_images`), not BGR as in OpenCV.
        threads: number of threads per process. PyTorch's are set for the whole process; None leaves them unchanged.
        backend, precision, device, trim, language_model, augment_below, limits: as for `Recognizer.from_pretrained`.
        batch_size, n_best, allowed, lexicon, lexicon_mode: as for `Recognizer.read_many`. n_best above 1 adds a column
            `alternatives`.
    """

    model: "str | os.PathLike[str] | None" = None
    image: str = "image"
    prefix: str = ""
    rgb: bool = False
    threads: int | None = 1
    backend: str = "auto"
    precision: str = "auto"
    device: str | None = None
    trim: str = "never"
    language_model: "str | os.PathLike[str] | None" = None
    augment_below: float | None = None
    limits: Limits = Limits()
    batch_size: int = 32
    n_best: int = 1
    allowed: Iterable[str] | None = None
    lexicon: "Lexicon | None" = None
    lexicon_mode: str = "line"
    _digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        digest = model_digest(self.model) + decoding_digest(self.language_model, self.lexicon)
        plain: dict[str, Any] = {"_digest": digest}
        if self.model is not None and os.path.isdir(self.model):
            plain["model"] = os.path.abspath(self.model)
        if self.language_model is not None:
            plain["language_model"] = os.path.abspath(self.language_model)
        if self.allowed is not None:
            plain["allowed"] = "".join(self.allowed)
        if isinstance(self.lexicon, (str, os.PathLike)):
            plain["lexicon"] = os.path.abspath(self.lexicon)
        elif self.lexicon is not None:
            plain["lexicon"] = tuple(self.lexicon)
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def __call__(self, batch: "Mapping[str, Any] | pyarrow.Table") -> "dict[str, Any] | pyarrow.Table":
        """Read a batch of rows, in order.

        Args:
            batch: columns of equal length, in a dict (a batch of Ray Data's "numpy" format, or your own), in the
                mapping from `datasets`, or a `pyarrow.Table`.

        Returns:
            The batch with the new columns; for `datasets` only the new ones, since `map` keeps the others as stored.
            `text` str, '' if nothing was read; `score` float in [0, 1]; `chars` a list of {"character", "score",
            "x0", "x1"}; `error` '' or why the image could not be read; text and chars are then empty and score 0.

        Raises:
            ConfigurationError: There is no column of images, or a new column exists already.
            OcrError: The recogniser cannot be opened. An image that cannot be read raises nothing.
        """
        import pyarrow

        if isinstance(batch, pyarrow.Table):
            self._check(batch.column_names)
            for name, values in self._read(batch.column(self.image).to_pylist()).items():
                batch = batch.append_column(self.prefix + name, pyarrow.array(values, arrow_types(self.n_best)[name]))
            return batch
        if not isinstance(batch, Mapping):
            raise ConfigurationError(
                f"a batch of rows is {type(batch).__name__}; columns in a dict or a pyarrow.Table expected "
                "(of Ray Data: batch_format 'numpy' or 'pyarrow'; of datasets: batched=True)"
            )
        self._check(list(batch))
        # Accessing a column makes `datasets` decode it, and one bad image fails the batch: use the rows as stored.
        table = getattr(batch, "pa_table", None)
        read = self._read(batch[self.image] if table is None else table.column(self.image).to_pylist())
        added = {self.prefix + name: values for name, values in read.items()}
        return {**batch, **added} if table is None else added

    def _read(self, values: "list[Any] | np.ndarray") -> dict[str, list]:
        lines = _recognizer(self).read_many(
            self._images(values),
            self.batch_size,
            errors="yield",
            n_best=self.n_best,
            allowed=self.allowed,
            lexicon=self.lexicon,
            lexicon_mode=self.lexicon_mode,
        )
        return columns_of(lines, self.n_best)

    def _images(self, values: "list[Any] | np.ndarray") -> Iterator[Any]:
        """The inputs of `load_image`, which reports values that it does not accept."""
        for value in values:
            image = stored_image(value)
            if isinstance(image, list):  # pixels, as returned by Arrow
                with suppress(ValueError):
                    image = np.asarray(image)
            yield bgr(image) if self.rgb and isinstance(image, np.ndarray) else image

    def _check(self, columns: list[str]) -> None:
        if self.image not in columns:
            raise ConfigurationError(
                f"no column {self.image!r}; available: {', '.join(columns)}; name the image column: ReadLines(image=)"
            )
        taken = [self.prefix + name for name in arrow_types(self.n_best) if self.prefix + name in columns]
        if taken:
            raise ConfigurationError(
                f"the rows hold {', '.join(taken)} already; give the new columns another prefix: ReadLines(prefix=)"
            )


@functools.lru_cache(maxsize=1)
def _recognizer(reader: ReadLines) -> "Recognizer":
    """The recogniser of this process. Not held by the callable, which a pool pickles again for every batch."""
    return open_recognizer(
        reader.model,
        reader.backend,
        reader.precision,
        threads=reader.threads,
        device=reader.device,
        trim=reader.trim,
        language_model=reader.language_model,
        augment_below=reader.augment_below,
        limits=reader.limits,
    )
