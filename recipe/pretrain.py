"""First phase of the models' training: classes before alignment.

CTC over thousands of classes learns where characters are very slowly while it does not yet know what they are. The
synthesiser knows where it put each character, so this phase trains the very network on single columns: the column under
the middle of each character is given its class, columns between characters the blank. Cross entropy of the columns
replaces CTC. Once the network knows the classes (--weights, or --join), CTC may join in: of real lines, of which nobody
knows the columns (--real, --cuts), and of the synthetic chunks (--ctc), so that a character in doubt is read once and
not as two. The weights then go to the package's own trainer (recipe/README.md).

    python recipe/pretrain.py --inputs DIR --model DIR --out DIR --steps 5000
    python recipe/pretrain.py ... --seed 2 --weights FILE --real LMDB --cuts JSON --ctc 0.3 --kind single=0.5

Where the lines are what takes the time, as beside a GPU, chunks may come again, changed (--again), and several networks
may learn from the same ones: --model, --out, --lr, --weights ("-" for random ones) and --join then have a value for
each. Resumable: run the same command again.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import torch
from columns import ColumnDataset, column_loss
from earlier import Earlier
from real_lines import RealLines
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from ms_ocr_handwritten.backends.precision import bf16_is_faster
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT, read_torch_file, read_weights
from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.synth.text import KINDS
from ms_ocr_handwritten.training.checkpoints import save_torch
from ms_ocr_handwritten.training.ctc_loss import ctc_loss
from ms_ocr_handwritten.training.dataset import Batch, collate
from ms_ocr_handwritten.training.loss import encode_columns
from ms_ocr_handwritten.vocab import Vocabulary

SPAN = 4  # px, half of a letter as people write them in a line 32 px high
HEAD = "vitstr.head."  # the parameters that give the classes
WARMUP = 100  # steps
LOG_EVERY, SAVE_EVERY = 100, 500  # steps


def hide_spans(grey: torch.Tensor, share: float) -> torch.Tensor:
    """Chunks (N, 1, 32, 300) with `share` of their width painted as light as their paper, SPAN px at a time.

    What is hidden must be read from what is beside it (span masking: Li et al., "HTR-VT", 2024).
    """
    hidden = torch.rand(len(grey), 1, 1, -(-CHUNK_WIDTH // SPAN), device=grey.device) < share
    hidden = hidden.repeat_interleave(SPAN, -1)[..., :CHUNK_WIDTH]
    drawn = torch.where(grey > 0, grey, torch.nan).flatten(1)  # 0 is what lies beyond the end of the line
    paper = drawn.nanquantile(0.75, dim=1).nan_to_num()[:, None, None, None]
    return torch.where(hidden, paper, grey)


def kinds_with(changes: list[str]) -> dict[str, float]:
    """KINDS with other weights, each given as "name=weight". Raises SystemExit on a name that is no kind."""
    weights = {name: float(weight) for name, _, weight in (change.partition("=") for change in changes)}
    unknown = sorted(weights.keys() - KINDS.keys())
    if unknown:
        raise SystemExit(f"--kind {unknown[0]}: the kinds of text are {', '.join(KINDS)}")
    return KINDS | weights


def rate_at(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, and a cosine to a fiftieth of the peak over `progress` from 0 to 1."""
    return peak * min(1.0, (step + 1) / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, progress))))


def build_optimizers(network: ConvNextViT, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices within the network, AdamW for its ends, convolutions and vectors."""
    inner = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith(HEAD)]
    outer = [p for name, p in network.named_parameters() if p.ndim != 2 or name.startswith(HEAD)]
    return [
        torch.optim.Muon(inner, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr, weight_decay=0.02, fused=True),
    ]


class StaysFloat32(TorchFunctionMode):
    """Within it `Tensor.bfloat16` copies and converts nothing: Muon asks for it, and many a CPU only emulates it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0].clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Chunks on a device: grey (N, 1, 32, 300), classes and either (75 N,), columns (N, 75), their texts."""

    grey: torch.Tensor
    classes: torch.Tensor
    either: torch.Tensor
    columns: torch.Tensor
    texts: list[list[int]]

    @staticmethod
    def of(grey: torch.Tensor, targets: torch.Tensor) -> "Chunks":
        """What a ColumnDataset's batch holds, with grey (N, 1, 32, 300) on the device already."""
        texts = [[id for id in text if id] for text in targets[:, 2].tolist()]
        columns = torch.arange(len(grey) * CHUNK_COLUMNS, device=grey.device).view(len(grey), CHUNK_COLUMNS)
        classes, either = (targets[:, i].flatten().to(grey.device) for i in (0, 1))
        return Chunks(grey, classes, either > 0, columns, texts)


def on_device(lines: Batch, device: torch.device) -> Batch:
    """The same lines with what the network and its loss take moved to `device`, once for all that learn from them."""
    grey, columns, lengths = (tensor.to(device) for tensor in (lines.grey, lines.columns, lines.lengths))
    return dataclasses.replace(lines, grey=grey, columns=columns, lengths=lengths)


def of_a_character(nll: torch.Tensor, texts: list[list[int]]) -> torch.Tensor:
    """The CTC loss of lines (B,), of a character; a line that cannot be aligned teaches nothing."""
    return torch.where(nll.isfinite(), nll, 0.0).sum() / sum(map(len, texts))


class Student:
    """A network that learns, the moving average of its weights, its optimisers, and the folder that keeps them."""

    def __init__(self, arguments: argparse.Namespace, number: int, device: torch.device) -> None:
        """`number`: which of the values of --model and the like are its own."""
        self.arguments, self.out, self.peak = arguments, arguments.out[number], arguments.lr[number]
        self.joins = arguments.join[number]
        config = Configuration.load(arguments.model[number]).network
        network = ConvNextViT(dataclasses.replace(config, dropout=arguments.dropout))
        if arguments.weights[number] != "-":
            network.load_state_dict(read_weights(arguments.weights[number]))
        self.network, self.device = network.to(device).train(), device
        self.bf16 = bf16_is_faster(device)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(arguments.ema))
        self.optimizers = build_optimizers(network, self.peak)
        self.state_file, self.step, self.seconds = self.out / "pretrain_state.pth", 0, 0.0
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            state = read_torch_file(self.state_file)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]
        except CheckpointError:
            if self.state_file.exists():
                raise
        self._forget()

    def _forget(self) -> None:
        """What is logged of the steps since the last entry; on the device, so that no step waits for it."""
        self.sums = torch.zeros(5, device=self.device)  # losses of columns, texts, real lines; characters right, of all
        self.taken = self.seen = 0

    def learn(self, chunks: Chunks, lines: Batch | None, progress: float) -> None:
        """One step, at the rate that belongs to `progress`, the share of the training that is done."""
        if not self.taken:
            self.since = time.time()
        rate, arguments = rate_at(self.step, progress, self.peak), self.arguments
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        joined = progress >= self.joins
        lines = lines if joined else None
        grey = chunks.grey
        if lines:
            grey = torch.cat([grey, hide_spans(lines.grey, arguments.mask)])
        losses = torch.zeros(3, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            encoded = encode_columns(self.network.encode, grey)  # (75 N, D)
            drawn, written = encoded.split([chunks.columns.numel(), len(encoded) - chunks.columns.numel()])
            logits, head = self.network.classify(drawn), self.network.vitstr.head
            loss = column_loss(logits, chunks.classes, chunks.either)
            losses[0] = loss.detach()
            if arguments.ctc and joined:
                lengths = chunks.columns.new_full((len(chunks.columns),), CHUNK_COLUMNS)
                text_loss = of_a_character(ctc_loss(drawn, head, chunks.columns, lengths, chunks.texts), chunks.texts)
                loss, losses[1] = loss + arguments.ctc * text_loss, text_loss.detach()
            if lines:
                nll = ctc_loss(written, head, lines.columns, lines.lengths, lines.ids)
                real_loss = of_a_character(nll, lines.ids)
                loss, losses[2] = loss + arguments.real_weight * real_loss, real_loss.detach()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        with contextlib.nullcontext() if self.bf16 else StaysFloat32():
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.network)
        characters = (chunks.classes != Vocabulary.BLANK) & ~chunks.either
        right = (logits.argmax(-1) == chunks.classes) & characters
        self.sums += torch.cat([losses, torch.stack([right.sum(), characters.sum()])])
        self.step, self.taken, self.seen = self.step + 1, self.taken + 1, self.seen + len(grey)
        if self.step % LOG_EVERY == 0 or self.step == arguments.steps:
            self._log(rate)

    def _log(self, rate: float) -> None:
        *losses, right, count = self.sums.tolist()
        entry = {
            "step": self.step,
            **{name: total / self.taken for name, total in zip(("loss", "text_loss", "real_loss"), losses)},
            "accuracy": right / max(1, count),
            "characters": count / self.taken,
            "chunks_per_second": self.seen / (time.time() - self.since),
            "lr": rate,
        }
        print(self.out.name, json.dumps(entry), flush=True)
        with open(self.out / "pretrain_log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._forget()

    def save(self, seconds: float) -> None:
        """`seconds`: of learning so far, which --clock counts."""
        save_torch(
            {
                "step": self.step,
                "seconds": seconds,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [o.state_dict() for o in self.optimizers],
            },
            self.state_file,
        )
        save_torch(self.average.module.state_dict(), self.out / "pytorch_model.pt")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", required=True, help="what `python -m ms_ocr_handwritten.synth.fetch` fetched")
    parser.add_argument("--model", required=True, nargs="+", help="model directory: configuration.json and vocab.txt")
    parser.add_argument("--out", required=True, nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64, help="new chunks in each step")
    parser.add_argument(
        "--again", type=int, default=0, help="chunks drawn before that come again in each step, changed"
    )
    parser.add_argument("--lr", nargs="+", type=float, default=[1.5e-3])
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the moving average of the weights, a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="that draw chunks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help=f"weight of a kind of text in place of {KINDS}; may be given more than once",
    )
    parser.add_argument("--sparse", type=float, default=0.15, help="share of chunks that hold one line alone")
    parser.add_argument("--weights", nargs="+", help="weights to begin with; random ones otherwise")
    parser.add_argument("--real", help="LMDB of real lines")
    parser.add_argument("--cuts", type=Path, help="where they can be cut, as cuts.py finds it")
    parser.add_argument("--real-lines", type=int, default=8, help="of it in each step")
    parser.add_argument("--real-workers", type=int, default=1, help="that draw them")
    parser.add_argument("--real-weight", type=float, default=0.4, help="of the real lines' CTC loss")
    parser.add_argument("--augment", type=float, default=1.0, help="strength of the changes to real lines, 0 to 1.5")
    parser.add_argument("--mask", type=float, default=0.0, help="share of the width of real lines that is hidden")
    parser.add_argument("--dropout", type=float, default=0.0, help="in the encoder of columns")
    parser.add_argument("--ctc", type=float, default=0.0, help="weight of the synthetic chunks' CTC loss")
    parser.add_argument("--join", nargs="+", type=float, help="share of the training done when CTC joins in [0]")
    parser.add_argument(
        "--clock",
        type=float,
        metavar="MINUTES",
        help="the rate falls over so many minutes of learning and not over --steps; then it ends",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, to go on later")
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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    students = [Student(arguments, number, device) for number in range(len(arguments.model))]
    step, seconds = students[0].step, students[0].seconds

    synthesizer = LineSynthesizer(
        arguments.inputs, seed=arguments.seed, degrade=0.7, kinds=tuple(kinds_with(arguments.kind).items())
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
        cuts = json.loads(arguments.cuts.read_text(encoding="utf-8")) if arguments.cuts else None
        lines = RealLines(
            LmdbReader(arguments.real),
            vocabulary,
            cuts,
            step * arguments.real_lines,
            arguments.steps * arguments.real_lines,
            arguments.seed,
            arguments.augment,
        )
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
    started, last = time.time(), None
    for step, (grey, targets) in enumerate(loader, start=step + 1):  # noqa: B020 (goes on counting)
        last = last or time.time()  # the wait for the first lines is not learning
        progress = seconds / (60 * arguments.clock) if arguments.clock else (step - 1) / arguments.steps
        grey = grey[:, None].to(device)
        if earlier:
            earlier.keep(grey, targets)
            grey, targets = (torch.cat(both) for both in zip((grey, targets), earlier.draw(arguments.again)))
        chunks, lines = Chunks.of(grey, targets), next(real)
        for student in students:
            student.learn(chunks, lines, progress)
        now = time.time()
        seconds, last = seconds + now - last, now
        late = now > started + 60 * arguments.minutes or (arguments.clock and seconds > 60 * arguments.clock)
        if step % SAVE_EVERY == 0 or step == arguments.steps or late:
            for student in students:
                student.save(seconds)
        if late:
            break


if __name__ == "__main__":
    main()
