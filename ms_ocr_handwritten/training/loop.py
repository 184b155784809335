"""The training loop: epochs of steps, evaluation, files, and going on after an interruption.

Deterministic by the seed: which lines form a batch depends on (seed, epoch), dropout on a random state that is saved.
"""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..config import Configuration
from ..errors import ConfigurationError, LmdbError, OcrError
from ..metrics import Scores
from ..nets.convnextvit import ConvNextViT, load_weights
from ..vocab import Vocabulary
from .checkpoints import (
    Progress,
    WorkDir,
    load_state,
    save_json,
    save_model_dir,
    save_torch,
    state_file,
    upstream_state_dict,
)
from .dataset import Batch, LineDataset
from .distributed import Ranks
from .evaluation import evaluate, in_batches, make_loader
from .loss import LineLoss
from .optimisation import Schedule, build_optimizer, learning_plan, moving_average


class Training:
    """One training of `network` on `dataset`, judged on `evaluation`, with its files in `work_dir`.

    `raw` is the configuration as it goes into output/ (whose `model.network.num_classes` fits `network`).
    """

    def __init__(
        self,
        network: ConvNextViT,
        vocabulary: Vocabulary,
        raw: Mapping[str, Any],
        configuration: Configuration,
        dataset: LineDataset,
        evaluation: LineDataset | None,
        work_dir: WorkDir,
        ranks: Ranks,
    ) -> None:
        if len(dataset) == 0:
            raise LmdbError("the training set holds no line; see `ms-ocr lmdb inspect`")
        metric, metrics = configuration.train.save.best_metric, Scores.empty().summary()
        if metric not in metrics:
            raise ConfigurationError(f"train.checkpoint.best.metric_key is {metric!r}; one of {', '.join(metrics)}")
        self.vocabulary, self.raw, self.config = vocabulary, raw, configuration.train
        self.evaluation_config, self.dataset, self.evaluation = configuration.evaluation, dataset, evaluation
        self.work_dir, self.ranks = work_dir, ranks
        self.bf16 = ranks.compute_bf16(self.config.precision)
        torch.manual_seed(self.config.seed + ranks.rank)
        self.network = network.to(ranks.device)
        self.module: nn.Module = LineLoss(self.network)
        self.optimizer = build_optimizer(self.config.optimizer, self.network.parameters())
        self.epoch, self.iteration = 0, 0  # epochs trained; batches trained of the present one
        self.finished = 0  # the last epoch that is evaluated and has all its files
        self.state_path: Path | None = None  # of the newest state
        steps_per_epoch = -(-len(self._batches()) // self.config.optimizer.cumulative_iters)
        self.schedule = Schedule(self.config.scheduler, self.optimizer, steps_per_epoch, self.config.max_epochs)
        self.average = moving_average(self.network, self.config.ema_decay) if self.config.ema_decay else None

    @property
    def final_network(self) -> ConvNextViT:
        """The network that is evaluated and saved: the moving average where there is one."""
        return self.average.module if self.average else self.network

    # ------------------------------------------------------------------ epochs

    def run(self, checkpoint: str | None = None) -> dict[str, Any]:
        """Train to the end, from `checkpoint`, or from where an interrupted run in this work_dir stopped.

        Returns the summary of the last evaluation ({} without an evaluation set).
        """
        self.work_dir.path.mkdir(parents=True, exist_ok=True)
        self._resume(checkpoint)
        if self.ranks.first:
            self.work_dir.tidy()
        summary, alone = self._finish_epoch() if self.finished < self.epoch else {}, self.module
        if self.ranks.world > 1:
            self.module = DistributedDataParallel(alone)
        while self.epoch < self.config.max_epochs:
            self._train_epoch()
            self.schedule.after_epoch()
            self.epoch, self.iteration = self.epoch + 1, 0
            self._save_state(self._epoch_state())
            summary = self._finish_epoch()
        self.module = alone  # as long as the other one is there, its group cannot end
        return summary

    def _train_epoch(self) -> None:
        self.dataset.epoch = self.epoch
        self.module.train()
        batches, interval = self._batches(), self.config.save.resume_interval
        loader = make_loader(self.dataset, batches[self.iteration :], self.config.dataloader, self.config.skip_padding)
        seen, started, due = 0, time.monotonic(), False
        with self._progress(sum(map(len, batches)), sum(map(len, batches[: self.iteration]))) as bar:
            for batch in loader:
                self._report_bad(batch)
                share, complete = self._share(batches)
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
                if due and complete and not last:  # in between, gradients are held that no file keeps
                    self._save_state(self.work_dir.latest_state)
                    due = False

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

    def _batches(self) -> list[list[int]]:
        """The batches of this epoch for this rank. Ranks get equally many lines: the first ones may come twice."""
        loader, world = self.config.dataloader, self.ranks.world
        order = np.arange(len(self.dataset))
        if loader.shuffle:
            order = np.random.default_rng((self.config.seed, self.epoch)).permutation(order)
        order = np.resize(order, -(-len(order) // world) * world)
        size = loader.batch_size_per_gpu
        batches = in_batches(self.ranks.share(order.tolist()), size)
        return batches[:-1] if loader.drop_last and len(batches) > 1 and len(batches[-1]) < size else batches

    # ------------------------------------------------------------------ after an epoch

    def _finish_epoch(self) -> dict[str, Any]:
        """Write epoch_N.pth and output/, evaluate, keep the best; may be repeated after an interruption."""
        due = self.epoch % self.evaluation_config.interval == 0 or self.epoch == self.config.max_epochs
        summary = self.evaluate() if self.evaluation is not None and due else {}
        if self.ranks.first:
            if self._keeps_epoch():
                save_torch(upstream_state_dict(self.final_network), self.work_dir.weights(self.epoch))
                self.work_dir.prune(self.config.save.max_checkpoint_num)
            save_model_dir(self.work_dir.output, self.final_network, self.vocabulary, self.raw)
            if summary:
                self._keep_best(summary)
                self._log(mode="eval", **summary)
            self.work_dir.save_progress(Progress(self.state_path, self.epoch))
        self.finished = self.epoch
        self.ranks.wait()
        return summary

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
        save_json({"epoch": self.epoch, "metric": metric, "value": value}, self.work_dir.best_file)

    def evaluate(self) -> dict[str, Any]:
        """The scores of the network on the evaluation set, all ranks together; `Scores.summary` says which."""
        scores = evaluate(
            self.final_network,
            self.evaluation,
            self.vocabulary,
            self.evaluation_config.dataloader,
            self.ranks,
            bf16=self.bf16,
            skip_padding=self.config.skip_padding,
        )
        return scores.summary()

    # ------------------------------------------------------------------ state

    def _save_state(self, path: Path) -> None:
        """All that `_resume` needs; written by rank 0."""
        random_states = self.ranks.gather(self.ranks.random_state())
        self.state_path = path
        if not self.ranks.first:
            return
        self.work_dir.save_state(
            {
                "epoch": self.epoch,
                "iteration": self.iteration,
                "network": self.network.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random_states": random_states,
                "batches": self._batch_plan(),
                "learning": learning_plan(self.config.optimizer, self.config.scheduler),
                "vocabulary": self.vocabulary.text,
            },
            path,
            self.finished,
        )

    def _batch_plan(self) -> dict[str, Any]:
        """What decides which lines form the batches of an epoch: it must stay the same within one."""
        loader = self.config.dataloader
        return {
            "lines": len(self.dataset),
            "processes": self.ranks.world,
            "train.seed": self.config.seed,
            "batch_size_per_gpu": loader.batch_size_per_gpu,
            "shuffle": loader.shuffle,
            "drop_last": loader.drop_last,
            "cumulative_iters": self.config.optimizer.cumulative_iters,
        }

    def _resume(self, checkpoint: str | None) -> None:
        """Go on from `checkpoint`, else from where resume.json says, else begin."""
        progress = self.work_dir.progress()
        path = state_file(checkpoint) if checkpoint else progress and progress.state
        own = bool(progress) and path.parent.resolve() == self.work_dir.save_dir.resolve()
        if not own:
            self.work_dir.refuse_foreign_files()
        if path is None:
            return
        state = load_state(path)
        self.finished = state["epoch"] if state["iteration"] else min(state["epoch"], progress.finished if own else 0)
        self._check_state(state, path)
        self._restore(state, path)
        self.state_path = path
        if not own:
            self._save_state(self.work_dir.latest_state)
        if self.ranks.first:
            self.work_dir.save_progress(Progress(self.state_path, self.finished))
            aside = self.work_dir.set_aside_after(self.epoch)
            where = f"; later epochs moved to {aside}" if aside else ""
            print(f"going on after epoch {self.epoch}, batch {self.iteration}{where}", file=sys.stderr)
        self.ranks.wait()

    def _check_state(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises ConfigurationError where the training of `state` is over, or was another one."""
        if state["epoch"] >= self.config.max_epochs and self.finished == state["epoch"]:
            raise ConfigurationError(
                f"{path}: belongs to a finished training of {state['epoch']} epochs; name another "
                "work_dir, raise train.max_epochs to go on, or go on from an earlier epoch with "
                "train('.../epoch_N')"
            )
        then, now = dict(state["learning"]), learning_plan(self.config.optimizer, self.config.scheduler)
        if state["iteration"]:  # in the middle of an epoch
            then, now = {**then, **state["batches"]}, {**now, **self._batch_plan()}
        changed = [f"{name} was {then[name]}, is {now[name]}" for name in now if then[name] != now[name]]
        if state["vocabulary"] != self.vocabulary.text:
            changed.append("the vocabulary is another")
        if changed:
            raise ConfigurationError(
                f"{path}: the training began otherwise: {'; '.join(changed)}; go on with the same, "
                "or start in a new work_dir with model= set to the output/ of this one"
            )

    def _restore(self, state: Mapping[str, Any], path: Path) -> None:
        load_weights(self.network, state["network"], path)
        if self.average and state["average"]:
            self.average.load_state_dict(state["average"])
        elif self.average:
            self.average = moving_average(self.network, self.config.ema_decay)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.ranks.set_random_state(state["random_states"][self.ranks.rank % len(state["random_states"])])
        self.epoch, self.iteration = state["epoch"], state["iteration"]

    # ------------------------------------------------------------------ reports

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
            epoch = self.epoch + (entry["mode"] == "train")
            self.work_dir.log({"mode": entry.pop("mode"), "epoch": epoch, **entry})

    def _report_bad(self, batch: Batch) -> None:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
            self._log(mode="train", left_out=reason)
