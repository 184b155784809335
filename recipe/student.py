"""A network in training on single columns and texts: its losses, its optimisers, and its folder."""

import argparse
import contextlib
import dataclasses
import json
import math
import time

import torch
from columns import column_loss
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from ms_ocr_handwritten.backends.precision import bf16_is_faster
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import read_torch_file, read_weights
from ms_ocr_handwritten.training.checkpoints import save_torch
from ms_ocr_handwritten.training.ctc_loss import ctc_loss
from ms_ocr_handwritten.training.dataset import Batch
from ms_ocr_handwritten.training.distributed import Ranks
from ms_ocr_handwritten.training.loss import encode_columns
from ms_ocr_handwritten.vocab import Vocabulary

SPAN = 4  # px, half the width of a typical letter in a line 32 px high
HEAD = "vitstr.head."  # the parameters that compute the classes
BLANKS = 0.4  # share of the blank columns trained per step
READ_AS_TEXT = 3  # one chunk in this many is also trained with CTC
WARMUP = 100  # steps
LOG_EVERY = 100  # steps


def hide_spans(grey: torch.Tensor, share: float) -> torch.Tensor:
    """Chunks (N, 1, 32, 300) with `share` of their width replaced by the colour of their paper, SPAN px at a time.

    The hidden parts must be inferred from their surroundings (span masking: Li et al., "HTR-VT", 2024).
    """
    hidden = torch.rand(len(grey), 1, 1, -(-CHUNK_WIDTH // SPAN), device=grey.device) < share
    hidden = hidden.repeat_interleave(SPAN, -1)[..., :CHUNK_WIDTH]
    drawn = torch.where(grey > 0, grey, torch.nan).flatten(1)  # 0 is beyond the end of the line
    paper = drawn.nanquantile(0.75, dim=1).nan_to_num()[:, None, None, None]
    return torch.where(hidden, paper, grey)


def rate_at(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, and a cosine to a fiftieth of the peak over `progress` from 0 to 1."""
    return peak * min(1.0, (step + 1) / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, progress))))


def build_optimizers(network: ConvNextViT, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the inner weight matrices, AdamW for the ends, convolutions and vectors."""
    inner = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith(HEAD)]
    outer = [p for name, p in network.named_parameters() if p.ndim != 2 or name.startswith(HEAD)]
    return [
        torch.optim.Muon(inner, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr, weight_decay=0.02, fused=True),
    ]


class StaysFloat32(TorchFunctionMode):
    """Within it `Tensor.bfloat16` copies without converting: Muon calls it, and many CPUs only emulate bf16."""

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
        """The content of a ColumnDataset's batch, with grey (N, 1, 32, 300) already on the device."""
        texts = [[id for id in text if id] for text in targets[:, 2].tolist()]
        columns = torch.arange(len(grey) * CHUNK_COLUMNS, device=grey.device).view(len(grey), CHUNK_COLUMNS)
        classes, either = (targets[:, i].flatten().to(grey.device) for i in (0, 1))
        return Chunks(grey, classes, either > 0, columns, texts)


def on_device(lines: Batch, device: torch.device) -> Batch:
    """The same lines with the inputs of network and loss moved to `device`, once for all networks in training."""
    pieces = tuple(grey.to(device) for grey in lines.pieces)
    return dataclasses.replace(lines, pieces=pieces, columns=lines.columns.to(device), lengths=lines.lengths.to(device))


def taught(classes: torch.Tensor, step: int) -> torch.Tensor:
    """Indices of the columns to train: all that show a character, and BLANKS of the blank ones, different in each step.

    With thousands of classes, the columns in the head are a large part of the cost of a step.
    """
    chosen = torch.rand(len(classes), generator=torch.Generator().manual_seed(step)).to(classes.device) < BLANKS
    return ((classes != Vocabulary.BLANK) | chosen).nonzero()[:, 0]


def of_a_character(nll: torch.Tensor, texts: list[list[int]]) -> torch.Tensor:
    """The CTC loss per character of lines (B,); a line that cannot be aligned contributes nothing."""
    return torch.where(nll.isfinite(), nll, 0.0).sum() / sum(map(len, texts))


class Student:
    """A network in training, the moving average of its weights, its optimisers, and its folder."""

    def __init__(self, arguments: argparse.Namespace, number: int, ranks: Ranks) -> None:
        """`number`: index into the values of --model and similar options."""
        self.arguments, self.out, self.peak = arguments, arguments.out[number], arguments.lr[number]
        self.ranks, device = ranks, ranks.device
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
        """Reset the sums for the next log entry; they are on the device, so that no step waits for them."""
        self.sums = torch.zeros(5, device=self.device)  # losses of columns, texts, real lines; characters right, of all
        self.taken = self.seen = 0

    def learn(self, chunks: Chunks, lines: Batch | None, progress: float) -> None:
        """One step, at the rate for `progress`, the share of the training that is done."""
        if not self.taken:
            self.since = time.time()
        rate, arguments = rate_at(self.step, progress, self.peak), self.arguments
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        joined = progress >= self.joins
        lines = lines if joined else None
        grey = chunks.grey
        if lines:
            grey = torch.cat([grey, hide_spans(lines.pieces[0], arguments.mask)])
        losses = torch.zeros(3, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            encoded = encode_columns(self.network, grey)  # (75 N, D)
            drawn, written = encoded.split([chunks.columns.numel(), len(encoded) - chunks.columns.numel()])
            head, learnt = self.network.vitstr.head, taught(chunks.classes, self.step)
            logits, classes, either = (
                self.network.classify(drawn[learnt]),
                chunks.classes[learnt],
                chunks.either[learnt],
            )
            loss = column_loss(logits, classes, either)
            losses[0] = loss.detach()
            if arguments.ctc and joined:
                columns, texts = (
                    part[: -(-len(chunks.texts) // READ_AS_TEXT)] for part in (chunks.columns, chunks.texts)
                )
                lengths = columns.new_full((len(columns),), CHUNK_COLUMNS)
                text_loss = of_a_character(ctc_loss(drawn, head, columns, lengths, texts), texts)
                loss, losses[1] = loss + arguments.ctc * text_loss, text_loss.detach()
            if lines:
                nll = ctc_loss(written, head, lines.columns, lines.lengths, lines.ids)
                real_loss = of_a_character(nll, lines.ids)
                loss, losses[2] = loss + arguments.real_weight * real_loss, real_loss.detach()
        loss.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        with contextlib.nullcontext() if self.bf16 else StaysFloat32():
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.network)
        characters = ((classes != Vocabulary.BLANK) & ~either).nonzero()[:, 0]
        right = (logits[characters].argmax(-1) == classes[characters]).sum()
        self.sums += torch.cat([losses, torch.stack([right, torch.full_like(right, len(characters))])])
        self.step, self.taken, self.seen = self.step + 1, self.taken + 1, self.seen + len(grey)
        if self.step % LOG_EVERY == 0 or self.step == arguments.steps:
            if self.ranks.first:
                self._log(rate)
            self._forget()

    def _share_gradients(self) -> None:
        """Average the gradients over all ranks."""
        if self.ranks.world > 1:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            torch.distributed.all_reduce(flat)
            flat /= self.ranks.world
            for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
                gradient.copy_(mean.view_as(gradient))

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

    def save(self, seconds: float) -> None:
        """`seconds`: training time so far, counted by --clock. Only the first rank writes."""
        if not self.ranks.first:
            return
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
