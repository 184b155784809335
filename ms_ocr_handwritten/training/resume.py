"""Starting or resuming a training, from a state that must belong to the same training; and saving its state."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ConfigurationError
from ..nets.weights import load_weights
from .checkpoints import Progress
from .identity import REHEARSED, SETTINGS, TRAINING, WEIGHTS, differences, lines_digests, settings_of
from .optimisation import load_kept, moving_average
from .state import State, state_file

if TYPE_CHECKING:
    from .loop import Training


def begin(training: "Training", checkpoint: str | None, resume: bool) -> None:
    """Resume from `checkpoint`, or the state in resume.json, or start; with `resume` False all is moved aside first.

    Raises:
        ConfigurationError: The training is finished, or the state or the files belong to another training.
        CheckpointError: The state is missing, damaged, or belongs to another network.
    """
    work_dir, ranks = training.work_dir, training.ranks
    if not resume:
        _start_anew(training, checkpoint)
    progress = work_dir.progress()
    path = state_file(checkpoint) if checkpoint else progress.state if progress else None
    own = progress is not None and path is not None and path.parent.resolve() == work_dir.save_dir.resolve()
    if not own:
        work_dir.refuse_foreign_files()
    if path is None:
        _identify(training)
        training.judge.measure_old_skills(training.final_network, bf16=training.bf16)
        return
    state = State.load(path)
    done = progress.finished if progress and own else 0
    finished = state.epoch if state.iteration else min(state.epoch, done)
    precision = state.identity.get(SETTINGS, {})
    _identify(training, precision.get("train.precision") if isinstance(precision, dict) else None)
    otherwise = _check(training, state, path, finished, chosen=checkpoint is not None)
    training.judge.measure_old_skills(training.final_network, bf16=training.bf16)
    _restore(training, state, path)
    training.finished, training.state_path = finished, path
    best = work_dir.best() if own else None
    ranks.wait()  # until all have read the files that rank 0 changes now
    if not own or otherwise:
        save_state(training, work_dir.latest_state)
    if ranks.first:
        work_dir.save_progress(Progress(training.state_path, finished))
        aside = work_dir.set_aside_after(state.epoch, state.iteration)
        work_dir.rewind_log(state.epoch, state.iteration, finished, aside)
        where = f"; later epochs moved to {aside}" if aside else ""
        print(f"resuming after epoch {state.epoch}, batch {state.iteration}{where}", file=sys.stderr)
        if best and work_dir.best() and training.judge.differs_from(best):
            moved = work_dir.set_best_aside()
            print(
                f"another evaluation set or metric: the best result is determined anew; until now: {moved}",
                file=sys.stderr,
            )
    ranks.wait()


def save_state(training: "Training", path: Path) -> None:
    """Save all that `begin` needs; rank 0 writes it."""
    random_states = training.ranks.gather(training.ranks.random_state())
    training.state_path = path
    if not training.ranks.first:
        return
    state = State(
        epoch=training.epoch,
        iteration=training.iteration,
        network=training.network.state_dict(),
        average=training.average.state_dict() if training.average else None,
        optimizer=training.optimizer.state_dict()["state"],
        schedule=training.schedule.state_dict(),
        random_states=random_states,
        identity=training.identity,
        vocabulary=training.vocabulary.text,
    )
    training.work_dir.save_state(state, path, training.finished)


def _identify(training: "Training", precision: str | None = None) -> None:
    """Determine the training's identity; `precision`: "bf16" or "fp32", in which it began, for "auto" to keep."""
    if training.config.precision == "auto" and precision in ("fp32", "bf16"):
        training.bf16 = precision == "bf16"
    readers, held_out = training.dataset.readers, training.judge.evaluation
    digests = lines_digests([*readers, *(held_out.readers if held_out else ())], training.ranks)
    first_rehearsed = len(readers) - training.dataset.rehearsed
    training.identity = {
        WEIGHTS: training.initial_weights,
        TRAINING: digests[:first_rehearsed],
        REHEARSED: digests[first_rehearsed : len(readers)],
        SETTINGS: settings_of(training.config, training.network.config, training.bf16, training.ranks.world),
    }
    training.judge.digests = digests[len(readers) :]


def _start_anew(training: "Training", checkpoint: str | None) -> None:
    if checkpoint:
        raise ConfigurationError(
            f"resume=False starts from the beginning, but {checkpoint} is named to continue from; leave out one"
        )
    if training.ranks.first:
        aside = training.work_dir.set_aside()
        if aside:
            print(f"starting from the beginning; the former files are in {aside}", file=sys.stderr)
    training.ranks.wait()


def _check(training: "Training", state: State, path: Path, finished: int, *, chosen: bool) -> bool:
    """Refuse a state that is finished, damaged, or of another training.

    From the end of an epoch that the user chose, a training may go on with other settings; returns whether it does.
    """
    changed = ["the vocabulary differs"] if state.vocabulary != training.vocabulary.text else []
    others = differences(state.identity, training.identity)
    if chosen and not state.iteration and not changed:
        if others:
            training.ranks.say(f"{path}: from here on with changes: {'; '.join(others)}")
    elif changed + others:
        epoch = f"train('{training.work_dir.save_dir / 'epoch_N'}') (--from)"
        raise ConfigurationError(
            f"{path}: this is a different training: {'; '.join(changed + others)}; continue with the same, or name "
            "another work_dir (with model= set to the output/ of this one to train on from it), or start again with "
            "resume=False (--no-resume), which moves the present files aside, or continue all the same from the end of "
            f"an epoch with {epoch}"
        )
    if state.epoch >= training.config.max_epochs and finished == state.epoch:
        raise ConfigurationError(
            f"{path}: belongs to a finished training of {state.epoch} epochs; name another "
            "work_dir, raise train.max_epochs, continue from an earlier epoch with "
            "train('.../epoch_N') (--from), or start again with resume=False (--no-resume)"
        )
    batches = len(training.batches())
    if state.iteration and state.iteration >= batches:
        raise CheckpointError(
            f"{path}: claims {state.iteration} batches of an epoch that has {batches}; continue from an epoch_N, or "
            "start in a new work_dir"
        )
    random_state = training.ranks.random_state()
    state.check_fit(training.network, training.average, training.config.optimizer, random_state, path)
    return bool(others)


def _restore(training: "Training", state: State, path: Path) -> None:
    load_weights(training.network, state.network, path)
    if training.average and state.average:
        training.average.load_state_dict(state.average)
    elif training.config.ema_decay:
        training.average = moving_average(training.network, training.config.ema_decay)
    load_kept(training.optimizer, state.optimizer)
    training.schedule.load_state_dict(state.schedule)
    states = state.random_states
    try:
        training.ranks.set_random_state(states[training.ranks.rank % len(states)])
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its random number state is refused ({error}); continue from an epoch_N"
        ) from error
    training.epoch, training.iteration = state.epoch, state.iteration
