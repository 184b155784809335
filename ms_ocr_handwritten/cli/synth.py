"""`ms-ocr synth`: synthetic lines as an LMDB for training; a thin wrapper around `synth.line` and `lmdb.store`."""

from pathlib import Path

import click

from ..errors import ConfigurationError
from .output import number_of, progress


@click.command()
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder filled by `python -m ms_ocr_handwritten.synth.fetch DIR`.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="LMDB", required=True, help="Folder to make.")
@click.option("--lines", type=click.IntRange(min=1), required=True, help="How many.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="A seed determines line N.")
@click.option("--start", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the first line.")
@click.option("--max-width", type=click.IntRange(min=32), default=252, show_default=True, help="Px at 32 px height.")
@click.option(
    "--degrade",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Degradation by paper and scanner; 0 is dark ink on clean paper.",
)
@click.option(
    "--only",
    metavar="KIND",
    multiple=True,
    help="Only texts of this kind (words, prose, rare, english, accented, numbers, mixed, single, forms); repeatable.",
)
def synth(
    inputs: Path, out: Path, lines: int, seed: int, start: int, max_width: int, degrade: float, only: tuple[str, ...]
) -> None:
    """Draw handwritten lines with their labels into a new LMDB."""
    from ..lmdb.store import write_lmdb
    from ..synth.line import generate
    from ..synth.text import KINDS

    if unknown := set(only) - set(KINDS):
        raise ConfigurationError(f"--only {', '.join(sorted(unknown))}: no such kind; available: {', '.join(KINDS)}")
    kinds = tuple((kind, weight) for kind, weight in KINDS.items() if not only or kind in only)
    samples = generate(inputs, lines, seed, start, max_width=max_width, degrade=degrade, kinds=kinds)
    written = write_lmdb(out, progress(samples, "synth", lines))
    click.echo(f"{out}: {number_of(written, 'sample')} written")
