"""The training loop: epochs of steps, evaluation, files, and going on after an interruption.

Deterministic by the seed: which lines form a batch depends on (seed, epoch), dropout on a random state that is saved.
"""

import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..config import Configuration
from ..errors import ConfigurationError, LmdbError, OcrError
from ..metrics import Scores
from ..nets.network import Network
from ..vocab import Vocabulary
from .batches import epoch_batches
from .board import SHOWN_LINES, Board, check_board
from .checkpoints import Progress, WorkDir, save_json, save_model_dir, save_torch, upstream_state_dict
from .conclusion import conclusion
from .dataset import Batch, LineDataset
from .distributed import Ranks
from .evaluation import evaluate, make_loader
from .identity import REHEARSED, SETTINGS, TRAINING, WEIGHTS, lines_digests, settings_of, weights_digest
from .lock import locked
from .loss import LineLoss
from .memory import naming_what_needs_memory
from .optimisation import Schedule, build_optimizer, moving_average
from .parts import freeze, train_mode
from .resume import begin
from .signals import StopSignals
from .state import State


class Training:
    """One training of `network` on `dataset`, judged on `evaluation`, with its files in `work_dir`.

    `old_skills` are lines that it could read before: how well it still reads them is told at each evaluation.
    `raw` is the configuration as it goes into output/ (whose `model.network.num_classes` fits `network`).
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
        metric, metrics = configuration.train.save.best_metric, Scores.empty().summary()
        if metric not in metrics:
            raise ConfigurationError(f"train.checkpoint.best.metric_key is {metric!r}; one of {', '.join(metrics)}")
        if configuration.train.patience is not None and evaluation is None:
            raise ConfigurationError(
                "train.early_stopping.patience counts evaluations, of which there are none; give an evaluation set "
                "(--eval), or leave it out"
            )
        if configuration.train.tensorboard:
            check_board()
        self.vocabulary, self.raw, self.config = vocabulary, raw, configuration.train
        self.evaluation_config, self.dataset, self.evaluation = configuration.evaluation, dataset, evaluation
        self.work_dir, self.ranks = work_dir, ranks
        self.old_skills = old_skills
        self._bf16: bool | None = None
        torch.manual_seed(self.config.seed + ranks.rank)
        self.network = network.to(ranks.device)
        self._initial_weights = weights_digest(network)
        self.module: nn.Module = LineLoss(self.network)
        freeze(network, self.config.freeze)
        self.optimizer = build_optimizer(self.config.optimizer, self.network.parameters())
        self.epoch, self.iteration = 0, 0  # epochs trained; batches trained of the present one
        self.finished = 0  # the last epoch that is evaluated and has all its files
        self.state_path: Path | None = None  # of the newest state
        self.signals = StopSignals()
        self.identity: dict[str, Any] = {}  # see `identity`
        self._judges: list[str] = []  # content of the evaluation sets
        self._old_skills_before: Scores | None = None
        self.board: Board | None = None  # while it runs, on rank 0
        self.batches_per_epoch = len(self.batches())
        steps_per_epoch = -(-self.batches_per_epoch // self.config.optimizer.cumulative_iters)
        self.schedule = Schedule(self.config.scheduler, self.optimizer, steps_per_epoch, self.config.max_epochs)
        self.average = moving_average(self.network, self.config.ema_decay) if self.config.ema_decay else None

    @property
    def final_network(self) -> Network:
        """The network that is evaluated and saved: the moving average where there is one."""
        return cast(Network, self.average.module) if self.average else self.network  # a copy of the network

    # ------------------------------------------------------------------ epochs

    @property
    def bf16(self) -> bool:
        """Whether it computes in bf16; for "auto" measured when it is asked for, if no state says it."""
        if self._bf16 is None:
            self._bf16 = self.ranks.compute_bf16(self.config.precision)
        return self._bf16

    def run(self, checkpoint: str | None = None, resume: bool = True) -> dict[str, Any]:
        """Train to the end, from `checkpoint`, or from where an interrupted run in this work_dir stopped.

        With `resume` False it begins anew, and moves aside what is there. SIGTERM or Ctrl-C save the state after the
        step at work before they end the program; the second one ends it at once.

        Returns:
            The summary of the last evaluation ({} without an evaluation set).

        Raises:
            ConfigurationError: Another training is at work in the work_dir, or has left its files there.
            CheckpointError: The state to go on from is missing or damaged.
            OutputError: A file cannot be written (a full disk); the former state is kept.
            OcrError: The loss is no number, or the memory does not suffice.
        """
        self.work_dir.make()
        with ExitStack() as held:
            self.ranks.first_does(lambda: [held.enter_context(locked(one)) for one in self.work_dir.folders])
            self.signals = held.enter_context(StopSignals())
            begin(self, checkpoint, resume)
            if self.config.tensorboard and self.ranks.first:
                self.board = held.enter_context(closing(Board(self.work_dir.board, self._step)))
            return self._run()

    def _run(self) -> dict[str, Any]:
        if self.ranks.first:
            self.work_dir.tidy()
        summary, alone = self._finish_epoch() if self.finished < self.epoch else {}, self.module
        stopped = self._out_of_patience()
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
                    self.save_state(self._epoch_state())
                self._end_if_asked()
                summary = self._finish_epoch()
                stopped = self._out_of_patience()
        finally:
            self.module = alone  # as long as the other one is there, its group cannot end
        if self.ranks.first:
            patience = self.config.patience if stopped else None
            self.ranks.say(f"\n{conclusion(self.work_dir, self.epoch, patience)}")
        return summary

    def _train_epoch(self) -> dict[str, Any] | None:
        """Train what is left of the epoch; the scores of the evaluation within it that ended the training, if any."""
        self.dataset.epoch = self.epoch
        train_mode(self.network, self.config.freeze)
        batches, interval = self.batches(), self.config.save.resume_interval
        loader = make_loader(self.dataset, batches[self.iteration :], self.config.dataloader, self.config.skip_padding)
        seen, started, due = 0, time.monotonic(), False
        with self._progress(sum(map(len, batches)), sum(map(len, batches[: self.iteration]))) as bar:
            for batch in loader:
                self._report_bad(batch)
                share, complete = self._share(batches)
                with naming_what_needs_memory(self._place(batch)):
                    loss = self._learn(batch, share)
                    if complete:
                        self._update()
                self.iteration += 1
                seen += len(batch)
                bar.set_postfix(loss=f"{loss:.4f}", lr=f"{self.schedule.rate:.2e}", refresh=False)
                bar.update(len(batch) + len(batch.bad))
                last = self.iteration == len(batches)
                if self.iteration % self.config.logging_interval == 0 or last:
                    self._log(
                        mode="train",
                        iter=self.iteration,
                        loss=loss if math.isfinite(loss) else None,
                        lr=self.schedule.rate,
                        lines_per_second=seen * self.ranks.world / (time.monotonic() - started),
                    )
                due = due or (interval > 0 and self.iteration % interval == 0)
                if complete and not last:  # in between, gradients are held that no file keeps
                    asked, judged = self._asked_to_end(), self._is_judged_at(self.epoch, self.iteration)
                    if due or asked or judged:
                        self.save_state(self.work_dir.latest_state)
                        due = False
                    if asked:
                        self.signals.end()
                    if judged and (summary := self._judge_within_epoch()):
                        return summary
        return None

    def _asked_to_end(self) -> bool:
        """Whether a signal asks any of the ranks to end; the same answer for all."""
        return any(self.ranks.gather(self.signals.received is not None))

    def _end_if_asked(self) -> None:
        if self._asked_to_end():
            self.signals.end()

    def _place(self, batch: Batch) -> str:
        pieces = sum(map(len, batch.pieces))
        return f"epoch {self.epoch + 1}, batch {self.iteration + 1} of {len(batch)} lines ({pieces} chunks)"

    def _share(self, batches: list[list[int]]) -> tuple[float, bool]:
        """The present batch's share of the lines of its optimiser step, and whether it is the last of them."""
        accumulate = self.config.optimizer.cumulative_iters
        start = self.iteration - self.iteration % accumulate
        group = batches[start : start + accumulate]
        return len(batches[self.iteration]) / sum(map(len, group)), self.iteration + 1 == start + len(group)

    def _learn(self, batch: Batch, share: float) -> float:
        """Add the gradients of one batch, times `share`; its loss, averaged over this rank's lines (nan if none)."""
        if len(batch) == 0:
            if self.ranks.world > 1:  # the other ranks would wait for its gradients for ever
                raise LmdbError(f"a batch holds no readable line: {'; '.join(batch.bad)}; mend the records")
            return math.nan
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16):
            losses, _ = self.module(batch)
        loss = losses.mean()
        value = loss.item()
        if not math.isfinite(value):
            raise OcrError(
                f"the loss is {value} in epoch {self.epoch + 1}, batch {self.iteration + 1}; lower "
                "train.optimizer.lr, or clip gradients with train.optimizer.options.grad_clip.max_norm"
            )
        (loss * share).backward()
        return value

    def _update(self) -> None:
        """The optimiser's step from the gradients that are there."""
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
        due = self.epoch == self.config.max_epochs or self._is_judged_at(self.epoch - 1, self.batches_per_epoch)
        summary = self.evaluate() if self.evaluation is not None and due else {}
        told = {**summary, **(self._watch_old_skills() if due else {})}
        if self.ranks.first:
            if self._keeps_epoch():
                save_torch(upstream_state_dict(self.final_network), self.work_dir.weights(self.epoch))
                self.work_dir.prune(self.config.save.max_checkpoint_num)
            save_model_dir(self.work_dir.output, self.final_network, self.vocabulary, self.raw)
            if summary:
                self._keep_best(summary)
            if told:
                self._log(mode="eval", **told)
            assert self.state_path is not None  # the epoch's state was saved before
            self.work_dir.save_progress(Progress(self.state_path, self.epoch))
        self.finished = self.epoch
        self.ranks.wait()
        return told

    def _is_judged_at(self, epoch: int, iteration: int) -> bool:
        """Whether an evaluation is due after `iteration` batches of `epoch` + 1, which end an optimiser's step."""
        interval, accumulate = self.evaluation_config.interval, self.config.optimizer.cumulative_iters
        if self.evaluation_config.by_epoch:
            return iteration == self.batches_per_epoch and (epoch + 1) % interval == 0
        before = epoch * self.batches_per_epoch
        step_began = before + (iteration - 1) // accumulate * accumulate
        return (before + iteration) // interval > step_began // interval

    def _judge_within_epoch(self) -> dict[str, Any]:
        """Evaluate, and keep the best; the scores where that was the last one that patience allows, else {}."""
        if self.evaluation is None:
            return {}
        summary = self.evaluate()
        train_mode(self.network, self.config.freeze)
        if self.ranks.first:
            self._keep_best(summary)
            self._log(mode="eval", iter=self.iteration, **summary)
        if not self._out_of_patience():
            return {}
        if self.ranks.first:
            save_model_dir(self.work_dir.output, self.final_network, self.vocabulary, self.raw)
        self.ranks.wait()
        return summary

    def _out_of_patience(self) -> bool:
        """Whether the last `train.early_stopping.patience` evaluations were no better than one before them."""
        if self.config.patience is None:
            return False
        since_best = self.work_dir.evaluations_since_best() if self.ranks.first else 0
        return self.ranks.gather(since_best)[0] >= self.config.patience

    def measure_old_skills(self) -> None:
        """How well the initial network reads the lines of `evaluation.old_skills`."""
        if self.old_skills is not None:
            self._old_skills_before = self._scores(self.old_skills)
            before = self._old_skills_before.summary()
            self.ranks.say(f"old skills before this training: {_of_lines(before)}")

    def _watch_old_skills(self) -> dict[str, Any]:
        """The figures of old skills, now and before; a warning where they are read worse."""
        if self.old_skills is None or self._old_skills_before is None:
            return {}
        before, now = self._old_skills_before.summary(), self._scores(self.old_skills).summary()
        if now["cer"] is not None and before["cer"] is not None and now["cer"] > before["cer"]:
            self.ranks.say(
                f"\nwarning: old skills are read worse after epoch {self.epoch}: {_of_lines(now)}; before this "
                f"training {_of_lines(before)}; rehearse them (train.rehearsal), freeze a part (train.freeze), or "
                "lower train.optimizer.lr"
            )
        return {
            "old_skills_cer": now["cer"],
            "old_skills_cer_before": before["cer"],
            "old_skills_accuracy": now["accuracy"],
            "old_skills_accuracy_before": before["accuracy"],
        }

    def _keeps_epoch(self) -> bool:
        return self.epoch % self.config.save.interval == 0 or self.epoch == self.config.max_epochs

    def _epoch_state(self) -> Path:
        return self.work_dir.state(self.epoch) if self._keeps_epoch() else self.work_dir.latest_state

    def _keep_best(self, summary: dict[str, Any]) -> None:
        metric, rule = self.config.save.best_metric, self.config.save.best_rule
        best, value = self.work_dir.best(), summary[metric]
        if value is None or (best and (value >= best["value"] if rule == "min" else value <= best["value"])):
            return
        save_model_dir(self.work_dir.output_best, self.final_network, self.vocabulary, self.raw)
        within = {"iter": self.iteration} if self.iteration else {}
        place = {"epoch": self.epoch + bool(within), **within}
        save_json({**place, "metric": metric, "value": value, "evaluation": self._judges}, self.work_dir.best_file)

    def evaluate(self) -> dict[str, Any]:
        """The scores of the network on the evaluation set, all ranks together; `Scores.summary` says which."""
        assert self.evaluation is not None  # whoever asks has seen to it
        readings: list[tuple[str, str]] | None = [] if self.board else None
        summary = self._scores(self.evaluation, readings).summary()
        if self.board and readings:
            self.board.add_readings(readings[:SHOWN_LINES], self._step)
        return summary

    def _scores(self, dataset: LineDataset, readings: list[tuple[str, str]] | None = None) -> Scores:
        with naming_what_needs_memory("evaluation", "evaluation.dataloader.batch_size_per_gpu"):
            return evaluate(
                self.final_network,
                dataset,
                self.vocabulary,
                self.evaluation_config.dataloader,
                self.ranks,
                bf16=self.bf16,
                skip_padding=self.config.skip_padding,
                readings=readings,
            )

    # ------------------------------------------------------------------ state

    def begin_identity(self, precision: str | None = None) -> None:
        """Find out what this training is; `precision`: "bf16" or "fp32" that it has begun in, for "auto" to keep."""
        if self.config.precision == "auto" and precision in ("fp32", "bf16"):
            self._bf16 = precision == "bf16"
        readers, rehearsed = self.dataset.readers, self.dataset.rehearsed
        digests = lines_digests([*readers, *(self.evaluation.readers if self.evaluation else ())], self.ranks)
        first_rehearsed = len(readers) - rehearsed
        self.identity = {
            WEIGHTS: self._initial_weights,
            TRAINING: digests[:first_rehearsed],
            REHEARSED: digests[first_rehearsed : len(readers)],
            SETTINGS: settings_of(self.config, self.network.config, self.bf16, self.ranks.world),
        }
        self._judges = digests[len(readers) :]

    def judges_otherwise(self, best: Mapping[str, Any]) -> bool:
        """Whether the evaluations to come cannot be compared with the one that `best` tells of."""
        told = (self.config.save.best_metric, self._judges)
        return self.evaluation is not None and (best["metric"], best.get("evaluation")) != told

    def save_state(self, path: Path) -> None:
        """All that `resume.begin` needs; written by rank 0."""
        random_states = self.ranks.gather(self.ranks.random_state())
        self.state_path = path
        if not self.ranks.first:
            return
        state = State(
            epoch=self.epoch,
            iteration=self.iteration,
            network=self.network.state_dict(),
            average=self.average.state_dict() if self.average else None,
            optimizer=self.optimizer.state_dict()["state"],
            schedule=self.schedule.state_dict(),
            random_states=random_states,
            identity=self.identity,
            vocabulary=self.vocabulary.text,
        )
        self.work_dir.save_state(state, path, self.finished)

    # ------------------------------------------------------------------ reports

    @property
    def _step(self) -> int:
        """Batches trained since the beginning."""
        return self.epoch * self.batches_per_epoch + self.iteration

    def _progress(self, total: int, initial: int) -> tqdm:
        return tqdm(
            total=total,
            initial=initial,
            unit="line",
            disable=not self.ranks.first,
            file=sys.stderr,
            desc=f"epoch {self.epoch + 1}/{self.config.max_epochs}",
            mininterval=0.5,
        )

    def _log(self, **entry: Any) -> None:
        if self.ranks.first:
            entry = {"mode": entry.pop("mode"), "epoch": self.epoch + ("iter" in entry), **entry}
            self.work_dir.log(entry)
            if self.board:
                self.board.add(entry, self._step)

    def _report_bad(self, batch: Batch) -> None:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
            self._log(mode="train", iter=self.iteration + 1, left_out=reason)


def _of_lines(summary: Mapping[str, Any]) -> str:
    cer, accuracy = summary["cer"], summary["accuracy"]
    if cer is None:
        return f"no character in {summary['lines']} lines"
    return f"CER {100 * cer:.2f} %, {100 * accuracy:.1f} % of {summary['lines']} lines right"
