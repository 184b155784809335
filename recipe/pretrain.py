"""First phase of the embedded model's training: classes before alignment.

CTC over thousands of classes learns where characters are very slowly while it does not yet know what they are. The
synthesiser knows where it put each character, so this phase trains the very network on single columns: the column under
the middle of each character is given its class, columns between characters the blank. Cross entropy of the columns
replaces CTC. Once the network knows the classes (--weights), CTC may join in: of real lines, of which nobody knows the
columns (--real), and of the synthetic chunks (--ctc), so that a character in doubt is read once and not as two. The
weights then go to the package's own trainer (recipe/README.md).

    python recipe/pretrain.py --inputs DIR --model DIR --out DIR --steps 5000
    python recipe/pretrain.py ... --seed 2 --weights FILE --real LMDB --ctc 0.3 --kind single=0.5 --dropout 0.1

Resumable: run the same command again.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import torch
from columns import ColumnDataset, column_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, RandomSampler

from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH
from ms_ocr_handwritten.lmdb_store import LmdbReader
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT, read_torch_file, read_weights
from ms_ocr_handwritten.nets.cpu_training import encode_columns
from ms_ocr_handwritten.nets.ctc_loss import ctc_loss
from ms_ocr_handwritten.nets.precision import bf16_is_faster
from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.synth.text import KINDS
from ms_ocr_handwritten.training.checkpoints import save_torch
from ms_ocr_handwritten.training.dataset import Batch, LineDataset, collate
from ms_ocr_handwritten.vocab import Vocabulary

SPAN = 4  # px, half of a letter as people write them in a line 32 px high
HEAD = "vitstr.head."  # the parameters that give the classes


def real_batches(paths: Sequence[str], vocabulary: Vocabulary, lines: int, seed: int, workers: int,
                 strength: float = 1.0) -> Iterator[Batch]:
    """Lines of LMDBs without end, augmented with `strength`, `lines` at a time, in a new order each time round."""
    dataset = LineDataset([LmdbReader(path) for path in paths], vocabulary, augment=strength, seed=seed)
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
    while True:
        yield from DataLoader(dataset, lines, sampler=sampler, drop_last=True, num_workers=workers, prefetch_factor=8,
                              collate_fn=partial(collate, skip_padding=True), multiprocessing_context="fork",
                              worker_init_fn=lambda _: cv2.setNumThreads(0))
        dataset.epoch += 1


def hide_spans(grey: torch.Tensor, share: float) -> torch.Tensor:
    """Chunks (N, 1, 32, 300) with `share` of their width painted as light as their paper, SPAN px at a time.

    What is hidden must be read from what is beside it (span masking: Li et al., "HTR-VT", 2024).
    """
    hidden = torch.rand(len(grey), 1, 1, -(-CHUNK_WIDTH // SPAN)) < share
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


def rate_at(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine to a fiftieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def build_optimizers(network: ConvNextViT, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices within the network, AdamW for its ends, convolutions and vectors."""
    inner = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith(HEAD)]
    outer = [p for name, p in network.named_parameters() if p.ndim != 2 or name.startswith(HEAD)]
    return [torch.optim.Muon(inner, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(outer, lr=lr, weight_decay=0.02, fused=True)]


class StaysFloat32(TorchFunctionMode):
    """Within it `Tensor.bfloat16` copies and converts nothing: Muon asks for it, and many a CPU only emulates it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0].clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", required=True, help="what `python -m ms_ocr_handwritten.synth.fetch` fetched")
    parser.add_argument("--model", required=True, help="model directory: configuration.json and vocab.txt")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kind", action="append", default=[], metavar="NAME=WEIGHT",
                        help=f"weight of a kind of text in place of {KINDS}; may be given more than once")
    parser.add_argument("--sparse", type=float, default=0.15, help="share of chunks that hold one line alone")
    parser.add_argument("--weights", help="weights to begin with; random ones otherwise")
    parser.add_argument("--real", action="append", help="LMDB of real lines; may be given more than once")
    parser.add_argument("--real-lines", type=int, default=8, help="of it in each step")
    parser.add_argument("--real-weight", type=float, default=0.4, help="of the real lines' CTC loss")
    parser.add_argument("--augment", type=float, default=1.0, help="strength of the changes to real lines, 0 to 1.5")
    parser.add_argument("--mask", type=float, default=0.0, help="share of the width of real lines that is hidden")
    parser.add_argument("--dropout", type=float, default=0.0, help="in the encoder of columns")
    parser.add_argument("--ctc", type=float, default=0.0, help="weight of the synthetic chunks' CTC loss")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, to go on later")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    vocabulary = Vocabulary.load(Path(arguments.model) / "vocab.txt")
    network = ConvNextViT(dataclasses.replace(Configuration.load(arguments.model).network, dropout=arguments.dropout))
    if arguments.weights:
        network.load_state_dict(read_weights(arguments.weights))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).train()
    bf16 = bf16_is_faster(device)
    head = network.vitstr.head
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizers = build_optimizers(network, arguments.lr)
    state_file, step = arguments.out / "pretrain_state.pth", 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        state = read_torch_file(state_file)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]
    except CheckpointError:
        if state_file.exists():
            raise

    synthesizer = LineSynthesizer(arguments.inputs, seed=arguments.seed, degrade=0.7,
                                  kinds=tuple(kinds_with(arguments.kind).items()))
    dataset = ColumnDataset(synthesizer, vocabulary, step * arguments.batch, arguments.steps * arguments.batch,
                            arguments.sparse)
    loader = DataLoader(dataset, arguments.batch, num_workers=arguments.workers, prefetch_factor=8,
                        multiprocessing_context="fork", worker_init_fn=lambda _: cv2.setNumThreads(0))
    real = None
    if arguments.real:  # a run that goes on begins with another order
        real = real_batches(arguments.real, vocabulary, arguments.real_lines, seed=1000 * arguments.seed + step,
                            workers=max(1, arguments.workers // 4), strength=arguments.augment)
    end = time.time() + 60 * arguments.minutes
    started, taken, seen, right, count = time.time(), 0, 0, 0, 0
    total = total_text = total_real = 0.0
    for grey, targets in loader:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate_at(step, arguments.steps, arguments.lr)
        texts = [[id for id in text if id] for text in targets[:, 2].tolist()]
        grey, classes, either = grey[:, None].to(device), targets[:, 0].to(device), targets[:, 1].to(device) > 0
        columns, lines = torch.arange(classes.numel(), device=device).view_as(classes), next(real) if real else None
        if lines:
            grey = torch.cat([grey, hide_spans(lines.grey, arguments.mask).to(device)])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            encoded = encode_columns(network.encode, grey)  # (75 N, D)
            drawn, written = encoded.split([columns.numel(), len(encoded) - columns.numel()])
            logits = network.classify(drawn)
            classes, either = classes.flatten(), either.flatten()
            loss = column_loss(logits, classes, either)
            total += loss.item()
            if arguments.ctc:
                nll = ctc_loss(drawn, head, columns, columns.new_full((len(columns),), CHUNK_COLUMNS), texts)
                text_loss = nll.sum() / sum(map(len, texts))  # of a character
                loss, total_text = loss + arguments.ctc * text_loss, total_text + text_loss.item()
            if lines:
                nll = ctc_loss(written, head, lines.columns.to(device), lines.lengths.to(device), lines.ids)
                real_loss = nll.sum() / sum(map(len, lines.ids))
                loss, total_real = loss + arguments.real_weight * real_loss, total_real + real_loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        with contextlib.nullcontext() if bf16 else StaysFloat32():
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        average.update_parameters(network)
        step, taken, seen = step + 1, taken + 1, seen + len(grey)
        characters = (classes != Vocabulary.BLANK) & ~either
        right += ((logits.argmax(-1) == classes) & characters).sum().item()
        count += characters.sum().item()
        if step % 100 == 0 or step == arguments.steps:
            entry = {"step": step, "loss": total / taken, "text_loss": total_text / taken,
                     "real_loss": total_real / taken, "accuracy": right / max(1, count),
                     "characters": count / taken, "chunks_per_second": seen / (time.time() - started),
                     "lr": rate_at(step - 1, arguments.steps, arguments.lr)}
            print(json.dumps(entry), flush=True)
            with open(arguments.out / "pretrain_log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            started, taken, seen, right, count = time.time(), 0, 0, 0, 0
            total = total_text = total_real = 0.0
        late = time.time() > end
        if step % 500 == 0 or step == arguments.steps or late:
            save_torch({"step": step, "network": network.state_dict(), "average": average.state_dict(),
                        "optimizers": [o.state_dict() for o in optimizers]}, state_file)
            save_torch(average.module.state_dict(), arguments.out / "pytorch_model.pt")
        if late:
            break


if __name__ == "__main__":
    main()
