"""`ms-ocr export onnx`: thin over `export.export_onnx`."""

from pathlib import Path

import click

from .output import refuse_existing


@click.group()
def export() -> None:
    """Write a model in another format."""


@export.command()
@click.option("--model", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Model directory.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: model.onnx in DIR]")
@click.option("--opset", type=click.IntRange(min=14), help="Version of ONNX's operators [default: 17].")
@click.option("--half-weights", is_flag=True, help="Store the weights as float16, for half the size; it computes in "
              "float32 all the same. Loses nothing where the weights are values of float16.")
@click.option("--force", is_flag=True, help="Replace the file if it exists (once the new one has passed the check).")
def onnx(model: Path, out: Path | None, opset: int | None, half_weights: bool, force: bool) -> None:
    """Write the network as an ONNX file, checked against PyTorch before it gets its name."""
    from ..model_dir import ONNX_FILE, ModelDir
    from ..onnx_file import sha256_of

    files = ModelDir.open(model)
    weights = files.require_weights()
    out = out or files.path / ONNX_FILE
    if not force:
        refuse_existing(out, "give --force to replace it, or another --out")

    from ..export import OPSET, export_onnx
    from ..nets.convnextvit import load_network

    opset = opset or OPSET
    path = export_onnx(load_network(files.configuration.network, weights), out, opset, half_weights=half_weights,
                       weights_sha256=sha256_of(weights))
    click.echo(f"{path}: {path.stat().st_size} bytes, opset {opset}")
