"""The batches of an epoch, determined by seed and epoch only, with rehearsed lines mixed in by their share."""

import numpy as np

from ..config import TrainConfig
from .dataset import LineDataset
from .distributed import Ranks


def in_batches(indices: list[int], size: int) -> list[list[int]]:
    """`indices` in order, in batches of `size`, with the remainder last."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def epoch_batches(dataset: LineDataset, config: TrainConfig, epoch: int, ranks: Ranks) -> list[list[int]]:
    """The batches of `epoch` for this rank. All ranks get the same number of lines, so the first ones may be repeated.

    Every line of the training set occurs once. Rehearsed lines are drawn anew for each epoch, none twice before all
    have been drawn, up to the share `train.rehearsal.share` of all lines.
    """
    loader, seed = config.dataloader, config.seed
    order, pool = dataset.own_lines(), dataset.rehearsed_lines()
    if len(pool):
        count = max(1, round(len(order) * config.rehearsal.share / (1 - config.rehearsal.share)))
        drawn = np.resize(np.random.default_rng((seed, epoch, 1)).permutation(pool), count)
        places = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in (order, drawn)])
        order = np.concatenate([order, drawn])[np.argsort(places, kind="stable")]  # spread evenly
    if loader.shuffle:
        order = np.random.default_rng((seed, epoch)).permutation(order)
    order = np.resize(order, -(-len(order) // ranks.world) * ranks.world)
    size = loader.batch_size_per_gpu
    batches = in_batches(ranks.share(order.tolist()), size)
    return batches[:-1] if loader.drop_last and len(batches) > 1 and len(batches[-1]) < size else batches
