"""`ms-ocr app`: a browser page for trying a model and correcting its readings."""

from pathlib import Path

import click

from .reading import BACKENDS, PRECISIONS

CORRECTIONS = "corrections"


@click.command()
@click.option(
    "--model",
    "models",
    metavar="DIR_OR_ID",
    multiple=True,
    help="Model directory or id that the page offers; repeatable [default: the embedded model].",
)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What computes.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Initial choice.")
@click.option("--device", metavar="D", help="cpu, gpu, gpu:1 ... [default: a GPU if there is one].")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 gives access to everyone who can reach this machine.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: the first free one from 7860]")
@click.option(
    "--corrections",
    type=click.Path(path_type=Path),
    metavar="LMDB",
    help=f"Corrected readings are appended to it [default: ./{CORRECTIONS}, none where others have access].",
)
def app(
    models: tuple[str, ...],
    backend: str,
    precision: str,
    device: str | None,
    host: str,
    port: int | None,
    corrections: Path | None,
) -> None:
    """Try a model in the browser, and correct what it reads.

    Reads a line image that is dropped, pasted or drawn, and pages if the extra `page` is installed. Corrected readings
    are saved in an LMDB for `ms-ocr train`. Needs `pip install ms_ocr_handwritten[app]`. Stop with Ctrl-C.

    No network access, unless a model is given as an id. If other hosts are admitted, they cannot choose other models,
    and nothing is saved without --corrections.
    """
    from ..app.interface import Settings, is_loopback, serve
    from ..lmdb.store import LmdbReader

    if corrections is None and is_loopback(host):
        corrections = Path(CORRECTIONS)
    if corrections is not None and corrections.exists():
        len(LmdbReader(corrections))  # raises where no line could be appended to it
    settings = Settings(
        models=models,
        backend=backend,
        precision=precision,
        device=device,
        host=host,
        port=port,
        corrections=corrections and corrections.absolute(),
    )
    served = serve(settings)
    click.echo(f"{served.url} (Ctrl-C ends it)")
    if corrections is not None:
        click.echo(f"corrections: {settings.corrections}")
    served.wait()
