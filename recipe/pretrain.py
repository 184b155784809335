"""First phase of the models' training: classes before alignment.

CTC over thousands of classes learns positions very slowly as long as it does not know the characters yet. The
synthesiser knows where it placed each character, so this phase trains the same network on single columns: the target of
the column at the middle of each character is its class, that of columns between characters the blank. Cross entropy of
the columns replaces CTC. Once the network knows the classes (--weights, or --join), CTC can be added: for real lines,
whose columns are unknown (--real), and for the synthetic chunks (--ctc), so that an uncertain character is read as one
and not as two. The weights are then used by the package's own trainer (recipe/README.md).

    python recipe/pretrain.py --inputs DIR --model DIR --out DIR --steps 5000
    python recipe/pretrain.py ... --seed 2 --weights FILE --real LMDB 1 CUTS.json --ctc 0.3 --kind single=0.5

If drawing lines is the bottleneck, as with a GPU, chunks can be reused with changes (--again), and several networks
can be trained on the same chunks: --model, --out, --lr, --weights ("-" for random ones) and --join then take a value
for each. Under torchrun several processes train one network, each on its own lines. To resume, run the same command
again.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import torch
from columns import ColumnDataset
from earlier import Earlier
from mixture import Mixture, open_source
from student import Chunks, Student, on_device
from torch.utils.data import DataLoader

from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.synth.text import KINDS
from ms_ocr_handwritten.training.dataset import Batch, collate
from ms_ocr_handwritten.training.distributed import Ranks
from ms_ocr_handwritten.vocab import Vocabulary

OTHER_SEED = 7919  # between the seeds of two ranks
SAVE_EVERY = 100  # steps


def kinds_with(changes: list[str]) -> dict[str, float]:
    """KINDS with modified weights, each given as "name=weight". Raises SystemExit for an unknown kind."""
    weights = {name: float(weight) for name, _, weight in (change.partition("=") for change in changes)}
    unknown = sorted(weights.keys() - KINDS.keys())
    if unknown:
        raise SystemExit(f"--kind {unknown[0]}: the kinds of text are {', '.join(KINDS)}")
    return KINDS | weights


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", required=True, help="output of `python -m ms_ocr_handwritten.synth.fetch`")
    parser.add_argument("--model", required=True, nargs="+", help="model directory: configuration.json and vocab.txt")
    parser.add_argument("--out", required=True, nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64, help="new chunks in each step")
    parser.add_argument("--again", type=int, default=0, help="earlier chunks reused in each step, with changes")
    parser.add_argument("--lr", nargs="+", type=float, default=[1.5e-3])
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the moving average of the weights, a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw chunks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help=f"weight of a kind of text in place of {KINDS}; may be given more than once",
    )
    parser.add_argument("--sparse", type=float, default=0.15, help="share of chunks with a single line")
    parser.add_argument("--weights", nargs="+", help="initial weights [random]")
    parser.add_argument(
        "--real",
        action="append",
        nargs="+",
        default=[],
        metavar="SOURCE [SHARE [CUTS]]",
        help="LMDB of real lines, or a file of pen trajectories (.jsonl.xz); its share among several; "
        "where its lines can be cut, as found by cuts.py",
    )
    parser.add_argument("--real-lines", type=int, default=8, help="number of real lines in each step")
    parser.add_argument("--real-workers", type=int, default=1, help="processes that draw real lines")
    parser.add_argument("--real-weight", type=float, default=0.4, help="weight of the real lines' CTC loss")
    parser.add_argument("--augment", type=float, default=1.0, help="augmentation strength for real lines, 0 to 1.5")
    parser.add_argument("--mask", type=float, default=0.0, help="share of the width of real lines that is masked")
    parser.add_argument("--dropout", type=float, default=0.0, help="dropout in the column encoder")
    parser.add_argument("--ctc", type=float, default=0.0, help="weight of the synthetic chunks' CTC loss")
    parser.add_argument("--join", nargs="+", type=float, help="share of the training done when CTC joins in [0]")
    parser.add_argument(
        "--clock",
        type=float,
        metavar="MINUTES",
        help="spread the schedule over this many minutes of training instead of --steps, then end",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this many minutes, to resume later")
    arguments = parser.parse_args(words)
    arguments.weights = arguments.weights or ["-"] * len(arguments.model)
    arguments.join = arguments.join or [0.0] * len(arguments.model)
    for name in ("out", "lr", "weights", "join"):
        if len(getattr(arguments, name)) != len(arguments.model):
            parser.error(f"--{name}: give one for each --model, {len(arguments.model)}")
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    vocabulary = Vocabulary.load(Path(arguments.model[0]) / "vocab.txt")
    ranks = Ranks.join()
    device, seed = ranks.device, arguments.seed + OTHER_SEED * ranks.rank
    students = [Student(arguments, number, ranks) for number in range(len(arguments.model))]
    step, seconds = students[0].step, students[0].seconds
    torch.manual_seed(seed)

    synthesizer = LineSynthesizer(
        arguments.inputs, seed=seed, degrade=0.7, kinds=tuple(kinds_with(arguments.kind).items())
    )
    load = partial(
        DataLoader, prefetch_factor=3, multiprocessing_context="fork", worker_init_fn=lambda _: cv2.setNumThreads(0)
    )
    dataset = ColumnDataset(
        synthesizer, vocabulary, step * arguments.batch, arguments.steps * arguments.batch, arguments.sparse
    )
    loader = load(dataset, arguments.batch, num_workers=arguments.workers)
    real: Iterator[Batch | None] = itertools.repeat(None)
    if arguments.real:
        spelt = synthesizer.texts.english
        sources = [open_source(words, vocabulary, spelt, seed, arguments.augment) for words in arguments.real]
        shares = [int(words[1]) if len(words) > 1 else 1 for words in arguments.real]
        first, last = (number * arguments.real_lines for number in (step, arguments.steps))
        lines = Mixture(sources, shares, first, last, seed)
        real = map(
            partial(on_device, device=device),
            load(
                lines,
                arguments.real_lines,
                num_workers=arguments.real_workers,
                collate_fn=partial(collate, skip_padding=True),
            ),
        )
    earlier = Earlier(device) if arguments.again else None
    started, last = ranks.gather(time.time())[0], None
    for step, (grey, targets) in enumerate(loader, start=step + 1):  # noqa: B020 (goes on counting)
        last = last or ranks.gather(time.time())[0]  # waiting for the first lines is not training time
        progress = seconds / (60 * arguments.clock) if arguments.clock else (step - 1) / arguments.steps
        grey = grey[:, None].to(device)
        if earlier:
            earlier.keep(grey, targets)
            grey, targets = (torch.cat(both) for both in zip((grey, targets), earlier.draw(arguments.again)))
        chunks, lines = Chunks.of(grey, targets), next(real)
        for student in students:
            student.learn(chunks, lines, progress)
        now = ranks.gather(time.time())[0]  # the first rank's clock applies to all
        seconds, last = seconds + now - last, now
        late = now > started + 60 * arguments.minutes or (arguments.clock and seconds > 60 * arguments.clock)
        if step % SAVE_EVERY == 0 or step == arguments.steps or late:
            for student in students:
                student.save(seconds)
        if late:
            break
    ranks.leave()


if __name__ == "__main__":
    main()
