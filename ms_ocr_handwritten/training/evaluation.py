"""Loading batches of lines in a given order, and the scores of a network on them."""

import functools
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader

from ..config import LoaderConfig
from ..errors import ConfigurationError
from ..metrics import Scores
from ..nets.network import Network
from ..vocab import Vocabulary, fold_full_width
from .batches import in_batches
from .dataset import Batch, LineDataset, collate
from .distributed import Ranks
from .loss import LineLoss, read_batch
from .signals import outlive_the_signal

MOST_WORKERS = 8  # chosen for a GPU; more would keep the main process busy receiving


def make_loader(
    dataset: LineDataset,
    batches: list[list[int]],
    config: LoaderConfig,
    skip_padding: bool,
    device: torch.device = torch.device("cpu"),
) -> DataLoader:
    """A loader for batches in the given order, with worker processes if configured.

    For a GPU, batches are in pinned memory, and workers are used even if 0 are configured. The loader has its own
    generator, so that it does not advance the random state used by dropout.
    Raises ConfigurationError if workers would be forked beside OpenVINO.
    """
    workers = config.workers_per_gpu or chosen_workers(config, device)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=functools.partial(collate, skip_padding=skip_padding),
        multiprocessing_context=_start_method(config) if workers else None,
        worker_init_fn=_begin_worker,
        pin_memory=device.type == "cuda",
    )


def chosen_workers(config: LoaderConfig, device: torch.device) -> int:
    """Number of worker processes for `device` if 0 are configured: for a GPU one per remaining core.

    It is 0 if they cannot be forked, since other start methods take seconds in each epoch.
    """
    if device.type != "cuda" or "openvino" in sys.modules:
        return 0
    if multiprocessing.get_context(config.start_method).get_start_method() != "fork":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(cores - 1, MOST_WORKERS))


def _start_method(config: LoaderConfig) -> str | None:
    """The start method of workers: as configured, but never a fork beside OpenVINO, which has crashed workers."""
    if "openvino" not in sys.modules:
        return config.start_method
    if config.start_method == "fork":
        raise ConfigurationError(
            "train.dataloader.start_method is 'fork', but openvino is imported in this process, and "
            "forked workers have crashed beside it; set 'spawn', or train in another process"
        )
    return config.start_method or "spawn"


def _begin_worker(worker: int) -> None:
    outlive_the_signal()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@torch.no_grad()
def evaluate(
    network: Network,
    dataset: LineDataset,
    vocabulary: Vocabulary,
    config: LoaderConfig,
    ranks: Ranks,
    *,
    bf16: bool = False,
    skip_padding: bool = True,
    readings: list[tuple[str, str]] | None = None,
) -> Scores:
    """Scores of `network` on all lines of `dataset`, independent of the number of ranks; the network keeps its mode.

    readings: list to which label and text of this rank's lines are appended.
    """
    batches = in_batches(ranks.share(range(len(dataset))), config.batch_size_per_gpu)
    module, scores, training = LineLoss(network), Scores.empty(), network.training
    module.eval()
    for batch in readable(make_loader(dataset, batches, config, skip_padding, ranks.device)):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
            losses, encoded = module(batch)
            texts = read_batch(encoded, network.classifier, batch, vocabulary)
        for text, label, loss in zip(texts, batch.labels, losses.tolist()):
            counted = math.isfinite(loss) and not vocabulary.unknown(fold_full_width(label))
            scores.add(text, label, loss if counted else None)
            if readings is not None:
                readings.append((label, text))
    network.train(training)
    return ranks.sum(scores)


def readable(loader: DataLoader) -> Iterator[Batch]:
    """Yield the batches that hold lines; samples left out are reported on stderr."""
    for batch in loader:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
        if len(batch):
            yield batch
