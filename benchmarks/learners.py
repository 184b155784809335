"""The trainers compared: ModelScope's builtin and this package, one training step at a time on the same lines.

The builtin's trainer does not run with current releases; its parts do, and a step consists of them: data set,
preprocessor, `do_step` (chunks, network, CTC loss, the texts that it decodes at every step), then its optimiser hook.
Ours is the step of `training.loop.Training` with its own loader. Both use the optimiser of configuration.json.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from peers import CHARACTERS, CONFIGURATION, Missing

from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.nets.compiled import compiled
from ms_ocr_handwritten.plugin.registration import TASK, upstream_class
from ms_ocr_handwritten.training.batches import in_batches
from ms_ocr_handwritten.training.evaluation import make_loader
from ms_ocr_handwritten.training.setup import prepare_training

LABEL_LENGTH = 20  # characters
LONG = 1000  # passes of our loader over the lines, as in an epoch, since workers start with each


class Learner(Protocol):
    """Trains on batches of a size set by `take`, which restarts at the first line."""

    name: str

    def take(self, batch_size: int) -> None:
        raise NotImplementedError

    def loss(self) -> float:
        """The loss of the next batch without dropout, without an update."""
        raise NotImplementedError

    def step(self) -> float:
        """Train on the next batch; returns its loss."""
        raise NotImplementedError


def write_lines(path: Path, images: list[np.ndarray]) -> str:
    """An LMDB of the images with labels of LABEL_LENGTH random characters, the same at every call."""
    random = np.random.default_rng(0)
    write_lmdb(
        path,
        (
            (cv2.imencode(".png", image)[1].tobytes(), "".join(random.choice(CHARACTERS, LABEL_LENGTH)))
            for image in images
        ),
    )
    return str(path)


def endlessly(loader: Iterable) -> Iterator[Any]:
    while True:
        yield from loader


class BuiltinLearner:
    """ModelScope's parts, combined as in its `EpochBasedTrainer`."""

    name = "ModelScope's builtin, fp32"

    def __init__(self, model_dir: str, lmdb: str, device: str) -> None:
        """lmdb: not opened elsewhere in this process, as lmdb refuses to open one twice. Raises Missing."""
        try:
            dataset_class = upstream_class("CUSTOM_DATASETS", TASK, "OCRRecognition")
            self.model = upstream_class("MODELS", TASK, "OCRRecognition")(model_dir)
            preprocessor = upstream_class("PREPROCESSORS", "cv", TASK)(model_dir)
        except ImportError as error:
            raise Missing(f"{self.name}: {error}") from error
        self.dataset = dataset_class(local_lmdb=lmdb, preprocessor=preprocessor, split_config={"train": lmdb})
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        self.model.to(self.device)
        optimizer = json.loads(CONFIGURATION.read_text(encoding="utf-8"))["train"]["optimizer"]
        self.max_norm = optimizer["options"]["grad_clip"]["max_norm"]
        arguments = {name: value for name, value in optimizer.items() if name not in ("type", "options")}
        self.optimizer = getattr(torch.optim, optimizer["type"])(self.model.parameters(), **arguments)

    def take(self, batch_size: int) -> None:
        self.batches = endlessly(torch.utils.data.DataLoader(self.dataset, batch_size=batch_size))

    def _next(self) -> dict[str, Any]:
        batch = next(self.batches)  # images (B, 3, 3, 32, 300), labels
        return {**batch, "images": batch["images"].to(self.device)}

    def loss(self) -> float:
        self.model.eval()
        with torch.no_grad():
            return self.model.do_step(self._next())["loss"].item()

    def step(self) -> float:
        self.model.train()
        loss = self.model.do_step(self._next())["loss"]
        value = loss.item()  # for upstream's log
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value


class OwnLearner:
    """This package's `Training`, run step by step."""

    def __init__(
        self,
        model_dir: str,
        lmdb: str,
        precision: str,
        work_dir: Path,
        device: str | None = None,
        seed: int = 0,
        compile: str | None = None,
    ) -> None:
        """compile: a mode of `torch.compile`; "default" is what `train.compile` takes."""
        self.name = f"ours, {precision}{f', compiled ({compile})' if compile else ''}"
        raw = json.loads((Path(model_dir) / "configuration.json").read_text(encoding="utf-8"))
        raw["train"] |= {"precision": precision, "seed": seed}
        self.training = prepare_training(model_dir, raw, [lmdb], [], work_dir, device=device)
        if compile:
            self.training.module.encode = compiled(self.training.network, compile)

    def take(self, batch_size: int, seed: int | None = None) -> None:
        """seed: for the order of the lines; None keeps the order."""
        training = self.training
        lines = list(range(len(training.dataset)))
        if seed is not None:
            lines = np.random.default_rng(seed).permutation(lines).tolist()
        config = training.config
        batches = LONG * in_batches(lines, batch_size)
        loader = make_loader(training.dataset, batches, config.dataloader, config.skip_padding, training.ranks.device)
        self.batches = iter(loader)

    def loss(self) -> float:
        module, device = self.training.module.eval(), self.training.ranks.device
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.training.config.precision == "bf16"),
        ):
            losses, _ = module(next(self.batches))
        return losses.mean().item()

    def step(self) -> float:
        self.training.module.train()
        self.training._learn(next(self.batches), share=1.0)
        self.training._update()
        return self.training.losses.latest


def make_learner(kind: str, model_dir: str, folder: Path, device: str) -> Learner:
    """kind: "builtin", or the precision of ours. `folder` holds the LMDBs `theirs` and `ours`. Raises Missing."""
    if kind == "builtin":
        return BuiltinLearner(model_dir, str(folder / "theirs"), device)
    return OwnLearner(model_dir, str(folder / "ours"), kind, folder / f"work_{kind}")
