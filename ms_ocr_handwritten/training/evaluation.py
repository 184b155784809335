"""Batches of lines in a given order, and the scores of a network on them."""

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

MOST_WORKERS = 8  # that are chosen for a GPU; more keep a main process busy with what they send


def make_loader(
    dataset: LineDataset,
    batches: list[list[int]],
    config: LoaderConfig,
    skip_padding: bool,
    device: torch.device = torch.device("cpu"),
) -> DataLoader:
    """Batches in the given order, from worker processes where the configuration asks for them.

    For a GPU they are in pinned memory, and workers are chosen where it asks for none. The loader has a generator of
    its own, so that it draws nothing from the random state that dropout goes on with.
    Raises ConfigurationError where workers would be forked beside OpenVINO.
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
    """How many worker processes load for `device` where 0 are configured: for a GPU the cores beside this process.

    None where they could not be forked: another start takes seconds at each epoch.
    """
    if device.type != "cuda" or "openvino" in sys.modules:
        return 0
    if multiprocessing.get_context(config.start_method).get_start_method() != "fork":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(cores - 1, MOST_WORKERS))


def _start_method(config: LoaderConfig) -> str | None:
    """How workers start: as configured, never by a fork of a process that holds OpenVINO, which has crashed them."""
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
    """Loss and texts of all lines of `dataset`; the same whatever the number of ranks. The network keeps its mode.

    readings: gets label and text of the lines of this rank.
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
    """The batches that hold lines; what was left out of them is said on stderr."""
    for batch in loader:
        for reason in batch.bad:
            print(f"left out: {reason}", file=sys.stderr)
        if len(batch):
            yield batch
