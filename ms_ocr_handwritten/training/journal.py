"""Logging of a training: train_log.jsonl, TensorBoard events, the progress bar."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from tqdm import tqdm

from ..config import TrainConfig
from .board import SHOWN_LINES, Board, check_board
from .checkpoints import WorkDir
from .dataset import Batch
from .distributed import Ranks


class Journal:
    """Logs one training, on rank 0 only. In all methods `epoch` epochs and `iteration` batches are finished.

    Raises ConfigurationError if TensorBoard is configured but not installed.
    """

    def __init__(self, config: TrainConfig, work_dir: WorkDir, ranks: Ranks, batches_per_epoch: int) -> None:
        if config.tensorboard:
            check_board()
        self.config, self.work_dir, self.ranks, self.batches_per_epoch = config, work_dir, ranks, batches_per_epoch
        self._board: Board | None = None

    @contextmanager
    def board(self, epoch: int, iteration: int) -> Iterator[None]:
        """Write TensorBoard events within this context, if configured."""
        if not (self.config.tensorboard and self.ranks.first):
            yield
            return
        try:
            with closing(Board(self.work_dir.board, self._step(epoch, iteration))) as self._board:
                yield
        finally:
            self._board = None

    def training(self, epoch: int, iteration: int, **figures: Any) -> None:
        """Log figures of the batch just trained."""
        self._add({"mode": "train", "epoch": epoch + 1, "iter": iteration, **figures}, self._step(epoch, iteration))

    def evaluation(self, epoch: int, iteration: int, scores: Mapping[str, Any]) -> None:
        """Log scores after an epoch (`iteration` 0), or within the next one."""
        place = {"epoch": epoch + 1, "iter": iteration} if iteration else {"epoch": epoch}
        self._add({"mode": "eval", **place, **scores}, self._step(epoch, iteration))

    def left_out(self, epoch: int, iteration: int, batch: Batch) -> None:
        """Report the bad samples of `batch`, which is about to be trained."""
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
            self.training(epoch, iteration + 1, left_out=reason)

    def readings(self) -> list[tuple[str, str]] | None:
        """An empty list for an evaluation to fill with labels and texts, or None if they are not shown; see `show`."""
        return [] if self._board else None

    def show(self, epoch: int, iteration: int, readings: list[tuple[str, str]] | None) -> None:
        """Show the first labels and texts of an evaluation."""
        if self._board and readings:
            self._board.add_readings(readings[:SHOWN_LINES], self._step(epoch, iteration))

    def bar(self, epoch: int, lines: int, trained: int) -> tqdm:
        """The progress bar of an epoch of `lines` lines, of which `trained` are done already."""
        return tqdm(
            total=lines,
            initial=trained,
            unit="line",
            disable=not self.ranks.first,
            file=sys.stderr,
            desc=f"epoch {epoch + 1}/{self.config.max_epochs}",
            mininterval=0.5,
        )

    def _step(self, epoch: int, iteration: int) -> int:
        """Number of batches trained since the beginning."""
        return epoch * self.batches_per_epoch + iteration

    def _add(self, entry: Mapping[str, Any], step: int) -> None:
        if self.ranks.first:
            self.work_dir.log(entry)
            if self._board:
                self._board.add(entry, step)
