"""A typed, frozen view of ModelScope's `configuration.json`; an unknown key is an error that lists the allowed ones.

The schema is the official one. Both ways of saying "save and evaluate every epoch" are read: the keys
`train.checkpoint.period`, `train.logging`, `evaluation.period`, and the older list `train.hooks`. Keys of our own,
all optional, are `model.network` (sizes of the network), `train.precision`, `train.seed`, `train.ema_decay`,
`train.skip_padding`, `train.unknown_characters`, `train.unalignable`, `train.on_bad_sample`, `train.augment` and
`dataloader.start_method`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import ConfigurationError
from .geometry import CHUNK_WIDTH, LINE_HEIGHT, OFFICIAL_WIDTH

CONFIGURATION_FILE = "configuration.json"
RECOGNIZER = "ConvNextViT"
UPSTREAM_RECOGNIZERS = ("CRNN", "LightweightEdge")  # left to ModelScope's own class


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are those of the official model (19.18 M parameters)."""

    depths: tuple[int, ...] = (3, 3, 8, 3)  # ConvNeXt blocks per stage
    dims: tuple[int, ...] = (96, 192, 256, 512)  # channels per stage
    layer_scale: float = 1e-6  # initial value of ConvNeXt's gamma
    drop_path: float = 0.0  # stochastic depth of the deepest ConvNeXt block while training, [0, 1)
    embed_dim: int = 192  # D, features per column
    blocks: int = 12  # ViT blocks
    heads: int = 3
    mlp_ratio: float = 4.0
    dropout: float = 0.1  # in ViT while training, [0, 1)
    num_classes: int = 7644  # C, blank (0) and the unused id 1 included


@dataclass(frozen=True)
class LoaderConfig:
    batch_size_per_gpu: int = 32  # lines per process
    workers_per_gpu: int = 0  # worker processes
    shuffle: bool = True
    drop_last: bool = False
    start_method: str | None = None  # of the workers: "fork", "spawn", "forkserver"; None is Python's default


@dataclass(frozen=True)
class OptimizerConfig:
    type: str = "AdamW"  # a class of torch.optim
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-3, "weight_decay": 0.01})
    max_norm: float | None = None  # gradient clipping; None for none
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
class TrainConfig:
    max_epochs: int = 1
    work_dir: str = "./work_dir"
    dataloader: LoaderConfig = LoaderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    save: SaveConfig = SaveConfig()
    logging_interval: int = 100  # iterations
    seed: int = 0
    precision: str = "fp32"  # "fp32" or "bf16" (autocast)
    ema_decay: float | None = None  # moving average of the weights, evaluated and saved in output/
    skip_padding: bool = True  # compute a chunk that holds only padding once per batch, not once per line
    augment: bool = False
    unknown_characters: str = "error"  # "error", "drop" (the samples) or "grow" (vocabulary and head)
    unalignable: str = "error"  # "error" or "drop"
    on_bad_sample: str = "error"  # "error" or "skip"


@dataclass(frozen=True)
class EvaluationConfig:
    dataloader: LoaderConfig = replace(LoaderConfig(), shuffle=False)
    interval: int = 1  # epochs


@dataclass(frozen=True)
class Configuration:
    """What a configuration.json says about a ConvNextViT model."""

    network: NetworkConfig = NetworkConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @classmethod
    def load(cls, model_dir: str | os.PathLike[str]) -> "Configuration":
        """Read `model_dir/configuration.json`. Raises ConfigurationError, naming the file and the dotted key."""
        path = os.path.join(model_dir, CONFIGURATION_FILE)
        return cls.parse(read_json(path), path)

    @classmethod
    def parse(cls, raw: Mapping[str, Any], source: str = CONFIGURATION_FILE) -> "Configuration":
        """Check and type `raw`. Raises ConfigurationError, naming `source` and the dotted key."""
        root = _Section(raw, source, "")
        for name in ("framework", "task", "version", "allow_remote"):
            root.take(name, object)
        for name in ("pipeline", "preprocessor", "postprocessor", "dataset"):  # read by ModelScope, not by us
            root.take(name, object)
        configuration = cls(
            network=_network(root.section("model")),
            train=_train(root.section("train")),
            evaluation=_evaluation(root.section("evaluation")),
        )
        root.finish()
        hook_interval = _hooks(raw, source)["evaluation"]
        if hook_interval is not None:
            configuration = replace(configuration, evaluation=replace(configuration.evaluation, interval=hook_interval))
        return configuration


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration file. Raises ConfigurationError if it is missing or is no JSON object."""
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; a model directory holds {CONFIGURATION_FILE}, "
                                 "pytorch_model.pt (or model.onnx) and vocab.txt") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path}: holds a {type(raw).__name__}, not an object; see the README for a sample")
    return raw


def recognizer_name(raw: Mapping[str, Any]) -> str:
    """The value of `model.recognizer`, which decides whether the model is ours or upstream's."""
    return raw.get("model", {}).get("recognizer", RECOGNIZER)


class _Section:
    """One object of the JSON: keys are taken one by one, and those left at the end are unknown."""

    def __init__(self, raw: Any, source: str, path: str) -> None:
        self.source, self.path = source, path
        if not isinstance(raw, Mapping):
            raise ConfigurationError(f"{source}: {path or 'the top level'} is {raw!r}, not an object")
        self.raw, self.known = raw, set()

    def fail(self, key: str, message: str) -> ConfigurationError:
        return ConfigurationError(f"{self.source}: {self.dotted(key)} {message}")

    def dotted(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        self.known.add(key)
        value = self.raw.get(key, default)
        if value is None or kind is object:
            return value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"is {value!r}; {kind.__name__} expected")
        return value

    def at_least(self, key: str, kind: type, least: float, default: Any) -> Any:
        value = self.take(key, kind, default)
        if value is not None and value < least:
            raise self.fail(key, f"is {value}; at least {least} expected")
        return value

    def choice(self, key: str, allowed: tuple[str | None, ...], default: str | None) -> str | None:
        value = self.take(key, str, default)
        if value not in allowed:
            raise self.fail(key, f"is {value!r}; one of {', '.join(map(repr, allowed))} expected")
        return value

    def section(self, key: str) -> "_Section":
        return _Section(self.take(key, object, {}), self.source, self.dotted(key))

    def rest(self) -> dict[str, Any]:
        return {key: self.raw[key] for key in self.raw if key not in self.known}

    def finish(self) -> None:
        unknown = sorted(self.rest())
        if unknown:
            raise ConfigurationError(f"{self.source}: unknown key {', '.join(map(self.dotted, unknown))}; "
                                     f"allowed here: {', '.join(sorted(self.known))}")


def _network(model: _Section) -> NetworkConfig:
    model.take("type", str)
    model.choice("recognizer", (RECOGNIZER,), RECOGNIZER)
    inference = model.section("inference_kwargs")
    height = inference.take("img_height", int, LINE_HEIGHT)
    if height != LINE_HEIGHT:
        raise inference.fail("img_height", f"is {height}; {RECOGNIZER} reads lines of {LINE_HEIGHT} px")
    width = inference.take("img_width", int, OFFICIAL_WIDTH)
    if width not in (OFFICIAL_WIDTH, CHUNK_WIDTH):  # older files name the chunk, newer ones the canvas
        raise inference.fail("img_width", f"is {width}; {OFFICIAL_WIDTH} (or, in older files, {CHUNK_WIDTH}) expected")
    if inference.take("do_chunking", bool, True) is not True:
        raise inference.fail("do_chunking", f"is false; {RECOGNIZER} always reads chunks of {CHUNK_WIDTH} px")
    inference.finish()

    sizes, default = model.section("network"), NetworkConfig()
    network = NetworkConfig(
        depths=_sizes(sizes, "depths", default.depths),
        dims=_sizes(sizes, "dims", default.dims),
        layer_scale=sizes.at_least("layer_scale", float, 0, default.layer_scale),
        drop_path=sizes.at_least("drop_path", float, 0, default.drop_path),
        embed_dim=sizes.at_least("embed_dim", int, 1, default.embed_dim),
        blocks=sizes.at_least("blocks", int, 0, default.blocks),
        heads=sizes.at_least("heads", int, 1, default.heads),
        mlp_ratio=sizes.at_least("mlp_ratio", float, 0, default.mlp_ratio),
        dropout=sizes.at_least("dropout", float, 0, default.dropout),
        num_classes=sizes.at_least("num_classes", int, 3, default.num_classes),
    )
    sizes.finish()
    if network.embed_dim % network.heads:
        raise sizes.fail("embed_dim", f"is {network.embed_dim}, not a multiple of heads ({network.heads})")
    model.finish()
    return network


def _sizes(section: _Section, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(section.take(key, object, default))
    if len(sizes) != 4 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise section.fail(key, f"is {list(sizes)}; four positive whole numbers expected, one per stage")
    return sizes


def _loader(section: _Section, default: LoaderConfig) -> LoaderConfig:
    loader = LoaderConfig(
        batch_size_per_gpu=section.at_least("batch_size_per_gpu", int, 1, default.batch_size_per_gpu),
        workers_per_gpu=section.at_least("workers_per_gpu", int, 0, default.workers_per_gpu),
        shuffle=section.take("shuffle", bool, default.shuffle),
        drop_last=section.take("drop_last", bool, default.drop_last),
        start_method=section.choice("start_method", (None, "fork", "spawn", "forkserver"), default.start_method),
    )
    section.finish()
    return loader


def _optimizer(section: _Section) -> OptimizerConfig:
    default = OptimizerConfig()
    options = section.section("options")
    clip = options.section("grad_clip")
    optimizer = OptimizerConfig(
        type=section.take("type", str, default.type),
        arguments=section.rest() or default.arguments,
        max_norm=clip.at_least("max_norm", float, 0, None),
        norm_type=clip.take("norm_type", float, default.norm_type),
        cumulative_iters=options.at_least("cumulative_iters", int, 1, default.cumulative_iters),
    )
    clip.finish()
    options.finish()
    return optimizer


def _scheduler(section: _Section) -> SchedulerConfig:
    options = section.section("options")
    warmup = options.section("warmup")
    warmup.choice("type", ("LinearWarmup", None), None)
    scheduler = SchedulerConfig(
        type=section.take("type", str, None),
        arguments=section.rest(),
        by_epoch=options.take("by_epoch", bool, True),
        warmup_iters=warmup.at_least("warmup_iters", int, 0, 0),
        warmup_ratio=warmup.at_least("warmup_ratio", float, 0, 0.1),
    )
    warmup.finish()
    options.finish()
    return scheduler


def _train(section: _Section) -> TrainConfig:
    default, hooks = TrainConfig(), _hooks({"train": section.raw}, section.source)
    section.take("hooks", list)
    optimizer = _optimizer(section.section("optimizer"))
    if hooks["max_norm"] is not None:
        optimizer = replace(optimizer, max_norm=hooks["max_norm"])
    logging = section.section("logging")
    train = TrainConfig(
        max_epochs=section.at_least("max_epochs", int, 1, default.max_epochs),
        work_dir=section.take("work_dir", str, default.work_dir),
        dataloader=_loader(section.section("dataloader"), default.dataloader),
        optimizer=optimizer,
        scheduler=_scheduler(section.section("lr_scheduler")),
        save=_save(section.section("checkpoint"), hooks),
        logging_interval=hooks["logging"] or logging.at_least("interval", int, 1, default.logging_interval),
        seed=section.at_least("seed", int, 0, default.seed),
        precision=section.choice("precision", ("fp32", "bf16"), default.precision),
        ema_decay=section.at_least("ema_decay", float, 0, default.ema_decay),
        skip_padding=section.take("skip_padding", bool, default.skip_padding),
        augment=section.take("augment", bool, default.augment),
        unknown_characters=section.choice("unknown_characters", ("error", "drop", "grow"), default.unknown_characters),
        unalignable=section.choice("unalignable", ("error", "drop"), default.unalignable),
        on_bad_sample=section.choice("on_bad_sample", ("error", "skip"), default.on_bad_sample),
    )
    for name in ("out_dir", "by_epoch"):
        logging.take(name, object)
    logging.finish()
    section.finish()
    return train


def _save(section: _Section, hooks: dict[str, Any]) -> SaveConfig:
    default, period, best = SaveConfig(), section.section("period"), section.section("best")
    period.take("by_epoch", bool)
    save = SaveConfig(
        interval=hooks["checkpoint"] or period.at_least("interval", int, 1, default.interval),
        max_checkpoint_num=hooks["max_checkpoint_num"] or period.at_least("max_checkpoint_num", int, 1, None),
        save_dir=hooks["save_dir"] or period.take("save_dir", str, None),
        resume_interval=period.at_least("resume_interval", int, 0, default.resume_interval),
        best_metric=hooks["metric_key"] or best.take("metric_key", str, default.best_metric),
        best_rule=hooks["rule"] or best.choice("rule", ("min", "max"), default.best_rule),
    )
    for name in ("interval", "save_dir", "max_checkpoint_num", "save_file_name", "by_epoch"):
        best.take(name, object)
    period.finish(), best.finish(), section.finish()
    return save


def _evaluation(section: _Section) -> EvaluationConfig:
    default, period = EvaluationConfig(), section.section("period")
    section.take("metrics", object)  # named for ModelScope; ours computes loss, CER, AR and line accuracy, always
    period.take("by_epoch", bool)
    evaluation = EvaluationConfig(
        dataloader=_loader(section.section("dataloader"), default.dataloader),
        interval=period.at_least("interval", int, 1, default.interval),
    )
    period.finish()
    section.finish()
    return evaluation


_HOOK_KEYS = {  # hook type -> {key of the hook: name under which _hooks returns it}
    "CheckpointHook": {"interval": "checkpoint", "save_dir": "save_dir", "max_checkpoint_num": "max_checkpoint_num"},
    "BestCkptSaverHook": {"metric_key": "metric_key", "rule": "rule", "interval": None, "save_dir": None,
                          "max_checkpoint_num": None, "save_file_name": None},
    "EvaluationHook": {"interval": "evaluation"},
    "TextLoggerHook": {"interval": "logging", "out_dir": None},
    "OptimizerHook": {"grad_clip": "grad_clip"},
    "LrSchedulerHook": {},
    "IterTimerHook": {},
}


def _hooks(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values that the list `train.hooks` sets, under our names; None where it is silent."""
    names = [name for keys in _HOOK_KEYS.values() for name in keys.values() if name]
    values: dict[str, Any] = dict.fromkeys(names + ["max_norm"])
    for index, hook in enumerate(raw.get("train", {}).get("hooks") or []):
        section = _Section(hook, source, f"train.hooks[{index}]")
        kind = section.choice("type", tuple(_HOOK_KEYS), None)
        section.take("by_epoch", bool)
        for key, name in _HOOK_KEYS[kind].items():
            value = section.take(key, object)
            if name and value is not None:
                values[name] = value
        section.finish()
    values["max_norm"] = (values.pop("grad_clip") or {}).get("max_norm")
    return values
