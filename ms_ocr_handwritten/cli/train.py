"""`ms-ocr train`: a thin wrapper around `training.setup.prepare_training`; also under torchrun.

torchrun --nproc_per_node=2 -m ms_ocr_handwritten.cli train ...
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigurationError
from ..recognisers import PARTS

_folder = click.Path(path_type=Path)


@click.command()
@click.option(
    "--model",
    metavar="DIR_OR_ID",
    help="Model to start from: a directory (random weights if it holds none) or an id [default: the embedded model].",
)
@click.option(
    "--train",
    "train_paths",
    type=_folder,
    metavar="LMDB",
    multiple=True,
    required=True,
    help="Training lines; may be repeated.",
)
@click.option(
    "--eval",
    "eval_paths",
    type=_folder,
    metavar="LMDB",
    multiple=True,
    help="Lines to evaluate every epoch on; may be repeated.",
)
@click.option(
    "--work-dir",
    type=_folder,
    metavar="DIR",
    required=True,
    help="Folder for all output; an interrupted training in it is resumed.",
)
@click.option("--config", type=_folder, metavar="FILE", help="[default: configuration.json of the model directory]")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override the configuration: dotted key, JSON value; may be repeated.",
)
@click.option("--from", "checkpoint", metavar="WORK_DIR/epoch_N", help="Continue from the end of this epoch.")
@click.option("--no-resume", is_flag=True, help="Start from the beginning, and move aside what is in the work_dir.")
@click.option(
    "--rehearse",
    "rehearsed",
    type=_folder,
    metavar="LMDB",
    multiple=True,
    help="Lines of earlier skills to mix in, train.rehearsal.share of all; may be repeated.",
)
@click.option(
    "--old-skills",
    type=_folder,
    metavar="LMDB",
    multiple=True,
    help="Lines of earlier skills: their CER is reported at each evaluation; may be repeated.",
)
@click.option(
    "--freeze",
    "frozen",
    type=click.Choice(PARTS),
    multiple=True,
    help="Freeze this part of the network; may be repeated.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Try rising learning rates for 100 batches, say on stdout how the loss went, and write nothing.",
)
def train(
    model: str | None,
    train_paths: tuple[Path, ...],
    eval_paths: tuple[Path, ...],
    work_dir: Path,
    config: Path | None,
    assignments: tuple[str, ...],
    checkpoint: str | None,
    no_resume: bool,
    rehearsed: tuple[Path, ...],
    old_skills: tuple[Path, ...],
    frozen: tuple[str, ...],
    find_lr: bool,
) -> None:
    """Train on LMDBs; the scores of the last evaluation are printed to stdout as JSON.

    \b
    ms-ocr train --model DIR --train lines --eval held_out --work-dir work \\
        --set train.max_epochs=10 --set train.optimizer.lr=0.0005
    """
    from ..config import Configuration
    from ..config_file import CONFIGURATION_FILE, read_json
    from ..model_dir import default_model_dir
    from ..model_id import local_directory
    from ..training.rates import rising_rate, sweep_rates
    from ..training.setup import name_work_dir, prepare_training

    directory = Path(local_directory(model) if model else default_model_dir())
    config = config or directory / CONFIGURATION_FILE
    raw = read_json(config)
    Configuration.parse(raw, str(config))
    name_work_dir(raw, work_dir)
    for key, values in (
        ("train.rehearsal.lmdb", rehearsed),
        ("evaluation.old_skills", old_skills),
        ("train.freeze", frozen),
    ):
        if values:
            set_value(raw, key, [str(value) for value in values])
    for assignment in assignments:
        override(raw, assignment)
    if find_lr:
        rising_rate(raw)
    training = prepare_training(directory, raw, train_paths, eval_paths, raw["train"]["work_dir"])
    if find_lr:
        sweep = sweep_rates(training)
        click.echo(json.dumps({"lr": sweep.suggestion, **asdict(sweep)}, indent=2))
        click.echo(f"next: the same without --find-lr, with --set train.optimizer.lr={sweep.suggestion:g}", err=True)
        return
    summary = training.run(checkpoint, resume=not no_resume)
    if training.ranks.first:
        click.echo(json.dumps(summary, ensure_ascii=False, indent=2))
    training.ranks.leave()


def override(raw: dict[str, Any], assignment: str) -> None:
    """Set one value in `raw`: 'train.optimizer.lr=0.0005'. Missing objects on the way are created.

    Raises ConfigurationError if it is not KEY=VALUE, the value is not JSON, or the key leads through a non-object.
    """
    key, equals, text = assignment.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise ConfigurationError(
            f"--set {assignment}: expected a dotted key, = and a JSON value, such as train.optimizer.lr=0.0005"
        )
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise ConfigurationError(
            f"--set {assignment}: {text!r} is not JSON; a text needs double quotes within the "
            f"shell's own: --set '{key}={json.dumps(text, ensure_ascii=False)}'"
        ) from None
    set_value(raw, key, value)


def set_value(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set `value` at the dotted `key`. Raises ConfigurationError as `override` does."""
    names, section = key.split("."), raw
    for depth, name in enumerate(names[:-1], start=1):
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigurationError(
                f"--set {key}: {'.'.join(names[:depth])} is {json.dumps(section)}, not an object; it has no keys to set"
            )
    section[names[-1]] = value
