"""Files of a training: weights, states to resume from, and model directories; each file is written atomically.

    work_dir/epoch_N.pth                 weights after epoch N, with upstream's keys (`recognizer.` + name)
    work_dir/epoch_N_trainer_state.pth   all that is needed to resume from there
    work_dir/latest_trainer_state.pth    the same, saved within an epoch
    work_dir/resume.json                 the newest state, and the last epoch whose files are complete
    work_dir/output/, output_best/       model directories: configuration.json, vocab.txt, pytorch_model.pt
    work_dir/best.json                   epoch (and batch, "iter", if within an epoch), metric and value of
                                         output_best/, and the digests of the evaluation set
    work_dir/train_log.jsonl             one object per line: losses, rates, evaluations
    work_dir/tensorboard/                the same as TensorBoard events, if train.logging.tensorboard is set
    work_dir/superseded_N/               files moved aside when going back to an earlier epoch or starting over

Everything loads with `weights_only=True`. No two files share an inode, so that overwriting one changes no other.
"""

import errno
import io
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..atomic import TEMPORARY_SUFFIX, naming_what_cannot_be_written, write_atomically
from ..config_file import CONFIGURATION_FILE
from ..errors import CheckpointError, ConfigurationError, OutputError
from ..model_dir import VOCABULARY_FILE, WEIGHTS_FILES
from ..nets.network import Network
from ..vocab import Vocabulary
from .state import MOST, STATE_SUFFIX, State

WEIGHTS_FILE = WEIGHTS_FILES[0]


def save_torch(value: Any, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomically(path, buffer.getbuffer())


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=4) + "\n"


def save_json(value: Any, path: Path) -> None:
    write_atomically(path, as_json(value).encode("utf-8"))


def upstream_state_dict(network: Network) -> dict[str, torch.Tensor]:
    """The weights under the names used by ModelScope's OCRRecognition model."""
    return {f"recognizer.{name}": value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save_model_dir(folder: Path, network: Network, vocabulary: Vocabulary, configuration: Mapping[str, Any]) -> None:
    """Write a self-contained model directory for `pipeline(..., model=folder)` and `Recognizer`."""
    for path, text in (
        (folder / CONFIGURATION_FILE, as_json(configuration)),
        (folder / VOCABULARY_FILE, vocabulary.text),
    ):
        if not path.exists() or path.read_bytes() != text.encode("utf-8"):
            write_atomically(path, text.encode("utf-8"))
    save_torch(upstream_state_dict(network), folder / WEIGHTS_FILE)


@dataclass(frozen=True)
class Progress:
    """The progress of a training: its newest state, and the last epoch that is evaluated and has all its files."""

    state: Path
    finished: int


class WorkDir:
    """The files of one training in `path`."""

    def __init__(self, path: str | os.PathLike[str], save_dir: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self.save_dir = Path(save_dir) if save_dir else self.path
        self.output, self.output_best = self.path / "output", self.path / "output_best"
        self.resume_file, self.log_file = self.path / "resume.json", self.path / "train_log.jsonl"
        self.best_file, self.board = self.path / "best.json", self.path / "tensorboard"

    def weights(self, epoch: int) -> Path:
        return self.save_dir / f"epoch_{epoch}.pth"

    def state(self, epoch: int) -> Path:
        return self.save_dir / f"epoch_{epoch}{STATE_SUFFIX}"

    @property
    def latest_state(self) -> Path:
        return self.save_dir / f"latest{STATE_SUFFIX}"

    def epochs(self) -> list[int]:
        """Epochs with weights or a state here, in ascending order."""
        names = (
            re.fullmatch(rf"epoch_(\d+)(\.pth|{STATE_SUFFIX})", path.name) for path in self.save_dir.glob("epoch_*.pth")
        )
        return sorted({int(name[1]) for name in names if name})

    @property
    def folders(self) -> list[Path]:
        """The work_dir and, if different, the folder of the epochs."""
        return [self.path] if self.save_dir.resolve() == self.path.resolve() else [self.path, self.save_dir]

    def make(self) -> None:
        """Create the folders. Raises OutputError if that fails."""
        for folder in self.folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"work_dir {folder}: the folder cannot be created ({error.strerror}); name another one, or move "
                    "away what blocks it"
                ) from error

    def best(self) -> dict[str, Any] | None:
        """Epoch, metric and value of the model in output_best/, or None. Raises CheckpointError."""
        if not self.best_file.exists():
            return None
        try:
            best = json.loads(self.best_file.read_text(encoding="utf-8"))
            counts = type(best["epoch"]) is int and type(best.get("iter", 0)) is int
            if counts and isinstance(best["metric"], str) and math.isfinite(best["value"]):
                return best
            damage = f"holds {best}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            damage = repr(error)
        raise CheckpointError(
            f"{self.best_file}: damaged ({damage[:200]}); remove it: the next evaluation then counts as the best"
        )

    def tidy(self) -> None:
        """Remove what a kill left half-written: temporary files, and an incomplete last line of the log."""
        for folder in {self.path, self.save_dir, self.output, self.output_best}:
            for temporary in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                temporary.unlink()
        log = self.log_file.read_bytes() if self.log_file.exists() else b""
        if not log.endswith(b"\n") and log:
            os.truncate(self.log_file, log.rfind(b"\n") + 1)

    def save_state(self, state: State, path: Path, finished: int) -> None:
        """Write a state, then point resume.json to it."""
        save_torch(state.to_dict(), path)
        self.save_progress(Progress(path, finished))

    def save_progress(self, progress: Progress) -> None:
        state = os.path.relpath(progress.state, self.path)
        save_json({"state": state, "finished": progress.finished}, self.resume_file)

    def progress(self) -> Progress | None:
        """The progress of the training in this folder, None if there is none. Raises CheckpointError."""
        if not self.resume_file.exists():
            return None
        try:
            raw = json.loads(self.resume_file.read_text(encoding="utf-8"))
            if type(raw["finished"]) is int and 0 <= raw["finished"] <= MOST and "\0" not in raw["state"]:
                return Progress(self.path / raw["state"], raw["finished"])
            damage = f"holds {raw}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            damage = repr(error)
        raise CheckpointError(
            f"{self.resume_file}: damaged ({damage[:200]}); remove it and continue from an epoch_N, or name another "
            "work_dir"
        )

    def refuse_foreign_files(self) -> None:
        """Raise ConfigurationError if files of another training would be overwritten."""
        foreign = [
            path
            for path in (
                *self._of_epochs(),
                self.resume_file,
                *(f / WEIGHTS_FILE for f in (self.output, self.output_best)),
            )
            if path.exists()
        ]
        if foreign:
            raise ConfigurationError(
                f"{foreign[0]}: belongs to another training, which this one would overwrite; name another work_dir, or "
                "start again with resume=False (--no-resume), which moves the present files aside"
            )

    def set_aside(self) -> Path | None:
        """Move all files of the existing training to a folder and return it, None if there are no files.

        resume.json is moved first, so that after a kill the remaining files are refused instead of resumed.
        """
        return self._move_aside(
            [
                self.resume_file,
                self.latest_state,
                *self._of_epochs(),
                *(self.output, self.output_best, self.best_file, self.log_file, self.board),
            ]
        )

    def set_aside_after(self, epoch: int, iteration: int) -> Path | None:
        """Move files from after `iteration` batches of `epoch` + 1, which will be redone, to a folder and return it."""
        best = self.best()
        return self._move_aside(
            [
                *self._of_epochs(after=epoch),
                *((self.output_best, self.best_file) if best and _place(best) > (epoch + 1, iteration) else ()),
            ]
        )

    def set_best_aside(self) -> Path | None:
        """Move the best model so far to a folder and return it."""
        return self._move_aside([self.best_file, self.output_best])

    def _of_epochs(self, after: int = 0) -> list[Path]:
        return [path for n in self.epochs() if n > after for path in (self.weights(n), self.state(n))]

    def _move_aside(self, paths: Sequence[Path]) -> Path | None:
        paths = [path for path in paths if path.exists()]
        if not paths:
            return None
        number = 1
        while (folder := self.save_dir / f"superseded_{number}").exists():
            number += 1
        with naming_what_cannot_be_written(folder):
            folder.mkdir()
            for path in paths:
                shutil.move(path, folder)
        return folder

    def prune(self, keep: int | None) -> None:
        """Remove all but the newest `keep` epochs; None keeps all."""
        for epoch in self.epochs()[: -keep if keep else 0]:
            self.weights(epoch).unlink(missing_ok=True)
            self.state(epoch).unlink(missing_ok=True)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line in a single write, so that a kill leaves it complete or absent. Raises OutputError.

        If the disk is full, the part already written is removed again.
        """
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8")
        with naming_what_cannot_be_written(self.log_file):
            descriptor = os.open(self.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                if (written := os.write(descriptor, line)) < len(line):
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)

    def evaluations_since_best(self) -> int:
        """Number of evaluations in the log after that of output_best/; all of them if there is none."""
        best = self.best()
        lines = self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.exists() else []
        entries = [entry for entry in map(json.loads, lines) if entry["mode"] == "eval"]
        return sum(best is None or _place(entry) > _place(best) for entry in entries)

    def rewind_log(self, epoch: int, iteration: int, finished: int, aside: Path | None) -> None:
        """Remove log lines of what will be redone: after `iteration` batches of `epoch` + 1, and evaluations after
        `finished`. They are moved to the folder `aside`, if there is one."""
        lines = self.log_file.read_bytes().splitlines(keepends=True) if self.log_file.exists() else []
        kept = [line for line in lines if _is_before(line, epoch, iteration, finished)]
        if len(kept) == len(lines):
            return
        if aside:
            write_atomically(aside / self.log_file.name, b"".join(line for line in lines if line not in kept))
        write_atomically(self.log_file, b"".join(kept))


def _place(entry: Mapping[str, Any]) -> tuple[int, float]:
    """Epoch and batch of an evaluation, for ordering; the one at an epoch's end comes after those within it."""
    return entry["epoch"], entry.get("iter", math.inf)


def _is_before(line: bytes, epoch: int, iteration: int, finished: int) -> bool:
    try:
        entry = json.loads(line)
        if entry["mode"] == "train" or "iter" in entry:
            return (entry["epoch"], entry["iter"]) <= (epoch + 1, iteration)
        return entry["epoch"] <= finished
    except (ValueError, KeyError, TypeError):  # not written by us
        return True
