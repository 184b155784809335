"""The command line options of a run."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

SECTIONS = ("reading", "family", "embedded", "first_text", "memory", "training", "operators", "scaling", "decoding")


@dataclass(frozen=True)
class Options:
    """rounds: for short calls; `heavy_rounds` is for tasks that take seconds. images: a folder to read instead of the
    drawn lines. list_size, lines: for the timed lists, for the memory run. device: "cpu" or "gpu"."""

    only: tuple[str, ...] = SECTIONS
    rounds: int = 15
    threads: int = os.cpu_count() or 1
    device: str = "cpu"
    images: Path | None = None
    language_model: Path | None = None
    list_size: int = 200
    lines: int = 20_000
    batch: int = 16
    json: Path | None = None
    markdown: bool = False

    @property
    def heavy_rounds(self) -> int:
        return -(-self.rounds // 3)


def parse(arguments: list[str] | None = None) -> Options:
    """The options of `arguments`, by default of the command line; prints and exits on --help and on errors."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python benchmarks/run.py",
        description="Times and memory of ModelScope's builtin, RapidOCR and this package, alternating in one run.",
    )
    parser.add_argument(
        "--only",
        metavar="A,B",
        type=_sections,
        default=default.only,
        help=f"sections to run, of {', '.join(SECTIONS)} [all]",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=_positive,
        default=default.rounds,
        help="repetitions; a third of them for tasks that take seconds [%(default)s]",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_positive,
        default=default.threads,
        help="threads of every library that can be configured; first_text uses their defaults [all cores]",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="for reading, training, operators and scaling; auto uses a GPU if there is one",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=_folder,
        help="also read these: a folder of images, or with a labels.tsv that lists them",
    )
    parser.add_argument(
        "--language-model", metavar="FILE", type=Path, help="for the section decoding [one of random text]"
    )
    parser.add_argument(
        "--list-size",
        metavar="N",
        type=_positive,
        default=default.list_size,
        help="lines per timed list [%(default)s]",
    )
    parser.add_argument(
        "--lines", metavar="N", type=_positive, default=default.lines, help="for the section memory [%(default)s]"
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=_even,
        default=default.batch,
        help="lines per training step, an even number [%(default)s]",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to it, after each section")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of aligned columns")
    parsed = vars(parser.parse_args(arguments))
    return Options(**{**parsed, "device": _device(parsed["device"])})


def _device(wanted: str) -> str:
    if wanted == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # training uses a GPU whenever PyTorch sees one
        return wanted
    import torch

    if torch.cuda.is_available():
        return "gpu"
    if wanted == "gpu":
        raise SystemExit("--device gpu: PyTorch sees no GPU; leave the option out, or install PyTorch's CUDA build")
    return "cpu"


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}; available: {', '.join(SECTIONS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _even(text: str) -> int:
    if _positive(text) % 2:
        raise argparse.ArgumentTypeError(f"{text} is odd; memory is compared with half the batch")
    return int(text)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return Path(text)
