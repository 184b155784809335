"""Both schemas of configuration.json, its defaults, and what is refused by which name."""

import copy
import json
from pathlib import Path

import pytest
from conftest import OFFICIAL, ROOT

from ms_ocr_handwritten.config import (
    Configuration,
    EvaluationConfig,
    LoaderConfig,
    OptimizerConfig,
    RehearsalConfig,
    SaveConfig,
    SchedulerConfig,
    TrainConfig,
)
from ms_ocr_handwritten.config_file import read_json
from ms_ocr_handwritten.config_section import Section
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.model_dir import default_model_dir
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.recognisers import ConvNextViTConfig


def nested(dotted: str, value) -> dict:
    """'a.b', 1 -> {'a': {'b': 1}}"""
    for name in reversed(dotted.split(".")):
        value = {name: value}
    return value


def with_hooks(*hooks: dict, **rest) -> Configuration:
    return Configuration.parse({"train": {"hooks": list(hooks)}, **rest})


def refuses(raw: dict, *parts: str) -> None:
    """Parsing `raw` fails, and the message begins with the file and holds `parts`."""
    with pytest.raises(ConfigurationError) as caught:
        Configuration.parse(raw, "some.json")
    message = str(caught.value)
    assert message.startswith("some.json: ")
    assert all(part in message for part in parts), message


# ---------------------------------------------------------------------- whole files


def test_nothing_said_gives_the_defaults_of_the_official_network():
    configuration = Configuration.parse({})
    assert configuration == Configuration(ConvNextViTConfig(), TrainConfig(), EvaluationConfig())
    assert configuration.network.num_classes == 7644 and configuration.evaluation.dataloader.shuffle is False


def test_the_repositorys_configuration():
    configuration = Configuration.load(ROOT)
    assert configuration.network == ConvNextViTConfig()
    assert configuration.train == TrainConfig(
        max_epochs=30,
        optimizer=OptimizerConfig("AdamW", {"weight_decay": 0.01, "lr": 0.0001}, max_norm=20.0),
        scheduler=SchedulerConfig("MultiStepLR", {"milestones": [10, 20], "gamma": 0.1}),
        save=SaveConfig(resume_interval=1000),
    )
    assert configuration.evaluation == EvaluationConfig()


def test_every_key_that_a_user_may_set_is_in_the_file(monkeypatch):
    """But those that ModelScope's schema has and that change nothing here."""
    missing = set()

    def finish(section: Section) -> None:
        missing.update(section.dotted(key) for key in section.known - section.raw.keys())

    monkeypatch.setattr(Section, "finish", finish)
    Configuration.load(ROOT)
    best = {f"train.checkpoint.best.{key}" for key in ("interval", "save_dir", "max_checkpoint_num", "save_file_name")}
    assert missing == best | {
        "version",
        "allow_remote",
        "dataset",
        "postprocessor",
        "train.logging.out_dir",
        "train.logging.by_epoch",
        "train.checkpoint.period.by_epoch",
        "train.checkpoint.best.by_epoch",
        "evaluation.dataloader.drop_last",  # every line is evaluated
    }
    embedded, here = (read_json(Path(folder) / "configuration.json") for folder in (default_model_dir(), ROOT))
    assert all(embedded[part] == here[part] for part in ("train", "evaluation"))


def test_the_official_configuration():
    if not (OFFICIAL / "configuration.json").exists():
        pytest.skip("the official configuration.json is not shared here")
    configuration = Configuration.load(OFFICIAL)
    assert configuration.network == ConvNextViTConfig()
    assert configuration.train == TrainConfig(
        max_epochs=30,
        dataloader=LoaderConfig(batch_size_per_gpu=64),
        optimizer=OptimizerConfig("AdamW", {"weight_decay": 0.01, "lr": 0.001}, max_norm=20.0),
        scheduler=SchedulerConfig("MultiStepLR", {"milestones": [10, 20], "gamma": 0.1}),
        save=SaveConfig(save_dir="./work_dir"),
        logging_interval=1000,
    )


def test_parsing_leaves_the_object_as_it_was():
    raw = {"train": {"hooks": [{"type": "CheckpointHook", "interval": 2}]}}
    before = copy.deepcopy(raw)
    Configuration.parse(raw)
    assert raw == before


@pytest.mark.parametrize("absent", [{}, {"checkpoint": None}, {"checkpoint": {"period": None}}])
def test_hooks_stand_in_for_what_is_null(absent):
    """Null is as good as absent everywhere; a hook was lost in it."""
    hooks = [{"type": "CheckpointHook", "interval": 2}]
    assert Configuration.parse({"train": {"hooks": hooks, **absent}}).train.save.interval == 2
    keys = {"checkpoint": {"period": {"interval": None}}}
    assert Configuration.parse({"train": {"hooks": hooks, **keys}}).train.save.interval == 2


def test_every_size_reaches_the_network():
    sizes = {
        "depths": [1, 2, 1, 1],
        "dims": [4, 6, 8, 10],
        "layer_scale": 0.5,
        "drop_path": 0.2,
        "embed_dim": 12,
        "blocks": 2,
        "heads": 4,
        "mlp_ratio": 2,
        "dropout": 0.3,
        "num_classes": 5,
    }
    config = Configuration.parse({"model": {"network": sizes}}).network
    assert config == ConvNextViTConfig((1, 2, 1, 1), (4, 6, 8, 10), 0.5, 0.2, 12, 2, 4, 2.0, 0.3, 5)
    shapes = {name: tuple(value.shape) for name, value in ConvNextViT(config).state_dict().items()}
    assert shapes["cnn_model.stages.1.1.dwconv.weight"] == (6, 1, 7, 7)
    assert shapes["vitstr.blocks.1.mlp.fc1.weight"] == (24, 12)
    assert shapes["vitstr.head.weight"] == (5, 12)
    assert "cnn_model.stages.1.2.gamma" not in shapes and "vitstr.blocks.2.norm1.weight" not in shapes


# ---------------------------------------------------------------------- the two schemas

PERIOD = {
    "train": {
        "checkpoint": {
            "period": {"interval": 3, "save_dir": "d", "max_checkpoint_num": 4, "by_epoch": True},
            "best": {"metric_key": "cer_raw", "rule": "min"},
        },
        "logging": {"interval": 7, "out_dir": "logs", "by_epoch": False},
        "optimizer": {"options": {"grad_clip": {"max_norm": 5, "norm_type": 1}, "cumulative_iters": 6}},
        "lr_scheduler": {"options": {"by_epoch": False, "warmup": {"type": "LinearWarmup", "warmup_iters": 9}}},
    },
    "evaluation": {"period": {"interval": 2}},
}

HOOKS = {
    "train": {
        "hooks": [
            {"type": "CheckpointHook", "interval": 3, "save_dir": "d", "max_checkpoint_num": 4, "by_epoch": True},
            {"type": "BestCkptSaverHook", "metric_key": "cer_raw", "rule": "min", "interval": 1},
            {"type": "TextLoggerHook", "interval": 7, "out_dir": "logs", "by_epoch": False},
            {"type": "IterTimerHook"},
            {"type": "OptimizerHook", "grad_clip": {"max_norm": 5, "norm_type": 1}, "cumulative_iters": 6},
            {"type": "LrSchedulerHook", "by_epoch": False, "warmup": {"type": "LinearWarmup", "warmup_iters": 9}},
            {"type": "EvaluationHook", "interval": 2},
        ]
    }
}


@pytest.mark.filterwarnings("ignore:.*has no effect")
def test_both_schemas_say_the_same():
    by_period, by_hooks = Configuration.parse(PERIOD), Configuration.parse(HOOKS)
    assert by_hooks == by_period
    assert by_hooks.train.save == SaveConfig(3, 4, "d", best_metric="cer_raw", best_rule="min")
    assert by_hooks.train.logging_interval == 7 and by_hooks.evaluation.interval == 2
    assert by_hooks.train.optimizer == OptimizerConfig(max_norm=5.0, norm_type=1.0, cumulative_iters=6)
    assert by_hooks.train.scheduler == SchedulerConfig(by_epoch=False, warmup_iters=9)


def test_hooks_beside_other_keys_of_the_same_object():
    raw = {
        "train": {
            "hooks": [{"type": "CheckpointHook", "interval": 2}],
            "checkpoint": {"period": {"interval": 2, "resume_interval": 50}},
        }
    }
    assert Configuration.parse(raw).train.save == SaveConfig(interval=2, resume_interval=50)


def test_schemas_that_contradict_each_other_are_refused():
    raw = {"train": {"hooks": [{"type": "CheckpointHook", "interval": 2}], "checkpoint": {"period": {"interval": 3}}}}
    refuses(raw, "train.hooks[0].interval is 2, but train.checkpoint.period.interval is 3", "remove one")


def test_unknown_hooks_and_keys_of_hooks_are_refused():
    refuses(
        {"train": {"hooks": [{"type": "IterTimerHook"}, {"type": "TensorboardHook"}]}},
        "train.hooks[1].type is 'TensorboardHook'",
        "'CheckpointHook'",
        "'IterTimerHook'",
    )
    refuses(
        {"train": {"hooks": [{"type": "CheckpointHook", "intervall": 2}]}},
        "unknown key train.hooks[0].intervall",
        "allowed here",
        "interval",
    )
    refuses({"train": {"hooks": [{"interval": 2}]}}, "train.hooks[0].type is None")
    refuses({"train": {"hooks": {"type": "IterTimerHook"}}}, "train.hooks", "a list expected")
    refuses({"train": {"hooks": ["IterTimerHook"]}}, "train.hooks[0] is 'IterTimerHook', not an object")


def test_values_of_hooks_are_checked_like_those_of_keys():
    refuses({"train": {"hooks": [{"type": "CheckpointHook", "interval": 0}]}}, "interval is 0; at least 1 expected")
    refuses({"train": {"hooks": [{"type": "EvaluationHook", "interval": "1"}]}}, "interval is '1'; int expected")
    refuses({"train": {"hooks": [{"type": "OptimizerHook", "grad_clip": {"max": 1}}]}}, "grad_clip.max")


def test_intervals_in_iterations_are_refused_where_epochs_are_counted():
    refuses(nested("train.checkpoint.period.by_epoch", False), "by_epoch is False", "resume_interval")
    hooks = {"train": {"hooks": [{"type": "EvaluationHook", "by_epoch": False, "interval": 5}]}}
    assert Configuration.parse(hooks).evaluation == EvaluationConfig(interval=5, by_epoch=False)


@pytest.mark.parametrize(
    "metric, rule", [("cer", "min"), ("cer_loose", "min"), ("avg_loss", "min"), ("accuracy", "max"), ("AR", "max")]
)
def test_the_best_of_a_metric_is_its_least_or_greatest_as_fits_it(metric, rule):
    save = with_hooks({"type": "BestCkptSaverHook", "metric_key": metric}).train.save
    assert (save.best_metric, save.best_rule) == (metric, rule)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "place",
    [
        "",
        "model",
        "model.network",
        "model.inference_kwargs",
        "train",
        "train.dataloader",
        "train.optimizer.options",
        "train.optimizer.options.grad_clip",
        "train.lr_scheduler.options",
        "train.lr_scheduler.options.warmup",
        "train.checkpoint",
        "train.checkpoint.period",
        "train.checkpoint.best",
        "train.logging",
        "train.early_stopping",
        "train.rehearsal",
        "evaluation",
        "evaluation.dataloader",
        "evaluation.period",
    ],
)
def test_unknown_keys_are_named_with_the_allowed_ones(place):
    dotted = f"{place}.mispelt" if place else "mispelt"
    refuses(nested(dotted, 1), f"unknown key {dotted}; allowed here: ")


def test_allowed_keys_are_listed():
    refuses(
        nested("train.dataloader.workers", 2),
        "allowed here: batch_size_per_gpu, drop_last, shuffle, start_method, workers_per_gpu",
    )


def test_all_unknown_keys_of_an_object_are_named():
    refuses({"train": {"epochs": 3, "batch": 2}}, "unknown key train.batch, train.epochs;")


@pytest.mark.parametrize(
    "dotted, value, expected",
    [
        ("train.max_epochs", "3", "int"),
        ("train.max_epochs", 3.0, "int"),
        ("train.max_epochs", True, "int"),
        ("train.work_dir", 3, "str"),
        ("train.skip_padding", 1, "bool"),
        ("train.ema_decay", "0.9", "float"),
        ("train.dataloader.shuffle", "false", "bool"),
        ("train.optimizer.type", 1, "str"),
        ("train.lr_scheduler.options.by_epoch", 0, "bool"),
        ("model.network.dropout", "0.1", "float"),
        ("model.network.embed_dim", 192.0, "int"),
        ("model.inference_kwargs.do_chunking", 1, "bool"),
    ],
)
def test_wrong_types_are_named(dotted, value, expected):
    refuses(nested(dotted, value), f"{dotted} is {value!r}; {expected} expected")


@pytest.mark.parametrize(
    "dotted",
    [
        "model",
        "train",
        "train.dataloader",
        "train.checkpoint.period",
        "evaluation",
        "model.network",
        "train.optimizer.options.grad_clip",
    ],
)
def test_what_should_be_an_object_is_named(dotted):
    refuses(nested(dotted, [1]), f"{dotted} is [1], not an object")


@pytest.mark.parametrize(
    "dotted, value, expected",
    [
        ("train.max_epochs", 0, "at least 1"),
        ("train.seed", -1, "at least 0"),
        ("train.ema_decay", 1.0, "below 1"),
        ("train.ema_decay", -0.1, "at least 0"),
        ("train.ema_decay", float("nan"), "at least 0 and below 1"),
        ("train.dataloader.batch_size_per_gpu", 0, "at least 1"),
        ("train.dataloader.workers_per_gpu", -1, "at least 0"),
        ("train.optimizer.options.cumulative_iters", 0, "at least 1"),
        ("train.optimizer.options.grad_clip.max_norm", 0, "above 0"),
        ("train.checkpoint.period.interval", 0, "at least 1"),
        ("train.checkpoint.period.resume_interval", -1, "at least 0"),
        ("train.checkpoint.period.max_checkpoint_num", 0, "at least 1"),
        ("train.logging.interval", 0, "at least 1"),
        ("train.early_stopping.patience", 0, "at least 1"),
        ("train.lr_scheduler.options.warmup.warmup_iters", -1, "at least 0"),
        ("evaluation.period.interval", 0, "at least 1"),
        ("train.rehearsal.share", 0, "above 0"),
        ("train.rehearsal.share", 1, "below 1"),
        ("model.network.dropout", 1.0, "below 1"),
        ("model.network.dropout", 1.5, "below 1"),
        ("model.network.drop_path", 1, "below 1"),
        ("model.network.drop_path", -0.5, "at least 0"),
        ("model.network.layer_scale", float("nan"), "at least 0"),
        ("model.network.num_classes", 2, "at least 3"),
        ("model.network.mlp_ratio", 0, "above 0"),
    ],
)
def test_values_out_of_range_are_named(dotted, value, expected):
    refuses(nested(dotted, value), f"{dotted} is ", f"{expected}")


@pytest.mark.parametrize(
    "dotted, value",
    [
        ("train.precision", "fp16"),
        ("train.unknown_characters", "ignore"),
        ("train.unalignable", "skip"),
        ("train.on_bad_sample", "drop"),
        ("train.dataloader.start_method", "thread"),
        ("train.checkpoint.best.rule", "less"),
        ("train.lr_scheduler.options.warmup.type", "ExponentialWarmup"),
        ("model.recognizer", "PARSeq"),
    ],
)
def test_words_that_are_no_choice_are_named_with_the_choices(dotted, value):
    refuses(nested(dotted, value), f"{dotted} is {value!r}; one of ")


@pytest.mark.parametrize("sizes", [[3, 3, 8], [3, 3, 8, 0], [3, 3, 8, 1.5], [3, 3, 8, True], 3, "3383"])
def test_sizes_of_stages_are_four_positive_numbers(sizes):
    refuses(nested("model.network.depths", sizes), "model.network.depths is ", "four positive whole numbers")


def test_what_is_frozen_rehearsed_and_watched():
    raw = {
        "train": {"freeze": "trunk", "rehearsal": {"lmdb": ["a", "b"], "share": 0.25}},
        "evaluation": {"old_skills": ["c"]},
    }
    configuration = Configuration.parse(raw)
    assert configuration.train.freeze == ("trunk",)
    assert configuration.train.rehearsal == RehearsalConfig(("a", "b"), 0.25)
    assert configuration.evaluation.old_skills == ("c",)
    refuses(nested("train.freeze", ["trunk", "body"]), "train.freeze names 'body'; 'trunk', 'encoder', 'head' expected")
    refuses(nested("train.freeze", ["trunk", "encoder", "head"]), "train.freeze names every part of the network")
    refuses(nested("train.freeze", 3), "train.freeze is 3; a string or a list of strings expected")
    refuses(nested("train.rehearsal.lmdb", ["a", 3]), "train.rehearsal.lmdb is ['a', 3]; a string or a list")
    refuses(nested("evaluation.old_skills", {"a": 1}), "evaluation.old_skills is ")


def test_heads_must_divide_the_features():
    refuses({"model": {"network": {"embed_dim": 50, "heads": 3}}}, "model.network.embed_dim is 50", "heads (3)")


@pytest.mark.parametrize("width", [300, 804])
def test_older_and_newer_widths_mean_the_same(width):
    kwargs = {"img_height": 32, "img_width": width, "do_chunking": True}
    assert Configuration.parse({"model": {"inference_kwargs": kwargs}}) == Configuration()


@pytest.mark.parametrize("key, value", [("img_width", 640), ("img_height", 64), ("do_chunking", False)])
def test_other_geometries_are_refused(key, value):
    refuses(nested(f"model.inference_kwargs.{key}", value), f"model.inference_kwargs.{key} is ")


def test_null_means_the_default():
    raw = {"train": {"max_epochs": None, "dataloader": None, "ema_decay": None}, "model": {"network": None}}
    assert Configuration.parse(raw) == Configuration()


def test_arguments_of_optimiser_and_scheduler_are_kept_for_torch():
    train = Configuration.parse(
        {
            "train": {
                "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
                "lr_scheduler": {"type": "StepLR", "step_size": 3},
            }
        }
    ).train
    assert (train.optimizer.type, train.optimizer.arguments) == ("SGD", {"lr": 0.1, "momentum": 0.9})
    assert (train.scheduler.type, train.scheduler.arguments) == ("StepLR", {"step_size": 3})


def test_the_rate_suits_fine_tuning_unless_it_is_said():
    """PyTorch's own default would be ten times as high."""
    for raw, rate in (({}, 1e-4), ({"weight_decay": 0.1}, 1e-4), ({"type": "AdamW", "lr": 0.5}, 0.5)):
        assert Configuration.parse({"train": {"optimizer": raw}}).train.optimizer.arguments["lr"] == rate


def test_arguments_of_no_scheduler_are_refused():
    refuses(nested("train.lr_scheduler.milestones", [3]), "train.lr_scheduler.type is missing", "milestones")


# ---------------------------------------------------------------------- files


def test_files_that_are_no_json_object_are_refused(tmp_path):
    path = tmp_path / "configuration.json"
    with pytest.raises(ConfigurationError, match="configuration.json: no such file; a model directory holds"):
        Configuration.load(tmp_path)
    for content, message in (
        (b"{", "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b"[]", "holds a list"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=message):
            read_json(path)


def test_errors_name_the_file(tmp_path):
    (tmp_path / "configuration.json").write_text(json.dumps({"trian": {}}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"^{tmp_path}/configuration.json: unknown key trian;"):
        Configuration.load(tmp_path)


def test_a_key_without_effect_is_warned_of():
    raw = {"train": {"checkpoint": {"best": {"save_file_name": "best.pth"}}}}
    with pytest.warns(UserWarning, match="x.json: train.checkpoint.best.save_file_name has no effect.*output_best"):
        Configuration.parse(raw, "x.json")
