"""`ms-ocr recognize`: reads images and writes their texts, one row each, in input order, to stdout or files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OcrError
from .bulk_run import Run, Shard, ShardType, run_shard
from .output import exit_if_unreadable, one_line, progress, report_unreadable, tsv_row
from .reading import decoding_options, open_recognizer, read_sources, reader_of, recognizer_options
from .sources import count, expand, is_one_image

if TYPE_CHECKING:
    from ..recognizer import Line


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--format", "layout", type=click.Choice(["text", "tsv", "jsonl"]), default="text", show_default=True)
@click.option(
    "--trim", type=click.Choice(["never", "auto"]), default="never", show_default=True, help="Cut off wide margins."
)
@click.option(
    "--n-best",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Texts per line: jsonl lists them as alternatives.",
)
@click.option(
    "--image-column",
    default="",
    metavar="NAME",
    help="Column of images in Parquet files, if its name is not a usual one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the parts FILE-00000 ... (.jsonl or .parquet), each once it is complete.",
)
@click.option("--resume", is_flag=True, help="With --out: read what an interrupted run did not.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --out: number of processes, of one thread each if there are several.",
)
@click.option("--shard", type=ShardType(), metavar="I/N", help="With --out: read every Nth part, from the Ith.")
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="With --out: lines per part.",
)
@decoding_options
@recognizer_options
def recognize(
    paths: tuple[str, ...],
    layout: str,
    trim: str,
    n_best: int,
    image_column: str,
    out: Path | None,
    resume: bool,
    workers: int,
    shard: Shard | None,
    part_size: int,
    language_model: str | None,
    augment_below: float | None,
    allowed: str | None,
    lexicon: str | None,
    lexicon_mode: str,
    model: str | None,
    backend: str,
    precision: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Read images of single lines.

    PATH is an image, an http(s) URL, a folder (searched for images at any depth, in order of name; hidden files and
    __MACOSX are left out), a pattern such as 'scans/*.png', the folder of an LMDB (its keys are the names), a Parquet
    file, a tar file of WebDataset, or a .txt file that names images, one per line.

    \b
    text   the text alone if the one PATH is an image, else path TAB text; control characters in path are escaped
    tsv    a header, then path, score, text; \\t, \\n, \\r and \\\\ are escapes as in Python
    jsonl  one object per line: path, text, score, chars (character, score, x0, x1 in px of the image), and alternatives
           (text, log-probability) if --n-best, a language model or a constraint was given

    What cannot be read is reported on stderr, the rest is read, and the exit code is 1.

    With --out a row is path, text, score, chars (and alternatives), or path and error. Part p holds the lines from
    p times --part-size on, whichever process writes it; FILE.run.json records the settings of the run.
    """
    if out is not None:
        if layout not in ("text", out.suffix[1:]):
            raise click.UsageError(f"--format is for stdout; the name of --out, {out}, says what is written there")
        asked = {"n_best": n_best, "allowed": allowed, "lexicon": lexicon, "lexicon_mode": lexicon_mode}
        opened = {"device": device, "trim": trim, "language_model": language_model, "augment_below": augment_below}
        run = Run(paths, image_column, out, part_size, model, backend, precision, batch_size, opened, asked)
        run_shard(run, shard or Shard(0, 1), workers, resume)
        return
    if resume or shard or workers > 1:
        raise click.UsageError("--resume, --shard and --workers need --out")
    recognizer = open_recognizer(model, backend, precision, device, language_model, trim, augment_below=augment_below)
    read = reader_of(recognizer, batch_size, n_best=n_best, allowed=allowed, lexicon=lexicon, lexicon_mode=lexicon_mode)
    alone = len(paths) == 1 and is_one_image(paths[0])
    if layout == "tsv":
        click.echo(tsv_row("path", "score", "text"))
    done = unreadable = 0
    results = read_sources(read, expand(paths, column=image_column))
    for source, line in progress(results, "recognize", count(paths)):
        done += 1
        if isinstance(line, OcrError):
            unreadable += 1
            report_unreadable(source.name, line)
        else:
            click.echo(_formatted(source.name, line, layout, alone))
    exit_if_unreadable(unreadable, done)


def _formatted(name: str, line: "Line", layout: str, alone: bool) -> str:
    if layout == "jsonl":
        from ..line import line_row

        return json.dumps(line_row(name, line), ensure_ascii=False)
    if layout == "tsv":
        return tsv_row(name, f"{line.score:.6f}", line.text)
    return line.text if alone else f"{one_line(name)}\t{line.text}"
