"""From a model directory, a configuration and LMDBs to a `Training`, or to scores; shared by trainer and CLI."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Configuration
from ..data.reader import line_reader
from ..errors import ConfigurationError
from ..model_dir import ModelDir
from ..nets.network import Network
from ..nets.weights import load_network, new_network
from ..vocab import Vocabulary
from .checkpoints import WorkDir
from .dataset import LineDataset
from .distributed import Ranks
from .evaluation import evaluate
from .loop import Training
from .prepare import fit_vocabulary, name_unknown_in_evaluation


def prepare_training(
    model_dir: str | os.PathLike[str],
    raw: dict[str, Any],
    train: Sequence[Any],
    evaluation: Sequence[Any],
    work_dir: str | os.PathLike[str],
    *,
    network: Network | None = None,
    device: str | None = None,
) -> Training:
    """Prepare a training of the model in `model_dir` (or of `network`, if given) with the configuration `raw`.

    `train` and `evaluation` list sources for `data.reader.line_reader`: paths of LMDBs, data sets with image and text.
    device: as for `Ranks.join`.

    Labels are checked here, before anything is written. Raises ConfigurationError, LmdbError, LabelError,
    VocabularyError or CheckpointError.
    """
    files = ModelDir.open(model_dir)
    configuration = Configuration.parse(raw)
    for folder in ("output", "output_best"):
        if Path(work_dir, folder).resolve() == files.path.resolve():
            raise ConfigurationError(
                f"work_dir {work_dir}: its {folder}/ is the model directory itself, which would be "
                "overwritten; name another work_dir"
            )
    network, ranks = network or initial_network(files, configuration), Ranks.join(device)
    config = configuration.train
    dataset = LineDataset(
        [line_reader(source) for source in train],
        files.vocabulary,
        augment=config.augment,
        seed=config.seed,
        on_bad_sample=config.on_bad_sample,
        rehearsed=[line_reader(path) for path in config.rehearsal.lmdb],
        layout=network.config.layout,
    )
    dataset, vocabulary = fit_vocabulary(dataset, network, raw, configuration, ranks)
    held_out, old_skills = (
        _judging(paths, vocabulary, configuration) if paths else None
        for paths in (evaluation, configuration.evaluation.old_skills)
    )
    if held_out is not None:
        name_unknown_in_evaluation(held_out, ranks)
    files_of_training = WorkDir(work_dir, config.save.save_dir)
    return Training(network, vocabulary, raw, configuration, dataset, held_out, files_of_training, ranks, old_skills)


def _judging(sources: Sequence[Any], vocabulary: Vocabulary, configuration: Configuration) -> LineDataset:
    """Lines for evaluation only."""
    readers = [line_reader(source) for source in sources]
    return LineDataset(
        readers,
        vocabulary,
        on_bad_sample=configuration.train.on_bad_sample,
        unknown="omit",
        layout=configuration.network.layout,
    )


def name_work_dir(raw: dict[str, Any], work_dir: str | os.PathLike[str]) -> None:
    """Set `work_dir` in `raw` for all files: as upstream, it replaces the other folders, too."""
    train = raw["train"] = raw.get("train") or {}
    train["work_dir"] = os.fspath(work_dir)
    checkpoint = train.get("checkpoint") or {}
    for section in (checkpoint.get("period"), checkpoint.get("best"), *(train.get("hooks") or [])):
        if section:
            section.pop("save_dir", None)


def evaluate_model_dir(
    model_dir: str | os.PathLike[str],
    raw: dict[str, Any],
    evaluation: Sequence[Any],
    *,
    weights: str | None = None,
    network: Network | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Scores on LMDBs or data sets, of the weights file `weights`, of `network`, or of the directory's weights."""
    files = ModelDir.open(model_dir)
    configuration = Configuration.parse(raw)
    if weights is not None or network is None:
        network = load_network(configuration.network, _weights_file(weights) if weights else files.require_weights())
    ranks = Ranks.join(device)
    dataset = _judging(evaluation, files.vocabulary, configuration)
    scores = evaluate(
        network.to(ranks.device),
        dataset,
        files.vocabulary,
        configuration.evaluation.dataloader,
        ranks,
        bf16=ranks.compute_bf16(configuration.train.precision),
    )
    return scores.summary()


def initial_network(files: ModelDir, configuration: Configuration) -> Network:
    """The network to train: with the directory's weights, or random (by `train.seed`) if it holds none."""
    import torch

    if files.weights is not None:
        return load_network(configuration.network, files.weights)
    torch.manual_seed(configuration.train.seed)
    return new_network(configuration.network)


def _weights_file(path: str) -> str:
    """`work_dir/epoch_3` means `work_dir/epoch_3.pth`, as in ModelScope."""
    return path if os.path.exists(path) else f"{path}.pth"
