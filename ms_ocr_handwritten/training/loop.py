"""The training loop: epochs of optimiser steps, evaluation, checkpoints, and resuming after an interruption.

It is deterministic given the seed: batches depend on (seed, epoch), dropout on a random state that is saved.
"""

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..config import Configuration
from ..errors import LmdbError
from ..nets.compiled import compiled
from ..nets.network import Network
from ..vocab import Vocabulary
from .batches import epoch_batches
from .checkpoints import Progress, WorkDir, save_model_dir, save_torch, upstream_state_dict
from .conclusion import conclusion
from .dataset import Batch, LineDataset
from .distributed import Ranks
from .evaluation import make_loader
from .identity import weights_digest
from .journal import Journal
from .judging import Judge
from .lock import locked
from .loss import LineLoss
from .losses import Losses
from .memory import naming_what_needs_memory
from .optimisation import Schedule, build_optimizer, moving_average
from .parts import freeze, train_mode
from .resume import begin, save_state
from .signals import StopSignals


class Training:
    """One training of `network` on `dataset`, evaluated on `evaluation`, with its files in `work_dir`.

    `old_skills` are lines that it could read before: how well it still reads them is reported at each evaluation.
    `raw` is the configuration written to output/ (whose `model.network.num_classes` matches `network`).
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        raw: Mapping[str, Any],
        configuration: Configuration,
        dataset: LineDataset,
        evaluation: LineDataset | None,
        work_dir: WorkDir,
        ranks: Ranks,
        old_skills: LineDataset | None = None,
    ) -> None:
        if len(dataset.own_lines()) == 0:
            raise LmdbError("the training set holds no line; see `ms-ocr lmdb inspect`")
        self.judge = Judge(configuration, vocabulary, evaluation, old_skills, work_dir, ranks)
        self.vocabulary, self.raw, self.config = vocabulary, raw, configuration.train
        self.dataset, self.work_dir, self.ranks = dataset, work_dir, ranks
        torch.manual_seed(self.config.seed + ranks.rank)
        self.network = network.to(ranks.device)
        self.initial_weights = weights_digest(network)
        self.module: nn.Module = LineLoss(self.network, compiled(self.network) if self.config.compile else None)
        freeze(network, self.config.freeze)
        self.optimizer = build_optimizer(self.config.optimizer, self.network.parameters())
        self.losses = Losses(ranks.device)
        self.epoch, self.iteration = 0, 0  # epochs trained; batches trained of the current one
        self.finished = 0  # the last epoch that is evaluated and has all its files
        self.state_path: Path | None = None  # of the newest state
        self.signals = StopSignals()
        self.identity: dict[str, Any] = {}  # see `identity`
        self.batches_per_epoch = len(self.batches())
        self.journal = Journal(self.config, work_dir, ranks, self.batches_per_epoch)
        steps_per_epoch = -(-self.batches_per_epoch // self.config.optimizer.cumulative_iters)
        self.schedule = Schedule(self.config.scheduler, self.optimizer, steps_per_epoch, self.config.max_epochs)
        self.average = moving_average(self.network, self.config.ema_decay) if self.config.ema_decay else None

    @property
    def final_network(self) -> Network:
        """The network that is evaluated and saved: the moving average, if there is one."""
        return cast(Network, self.average.module) if self.average else self.network  # a copy of the network

    # ------------------------------------------------------------------ epochs

    @cached_property
    def bf16(self) -> bool:
        """Whether it computes in bf16; for "auto" measured on first use, unless given by a resumed state."""
        return self.ranks.compute_bf16(self.config.precision)

    def run(self, checkpoint: str | None = None, resume: bool = True) -> dict[str, Any]:
        """Train to the end, from `checkpoint`, or from where an interrupted run in this work_dir stopped.

        With `resume` False it starts over and moves existing files aside. On SIGTERM or Ctrl-C the current step is
        completed and the state saved before the program ends; a second signal ends it at once.

        Returns:
            The summary of the last evaluation ({} without an evaluation set).

        Raises:
            ConfigurationError: Another training is running in the work_dir, or has left its files there.
            CheckpointError: The state to resume from is missing or damaged.
            OutputError: A file cannot be written (a full disk); the previous state is kept.
            OcrError: The loss is not finite, or memory is exhausted.
        """
        self.work_dir.make()
        with ExitStack() as held:
            self.ranks.first_does(lambda: [held.enter_context(locked(one)) for one in self.work_dir.folders])
            self.signals = held.enter_context(StopSignals())
            begin(self, checkpoint, resume)
            held.enter_context(self.journal.board(self.epoch, self.iteration))
            return self._run()

    def _run(self) -> dict[str, Any]:
        if self.ranks.first:
            self.work_dir.tidy()
        summary, alone = self._finish_epoch() if self.finished < self.epoch else {}, self.module
        stopped = self.judge.out_of_patience()
        if self.ranks.world > 1:
            self.module = DistributedDataParallel(alone)
        try:
            while self.epoch < self.config.max_epochs and not stopped:
                with self.signals.deferred():
                    last = self._train_epoch()
                    if last is not None:
                        summary, stopped = last, True
                        break
                    self.schedule.after_epoch()
                    self.epoch, self.iteration = self.epoch + 1, 0
                    save_state(self, self._epoch_state())
                self._end_if_asked()
                summary = self._finish_epoch()
                stopped = self.judge.out_of_patience()
        finally:
            self.module = alone  # the process group cannot end while DDP exists
        if self.ranks.first:
            patience = self.config.patience if stopped else None
            self.ranks.say(f"\n{conclusion(self.work_dir, self.epoch, patience)}")
        return summary

    def _train_epoch(self) -> dict[str, Any] | None:
        """Train the rest of the epoch; return the scores of an evaluation in it that stopped the training, if any."""
        self.dataset.epoch = self.epoch
        train_mode(self.network, self.config.freeze)
        batches, interval = self.batches(), self.config.save.resume_interval
        loader = make_loader(
            self.dataset,
            batches[self.iteration :],
            self.config.dataloader,
            self.config.skip_padding,
            self.ranks.device,
        )
        seen, started, due = 0, time.monotonic(), False
        lines, trained = (sum(map(len, some)) for some in (batches, batches[: self.iteration]))
        with self.journal.bar(self.epoch, lines, trained) as bar:
            for batch in loader:
                self.journal.left_out(self.epoch, self.iteration, batch)
                share, complete = self._share(batches)
                with naming_what_needs_memory(self._place(batch)):
                    self._learn(batch, share)
                    if complete:
                        self._update()
                self.iteration += 1
                seen += len(batch)
                bar.set_postfix(loss=f"{self.losses.latest:.4f}", lr=f"{self.schedule.rate:.2e}", refresh=False)
                bar.update(len(batch) + len(batch.bad))
                last = self.iteration == len(batches)
                if self.iteration % self.config.logging_interval == 0 or last:
                    loss = self.losses.look()
                    self.journal.training(
                        self.epoch,
                        self.iteration,
                        loss=loss if len(batch) and math.isfinite(loss) else None,
                        lr=self.schedule.rate,
                        lines_per_second=seen * self.ranks.world / (time.monotonic() - started),
                    )
                due = due or (interval > 0 and self.iteration % interval == 0)
                if complete and not last:  # otherwise there are accumulated gradients, which are not saved
                    asked, judged = (
                        self._asked_to_end(),
                        self.judge.is_due(self.epoch, self.iteration, self.batches_per_epoch),
                    )
                    if due or asked or judged:
                        self.losses.look()  # so that no state is saved after a loss that is not finite
                        save_state(self, self.work_dir.latest_state)
                        due = False
                    if asked:
                        self.signals.end()
                    if judged and (summary := self._judge_within_epoch()):
                        return summary
        return None

    def _asked_to_end(self) -> bool:
        """Whether any rank received a signal to end; the same answer on all ranks."""
        return any(self.ranks.gather(self.signals.received is not None))

    def _end_if_asked(self) -> None:
        if self._asked_to_end():
            self.signals.end()

    def _place(self, batch: Batch) -> str:
        pieces = sum(map(len, batch.pieces))
        return f"epoch {self.epoch + 1}, batch {self.iteration + 1} of {len(batch)} lines ({pieces} chunks)"

    def _share(self, batches: list[list[int]]) -> tuple[float, bool]:
        """The current batch's share of the lines of its optimiser step, and whether it completes the step."""
        accumulate = self.config.optimizer.cumulative_iters
        start = self.iteration - self.iteration % accumulate
        group = batches[start : start + accumulate]
        return len(batches[self.iteration]) / sum(map(len, group)), self.iteration + 1 == start + len(group)

    def _learn(self, batch: Batch, share: float) -> None:
        """Accumulate one batch's gradients, scaled by `share`, and add its mean loss over this rank to `losses`."""
        if len(batch) == 0:
            if self.ranks.world > 1:  # the other ranks would wait forever for its gradients
                raise LmdbError(f"a batch holds no readable line: {'; '.join(batch.bad)}; correct the records")
            return
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16):
            losses, _ = self.module(batch)
        loss = losses.mean()
        self.losses.add(self.epoch + 1, self.iteration + 1, loss)
        (loss * share).backward()

    def _update(self) -> None:
        """An optimiser step with the accumulated gradients."""
        if self.config.optimizer.max_norm is not None:
            nn.utils.clip_grad_norm_(
                self.network.parameters(), self.config.optimizer.max_norm, self.config.optimizer.norm_type
            )
        self.schedule.before_step()
        self.optimizer.step()
        self.schedule.after_step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.network)

    def batches(self) -> list[list[int]]:
        """The batches of this epoch for this rank."""
        return epoch_batches(self.dataset, self.config, self.epoch, self.ranks)

    # ------------------------------------------------------------------ after an epoch

    def _finish_epoch(self) -> dict[str, Any]:
        """Write epoch_N.pth and output/, evaluate, keep the best; may be repeated after an interruption."""
        judge, batches = self.judge, self.batches_per_epoch
        due = self.epoch == self.config.max_epochs or judge.is_due(self.epoch - 1, batches, batches)
        summary = self.evaluate() if judge.evaluation is not None and due else {}
        told = {**summary, **(judge.watch_old_skills(self.final_network, self.epoch, bf16=self.bf16) if due else {})}
        if self.ranks.first:
            if self._keeps_epoch():
                save_torch(upstream_state_dict(self.final_network), self.work_dir.weights(self.epoch))
                self.work_dir.prune(self.config.save.max_checkpoint_num)
            self._save_model_dir(self.work_dir.output)
            if summary:
                judge.keep_best(summary, self.epoch, self.iteration, self._save_model_dir)
            if told:
                self.journal.evaluation(self.epoch, self.iteration, told)
            assert self.state_path is not None  # the epoch's state was saved before
            self.work_dir.save_progress(Progress(self.state_path, self.epoch))
        self.finished = self.epoch
        self.ranks.wait()
        return told

    def _judge_within_epoch(self) -> dict[str, Any]:
        """Evaluate and keep the best; return the scores if early stopping is reached, else {}."""
        if self.judge.evaluation is None:
            return {}
        summary = self.evaluate()
        train_mode(self.network, self.config.freeze)
        if self.ranks.first:
            self.judge.keep_best(summary, self.epoch, self.iteration, self._save_model_dir)
            self.journal.evaluation(self.epoch, self.iteration, summary)
        if not self.judge.out_of_patience():
            return {}
        if self.ranks.first:
            self._save_model_dir(self.work_dir.output)
        self.ranks.wait()
        return summary

    def _save_model_dir(self, folder: Path) -> None:
        save_model_dir(folder, self.final_network, self.vocabulary, self.raw)

    def _keeps_epoch(self) -> bool:
        return self.epoch % self.config.save.interval == 0 or self.epoch == self.config.max_epochs

    def _epoch_state(self) -> Path:
        return self.work_dir.state(self.epoch) if self._keeps_epoch() else self.work_dir.latest_state

    def evaluate(self) -> dict[str, Any]:
        """The scores of the network on the evaluation set over all ranks, as in `Scores.summary`."""
        readings = self.journal.readings()
        summary = self.judge.evaluate(self.final_network, bf16=self.bf16, readings=readings)
        self.journal.show(self.epoch, self.iteration, readings)
        return summary
