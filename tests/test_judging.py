"""When a training is judged, when its patience ends, and what it says, writes and goes on with afterwards."""

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import ALPHABET, TINY_NETWORK, make_model_dir
from training_tools import assert_equal_weights, log, prepare, read_weights_file, training_raw

from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.training import board as board_module
from ms_ocr_handwritten.training.loop import Training
from ms_ocr_handwritten.training.setup import prepare_training


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """A tiny network with dropout, so that the random state and the mode of each part matter."""
    network = {**TINY_NETWORK, "dropout": 0.2, "drop_path": 0.2}
    return make_model_dir(tmp_path_factory.mktemp("model") / "tiny", ALPHABET, **network)


def judged(model_dir: Path, lines: Path, work: Path, every: int | None = None, **train) -> Training:
    """48 lines, 6 batches an epoch, judged every so many batches, or every epoch."""
    raw = training_raw(model_dir, **train)
    if every:
        raw["evaluation"]["period"] = {"by_epoch": False, "interval": every}
    return prepare_training(model_dir, raw, [lines], [lines], work)


def with_scores(training: Training, values: list[float]) -> Training:
    """The training with the CER that each evaluation finds given."""
    told, evaluate = iter(values), training.evaluate
    training.evaluate = lambda: evaluate() | {"cer": next(told)}
    return training


def evaluations(work: Path) -> list[tuple[int, int | None]]:
    return [(entry["epoch"], entry.get("iter")) for entry in log(work) if entry["mode"] == "eval"]


@pytest.mark.parametrize(
    "every, accumulate, expected",
    [
        (4, 1, [(1, 4), (2, 2), (2, None)]),  # batches 4, 8 and 12
        (6, 1, [(1, None), (2, None)]),
        (9, 1, [(2, 3), (2, None)]),
        (100, 1, [(2, None)]),  # the last epoch always
        (2, 4, [(1, 4), (1, None), (2, 4), (2, None)]),  # after a step of the optimiser
    ],
)
def test_it_is_judged_every_so_many_batches(model_dir, lines_lmdb, tmp_path, every, accumulate, expected):
    optimizer = {"type": "AdamW", "lr": 1e-3, "options": {"cumulative_iters": accumulate}}
    judged(model_dir, lines_lmdb, tmp_path / "work", every, optimizer=optimizer).run()
    assert evaluations(tmp_path / "work") == expected


def test_it_is_judged_every_so_many_epochs(model_dir, lines_lmdb, tmp_path):
    raw = training_raw(model_dir)
    raw["evaluation"]["period"] = {"by_epoch": True, "interval": 3}
    judge = prepare_training(model_dir, raw, [lines_lmdb], [lines_lmdb], tmp_path / "work").judge
    due = [(epoch + 1, batch) for epoch in range(8) for batch in range(1, 7) if judge.is_due(epoch, batch, 6)]
    assert due == [(3, 6), (6, 6)]


@pytest.mark.parametrize("every, ends", [(4, [(1, 4), (2, 2), (2, 6)]), (3, [(1, 4), (1, 6), (2, 4), (2, 6)])])
def test_an_evaluation_waits_for_the_end_of_the_step_that_it_is_due_in(model_dir, lines_lmdb, tmp_path, every, ends):
    """Two epochs of six batches, two to a step."""
    optimizer = {"type": "AdamW", "lr": 1e-3, "options": {"cumulative_iters": 2}}
    judge = judged(model_dir, lines_lmdb, tmp_path / "work", every, optimizer=optimizer).judge
    assert [(epoch + 1, end) for epoch in (0, 1) for end in (2, 4, 6) if judge.is_due(epoch, end, 6)] == ends


def test_judging_within_an_epoch_changes_nothing_that_is_learnt(model_dir, lines_lmdb, tmp_path):
    for name, every in (("often", 2), ("seldom", None)):
        judged(model_dir, lines_lmdb, tmp_path / name, every, freeze=["trunk"]).run()
    often, seldom = (read_weights_file(tmp_path / name / "epoch_2.pth") for name in ("often", "seldom"))
    assert_equal_weights(often, seldom)


def test_the_best_within_an_epoch_is_kept_and_told(model_dir, lines_lmdb, tmp_path, capsys):
    work = tmp_path / "a work"
    with_scores(judged(model_dir, lines_lmdb, work, 4), [0.9, 0.1, 0.5]).run()
    best = json.loads((work / "best.json").read_text())
    assert (best["epoch"], best["iter"], best["value"]) == (2, 2, 0.1)
    kept, last = (read_weights_file(work / name) for name in ("output_best/pytorch_model.pt", "epoch_2.pth"))
    assert any((kept[name] != last[name]).any() for name in kept)
    assert capsys.readouterr().err.endswith(
        f"\nbest cer: 0.1, in epoch 2, batch 2 (trained 2); it is in {work}/output_best\n"
        f"read with it: ms-ocr recognize --model '{work}/output_best' IMAGE\n"
    )


def test_without_evaluation_the_last_network_is_told(model_dir, lines_lmdb, tmp_path, capsys):
    prepare(model_dir, lines_lmdb, tmp_path / "work", max_epochs=1).run()
    assert capsys.readouterr().err.endswith(
        f"\ntrained 1 epoch, without evaluation; the network is in {tmp_path}/work/output\n"
        f"read with it: ms-ocr recognize --model {tmp_path}/work/output IMAGE\n"
    )


def test_patience_ends_the_training(model_dir, lines_lmdb, tmp_path, capsys):
    work, settings = tmp_path / "work", {"max_epochs": 9, "early_stopping": {"patience": 2}}
    with_scores(judged(model_dir, lines_lmdb, work, **settings), [0.5, 0.4, 0.4, 0.45, 0.1]).run()
    assert evaluations(work) == [(1, None), (2, None), (3, None), (4, None)]
    said = capsys.readouterr().err
    assert "stopped: 2 evaluations without an improvement\nbest cer: 0.4, after epoch 2 (trained 4)" in said
    assert (work / "epoch_4.pth").exists() and not (work / "epoch_5.pth").exists()
    judged(model_dir, lines_lmdb, work, **settings).run()  # once more: it is as over as before
    assert evaluations(work)[-1] == (4, None)
    settings["early_stopping"] = {"patience": 3}
    with_scores(judged(model_dir, lines_lmdb, work, **settings), [0.6]).run()
    assert evaluations(work)[-1] == (5, None)


def test_a_training_that_comes_to_its_end_was_not_stopped(model_dir, lines_lmdb, tmp_path, capsys):
    settings = {"max_epochs": 3, "early_stopping": {"patience": 2}}
    with_scores(judged(model_dir, lines_lmdb, tmp_path / "work", **settings), [0.5, 0.6, 0.4]).run()
    assert "stopped" not in (said := capsys.readouterr().err) and "best cer: 0.4, after epoch 3 (trained 3)" in said


def test_patience_may_end_within_an_epoch(model_dir, lines_lmdb, tmp_path, capsys):
    work, settings = tmp_path / "work", {"max_epochs": 9, "early_stopping": {"patience": 2}}
    summary = with_scores(judged(model_dir, lines_lmdb, work, 4, **settings), [0.2, 0.3, 0.3]).run()
    assert evaluations(work) == [(1, 4), (2, 2), (2, None)] and summary["cer"] == 0.3
    work = tmp_path / "another"
    summary = with_scores(judged(model_dir, lines_lmdb, work, 2, **settings), [0.2, 0.3, 0.1, 0.3, 0.4]).run()
    assert evaluations(work) == [(1, 2), (1, 4), (1, None), (2, 2), (2, 4)] and summary["cer"] == 0.4
    output, state = (read_weights_file(work / name) for name in ("output/pytorch_model.pt", "latest_trainer_state.pth"))
    assert_equal_weights(output, {f"recognizer.{name}": value for name, value in state["network"].items()})
    assert "stopped: 2 evaluations without an improvement\nbest cer: 0.1, after epoch 1" in capsys.readouterr().err


def test_an_interrupted_training_counts_on(model_dir, lines_lmdb, tmp_path):
    """Interrupted in batch 3 of epoch 2, right after a judgement; the best before it stays the best."""
    work, settings = tmp_path / "work", {"max_epochs": 9, "early_stopping": {"patience": 3}}
    training = with_scores(judged(model_dir, lines_lmdb, work, 4, **settings), [0.5, 0.1])
    learn, batches = training._learn, iter(range(8))

    def interrupted(batch, share):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return learn(batch, share)

    training._learn = interrupted
    with pytest.raises(KeyboardInterrupt):
        training.run()
    assert json.loads((work / "best.json").read_text())["iter"] == 2
    with_scores(judged(model_dir, lines_lmdb, work, 4, **settings), [0.3, 0.2, 0.4]).run()
    best = json.loads((work / "best.json").read_text())
    assert (best["epoch"], best["iter"], best["value"]) == (2, 2, 0.1)
    assert evaluations(work) == [(1, 4), (2, 2), (2, None), (3, 4), (4, 2)]
    assert not list(work.glob("superseded_*"))


def test_going_back_moves_a_later_best_aside(model_dir, lines_lmdb, tmp_path):
    work = tmp_path / "work"
    with_scores(judged(model_dir, lines_lmdb, work, 4), [0.9, 0.1, 0.5]).run()
    with_scores(judged(model_dir, lines_lmdb, work, 4), [0.7, 0.8]).run(str(work / "epoch_1"))
    best = json.loads((work / "best.json").read_text())
    assert (best["epoch"], best["iter"], best["value"]) == (2, 2, 0.7)
    assert json.loads((work / "superseded_1/best.json").read_text())["value"] == 0.1
    assert evaluations(work) == [(1, 4), (2, 2), (2, None)]


def test_patience_wants_an_evaluation_set(model_dir, lines_lmdb, tmp_path):
    with pytest.raises(ConfigurationError, match="early_stopping.patience counts evaluations, but there are none"):
        prepare(model_dir, lines_lmdb, tmp_path / "work", early_stopping={"patience": 1})


# ------------------------------------------------------------------ TensorBoard

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="pip install tensorboard"
)


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value), as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@needs_tensorboard
def test_the_log_is_there_as_events(model_dir, lines_lmdb, tmp_path):
    work, settings = tmp_path / "work", {"logging": {"interval": 4, "tensorboard": True}}
    judged(model_dir, lines_lmdb, work, **settings).run()
    found, entries = events(work / "tensorboard"), log(work)
    trained, evaluated = ([entry for entry in entries if entry["mode"] == mode] for mode in ("train", "eval"))
    assert [step for step, _ in found["train/loss"]] == [4, 6, 10, 12]
    for tag, some, key in (
        ("train/loss", trained, "loss"),
        ("train/lr", trained, "lr"),
        ("train/lines_per_second", trained, "lines_per_second"),
        ("eval/cer", evaluated, "cer"),
        ("eval/accuracy", evaluated, "accuracy"),
    ):
        assert [value for _, value in found[tag]] == pytest.approx([entry[key] for entry in some], rel=1e-6), tag
    assert [step for step, _ in found["eval/cer"]] == [6, 12]
    text = b"".join(path.read_bytes() for path in (work / "tensorboard").iterdir())
    assert b"| label | read |" in text


@needs_tensorboard
def test_events_of_what_is_done_once_more_are_hidden(model_dir, lines_lmdb, tmp_path):
    work, settings = tmp_path / "work", {"logging": {"interval": 6, "tensorboard": True}}
    judged(model_dir, lines_lmdb, work, **settings).run()
    judged(model_dir, lines_lmdb, work, **settings).run(str(work / "epoch_1"))
    assert [step for step, _ in events(work / "tensorboard")["train/loss"]] == [6, 12]
    judged(model_dir, lines_lmdb, work, **settings).run(resume=False)
    assert len(list((work / "tensorboard").iterdir())) == 1 and (work / "superseded_2/tensorboard").is_dir()


def test_a_table_of_lines_is_markdown_whatever_they_hold():
    assert board_module._cell("a|b<i>\n手 写") == "a&#124;b&#60;i&#62;&#10;手 写"


def test_without_tensorboard_it_is_refused_before_anything_is_written(model_dir, lines_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="neither tensorboard nor tensorboardX is installed; `pip install"):
        judged(model_dir, lines_lmdb, tmp_path / "work", logging={"tensorboard": True})
    assert not (tmp_path / "work").exists()
