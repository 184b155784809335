"""Evaluation of a training: when it is due, the best model so far, early stopping, and forgetting of old skills."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import Configuration
from ..errors import ConfigurationError
from ..metrics import Scores
from ..nets.network import Network
from ..vocab import Vocabulary
from .checkpoints import WorkDir, save_json
from .dataset import LineDataset
from .distributed import Ranks
from .evaluation import evaluate
from .memory import naming_what_needs_memory


class Judge:
    """Evaluates the networks of one training on the lines of `evaluation` (None: no evaluation).

    `old_skills` are lines that the initial network could read: how well later ones still read them is reported.
    Raises ConfigurationError if the configured metric is unknown, or early stopping lacks an evaluation set.
    """

    def __init__(
        self,
        configuration: Configuration,
        vocabulary: Vocabulary,
        evaluation: LineDataset | None,
        old_skills: LineDataset | None,
        work_dir: WorkDir,
        ranks: Ranks,
    ) -> None:
        metric, metrics = configuration.train.save.best_metric, Scores.empty().summary()
        if metric not in metrics:
            raise ConfigurationError(f"train.checkpoint.best.metric_key is {metric!r}; one of {', '.join(metrics)}")
        if configuration.train.patience is not None and evaluation is None:
            raise ConfigurationError(
                "train.early_stopping.patience counts evaluations, but there are none; give an evaluation set "
                "(--eval), or leave it out"
            )
        self.config, self.train_config = configuration.evaluation, configuration.train
        self.vocabulary, self.work_dir, self.ranks = vocabulary, work_dir, ranks
        self.evaluation, self.old_skills = evaluation, old_skills
        self.digests: list[str] = []  # of the evaluation sets, once known
        self._old_skills_before: dict[str, Any] | None = None

    def is_due(self, epoch: int, iteration: int, batches_per_epoch: int) -> bool:
        """Whether an evaluation is due after `iteration` batches of `epoch` + 1, which complete an optimiser step."""
        interval, accumulate = self.config.interval, self.train_config.optimizer.cumulative_iters
        if self.config.by_epoch:
            return iteration == batches_per_epoch and (epoch + 1) % interval == 0
        before = epoch * batches_per_epoch
        step_began = before + (iteration - 1) // accumulate * accumulate
        return (before + iteration) // interval > step_began // interval

    def evaluate(
        self, network: Network, *, bf16: bool, readings: list[tuple[str, str]] | None = None
    ) -> dict[str, Any]:
        """The scores of `network` over all ranks, as in `Scores.summary`.

        Args:
            network: The network to evaluate; keeps its mode.
            bf16: Whether it computes in bf16.
            readings: List to which label and text of this rank's lines are appended.
        """
        assert self.evaluation is not None  # ensured by the caller
        return self._summary(network, self.evaluation, bf16, readings)

    def _summary(
        self, network: Network, dataset: LineDataset, bf16: bool, readings: list[tuple[str, str]] | None = None
    ) -> dict[str, Any]:
        with naming_what_needs_memory("evaluation", "evaluation.dataloader.batch_size_per_gpu"):
            scores = evaluate(
                network,
                dataset,
                self.vocabulary,
                self.config.dataloader,
                self.ranks,
                bf16=bf16,
                skip_padding=self.train_config.skip_padding,
                readings=readings,
            )
        return scores.summary()

    # ------------------------------------------------------------------ the best, and patience

    def keep_best(self, summary: Mapping[str, Any], epoch: int, iteration: int, save: Callable[[Path], None]) -> None:
        """If `summary` is the best so far, let `save` write its model directory, and record it in best.json.

        epoch, iteration: epochs trained, and batches trained of the current one.
        """
        metric, rule = self.train_config.save.best_metric, self.train_config.save.best_rule
        best, value = self.work_dir.best(), summary[metric]
        if value is None or (best and (value >= best["value"] if rule == "min" else value <= best["value"])):
            return
        save(self.work_dir.output_best)
        within = {"iter": iteration} if iteration else {}
        place = {"epoch": epoch + bool(within), **within}
        save_json({**place, "metric": metric, "value": value, "evaluation": self.digests}, self.work_dir.best_file)

    def differs_from(self, best: Mapping[str, Any]) -> bool:
        """Whether the evaluation set or metric differs from that of `best`, so that they cannot be compared."""
        told = (self.train_config.save.best_metric, self.digests)
        return self.evaluation is not None and (best["metric"], best.get("evaluation")) != told

    def out_of_patience(self) -> bool:
        """Whether the last `train.early_stopping.patience` evaluations brought no improvement."""
        if self.train_config.patience is None:
            return False
        since_best = self.work_dir.evaluations_since_best() if self.ranks.first else 0
        return self.ranks.gather(since_best)[0] >= self.train_config.patience

    # ------------------------------------------------------------------ old skills

    def measure_old_skills(self, network: Network, *, bf16: bool) -> None:
        """Measure how well the initial `network` reads the lines of `evaluation.old_skills`."""
        if self.old_skills is not None:
            self._old_skills_before = self._summary(network, self.old_skills, bf16)
            self.ranks.say(f"old skills before this training: {_of_lines(self._old_skills_before)}")

    def watch_old_skills(self, network: Network, epoch: int, *, bf16: bool) -> dict[str, Any]:
        """Scores on the old skills after `epoch` epochs, and before; warns if they got worse."""
        if self.old_skills is None or self._old_skills_before is None:
            return {}
        before, now = self._old_skills_before, self._summary(network, self.old_skills, bf16)
        if now["cer"] is not None and before["cer"] is not None and now["cer"] > before["cer"]:
            self.ranks.say(
                f"\nwarning: old skills got worse after epoch {epoch}: {_of_lines(now)}; before this "
                f"training {_of_lines(before)}; rehearse them (train.rehearsal), freeze a part (train.freeze), or "
                "lower train.optimizer.lr"
            )
        return {
            "old_skills_cer": now["cer"],
            "old_skills_cer_before": before["cer"],
            "old_skills_accuracy": now["accuracy"],
            "old_skills_accuracy_before": before["accuracy"],
        }


def _of_lines(summary: Mapping[str, Any]) -> str:
    cer, accuracy = summary["cer"], summary["accuracy"]
    if cer is None:
        return f"no character in {summary['lines']} lines"
    return f"CER {100 * cer:.2f} %, {100 * accuracy:.1f} % of {summary['lines']} lines right"
