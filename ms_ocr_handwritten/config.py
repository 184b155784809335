"""A typed, frozen view of ModelScope's `configuration.json`; an unknown key is an error that lists the allowed ones.

The schema is the official one. Both of its ways to configure saving, logging and evaluation are accepted: the keys
`train.checkpoint.period`, `train.logging`, `evaluation.period`, and the older list `train.hooks`. Keys of our own,
all optional, are `model.network` (sizes of the network), `train.precision`, `train.seed`, `train.ema_decay`,
`train.skip_padding`, `train.unknown_characters`, `train.unalignable`, `train.on_bad_sample`, `train.augment`,
`train.freeze`, `train.rehearsal`, `train.early_stopping`, `train.logging.tensorboard`, `evaluation.old_skills` and
`dataloader.start_method`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .config_file import CONFIGURATION_FILE, read_json
from .config_section import Section, without_hooks
from .recognisers import ConvNextViTConfig, NetworkConfig, parse_model

LESS_IS_BETTER = ("cer", "avg_loss")  # prefixes of the metrics that are minimised


@dataclass(frozen=True)
class LoaderConfig:
    batch_size_per_gpu: int = 32  # lines per process
    workers_per_gpu: int = 0  # worker processes
    shuffle: bool = True
    drop_last: bool = False
    start_method: str | None = (
        None  # of workers: "fork", "spawn", "forkserver"; None: Python's default, but "spawn" with OpenVINO
    )


@dataclass(frozen=True)
class OptimizerConfig:
    type: str = "AdamW"  # a class of torch.optim
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-4, "weight_decay": 0.01})
    max_norm: float | None = None  # gradient clipping; None disables it
    norm_type: float = 2.0
    cumulative_iters: int = 1  # batches per optimiser step


@dataclass(frozen=True)
class SchedulerConfig:
    type: str | None = None  # a class of torch.optim.lr_scheduler; None keeps the rate constant
    arguments: Mapping[str, Any] = field(default_factory=dict)
    by_epoch: bool = True  # stepped once per epoch, else once per optimiser step
    warmup_iters: int = 0  # optimiser steps over which the rate rises linearly from warmup_ratio to 1
    warmup_ratio: float = 0.1


@dataclass(frozen=True)
class SaveConfig:
    interval: int = 1  # epochs between epoch_N.pth
    max_checkpoint_num: int | None = None  # newest kept; None keeps all
    save_dir: str | None = None  # None is work_dir
    resume_interval: int = 0  # iterations between saves of the state to resume from; 0 is once per epoch
    best_metric: str = "cer"
    best_rule: str = "min"  # "min" or "max"


@dataclass(frozen=True)
class RehearsalConfig:
    """Lines of earlier training data that are mixed in, so that earlier skills are not forgotten."""

    lmdb: tuple[str, ...] = ()  # paths; empty for no rehearsal
    share: float = 0.5  # share of an epoch's lines, (0, 1)


@dataclass(frozen=True)
class TrainConfig:
    max_epochs: int = 1
    work_dir: str = "./work_dir"
    dataloader: LoaderConfig = LoaderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    save: SaveConfig = SaveConfig()
    logging_interval: int = 100  # iterations
    tensorboard: bool = False  # whether to write the log as TensorBoard events, too
    patience: int | None = None  # evaluations without an improvement after which to stop; None: never
    seed: int = 0
    precision: str = "fp32"  # "fp32", "bf16" (autocast) or "auto": bf16 if it is measured to be faster
    compile: bool = False  # whether to use torch.compile
    ema_decay: float | None = None  # moving average of the weights, evaluated and saved in output/
    skip_padding: bool = True  # compute a chunk that holds only padding once per batch, not once per line
    augment: bool = False
    freeze: tuple[str, ...] = ()  # parts of the network that are not trained
    rehearsal: RehearsalConfig = RehearsalConfig()
    unknown_characters: str = "error"  # "error", "drop" (the samples) or "grow" (vocabulary and head)
    unalignable: str = "error"  # "error" or "drop"
    on_bad_sample: str = "error"  # "error" or "skip"


@dataclass(frozen=True)
class EvaluationConfig:
    dataloader: LoaderConfig = replace(LoaderConfig(), shuffle=False)
    interval: int = 1  # epochs, or iterations (batches)
    by_epoch: bool = True
    old_skills: tuple[str, ...] = ()  # LMDBs of earlier skills, whose CER is monitored


@dataclass(frozen=True)
class DecoderConfig:
    """Defaults for decoding columns to text."""

    language_model: str | None = None  # file, relative to the model directory
    alpha: float | None = None  # weight of the language model; None: the one stored beside it, else the default
    beta: float | None = None  # nats added per character; None: stored beside the language model, else the default
    beam_width: int | None = None  # texts kept; None: only the best path, or 10 if a search is needed
    augment_below: float = 0.0  # score of a line below which other views of it are read, too; 0: never

    def within(self, model_dir: str | os.PathLike[str]) -> "DecoderConfig":
        """The same with the full path of the language model."""
        return replace(self, language_model=self.language_model and os.path.join(model_dir, self.language_model))


@dataclass(frozen=True)
class Configuration:
    """The settings of a configuration.json."""

    network: NetworkConfig = ConvNextViTConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    decoder: DecoderConfig = DecoderConfig()

    @classmethod
    def load(cls, model_dir: str | os.PathLike[str]) -> "Configuration":
        """Read `model_dir/configuration.json`. Raises ConfigurationError, naming the file and the dotted key."""
        path = os.path.join(model_dir, CONFIGURATION_FILE)
        return cls.parse(read_json(path), path)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str = CONFIGURATION_FILE) -> "Configuration":
        """Validate `raw`. Raises ConfigurationError, naming `source` and the dotted key."""
        root = Section(without_hooks(Section(raw, source, "").raw, source), source, "")
        for name in ("framework", "task", "version", "allow_remote"):
            root.take(name, object)
        for name in ("pipeline", "preprocessor", "postprocessor", "dataset"):  # read by ModelScope, not by us
            root.take(name, object)
        network = parse_model(root.section("model"))
        configuration = cls(
            network=network,
            train=_train(root.section("train"), network.parts),
            evaluation=_evaluation(root.section("evaluation")),
            decoder=_decoder(root.section("decoder")),
        )
        root.finish()
        return configuration


def _loader(section: Section, default: LoaderConfig) -> LoaderConfig:
    loader = LoaderConfig(
        batch_size_per_gpu=section.number("batch_size_per_gpu", int, default.batch_size_per_gpu, least=1),
        workers_per_gpu=section.number("workers_per_gpu", int, default.workers_per_gpu, least=0),
        shuffle=section.take("shuffle", bool, default.shuffle),
        drop_last=section.take("drop_last", bool, default.drop_last),
        start_method=section.choice("start_method", (None, "fork", "spawn", "forkserver"), default.start_method),
    )
    section.finish()
    return loader


def _optimizer(section: Section) -> OptimizerConfig:
    default = OptimizerConfig()
    options = section.section("options")
    clip = options.section("grad_clip")
    kind = section.take("type", str, default.type)
    arguments = section.rest()
    optimizer = OptimizerConfig(
        type=kind,
        arguments={**default.arguments, **arguments} if kind == default.type else arguments,
        max_norm=clip.number("max_norm", float, None, above=0),
        norm_type=clip.number("norm_type", float, default.norm_type, above=0),
        cumulative_iters=options.number("cumulative_iters", int, default.cumulative_iters, least=1),
    )
    clip.finish()
    options.finish()
    return optimizer


def _scheduler(section: Section) -> SchedulerConfig:
    options = section.section("options")
    warmup = options.section("warmup")
    warmup.choice("type", ("LinearWarmup", None), None)
    scheduler = SchedulerConfig(
        type=section.take("type", str, None),
        arguments=section.rest(),
        by_epoch=options.take("by_epoch", bool, True),
        warmup_iters=warmup.number("warmup_iters", int, 0, least=0),
        warmup_ratio=warmup.number("warmup_ratio", float, 0.1, least=0),
    )
    warmup.finish()
    options.finish()
    if scheduler.type is None and scheduler.arguments:
        raise section.fail(
            "type",
            f"is missing, so that {', '.join(scheduler.arguments)} have no effect; set it, e.g. to 'MultiStepLR'",
        )
    return scheduler


def _train(section: Section, parts: tuple[str, ...]) -> TrainConfig:
    default, logging = TrainConfig(), section.section("logging")
    early_stopping = section.section("early_stopping")
    train = TrainConfig(
        max_epochs=section.number("max_epochs", int, default.max_epochs, least=1),
        work_dir=section.take("work_dir", str, default.work_dir),
        dataloader=_loader(section.section("dataloader"), default.dataloader),
        optimizer=_optimizer(section.section("optimizer")),
        scheduler=_scheduler(section.section("lr_scheduler")),
        save=_save(section.section("checkpoint")),
        logging_interval=logging.number("interval", int, default.logging_interval, least=1),
        tensorboard=logging.take("tensorboard", bool, default.tensorboard),
        patience=early_stopping.number("patience", int, default.patience, least=1),
        seed=section.number("seed", int, default.seed, least=0),
        precision=section.choice("precision", ("fp32", "bf16", "auto"), default.precision),
        compile=section.take("compile", bool, default.compile),
        ema_decay=section.number("ema_decay", float, default.ema_decay, least=0, below=1),
        skip_padding=section.take("skip_padding", bool, default.skip_padding),
        augment=section.take("augment", bool, default.augment),
        freeze=_freeze(section, parts),
        rehearsal=_rehearsal(section.section("rehearsal")),
        unknown_characters=section.choice("unknown_characters", ("error", "drop", "grow"), default.unknown_characters),
        unalignable=section.choice("unalignable", ("error", "drop"), default.unalignable),
        on_bad_sample=section.choice("on_bad_sample", ("error", "skip"), default.on_bad_sample),
    )
    for name in ("out_dir", "by_epoch"):
        logging.take(name, object)
    logging.finish()
    early_stopping.finish()
    section.finish()
    return train


def _freeze(section: Section, parts: tuple[str, ...]) -> tuple[str, ...]:
    frozen = section.texts("freeze")
    for part in frozen:
        if part not in parts:
            raise section.fail("freeze", f"names {part!r}; {', '.join(map(repr, parts))} expected")
    if set(frozen) == set(parts):
        raise section.fail("freeze", "names every part of the network, so nothing could be learnt; name fewer")
    return frozen


def _rehearsal(section: Section) -> RehearsalConfig:
    rehearsal = RehearsalConfig(
        lmdb=section.texts("lmdb"),
        share=section.number("share", float, RehearsalConfig.share, above=0, below=1),
    )
    section.finish()
    return rehearsal


def _save(section: Section) -> SaveConfig:
    default, period, best = SaveConfig(), section.section("period"), section.section("best")
    period.only("by_epoch", True, "epochs are counted; for iterations use resume_interval")
    metric = best.take("metric_key", str, default.best_metric)
    save = SaveConfig(
        interval=period.number("interval", int, default.interval, least=1),
        max_checkpoint_num=period.number("max_checkpoint_num", int, None, least=1),
        save_dir=period.take("save_dir", str, None),
        resume_interval=period.number("resume_interval", int, default.resume_interval, least=0),
        best_metric=metric,
        best_rule=best.choice("rule", ("min", "max"), "min" if metric.startswith(LESS_IS_BETTER) else "max"),
    )
    best.take("by_epoch", bool)
    for name in ("interval", "save_dir", "max_checkpoint_num", "save_file_name"):
        best.without_effect(name, "the best model of all evaluations is kept in work_dir/output_best")
    period.finish()
    best.finish()
    section.finish()
    return save


def _evaluation(section: Section) -> EvaluationConfig:
    default, period = EvaluationConfig(), section.section("period")
    section.take("metrics", object)  # for ModelScope; we always compute loss, CER, AR and line accuracy
    evaluation = EvaluationConfig(
        dataloader=_loader(section.section("dataloader"), default.dataloader),
        interval=period.number("interval", int, default.interval, least=1),
        by_epoch=period.take("by_epoch", bool, default.by_epoch),
        old_skills=section.texts("old_skills"),
    )
    period.finish()
    section.finish()
    return evaluation


def _decoder(section: Section) -> DecoderConfig:
    decoder = DecoderConfig(
        language_model=section.take("language_model", str),
        alpha=section.number("alpha", float, None, least=0),
        beta=section.number("beta", float, None),
        beam_width=section.number("beam_width", int, None, least=1),
        augment_below=section.number("augment_below", float, 0.0, least=0, below=1),
    )
    section.finish()
    return decoder
