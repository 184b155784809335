"""Before the first step: checking labels against vocabulary and columns, and adding characters to the network."""

from typing import Any

import torch
from torch import nn

from ..config import Configuration
from ..errors import ConfigurationError, LabelError
from ..nets.network import Network
from ..vocab import Vocabulary
from .dataset import (
    FIRST_KEYS,
    LineDataset,
    blank_labels,
    describe_unknown,
    refuse_or_drop_unalignable,
    unknown_characters,
)
from .distributed import Ranks

UNLIKELY = -10.0  # bias of a new class, so that it does not disturb reading until it is learnt


def fit_vocabulary(
    dataset: LineDataset, network: Network, raw: dict[str, Any], configuration: Configuration, ranks: Ranks
) -> tuple[LineDataset, Vocabulary]:
    """Handle unknown characters, as `train.unknown_characters` says, and labels that cannot be aligned.

    "error" raises LabelError with the characters, their counts and the first keys; "drop" leaves the lines out and
    reports them; "grow" appends the characters to the vocabulary and rows to the head of `network` (in place; old rows
    stay bit for bit; `raw` gets the new number of classes). Blank labels are learnt, but reported. Returns the lines to
    train on and their vocabulary.
    """
    action, vocabulary = configuration.train.unknown_characters, dataset.vocabulary
    counts, lines = unknown_characters(dataset)
    if counts:
        report = describe_unknown(dataset, counts, lines)
        if action == "error":
            raise LabelError(
                f"{len(counts)} characters of the labels are not in vocab.txt:\n{report}\ncorrect the labels, "
                "or set train.unknown_characters to 'drop' (those lines) or 'grow' (the vocabulary)"
            )
        if action == "drop":
            dropped = {line for indices in lines.values() for line in indices}
            ranks.say(f"{len(dropped)} lines left out, for characters that are not in vocab.txt:\n{report}")
            dataset = dataset.without(dropped)
        elif "head" in configuration.train.freeze:
            raise ConfigurationError(
                f"train.freeze names the head, which could not learn the {len(counts)} characters that "
                "train.unknown_characters 'grow' would add; freeze other parts"
            )
        else:
            ranks.say(f"{len(counts)} characters added to the vocabulary:\n{report}")
            vocabulary = dataset.vocabulary = vocabulary.grow(counts)
            grow_head(network, max(network.config.num_classes, vocabulary.classes), configuration.train.seed)
            model = raw.get("model") or {}
            raw["model"] = {
                **model,
                "network": {**(model.get("network") or {}), "num_classes": network.config.num_classes},
            }
    dataset, keys = refuse_or_drop_unalignable(dataset, configuration.train.unalignable)
    if keys:
        ranks.say(f"{len(keys)} lines left out, too short for their labels: {', '.join(keys)}")
    blank = blank_labels(dataset)
    if blank:
        ranks.say(
            f"{len(blank)} labels are blank, so these lines are learnt as empty: {_keys(dataset, blank)}; "
            "correct the labels, or build the LMDB without them"
        )
    return dataset, vocabulary


def name_unknown_in_evaluation(dataset: LineDataset, ranks: Ranks) -> None:
    """Report characters of an evaluation set that the vocabulary lacks; each occurrence counts as an error."""
    counts, lines = unknown_characters(dataset)
    if counts:
        ranks.say(
            f"{len(counts)} characters of the evaluation set are not in the vocabulary and count as errors:\n"
            f"{describe_unknown(dataset, counts, lines)}\nto learn them, add lines with them to "
            "the training set and set train.unknown_characters to 'grow'"
        )


def _keys(dataset: LineDataset, indices: list[int]) -> str:
    return ", ".join(dataset.key(index) for index in indices[:FIRST_KEYS]) + (", ..." if indices[FIRST_KEYS:] else "")


def grow_head(network: Network, num_classes: int, seed: int) -> None:
    """Extend the head to `num_classes` rows: old ones bit for bit, new ones drawn around their mean with `seed`."""
    head = network.classifier
    noise = torch.randn(num_classes, head.in_features, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight = head.weight.mean(0) + 0.02 * noise.to(head.weight.device)
        weight[: head.out_features] = head.weight
        head.weight = nn.Parameter(weight)
        if head.bias is not None:
            bias = torch.full((num_classes,), UNLIKELY, device=weight.device)
            bias[: head.out_features] = head.bias
            head.bias = nn.Parameter(bias)
    head.out_features = num_classes
    network.config = network.config.grown(num_classes)
