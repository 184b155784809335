"""`ms-ocr lm build`, `lm perplexity` and `lm tune`: thin wrappers around `decoding`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import LanguageModelError, OcrError
from .evaluate import labelled_sources
from .output import progress, refuse_existing, report_unreadable
from .reading import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from ..decoding.candidates import Candidates
    from ..decoding.language_model import Weights
    from ..metrics import Counts
    from ..recognizer import Recognizer


@click.group()
def lm() -> None:
    """Make, measure and tune language models."""


@lm.command()
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", required=True, help="ARPA file to write.")
@click.option("--order", type=click.IntRange(2, 8), default=5, show_default=True, help="Characters per n-gram.")
@click.option(
    "--vocab",
    metavar="FILE",
    help="vocab.txt of the recogniser, whose characters the model will cover [default: those of the text].",
)
@click.option(
    "--prune",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Drop n-grams whose loss raises the perplexity by less than this share: 1e-8 a little, 1e-7 much.",
)
def build(texts: tuple[str, ...], out: Path, order: int, vocab: str | None, prune: float) -> None:
    """Build a character model from plain UTF-8 text, one sentence per line; gigabytes are fine.

    Full-width forms are folded, as in a recogniser's training labels. Interpolated modified Kneser-Ney smoothing.
    """
    from ..atomic import appearing_whole
    from ..decoding.kneser_ney import estimate, write_arpa
    from ..decoding.kneser_ney import prune as pruned
    from ..vocab import Vocabulary

    refuse_existing(out, "choose another --out")
    characters = [one for one in Vocabulary.load(vocab).characters if one] if vocab else []
    model = estimate(progress(_lines(texts), "lm build", None), order, characters)
    if prune:
        model = pruned(model, prune)
    with appearing_whole(out) as temporary:
        write_arpa(model, temporary)
    grams = ", ".join(f"{len(table):,}" for table in model.tables)
    click.echo(f"{out}: order {order}, n-grams by order {grams}; {out.stat().st_size / 1e6:.1f} MB")


@lm.command()
@click.argument("model", metavar="LM")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
def perplexity(model: str, texts: tuple[str, ...]) -> None:
    """How well a model predicts text: perplexity per character, each line end counted as one.

    One row per TEXT: lines, characters, those that the model lacks, perplexity.
    """
    from ..decoding.language_model import LanguageModel

    language = LanguageModel(model)
    click.echo("text\tlines\tcharacters\tunknown\tperplexity")
    for text in texts:
        found = language.perplexity(_lines((text,)))
        click.echo(f"{text}\t{found.lines}\t{found.characters}\t{found.unknown}\t{found.value:.2f}")


@lm.command()
@click.argument("model", metavar="MODEL")
@click.argument("language_model", metavar="LM")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What computes.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@click.option("--beam-width", type=click.IntRange(min=1), default=10, show_default=True, help="Hypotheses kept.")
def tune(
    model: str, language_model: str, paths: tuple[str, ...], backend: str, precision: str, beam_width: int
) -> None:
    """Find the alpha and beta with which MODEL and LM read labelled lines best, and write them beside LM (LM.json).

    PATH is the folder of an LMDB, or a folder with labels.tsv; do not use these lines for evaluation. One row is
    printed per pair tried.
    """
    from ..decoding.language_model import LanguageModel, save_weights
    from ..decoding.tuning import tune as tuned
    from ..recognizer import Recognizer

    sets = [labelled_sources(path) for path in paths]
    language = LanguageModel(language_model)
    recognizer = Recognizer.from_pretrained(model, backend, precision)
    lines = list(_candidates(recognizer, sets))
    if not lines:
        raise LanguageModelError(f"{', '.join(paths)}: no line could be read, so nothing can be tuned")
    click.echo("alpha\tbeta\tCER")

    def report(weights: "Weights", counts: "Counts") -> None:
        click.echo(f"{weights.alpha:g}\t{weights.beta:g}\t{counts.cer:.2%}")

    weights, counts = tuned(lines, recognizer.vocabulary, language, beam_width, report)
    file = save_weights(language_model, weights)
    click.echo(f"{file}: alpha {weights.alpha:g}, beta {weights.beta:g}: CER {counts.cer:.2%} of {len(lines)} lines")


def _candidates(recognizer: "Recognizer", sets: list) -> "Iterator[tuple[Candidates, str]]":
    for open_sources, size in sets:
        for source in progress(open_sources(), "columns", size):
            try:
                if isinstance(source.image, OcrError):
                    raise source.image
                yield recognizer.candidates(source.image), source.label
            except OcrError as error:
                report_unreadable(source.name, error)


def _lines(paths: tuple[str, ...]) -> Iterator[str]:
    """Lines of text files, folded, without empty ones. Raises LanguageModelError, naming file and line."""
    from ..vocab import fold_full_width

    for path in paths:
        number = 1
        try:
            with open(path, "rb") as file:
                for line in file:
                    text = fold_full_width(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
                    number += 1
                    if text:
                        yield text
        except OSError as error:
            name = os.fspath(path)
            raise LanguageModelError(f"{name}: cannot be read ({error.strerror}); name a file of plain text") from error
        except UnicodeDecodeError:
            raise LanguageModelError(f"{path}: line {number} is not UTF-8; convert the file to UTF-8") from None
