"""The training loop: epochs of steps, evaluation, files, and going on after an interruption.

Deterministic by the seed: which lines form a batch depends on (seed, epoch), dropout on a random state that is saved.
"""

import functools
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import Configuration, LoaderConfig
from ..errors import ConfigurationError, LmdbError, OcrError
from ..nets.convnextvit import ConvNextViT
from ..vocab import Vocabulary, fold_full_width
from .checkpoints import WorkDir, load_state, save_json, save_model_dir, save_torch, upstream_state_dict
from .dataset import Batch, LineDataset, collate
from .distributed import Ranks
from .loss import LineLoss, read_batch
from .metrics import Scores
from .optimisation import Schedule, build_optimizer, moving_average


class Training:
    """One training of `network` on `dataset`, judged on `evaluation`, with its files in `work_dir`.

    `raw` is the configuration as it goes into output/ (whose `model.network.num_classes` fits `network`).
    """

    def __init__(self, network: ConvNextViT, vocabulary: Vocabulary, raw: Mapping[str, Any],
                 configuration: Configuration, dataset: LineDataset, evaluation: LineDataset | None,
                 work_dir: WorkDir, ranks: Ranks) -> None:
        if len(dataset) == 0:
            raise LmdbError("the training set holds no line; see `ms-ocr lmdb inspect`")
        self.vocabulary, self.raw, self.config = vocabulary, raw, configuration.train
        self.evaluation_config, self.dataset, self.evaluation = configuration.evaluation, dataset, evaluation
        self.work_dir, self.ranks = work_dir, ranks
        torch.manual_seed(self.config.seed + ranks.rank)
        self.network = network.to(ranks.device)
        self.module: nn.Module = LineLoss(self.network)
        if ranks.world > 1:
            self.module = DistributedDataParallel(self.module)
        self.optimizer = build_optimizer(self.config.optimizer, self.network.parameters())
        lines = -(-len(dataset) // ranks.world)
        batches = -(-lines // self.config.dataloader.batch_size_per_gpu)
        self.steps_per_epoch = -(-batches // self.config.optimizer.cumulative_iters)
        self.schedule = Schedule(self.config.scheduler, self.optimizer, self.steps_per_epoch, self.config.max_epochs)
        self.average = moving_average(self.network, self.config.ema_decay) if self.config.ema_decay else None
        self.epoch, self.iteration = 0, 0  # finished epochs; finished batches of the present one

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
        summary = self._finish_epoch() if self.epoch and not self._epoch_is_finished() else {}
        while self.epoch < self.config.max_epochs:
            self._train_epoch()
            self.schedule.after_epoch()
            self.epoch, self.iteration = self.epoch + 1, 0
            self._save_state(self.work_dir.state(self.epoch))
            summary = self._finish_epoch()
        return summary

    def _train_epoch(self) -> None:
        self.dataset.epoch = self.epoch
        batches = self._batches()
        loader = make_loader(self.dataset, batches[self.iteration:], self.config.dataloader, self.config.skip_padding)
        accumulate, interval = self.config.optimizer.cumulative_iters, self.config.save.resume_interval
        seen, started = 0, time.monotonic()
        with self._progress(sum(map(len, batches)), sum(map(len, batches[: self.iteration]))) as bar:
            for batch in loader:
                self._report_bad(batch)
                last = self.iteration + 1 == len(batches)
                steps = (self.iteration + 1) % accumulate == 0 or last
                loss = self._step(batch, steps, accumulate)
                self.iteration += 1
                seen += len(batch)
                rate = self.optimizer.param_groups[0]["lr"]
                bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.2e}", refresh=False)
                bar.update(len(batch) + len(batch.bad))
                if self.iteration % self.config.logging_interval == 0 or last:
                    self._log(mode="train", iter=self.iteration, loss=loss, lr=rate,
                              lines_per_second=seen * self.ranks.world / (time.monotonic() - started))
                if interval and self.iteration % interval == 0 and not last:
                    self._save_state(self.work_dir.latest_state)

    def _step(self, batch: Batch, steps: bool, accumulate: int) -> float:
        """Gradients of one batch, and the optimiser's step if `steps`; the loss, averaged over this rank's lines."""
        if len(batch) == 0:
            if self.ranks.world > 1:  # the other ranks would wait for its gradients for ever
                raise LmdbError(f"a batch holds no readable line: {'; '.join(batch.bad)}; mend the records")
            return math.nan
        self.module.train()
        device = self.ranks.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16"):
            losses, _ = self.module(batch)
        loss = losses.mean()
        value = loss.item()
        if not math.isfinite(value):
            raise OcrError(f"the loss is {value} in epoch {self.epoch + 1}, batch {self.iteration + 1}; lower "
                           "train.optimizer.lr, or clip gradients with train.optimizer.options.grad_clip.max_norm")
        (loss / accumulate).backward()
        if steps:
            if self.config.optimizer.max_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.max_norm,
                                         self.config.optimizer.norm_type)
            self.schedule.before_step()
            self.optimizer.step()
            self.schedule.after_step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.average:
                self.average.update_parameters(self.network)
        return value

    def _batches(self) -> list[list[int]]:
        """The batches of this epoch for this rank. Ranks get equally many lines: the first ones come twice if need be."""
        loader, world = self.config.dataloader, self.ranks.world
        order = np.arange(len(self.dataset))
        if loader.shuffle:
            order = np.random.default_rng((self.config.seed, self.epoch)).permutation(order)
        order = np.resize(order, -(-len(order) // world) * world)
        own, size = self.ranks.share(order.tolist()), loader.batch_size_per_gpu
        batches = [own[start: start + size] for start in range(0, len(own), size)]
        return batches[:-1] if loader.drop_last and len(batches) > 1 and len(batches[-1]) < size else batches

    # ------------------------------------------------------------------ after an epoch

    def _finish_epoch(self) -> dict[str, Any]:
        """Write epoch_N.pth and output/, evaluate, keep the best; may be repeated after an interruption."""
        due = self.epoch % self.evaluation_config.interval == 0 or self.epoch == self.config.max_epochs
        summary = self.evaluate() if self.evaluation is not None and due else {}
        if self.ranks.first:
            save = self.config.save
            if self.epoch % save.interval == 0 or self.epoch == self.config.max_epochs:
                save_torch(upstream_state_dict(self.final_network), self.work_dir.weights(self.epoch))
                self.work_dir.prune(save.max_checkpoint_num)
            save_model_dir(self.work_dir.output, self.final_network, self.vocabulary, self.raw)
            if summary:
                self._keep_best(summary)
            self._log(mode="eval", **summary)
        self.ranks.wait()
        return summary

    def _epoch_is_finished(self) -> bool:
        return any(entry["mode"] == "eval" and entry["epoch"] == self.epoch for entry in self.work_dir.logged())

    def _keep_best(self, summary: dict[str, Any]) -> None:
        metric, rule = self.config.save.best_metric, self.config.save.best_rule
        if metric not in summary:
            raise ConfigurationError(f"train.checkpoint.best.metric_key is {metric!r}; one of {', '.join(summary)}")
        best = self.work_dir.best()
        value = summary[metric]
        if value is None or (best and (value >= best["value"] if rule == "min" else value <= best["value"])):
            return
        save_model_dir(self.work_dir.output_best, self.final_network, self.vocabulary, self.raw)
        save_json({"epoch": self.epoch, "metric": metric, "value": value}, self.work_dir.best_file)

    def evaluate(self) -> dict[str, Any]:
        """The scores of the network on the evaluation set, all ranks together; `Scores.summary` says which."""
        scores = evaluate(self.final_network, self.evaluation, self.vocabulary, self.evaluation_config.dataloader,
                          self.ranks, precision=self.config.precision, skip_padding=self.config.skip_padding)
        return scores.summary()

    # ------------------------------------------------------------------ state

    def _save_state(self, path: Path) -> None:
        """All that `_resume` needs; written by rank 0."""
        random_states = self.ranks.gather(torch.get_rng_state())
        if not self.ranks.first:
            return
        self.work_dir.save_state({
            "epoch": self.epoch,
            "iteration": self.iteration,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random_states": random_states,
            "lines": len(self.dataset),
        }, path)

    def _resume(self, checkpoint: str | None) -> None:
        state = load_state(checkpoint) if checkpoint else self.work_dir.load_newest_state()
        if state is None:
            return
        if state["lines"] != len(self.dataset) and state["iteration"]:
            raise ConfigurationError(f"the training set holds {len(self.dataset)} lines, {state['lines']} when the "
                                     f"training in {self.work_dir.path} was interrupted; go on with the same data, "
                                     "or name another work_dir")
        if state["epoch"] >= self.config.max_epochs and self._finished(state["epoch"]):
            raise ConfigurationError(f"{self.work_dir.path}: holds a finished training of {state['epoch']} epochs; name "
                                     "another work_dir, raise train.max_epochs to go on, or go on from an earlier "
                                     "epoch with train('.../epoch_N')")
        self.network.load_state_dict(state["network"])
        if self.average and state["average"]:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random_states"][self.ranks.rank % len(state["random_states"])])
        self.epoch, self.iteration = state["epoch"], state["iteration"]
        if self.ranks.first:
            aside = self.work_dir.set_aside_after(self.epoch) if checkpoint else None
            where = f"; later epochs moved to {aside}" if aside else ""
            print(f"going on after epoch {self.epoch}, batch {self.iteration}{where}", file=sys.stderr)
        self.ranks.wait()

    def _finished(self, epoch: int) -> bool:
        self.epoch = epoch
        return self._epoch_is_finished()

    # ------------------------------------------------------------------ reports

    def _progress(self, total: int, initial: int) -> tqdm:
        return tqdm(total=total, initial=initial, unit="line", disable=not self.ranks.first, file=sys.stderr,
                    desc=f"epoch {self.epoch + 1}/{self.config.max_epochs}", mininterval=0.5)

    def _log(self, **entry: Any) -> None:
        if self.ranks.first:
            epoch = self.epoch + (entry["mode"] == "train")
            self.work_dir.log({"mode": entry.pop("mode"), "epoch": epoch, **entry})

    def _report_bad(self, batch: Batch) -> None:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
            self._log(mode="train", left_out=reason)


def make_loader(dataset: LineDataset, batches: list[list[int]], config: LoaderConfig, skip_padding: bool) -> DataLoader:
    """Batches in the given order, from worker processes where the configuration asks for them."""
    return DataLoader(dataset, batch_sampler=batches, num_workers=config.workers_per_gpu,
                      collate_fn=functools.partial(collate, skip_padding=skip_padding),
                      multiprocessing_context=config.start_method if config.workers_per_gpu else None,
                      worker_init_fn=_one_thread)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@torch.no_grad()
def evaluate(network: ConvNextViT, dataset: LineDataset, vocabulary: Vocabulary, config: LoaderConfig, ranks: Ranks, *,
             precision: str = "fp32", skip_padding: bool = True) -> Scores:
    """Loss and texts of all lines of `dataset`; the same whatever the number of ranks. The network keeps its mode."""
    own, size = ranks.share(range(len(dataset))), config.batch_size_per_gpu
    batches = [own[start: start + size] for start in range(0, len(own), size)]
    module, scores, training = LineLoss(network), Scores.empty(), network.training
    module.eval()
    for batch in _readable(make_loader(dataset, batches, config, skip_padding)):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=precision == "bf16"):
            losses, logits = module(batch)
        for text, label, loss in zip(read_batch(logits, batch, vocabulary), batch.labels, losses.tolist()):
            counted = math.isfinite(loss) and not vocabulary.unknown(fold_full_width(label))
            scores.add(text, label, loss if counted else None)
    network.train(training)
    return ranks.sum(scores)


def _readable(loader: DataLoader) -> Iterator[Batch]:
    for batch in loader:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
        if len(batch):
            yield batch
