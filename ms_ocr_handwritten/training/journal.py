"""What a training tells as it goes: train_log.jsonl, TensorBoard's events, a bar of progress."""

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
    """Tells of one training, on rank 0 alone. In all methods `epoch` epochs and `iteration` batches are trained.

    Raises ConfigurationError where it is to be shown by TensorBoard, which is not installed.
    """

    def __init__(self, config: TrainConfig, work_dir: WorkDir, ranks: Ranks, batches_per_epoch: int) -> None:
        if config.tensorboard:
            check_board()
        self.config, self.work_dir, self.ranks, self.batches_per_epoch = config, work_dir, ranks, batches_per_epoch
        self._board: Board | None = None

    @contextmanager
    def board(self, epoch: int, iteration: int) -> Iterator[None]:
        """Within it, TensorBoard's events are written where the configuration asks for them."""
        if not (self.config.tensorboard and self.ranks.first):
            yield
            return
        try:
            with closing(Board(self.work_dir.board, self._step(epoch, iteration))) as self._board:
                yield
        finally:
            self._board = None

    def training(self, epoch: int, iteration: int, **figures: Any) -> None:
        """Figures of the batch that was just trained."""
        self._add({"mode": "train", "epoch": epoch + 1, "iter": iteration, **figures}, self._step(epoch, iteration))

    def evaluation(self, epoch: int, iteration: int, scores: Mapping[str, Any]) -> None:
        """Scores after an epoch (`iteration` 0), or within the next one."""
        place = {"epoch": epoch + 1, "iter": iteration} if iteration else {"epoch": epoch}
        self._add({"mode": "eval", **place, **scores}, self._step(epoch, iteration))

    def left_out(self, epoch: int, iteration: int, batch: Batch) -> None:
        """The bad samples of `batch`, which is about to be trained."""
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
            self.training(epoch, iteration + 1, left_out=reason)

    def readings(self) -> list[tuple[str, str]] | None:
        """An empty list for an evaluation to fill with labels and texts, if they are shown; see `show`."""
        return [] if self._board else None

    def show(self, epoch: int, iteration: int, readings: list[tuple[str, str]] | None) -> None:
        """Show the first labels and texts of an evaluation."""
        if self._board and readings:
            self._board.add_readings(readings[:SHOWN_LINES], self._step(epoch, iteration))

    def bar(self, epoch: int, lines: int, trained: int) -> tqdm:
        """The bar of an epoch of `lines` lines, of which `trained` are trained already."""
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
        """Batches trained since the beginning."""
        return epoch * self.batches_per_epoch + iteration

    def _add(self, entry: Mapping[str, Any], step: int) -> None:
        if self.ranks.first:
            self.work_dir.log(entry)
            if self._board:
                self._board.add(entry, step)
