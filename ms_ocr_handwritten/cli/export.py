"""`ms-ocr export onnx` and `export int8`: thin wrappers around `onnx.export` and `onnx.int8`."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError, ImageError, OcrError, QuantizationError
from ..model_id import is_model_id
from .evaluate import evaluate_sources, labelled_sources
from .output import aligned, exit_if_unreadable, progress, refuse_existing
from .reading import reader_of
from .sources import Source

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..geometry import Layout
    from ..image import LineCanvas
    from ..metrics import Counts
    from ..model_dir import ModelDir
    from ..onnx.int8 import Comparison

BATCH_SIZE = 32  # lines read at a time

Labelled = tuple[Callable[[], Iterable[Source]], int]  # as from `labelled_sources`


@click.group()
def export() -> None:
    """Write a model in another format."""


@export.command()
@click.option("--model", metavar="DIR_OR_ID", required=True, help="Model directory, or an id (requires --out).")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: model.onnx in DIR]")
@click.option("--opset", type=click.IntRange(min=14), help="ONNX opset version [default: 17].")
@click.option(
    "--half-weights",
    is_flag=True,
    help="Store the weights as float16, for half the size; computation stays "
    "in float32. Lossless if the weights are float16 values.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists (once the new one has passed the check).")
def onnx(model: str, out: Path | None, opset: int | None, half_weights: bool, force: bool) -> None:
    """Write the network as an ONNX file, verified against PyTorch before it is put in place."""
    from ..model_dir import ONNX_FILE

    files = _open_model(model, out)
    weights = files.require_weights()
    out = out or files.path / ONNX_FILE
    if not force:
        refuse_existing(out, "give --force to replace it, or another --out")

    from ..nets.weights import load_network
    from ..onnx.export import OPSET, export_onnx

    opset = opset or OPSET
    path = export_onnx(
        load_network(files.configuration.network, weights),
        out,
        opset,
        half_weights=half_weights,
        weights=weights,
    )
    click.echo(f"{path}: {path.stat().st_size} bytes, opset {opset}")


@export.command()
@click.option("--model", metavar="DIR_OR_ID", required=True, help="Model directory, or id, which needs --out.")
@click.option(
    "--calibrate",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Lines to calibrate with, like those to be read; repeatable.",
)
@click.option(
    "--evaluate",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Labelled lines to measure the CER with; repeatable.",
)
@click.option("--lines", type=click.IntRange(min=1), default=200, show_default=True, help="To calibrate with.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: model_int8.onnx in DIR]")
@click.option("--force", is_flag=True, help="Replace the file if it exists (once the new one is accurate enough).")
def int8(
    model: str, calibrate: tuple[str, ...], evaluate: tuple[str, ...], lines: int, out: Path | None, force: bool
) -> None:
    """Quantise model.onnx to int8, unless its CER then rises by 0.2 points or more.

    PATH is the folder of an LMDB, or a folder with labels.tsv (file TAB text). Calibrate and evaluate on different
    lines. Both files read the evaluation lines, which need 1,000 characters or more; the CER of each set is printed and
    stored in the file.
    """
    from ..backends.onnx import refuse_other_weights
    from ..model_dir import INT8_FILE, ONNX_FILE

    files = _open_model(model, out)
    source, out, layout = files.onnx, out or files.path / INT8_FILE, files.configuration.network.layout
    if source is None:
        raise QuantizationError(f"{files.path}: holds no {ONNX_FILE}; make one with `ms-ocr export onnx`")
    refuse_other_weights(source, files.weights)
    calibration = [labelled_sources(path) for path in calibrate]
    sets = {path: labelled_sources(path) for path in evaluate}
    if not force:
        refuse_existing(out, "give --force to replace it, or another --out")

    from ..onnx.int8 import quantize_onnx
    from ..recognizer import Recognizer

    def score(backend: "Backend") -> "dict[str, Counts]":
        read = reader_of(Recognizer(backend, files.vocabulary), BATCH_SIZE)
        results = {
            path: evaluate_sources(
                read,
                progress(open_sources(), f"{path} {backend.precision}", size),
                files.vocabulary,
                lambda source, line: None,
            )
            for path, (open_sources, size) in sets.items()
        }
        unreadable = sum(result.unreadable for result in results.values())
        exit_if_unreadable(unreadable, sum(size for _, size in sets.values()))
        return {path: result.scores.folded for path, result in results.items()}

    comparison = quantize_onnx(source, out, _lines_of(calibration, lines, layout), score, layout)
    click.echo(_table(comparison))
    click.echo(f"{out}: {out.stat().st_size} bytes")


def _open_model(model: str, out: Path | None) -> "ModelDir":
    """Raises ConfigurationError for an id without `out`: its directory is ModelScope's cache, which is not modified."""
    from ..model_dir import ModelDir
    from ..model_id import local_directory

    if out is None and is_model_id(model) and not os.path.exists(model):
        raise ConfigurationError(f"{model}: is not a directory; to export a model by its id, give --out FILE")
    return ModelDir.open(local_directory(model))


def _lines_of(sets: list[Labelled], lines: int, layout: "Layout") -> "Iterator[LineCanvas]":
    """At most `lines` lines, evenly spread over those of all sets. Raises ImageError, naming the line."""
    from ..image import line_canvas, load_image

    total = sum(size for _, size in sets)
    chosen = {index * total // lines for index in range(lines)} if lines < total else set(range(total))
    sources = chain.from_iterable(open_sources() for open_sources, _ in sets)
    for index, source in enumerate(progress(sources, "calibrating", total)):
        if index not in chosen:
            continue
        if isinstance(source.image, OcrError):
            raise source.image
        try:
            yield line_canvas(load_image(source.image), layout)
        except ImageError as error:
            raise ImageError(f"{source.name}: {error}") from error


def _table(comparison: "Comparison") -> str:
    """One row per set, and one for all sets together."""
    cells = [["lines", "chars", "CER fp32", "CER int8", "points", "set"]]
    for row in (*comparison.rows(), comparison.total()):
        fp32, int8 = 100 * row["cer_fp32"], 100 * row["cer_int8"]
        cells.append(
            [
                str(row["lines"]),
                str(row["characters"]),
                f"{fp32:.2f} %",
                f"{int8:.2f} %",
                f"{int8 - fp32:+.2f}",
                row["set"],
            ]
        )
    return aligned(cells, last_left=True)
