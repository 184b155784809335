"""Train a model from scratch, in stages. Run again to resume.

    python recipe/train.py --copiste DIR --work DIR [--htr DIR] [--pens train.jsonl.xz] [--configuration JSON]

Stages: inputs, vocabulary, real lines, columns, with_real, cuts, with_parts, with_pens, whole lines. A stage is done
if its output exists; a phase of `pretrain.py` if its log says so. --list prints them and their state.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ms_ocr_handwritten.synth.charset import write_vocabulary

RECIPE = Path(__file__).parent
PYTHON = sys.executable
MS_OCR = (PYTHON, "-m", "ms_ocr_handwritten.cli")
Command = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """Commands in order, and whether their output exists already."""

    name: str
    commands: tuple[Command, ...]
    done: Callable[[], bool]


@dataclass(frozen=True)
class Phase:
    """A phase of pretrain.py: steps, and its options, in which {work} is the working folder."""

    name: str
    steps: int
    options: str
    begins_with: str = ""  # the phase from whose weights it starts


SHARED = "--sparse 0.4 --ctc 0.3 --dropout 0.05 --real-weight 0.8 --mask 0.06"
PHASES = {
    "columns": Phase("columns", 5000, "--batch 48 --kind single=0.25 --lr 1.5e-3"),
    "with_real": Phase(
        "with_real",
        7000,
        "--batch 32 --lr 1.2e-3 --seed 2 --kind single=0.5 --sparse 0.3 --ctc 0.3 --real {work}/real --real-lines 10",
        "columns",
    ),
    "with_parts": Phase(
        "with_parts",
        1650,
        f"--batch 22 --lr 4e-4 --seed 6 {SHARED} --kind single=0.8 --kind english=0.2 --kind accented=0.16 "
        "--kind numbers=0.12 --real {work}/real 1 {work}/cuts.json --real-lines 8",
        "with_real",
    ),
    "with_pens": Phase(
        "with_pens",
        1500,
        f"--batch 40 --lr 3.5e-4 --seed 19 {SHARED} --ema 0.998 --kind forms=0.22 --kind words=0.4 --kind single=0.3 "
        "--kind rare=0.12 --kind english=0.06 --kind accented=0.09 --kind numbers=0.09 --kind prose=0.12 "
        "--real {work}/real 22 {work}/cuts.json --real-lines 24",
        "with_parts",
    ),
}


def finished(out: Path, steps: int) -> bool:
    """Whether the log of a phase of `pretrain.py` ends with its last step."""
    log = out / "pretrain_log.jsonl"
    return log.is_file() and json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] == steps


def pretrain(phase: Phase, arguments: argparse.Namespace, more: tuple[str, ...] = ()) -> Stage:
    work, out = arguments.work, arguments.work / phase.name
    command = [PYTHON, RECIPE / "pretrain.py", "--inputs", work / "inputs", "--model", work / "model", "--out", out]
    command += ["--steps", phase.steps, "--workers", arguments.workers, "--real-workers", arguments.workers]
    command += phase.options.format(work=work).split() + list(more)
    if phase.begins_with:
        command += ["--weights", work / phase.begins_with / "pytorch_model.pt"]
    if arguments.minutes:
        command += ["--minutes", arguments.minutes]
    return Stage(phase.name, (tuple(map(str, command)),), lambda: finished(out, phase.steps))


def lmdb(out: Path, table: Path, root: Path) -> Command:
    return (*MS_OCR, "lmdb", "build", str(out), str(table), "--image-root", str(root))


def plan(arguments: argparse.Namespace) -> Iterator[Stage]:
    """All stages, in order."""
    work, copiste = arguments.work, arguments.copiste

    def makes(name: str, path: Path, *commands: Command) -> Stage:
        return Stage(name, commands, path.exists)

    fetch = (PYTHON, "-m", "ms_ocr_handwritten.synth.fetch", str(work / "inputs"))
    yield makes("inputs", work / "inputs" / "manifest.tsv", fetch)
    split = (PYTHON, str(RECIPE / "split_copiste.py"), str(copiste), str(work / "split"))
    held_out, real = (lmdb(work / out, work / "split" / f"{t}.tsv", copiste) for out, t in LMDBS)
    yield makes("real lines", work / "real", split, held_out, real)
    pens: tuple[str, ...] = ()
    if arguments.htr:
        split = (PYTHON, str(RECIPE / "split_htr.py"), str(arguments.htr), str(work / "split_htr"))
        both = (lmdb(work / f"htr_{t}", work / "split_htr" / f"{t}.tsv", arguments.htr) for t in ("val", "train"))
        yield makes("older lines", work / "htr_train", split, *both)
        pens += ("--real", str(work / "htr_train"), "18")
    yield pretrain(PHASES["columns"], arguments)
    yield pretrain(PHASES["with_real"], arguments)
    reader = str(work / "with_real")
    cuts = (PYTHON, str(RECIPE / "cuts.py"), reader, str(work / "real"), str(work / "cuts.json"))
    yield makes("cuts", work / "cuts.json", cuts)
    yield pretrain(PHASES["with_parts"], arguments)
    if arguments.pens:
        yield pretrain(PHASES["with_pens"], arguments, (*pens, "--real", str(arguments.pens), "60"))
    for name, lines, seed, width, degrade, only in SYNTHETIC:
        options = ("--lines", lines, "--seed", seed, "--max-width", width, "--degrade", degrade, *only)
        command = (*MS_OCR, "synth", "--inputs", str(work / "inputs"), "--out", str(work / name), *map(str, options))
        yield makes(name, work / name, command)
    names = ["narrow", "single", *["real"] * arguments.repeats]
    train = [part for name in names for part in ("--train", str(work / name))]
    train += [part for name in ("real_held_out", "held_out") for part in ("--eval", str(work / name))]
    last = "with_pens" if arguments.pens else "with_parts"
    train += ["--model", str(work / last), "--work-dir", str(work / "work_dir")]
    train += ["--set", f"train.dataloader.workers_per_gpu={arguments.workers}"]
    yield makes("whole lines", work / "work_dir" / "output" / "pytorch_model.pt", (*MS_OCR, "train", *train))


LMDBS = (("real_held_out", "val"), ("real", "train"))
SYNTHETIC = (  # name, lines, seed, maximum px, degradation (the trainer augments, too), further options
    ("narrow", 24000, 101, 252, 0.25, ()),
    ("single", 8000, 103, 252, 0.4, ("--only", "single")),
    ("held_out", 400, 900, 504, 0.7, ()),
)


def prepare(work: Path, configuration: Path) -> None:
    """Configuration and vocabulary: the model that the first phase starts from, and beside the weights of each."""
    for folder in (work / "model", *(work / name for name in PHASES)):
        folder.mkdir(parents=True, exist_ok=True)
        write_vocabulary(folder / "vocab.txt")
        (folder / "configuration.json").write_bytes(configuration.read_bytes())


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--copiste", required=True, type=Path, help="folder of the lines of copiste_train")
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--htr", type=Path, help="folder of the lines of htr_train")
    parser.add_argument("--pens", type=Path, help="pen trajectories, train.jsonl.xz")
    parser.add_argument("--configuration", type=Path, default=RECIPE / "configuration.json")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw chunks, and as many for real lines")
    parser.add_argument(
        "--repeats", type=int, default=4, help="how often real lines are repeated among the whole lines"
    )
    parser.add_argument(
        "--minutes", type=float, help="limit per phase; it then stops, and resumes when this is run again"
    )
    parser.add_argument("--list", action="store_true", help="print the stages and whether they are done")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    if not arguments.list:
        prepare(arguments.work, arguments.configuration)
    for stage in plan(arguments):
        if arguments.list or stage.done():
            print(f"{stage.name}: {'done' if stage.done() else 'to be done'}")
            continue
        for command in stage.commands:
            subprocess.run(command, check=True)
        if not stage.done():
            raise SystemExit(f"{stage.name}: not finished; run the same command again")


if __name__ == "__main__":
    main()
