"""Files of a training: weights, the state to resume from, and model directories; each appears whole or not at all.

    work_dir/epoch_N.pth                 weights after epoch N, keys as upstream writes them (`recognizer.` + name)
    work_dir/epoch_N_trainer_state.pth   all that is needed to go on from there
    work_dir/latest_trainer_state.pth    the same, saved within an epoch
    work_dir/resume.json                 which of the states is the newest, and which epoch the last with all its files
    work_dir/output/, output_best/       model directories: configuration.json, vocab.txt, pytorch_model.pt
    work_dir/train_log.jsonl             one object per line: losses, rates, evaluations

Everything loads with `weights_only=True`. No two files share an inode, so that copying over one changes no other.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..atomic import TEMPORARY_SUFFIX, write_atomically
from ..config import CONFIGURATION_FILE
from ..errors import CheckpointError, ConfigurationError
from ..model_dir import VOCABULARY_FILE, WEIGHTS_FILES
from ..nets.convnextvit import ConvNextViT, read_torch_file
from ..vocab import Vocabulary

WEIGHTS_FILE = WEIGHTS_FILES[0]
STATE_SUFFIX = "_trainer_state.pth"
STATE_FORMAT = 2


def save_torch(value: Any, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomically(path, buffer.getbuffer())


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=4) + "\n"


def save_json(value: Any, path: Path) -> None:
    write_atomically(path, as_json(value).encode("utf-8"))


def upstream_state_dict(network: ConvNextViT) -> dict[str, torch.Tensor]:
    """The weights under the names that ModelScope's OCRRecognition model gives them."""
    return {f"recognizer.{name}": value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save_model_dir(
    folder: Path, network: ConvNextViT, vocabulary: Vocabulary, configuration: Mapping[str, Any]
) -> None:
    """A self-contained model directory, which `pipeline(..., model=folder)` and `Recognizer` read."""
    for path, text in (
        (folder / CONFIGURATION_FILE, as_json(configuration)),
        (folder / VOCABULARY_FILE, vocabulary.text),
    ):
        if not path.exists() or path.read_bytes() != text.encode("utf-8"):
            write_atomically(path, text.encode("utf-8"))
    save_torch(upstream_state_dict(network), folder / WEIGHTS_FILE)


@dataclass(frozen=True)
class Progress:
    """Where a training stands: its newest state, and the last epoch that is evaluated and has all its files."""

    state: Path
    finished: int


class WorkDir:
    """The files of one training in `path`."""

    def __init__(self, path: str | os.PathLike[str], save_dir: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self.save_dir = Path(save_dir) if save_dir else self.path
        self.output, self.output_best = self.path / "output", self.path / "output_best"
        self.resume_file, self.log_file = self.path / "resume.json", self.path / "train_log.jsonl"
        self.best_file = self.path / "best.json"

    def weights(self, epoch: int) -> Path:
        return self.save_dir / f"epoch_{epoch}.pth"

    def state(self, epoch: int) -> Path:
        return self.save_dir / f"epoch_{epoch}{STATE_SUFFIX}"

    @property
    def latest_state(self) -> Path:
        return self.save_dir / f"latest{STATE_SUFFIX}"

    def epochs(self) -> list[int]:
        """Epochs of which weights or a state are here, in order."""
        names = (
            re.fullmatch(rf"epoch_(\d+)(\.pth|{STATE_SUFFIX})", path.name) for path in self.save_dir.glob("epoch_*.pth")
        )
        return sorted({int(name[1]) for name in names if name})

    def best(self) -> dict[str, Any] | None:
        """Epoch, metric and value of what output_best/ holds, or None."""
        return json.loads(self.best_file.read_text(encoding="utf-8")) if self.best_file.exists() else None

    def tidy(self) -> None:
        """Remove what a kill left half-written: temporary files, and a torn last line of the log."""
        for folder in {self.path, self.save_dir, self.output, self.output_best}:
            for temporary in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                temporary.unlink()
        log = self.log_file.read_bytes() if self.log_file.exists() else b""
        if not log.endswith(b"\n") and log:
            os.truncate(self.log_file, log.rfind(b"\n") + 1)

    def save_state(self, state: Mapping[str, Any], path: Path, finished: int) -> None:
        """Write a state, then point resume.json to it."""
        save_torch({"format": STATE_FORMAT, **state}, path)
        self.save_progress(Progress(path, finished))

    def save_progress(self, progress: Progress) -> None:
        state = os.path.relpath(progress.state, self.path)
        save_json({"state": state, "finished": progress.finished}, self.resume_file)

    def progress(self) -> Progress | None:
        """Where the training in this folder stands, None if there is none. Raises CheckpointError."""
        if not self.resume_file.exists():
            return None
        try:
            raw = json.loads(self.resume_file.read_text(encoding="utf-8"))
            return Progress(self.path / raw["state"], int(raw["finished"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.resume_file}: damaged ({error!r}); remove it and go on from an epoch_N, or "
                "name another work_dir"
            ) from error

    def refuse_foreign_files(self) -> None:
        """Raise ConfigurationError where files of another training would be overwritten."""
        foreign = [path for n in self.epochs() for path in (self.weights(n), self.state(n)) if path.exists()]
        foreign += [
            path
            for path in (self.resume_file, self.output / WEIGHTS_FILE, self.output_best / WEIGHTS_FILE)
            if path.exists()
        ]
        if foreign:
            raise ConfigurationError(
                f"{foreign[0]}: belongs to another training, which this one would overwrite; "
                "name another work_dir, or move the files away"
            )

    def set_aside_after(self, epoch: int) -> Path | None:
        """Move what came after `epoch`, which going on from there would overwrite, to a folder; which one."""
        later = [path for n in self.epochs() if n > epoch for path in (self.weights(n), self.state(n)) if path.exists()]
        best = self.best()
        if best and best["epoch"] > epoch:
            later += [path for path in (self.output_best, self.best_file) if path.exists()]
        if not later:
            return None
        number = 1
        while (folder := self.save_dir / f"superseded_{number}").exists():
            number += 1
        folder.mkdir()
        for path in later:
            shutil.move(path, folder)
        return folder

    def prune(self, keep: int | None) -> None:
        """Remove all but the newest `keep` epochs, as the configuration asks."""
        for epoch in self.epochs()[: -keep if keep else 0]:
            self.weights(epoch).unlink(missing_ok=True)
            self.state(epoch).unlink(missing_ok=True)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line; a single write, so that a kill leaves it whole or absent."""
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8")
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def state_file(checkpoint: str | os.PathLike[str]) -> Path:
    """The file of a state: `checkpoint` itself, or that of `work_dir/epoch_N`, with or without `.pth`."""
    path = Path(checkpoint)
    if path.name.endswith(STATE_SUFFIX):
        return path
    return path.with_name(path.name.removesuffix(".pth") + STATE_SUFFIX)


def load_state(path: Path) -> dict[str, Any]:
    """A state to resume from. Raises CheckpointError if it is missing, damaged or of another program."""
    state = read_torch_file(path)
    if not isinstance(state, Mapping) or state.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"{path}: holds no state to resume from (format {STATE_FORMAT}); name the epoch_N of a "
            "training of this package, or start a new work_dir with model= set to its weights"
        )
    return dict(state)
