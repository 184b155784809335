"""`ms-ocr curve`: training curves as a figure."""

from pathlib import Path

import click


@click.command()
@click.argument("work_dirs", metavar="WORK_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default="curves.png",
    show_default=True,
    help="Image to write: .png, .svg or .pdf.",
)
def curve(work_dirs: tuple[Path, ...], out: Path) -> None:
    """Plot loss, CER, line accuracy, learning rate and lines per second of trainings, also while they run.

    WORK_DIR is that of `ms-ocr train`; several are plotted in the same figure.
    """
    from ..report.curves import draw_curves, read_curves

    draw_curves([read_curves(work_dir) for work_dir in work_dirs], out)
    click.echo(str(out))
