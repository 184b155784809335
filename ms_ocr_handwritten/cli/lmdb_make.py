"""`ms-ocr lmdb build | split | export`: thin wrappers around `lmdb.build`, `lmdb.split` and `lmdb.export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .lmdb_output import exit_with_problems, first, json_option, print_report, show_progress, write_page
from .output import number_of, refuse_existing

if TYPE_CHECKING:
    from ..lmdb.build import BuildReport
    from ..lmdb.split import Part, Split

_path = click.Path(path_type=Path)
_share = click.FloatRange(0, 1, min_open=True, max_open=True)
_ways = click.Choice(["line", "key", "group", "writer", "page", "folder"])


@click.command()
@click.argument("out", type=_path)
@click.argument("sources", type=_path, metavar="SOURCE...", nargs=-1, required=True)
@click.option("--from", "form", metavar="FORMAT", default="", help="Format of SOURCE [default: detected].")
@click.option("--image-root", type=_path, help="Folder of the images [default: the table's].")
@click.option(
    "--image-column", default="", metavar="NAME", help="Column of the images, if its name is not a usual one."
)
@click.option("--text-column", default="", metavar="NAME", help="Column of the texts, likewise.")
@click.option("--writer-column", default="", metavar="NAME", help="Column of the writers, likewise.")
@click.option("--page-column", default="", metavar="NAME", help="Column of the pages, likewise.")
@click.option("--subset", default="", metavar="NAME", help="Subset of a data set that has several (train ...).")
@click.option(
    "--compose",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help=".gnt: compose N lines of each writer's characters.",
)
@click.option("--texts", type=_path, metavar="FILE", help="Texts of the composed lines: UTF-8, one per line.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of composing and of --split.")
@click.option("--normalise", type=click.Choice(["nfc", "nfkc"]), help="Unicode normalisation of the labels.")
@click.option("--strict", is_flag=True, help="Stop at the first bad record, and leave nothing.")
@click.option("--skip-bad", is_flag=True, hidden=True)  # what is done unless --strict is given; scripts may say so
@click.option(
    "--split",
    "share",
    type=_share,
    metavar="SHARE",
    help="Write OUT_train with this share of the lines, and OUT_held_out.",
)
@click.option("--split-by", type=_ways, default="line", show_default=True, help="What no two parts share.")
@click.option("--report", type=_path, metavar="FILE.html", help="Write an HTML report of what was built.")
@click.option("--vocab", type=_path, help="vocab.txt: the report then lists the characters it lacks.")
@json_option
def build(
    out: Path,
    sources: tuple[Path, ...],
    form: str,
    image_root: Path | None,
    image_column: str,
    text_column: str,
    writer_column: str,
    page_column: str,
    subset: str,
    compose: int,
    texts: Path | None,
    seed: int,
    normalise: str | None,
    strict: bool,
    skip_bad: bool,
    share: float | None,
    split_by: str,
    report: Path | None,
    vocab: Path | None,
    as_json: bool,
) -> None:
    """Build the LMDB folder OUT from the lines of SOURCE, a file or folder.

    \b
    table         .tsv, .csv of file and text; PaddleOCR's rec_gt.txt
    casia         .dgrl, .dgr pages, .gnt characters (HWDB, ICDAR 2013)
    lmdb          from ModelScope, deep-text-recognition-benchmark, PaddleOCR
    iam           lines.txt or xml, and lines/
    ppocrlabel    Label.txt and its page images
    label-studio, labelme, via
                  JSON, and its page images
    pages         PAGE XML, ALTO, hOCR, and their page images
    datasets      saved to disk, or an id in the cache
    parquet, webdataset
                  files, or a folder of them

    Records that are not samples are left out and listed; the exit code is then 1. To resume an interrupted build, give
    the same command again.
    """
    from ..data.record import Columns, ReadOptions
    from ..lmdb.build import BuildOptions, build_lmdb
    from ..lmdb.split import part_paths, split_lmdb

    if report is not None:
        refuse_existing(report, "choose another --report")
    for part in part_paths(out) if share is not None else ():
        refuse_existing(part, "choose another path, or move it away first")
    read = ReadOptions(
        image_root, Columns(image_column, text_column, writer_column, page_column), subset, compose, texts, seed
    )
    options = BuildOptions(form=form, read=read, normalise=normalise)
    try:
        with show_progress("build") as progress:
            built = build_lmdb(out, sources, None, "error" if strict else "skip", progress, options)
    except KeyboardInterrupt:
        click.echo("interrupted; run the same command again to continue", err=True)
        raise
    lines = _build_lines(built)
    parts = {} if share is None else {"split": split_lmdb(out, share, split_by, seed)}
    lines += _split_lines(parts["split"]) if parts else []
    if report is not None:
        write_page(report, out, vocab, built.skipped)
    print_report(built, as_json, lines, parts)
    exit_with_problems(bool(built.skipped))


@click.command()
@click.argument("path", type=_path)
@click.option("--share", type=_share, default=0.9, show_default=True, help="Share of the lines for training.")
@click.option(
    "--by",
    type=_ways,
    default="line",
    show_default=True,
    help="Draw single lines; hold out the last ones (key); draw whole writers, pages or folders; group: the first of "
    "these three that all lines have.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--train", type=_path, metavar="OUT", help="[default: PATH_train]")
@click.option("--held-out", type=_path, metavar="OUT", help="[default: PATH_held_out]")
@json_option
def split(
    path: Path, share: float, by: str, seed: int, train: Path | None, held_out: Path | None, as_json: bool
) -> None:
    """Split the LMDB at PATH into two, for training and evaluation; PATH is not changed."""
    from ..lmdb.split import split_lmdb

    done = split_lmdb(path, share, by, seed, train, held_out)
    print_report(done, as_json, _split_lines(done))
    exit_with_problems(bool(done.train.skipped or done.held_out.skipped))


@click.command()
@click.argument("path", type=_path)
@click.argument("out", type=_path)
@click.option("--to", type=click.Choice(["folder", "rec_gt", "parquet"]), default="folder", show_default=True)
@json_option
def export(path: Path, out: Path, to: str, as_json: bool) -> None:
    """Write the LMDB at PATH as the folder OUT: image files and labels.tsv, PaddleOCR's rec_gt.txt, or Parquet."""
    from ..lmdb.export import export_lmdb

    with show_progress("export") as progress:
        done = export_lmdb(path, out, to, progress)
    lines = [
        f"{done.path}: {number_of(done.written, 'line')} written, {number_of(len(done.skipped), 'record')} left out"
    ]
    print_report(done, as_json, lines + first([f"  {one.reason}" for one in done.skipped]))
    exit_with_problems(bool(done.skipped))


def _build_lines(report: "BuildReport") -> list[str]:
    from ..lmdb.labels import KINDS

    written, left_out = number_of(report.written, "sample"), number_of(len(report.skipped), "record")
    lines = [f"{report.path}: {written} written, {left_out} left out"]
    if report.resumed:
        lines.append(f"  of these, {number_of(report.resumed, 'record')} by an earlier run that was interrupted")
    for remark in report.remarks:
        lines.append(
            f"  {number_of(remark.samples, 'label')} {KINDS[remark.kind]}: {_shortened(remark.first, remark.samples)}"
        )
    return lines + first([f"  {skipped.reason}" for skipped in report.skipped])


def _shortened(places: Sequence[str], number: int) -> str:
    return ", ".join(places) + (f", and {number - len(places)} more" if number > len(places) else "")


def _split_lines(split: "Split") -> list[str]:
    return [f"{_part(split.train, split.by)}", f"{_part(split.held_out, split.by)}"]


def _part(part: "Part", by: str) -> str:
    groups = "" if by in ("line", "key") else f" of {number_of(part.groups, by)}"
    skipped = f", {number_of(len(part.skipped), 'record')} left out" if part.skipped else ""
    return f"{part.path}: {number_of(part.samples, 'sample')}{groups}{skipped}"
