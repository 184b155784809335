"""ModelScope's trainer `ocr-recognition`: `build_trainer(name=Trainers.ocr_recognition, default_args=dict(...))`."""

import json
import os
from collections.abc import Callable
from typing import Any

from modelscope.msdatasets.ms_dataset import MsDataset
from modelscope.trainers.base import BaseTrainer
from modelscope.trainers.builder import TRAINERS
from modelscope.utils.config import Config

from ..config_file import CONFIGURATION_FILE
from ..data.reader import LineReader
from ..data.rows import DatasetReader, is_dataset
from ..errors import ConfigurationError
from ..training.loop import Training
from ..training.setup import evaluate_model_dir, name_work_dir, prepare_training
from .building import RefusesUnknown
from .dataset import LocalLmdbDataset, hub_lmdbs
from .model import OCRRecognition


@TRAINERS.register_module(module_name="ocr-recognition")
class OCRRecognitionTrainer(RefusesUnknown, BaseTrainer):
    """Trains and evaluates a model with `training.loop.Training`; see `training.checkpoints` for the files."""

    cfg: Config

    def __init__(
        self,
        model: "str | OCRRecognition",
        train_dataset: Any = None,
        eval_dataset: Any = None,
        work_dir: str | None = None,
        cfg_modify_fn: Callable[[Config], Config] | None = None,
        cfg_file: str | None = None,
        cfg_options: dict[str, Any] | None = None,
        max_epochs: int | None = None,
        seed: int | None = None,
        launcher: str | None = None,
        model_revision: str | None = None,
        arg_parse_fn: Callable | None = None,
        device: str | None = None,
    ) -> None:
        """Overrides are applied to the configuration in this order: cfg_modify_fn, cfg_options, work_dir, max_epochs,
        seed.

        Args:
            model: a model directory or a loaded model.
            train_dataset: the result of `MsDataset.load(..., local_lmdb=...)` (or, for a data set of the hub, of
                `MsDataset.load` itself), the path of an LMDB, a `datasets.Dataset` or MsDataset with columns image and
                text, or a list of these.
            eval_dataset: the same; None trains without evaluation.
            work_dir: where checkpoints and logs are written; one training per folder.
            cfg_modify_fn: receives the configuration and returns it, modified.
            cfg_file: used instead of the model's configuration.json.
            cfg_options: dotted keys of the configuration and their values.
            max_epochs, seed: `train.max_epochs` and `train.seed`.
            launcher: None or "pytorch"; torchrun starts the processes.
            model_revision: a branch or tag of a model id.
            arg_parse_fn: ModelScope's.
            device: "cpu", "gpu", "gpu:1" ...; None takes a GPU if there is one.

        Raises:
            ConfigurationError, DataError: raised here, for arguments, the configuration and data sets.
            LmdbError, LabelError, VocabularyError, CheckpointError: raised at the first use of `training`.
        """
        if not isinstance(model, (str, OCRRecognition)):
            raise ConfigurationError(
                f"model is a {type(model).__name__}; give one model directory, one model id, or "
                "what Model.from_pretrained returned"
            )
        self.model_dir = model if isinstance(model, str) else model.model_dir
        super().__init__(cfg_file or os.path.join(self.model_dir, CONFIGURATION_FILE), arg_parse_fn)
        if launcher not in (None, "pytorch"):
            raise ConfigurationError(f"launcher is {launcher!r}; start the script with torchrun and leave it out")
        self.cfg_modify_fn = cfg_modify_fn
        self.cfg = self.rebuild_config(self.cfg)
        if cfg_options:
            self.cfg.merge_from_dict(cfg_options)
        raw = _plain(self.cfg)
        train = raw.setdefault("train", {})
        for key, value in (("max_epochs", max_epochs), ("seed", seed)):
            if value is not None:
                train[key] = value
        if work_dir is not None:
            name_work_dir(raw, work_dir)
        self.work_dir = train.get("work_dir", "./work_dir")
        self.train_lines = _lines(train_dataset, "train_dataset")
        self.eval_lines = _lines(eval_dataset, "eval_dataset")
        self.raw, self.device = raw, device
        self.network = None if isinstance(model, str) else model.recognizer
        self._training: Training | None = None

    def rebuild_config(self, cfg: Config) -> Config:
        if self.cfg_modify_fn is None:
            return cfg
        modified = self.cfg_modify_fn(cfg)
        if modified is None:
            raise ConfigurationError("cfg_modify_fn returned None; it must return the configuration it was given")
        return modified

    @property
    def model(self) -> Any:
        """The network (a torch module) in its current state of training."""
        return self.training.network

    @property
    def training(self) -> Training:
        """The `Training` behind this trainer, prepared at first use."""
        if self._training is None:
            if not self.train_lines:
                raise ConfigurationError("train_dataset is missing; give MsDataset.load(..., local_lmdb=...)")
            self._training = prepare_training(
                self.model_dir,
                self.raw,
                self.train_lines,
                self.eval_lines,
                self.work_dir,
                network=self.network,
                device=self.device,
            )
        return self._training

    def train(self, checkpoint_path: str | None = None, resume: bool = True) -> dict[str, Any]:
        """Train to `train.max_epochs`; returns the last evaluation.

        Args:
            checkpoint_path: the epoch to continue from ('work_dir/epoch_3', with or without '.pth'); None resumes an
                interrupted training in the same work_dir.
            resume: False starts from scratch and moves aside the contents of work_dir.
        """
        return self.training.run(checkpoint_path, resume)

    def evaluate(self, checkpoint_path: str | None = None) -> dict[str, Any]:
        """Scores on the evaluation set of the weights in `checkpoint_path`, or else of the network as it is now."""
        if not self.eval_lines:
            raise ConfigurationError("eval_dataset is missing; give MsDataset.load(..., local_lmdb=...)")
        if checkpoint_path is None and self._training is not None:
            return self._training.evaluate()
        return evaluate_model_dir(
            self.model_dir, self.raw, self.eval_lines, weights=checkpoint_path, network=self.network, device=self.device
        )


def _plain(cfg: Config) -> dict[str, Any]:
    """A ModelScope configuration as plain dicts and lists."""
    return json.loads(json.dumps(cfg._cfg_dict.to_dict() if isinstance(cfg, Config) else cfg))


def _lines(dataset: Any, name: str) -> list[str | LineReader]:
    """The paths of LMDBs and the readers of lines in the given data set. Raises ConfigurationError or DataError."""
    if dataset is None:
        return []
    if isinstance(dataset, (list, tuple)):
        return [path for item in dataset for path in _lines(item, name)]
    if isinstance(dataset, LocalLmdbDataset):
        return list(dataset.line_readers())
    if isinstance(dataset, (str, os.PathLike)):
        return [os.fspath(dataset)]
    if isinstance(dataset, MsDataset) and "split_config" in (dataset.config_kwargs or {}):
        return list(hub_lmdbs(dataset.config_kwargs["split_config"]))
    if is_dataset(dataset):
        return [DatasetReader(dataset)]
    raise ConfigurationError(
        f"{name} is a {type(dataset).__name__}; give MsDataset.load(..., local_lmdb=...), the path of an LMDB "
        "(`ms-ocr lmdb build` makes one), or a datasets.Dataset with columns image and text"
    )
