"""`ms-ocr doctor`: what is installed, how fast each backend reads on this machine, and what `auto` selects."""

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..errors import OcrError

if TYPE_CHECKING:
    from ..image import LineCanvas
    from ..model_dir import ModelDir
    from ..recognizer import Recognizer

PACKAGES = {  # what is unavailable without them
    "torch": "reading pytorch_model.pt, training",
    "modelscope": "pipeline, MsDataset, build_trainer",
    "onnxruntime": "reading model.onnx; `pip install ms_ocr_handwritten[onnx]`",
    "openvino": "backend 'openvino'; `pip install ms_ocr_handwritten[openvino]`",
    "rapidocr": "`ms-ocr evaluate --peer`; `pip install ms_ocr_handwritten[peer]`",
}
LINE_WIDTH = 240  # px at 32 px height: one chunk
BATCH = 24  # lines


@click.command()
@click.option("--model", metavar="DIR_OR_ID", help="Model directory or id [default: the embedded model].")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Rounds per measurement.")
def doctor(model: str | None, rounds: int) -> None:
    """Show versions and speeds, and what `auto` selects.

    Milliseconds are medians over rounds in which all combinations take turns; a line of one chunk is 240 x 32 px. The
    exit code is 1 if no combination can read the model.
    """
    from ..model_dir import ModelDir, default_model_dir
    from ..model_id import local_directory

    click.echo(f"python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for package, use in PACKAGES.items():
        click.echo(f"{package:<12} {_version(package) or f'missing ({use})'}")
    click.echo(_processor())
    files = ModelDir.open(local_directory(model) if model else default_model_dir())
    click.echo(
        f"\nmodel: {files.path}, {files.configuration.network.recognizer}, "
        f"{files.configuration.network.num_classes} classes\n"
    )
    readers = dict(_readers(files))
    if not readers:
        raise click.exceptions.Exit(1)
    for row in _table(readers, rounds):
        click.echo(row)
    click.echo()
    for row in _choices(files):
        click.echo(row)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """How PyTorch computes here, and its matrix multiplication rate, as a line of text."""
    if _version("torch") is None:
        return ""
    import torch

    from ..backends.precision import gemm_rates

    rates = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in gemm_rates().items())
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return (
        f"CPU: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; products of matrices: "
        f"{rates}\nGPU: {', '.join(gpus) or 'none that torch can use'}"
    )


def _readers(files: "ModelDir") -> "Iterator[tuple[tuple[str, str], Recognizer]]":
    """(backend, precision) and a recogniser for each combination that works here; the others are reported."""
    from ..backends import PRECISIONS_OF
    from ..recognizer import Recognizer

    for backend, precisions in PRECISIONS_OF.items():
        for precision in precisions:
            try:
                yield (backend, precision), Recognizer.from_pretrained(files.path, backend, precision)
            except OcrError as error:
                click.echo(f"not here: {backend} {precision}: {error}")


def _table(readers: "dict[tuple[str, str], Recognizer]", rounds: int) -> Iterator[str]:
    import numpy as np

    from ..image import line_canvas

    noise = np.random.default_rng(0).integers(0, 256, (BATCH, 32, LINE_WIDTH, 3), np.uint8)
    layout = next(iter(readers.values())).layout
    lines = [line_canvas(image, layout) for image in noise]
    sizes = {1: lines[:1], BATCH: lines}
    times: dict[tuple[tuple[str, str], int], list[float]] = {(name, size): [] for name in readers for size in sizes}
    for _ in range(rounds):
        for name, reader in readers.items():
            for size, batch in sizes.items():
                times[name, size].append(_milliseconds(reader, batch) / size)
    yield f"{'backend':<12} {'precision':<10} {'ms/line, single':>16} {f'in batches of {BATCH}':>16}"
    for backend, precision in readers:
        alone, batched = (statistics.median(times[(backend, precision), size]) for size in sizes)
        yield f"{backend:<12} {precision:<10} {alone:16.2f} {batched:16.2f}"


def _milliseconds(reader: "Recognizer", lines: "list[LineCanvas]") -> float:
    """Duration of one reading, after an untimed warm-up."""
    reader.read_canvases(lines)
    start = time.perf_counter()
    reader.read_canvases(lines)
    return 1000 * (time.perf_counter() - start)


def _choices(files: "ModelDir") -> Iterator[str]:
    """What "auto" selects in a process that has imported torch, and in one that has not, such as `ms-ocr recognize`."""
    from ..backends import automatic_backend

    for situation, imported in (("with torch imported", True), ("without", False)):
        backend, reason = automatic_backend(files, "auto", None, torch_imported=imported)
        precision = "fp32"
        if backend == "torch":
            import torch

            from ..backends.pytorch import automatic_precision

            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            precision = automatic_precision(device, files.configuration.network.layout)
        yield f"auto, {situation}: backend {backend!r}, precision {precision!r} ({reason})"
