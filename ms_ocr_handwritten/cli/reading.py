"""Shared by the commands that read lines: the options that select the recogniser, and reading a stream of sources."""

from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImageError, OcrError
from .sources import Source

if TYPE_CHECKING:
    from ..image.limits import Limits
    from ..recognizer import Line, Recognizer

# Copies of `backends.BACKENDS` and `backends.PRECISIONS`, as help must not wait for numpy to load.
BACKENDS = ("auto", "torch", "onnxruntime", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "bf16+fp32", "fp16", "int8")

ReadMany = Callable[[Iterable], "Iterator[Line | OcrError]"]  # images to lines, in order, errors included

_OPTIONS = (
    click.option("--model", metavar="DIR_OR_ID", help="Model directory or id [default: the embedded model]."),
    click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What computes."),
    click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
    click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Lines per batch."),
    click.option("--device", metavar="D", help="cpu, gpu, gpu:1 ... [default: a GPU if there is one]."),
)


def recognizer_options(command: Callable) -> Callable:
    """Adds --model, --backend, --precision, --batch-size and --device."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_DECODER = (
    click.option("--language-model", metavar="FILE", help="Character n-gram model, from `ms-ocr lm build`."),
    click.option(
        "--augment-below",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="SCORE",
        help="Read lines with a lower score in other views, too; 0: none [default: as configuration.json says].",
    ),
)

_ASKED = (
    click.option(
        "--allowed", metavar="CHARS", help="Only these characters may be read, such as 0123456789 [default: all]."
    ),
    click.option("--lexicon", metavar="FILE", help="File of the only entries that may be read, one per line."),
    click.option(
        "--lexicon-mode",
        type=click.Choice(("line", "words")),
        default="line",
        show_default=True,
        help="A line is one entry, or a sequence of entries.",
    ),
)


def decoder_options(command: Callable) -> Callable:
    """Adds --language-model and --augment-below, which hold for all that a recogniser reads."""
    for option in reversed(_DECODER):
        command = option(command)
    return command


def decoding_options(command: Callable) -> Callable:
    """Adds --language-model, --augment-below, --allowed, --lexicon and --lexicon-mode."""
    for option in reversed((*_DECODER, *_ASKED)):
        command = option(command)
    return command


def open_recognizer(
    model: str | None,
    backend: str,
    precision: str,
    device: str | None,
    language_model: str | None = None,
    trim: str = "never",
    limits: "Limits | None" = None,
    augment_below: float | None = None,
) -> "Recognizer":
    """Raises the errors of `Recognizer.from_pretrained` and `default_model_dir`."""
    from ..image.limits import Limits
    from ..model_dir import default_model_dir
    from ..recognizer import Recognizer

    return Recognizer.from_pretrained(
        model or default_model_dir(),
        backend,
        precision,
        device=device,
        limits=limits or Limits(),
        trim=trim,
        language_model=language_model,
        augment_below=augment_below,
    )


def reader_of(recognizer: "Recognizer", batch_size: int, **asked: Any) -> ReadMany:
    """asked: further arguments of `Recognizer.read_many`, such as `n_best`."""
    return lambda images: recognizer.read_many(images, batch_size, errors="yield", **asked)


def read_sources(read: ReadMany, sources: Iterable[Source]) -> "Iterator[tuple[Source, Line | OcrError]]":
    """Each source with its line, or with the reason why there is none; at most one batch is held in memory."""
    sources, ahead = tee(sources)
    lines = read(source.image for source in ahead if not isinstance(source.image, OcrError))
    for source in sources:
        found = source.image if isinstance(source.image, OcrError) else next(lines)
        if isinstance(found, ImageError):
            found.index = None  # the source's name is more informative
        yield source, found
