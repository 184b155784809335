"""Going on after an interruption: bit for bit the same, at any moment, from any epoch, and never over foreign files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir
from training_tools import assert_equal_weights, hashes, log, prepare, read_weights_file

from ms_ocr_handwritten.errors import CheckpointError, ConfigurationError
from ms_ocr_handwritten.training.dataset import LineDataset

KILLS = int(os.environ.get("MS_OCR_KILLS", 8))
DROPOUT = {**TINY_NETWORK, "dropout": 0.2, "drop_path": 0.2}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A tiny network with dropout, so that the random state matters."""
    return make_model_dir(tmp_path / "model", ALPHABET, **DROPOUT)


class Interrupting(LineDataset):
    """Lines of which only `left` more can be read before the user presses Ctrl-C."""

    left: int

    def __getitem__(self, index: int):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().__getitem__(index)


def interrupt(training, lines: int) -> None:
    """Run until `lines` lines are read."""
    training.dataset.__class__, training.dataset.left = Interrupting, lines
    with pytest.raises(KeyboardInterrupt):
        training.run()


# ---------------------------------------------------------------------- bit for bit

SETTINGS = {
    "plain": {},
    "cycle": {"lr_scheduler": {"type": "OneCycleLR", "max_lr": 3e-3, "options": {"by_epoch": False}}},
    "milestones": {
        "lr_scheduler": {
            "type": "MultiStepLR",
            "milestones": [1],
            "gamma": 0.1,
            "options": {"warmup": {"type": "LinearWarmup", "warmup_iters": 9}},
        }
    },
    "accumulated": {"optimizer": {"type": "AdamW", "lr": 1e-3, "options": {"cumulative_iters": 3}}},
    "averaged": {"ema_decay": 0.7},
    "bf16": {"precision": "bf16"},
    "augmented": {"augment": True},
    "workers": {"dataloader": {"batch_size_per_gpu": 8, "workers_per_gpu": 1}},
}


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "workers"])
def test_a_training_that_was_interrupted_ends_bit_for_bit_the_same(model_dir, lines_lmdb, tmp_path, setting):
    """48 lines, 6 batches an epoch; interrupted in the first epoch, in the second, and in the same again."""
    train = {"max_epochs": 3, "checkpoint": {"period": {"resume_interval": 2}}, **SETTINGS[setting]}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    prepare(model_dir, lines_lmdb, whole, [lines_lmdb], **train).run()
    for lines in (30, 40, 20):
        interrupt(prepare(model_dir, lines_lmdb, parts, [lines_lmdb], **train), lines)
    prepare(model_dir, lines_lmdb, parts, [lines_lmdb], **train).run()
    for epoch in (1, 2, 3):
        name = f"epoch_{epoch}.pth"
        assert_equal_weights(read_weights_file(parts / name), read_weights_file(whole / name))
    found, expected = ([entry for entry in log(folder) if entry["mode"] == "eval"] for folder in (parts, whole))
    assert found == expected and len(found) == 3


def test_the_last_save_within_an_epoch_is_where_it_goes_on(model_dir, lines_lmdb, tmp_path, capsys):
    train = {"checkpoint": {"period": {"resume_interval": 2}}}
    interrupt(prepare(model_dir, lines_lmdb, tmp_path / "work", **train), 48 + 45)  # in batch 6 of epoch 2
    capsys.readouterr()
    prepare(model_dir, lines_lmdb, tmp_path / "work", **train).run()
    assert "resuming after epoch 1, batch 4\n" in capsys.readouterr().err


def test_no_state_is_saved_between_accumulated_batches(model_dir, lines_lmdb, tmp_path):
    """Due after batches 2 and 4, saved after the steps of batches 3 and (not, as the epoch ends) 6."""
    train = {"checkpoint": {"period": {"resume_interval": 2}}, **SETTINGS["accumulated"]}
    interrupt(prepare(model_dir, lines_lmdb, tmp_path / "work", **train), 45)
    state = torch.load(tmp_path / "work" / "latest_trainer_state.pth", weights_only=True)
    assert (state["epoch"], state["iteration"]) == (0, 3)


def test_workers_change_nothing(model_dir, lines_lmdb, tmp_path):
    for name, train in (("alone", {}), ("workers", SETTINGS["workers"])):
        prepare(model_dir, lines_lmdb, tmp_path / name, max_epochs=1, **train).run()
    assert_equal_weights(*(read_weights_file(tmp_path / name / "epoch_1.pth") for name in ("alone", "workers")))


# ---------------------------------------------------------------------- kill -9


def test_kills_at_random_moments_lose_nothing(model_dir, lines_lmdb, tmp_path):
    """After each, all files load; the training goes on from the newest state and ends as if never interrupted."""
    script = ROOT / "tests" / "kill_trainings.py"
    arguments = [model_dir, lines_lmdb, tmp_path / "killed", KILLS, 0]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120 + 20 * KILLS,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    told = tmp_path / "killed" / "told.txt"
    assert done.returncode == 0, done.stderr + (told.read_text(encoding="utf-8") if told.exists() else "")
    counts = json.loads(done.stdout)
    print(counts)
    assert counts["kills"] == KILLS and counts["finished"] >= 1
    assert counts["while a file was written"] >= KILLS // 8


def test_what_a_kill_left_half_written_is_removed(model_dir, lines_lmdb, tmp_path):
    work = tmp_path / "work"
    interrupt(prepare(model_dir, lines_lmdb, work), 60)
    for folder in (work, work / "output"):
        (folder / ".epoch_1.pth.x1.saving").write_bytes(b"half")
    (work / ".lines.ab12.partial").mkdir()  # of an LMDB that is being built
    with open(work / "train_log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"mode": "tra')
    prepare(model_dir, lines_lmdb, work).run()
    assert not list(work.rglob("*.saving")) and (work / ".lines.ab12.partial").exists()
    assert [entry["mode"] for entry in log(work)] == ["train", "train"]


def test_an_epoch_whose_files_are_missing_is_finished_first(model_dir, lines_lmdb, tmp_path):
    """Killed between the state of the last epoch and its weights: they are written and judged, nothing is trained."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare(model_dir, lines_lmdb, whole, [lines_lmdb]).run()
    shutil.copytree(whole, killed)
    (killed / "epoch_2.pth").unlink()
    (killed / "resume.json").write_text(json.dumps({"state": "epoch_2_trainer_state.pth", "finished": 1}))
    summary = prepare(model_dir, lines_lmdb, killed, [lines_lmdb]).run()
    assert_equal_weights(read_weights_file(killed / "epoch_2.pth"), read_weights_file(whole / "epoch_2.pth"))
    assert summary["avg_loss"] == log(whole)[-1]["avg_loss"]
    assert len([entry for entry in log(killed) if entry["mode"] == "train"]) == 2


# ---------------------------------------------------------------------- from an earlier epoch

BY_LOSS = {"best": {"metric_key": "avg_loss"}}  # which falls with each epoch


@pytest.fixture
def three_epochs(model_dir, lines_lmdb, tmp_path) -> Path:
    prepare(model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb], max_epochs=3, checkpoint=BY_LOSS).run()
    return tmp_path / "work"


@pytest.mark.parametrize("suffix", ["", ".pth", "_trainer_state.pth"])
def test_going_on_from_an_earlier_epoch_moves_the_later_ones_aside(model_dir, lines_lmdb, three_epochs, capsys, suffix):
    work, before = three_epochs, hashes(three_epochs)
    assert json.loads((work / "best.json").read_text())["epoch"] == 3
    capsys.readouterr()
    training = prepare(model_dir, lines_lmdb, work, [lines_lmdb], max_epochs=3, checkpoint=BY_LOSS)
    training.run(str(work / f"epoch_1{suffix}"))
    assert f"resuming after epoch 1, batch 0; later epochs moved to {work / 'superseded_1'}" in capsys.readouterr().err
    after = hashes(work)
    moved = [
        "epoch_2.pth",
        "epoch_2_trainer_state.pth",
        "epoch_3.pth",
        "epoch_3_trainer_state.pth",
        "best.json",
        "output_best/pytorch_model.pt",
        "output_best/configuration.json",
        "output_best/vocab.txt",
    ]
    assert {name: after[f"superseded_1/{name}"] for name in moved} == {name: before[name] for name in moved}
    assert {name.split("/")[0] for name in after if not name.startswith("superseded_1")} == {
        name.split("/")[0] for name in before
    }
    assert after["epoch_1.pth"] == before["epoch_1.pth"]
    assert_equal_weights(read_weights_file(work / "epoch_3.pth"), read_weights_file(work / "superseded_1/epoch_3.pth"))


def test_interrupted_after_going_back_it_goes_on_from_there(model_dir, lines_lmdb, three_epochs, capsys):
    """No file of the abandoned branch is taken for one of the new: all is trained, written and judged again."""
    training = prepare(model_dir, lines_lmdb, three_epochs, [lines_lmdb], max_epochs=3)
    training.dataset.__class__, training.dataset.left = Interrupting, 20
    with pytest.raises(KeyboardInterrupt):
        training.run(str(three_epochs / "epoch_1"))
    capsys.readouterr()
    summary = prepare(model_dir, lines_lmdb, three_epochs, [lines_lmdb], max_epochs=3).run()
    assert "resuming after epoch 1, batch 0\n" in capsys.readouterr().err
    assert summary["lines"] == 48
    assert [entry["epoch"] for entry in log(three_epochs) if entry["mode"] == "eval"] == [1, 2, 3]
    assert [entry["epoch"] for entry in log(three_epochs / "superseded_1") if entry["mode"] == "eval"] == [2, 3]
    assert not (three_epochs / "superseded_2").exists()


def test_going_back_twice_keeps_both_branches(model_dir, lines_lmdb, three_epochs):
    for _ in range(2):
        prepare(model_dir, lines_lmdb, three_epochs, max_epochs=3).run(str(three_epochs / "epoch_2"))
    assert all((three_epochs / f"superseded_{n}" / "epoch_3.pth").exists() for n in (1, 2))


def test_a_new_work_dir_takes_over_from_another(model_dir, lines_lmdb, three_epochs, tmp_path):
    before = hashes(three_epochs)
    new = tmp_path / "new"
    prepare(model_dir, lines_lmdb, new, [lines_lmdb], max_epochs=3).run(str(three_epochs / "epoch_1"))
    assert hashes(three_epochs) == before
    for name in ("epoch_1.pth", "epoch_3.pth"):
        assert_equal_weights(read_weights_file(new / name), read_weights_file(three_epochs / name))
    with pytest.raises(ConfigurationError, match="belongs to another training"):
        prepare(model_dir, lines_lmdb, new, max_epochs=3).run(str(three_epochs / "epoch_1"))


def test_more_epochs_go_on_after_a_finished_training(model_dir, lines_lmdb, three_epochs, tmp_path):
    prepare(model_dir, lines_lmdb, three_epochs, [lines_lmdb], max_epochs=4).run()
    prepare(model_dir, lines_lmdb, tmp_path / "whole", [lines_lmdb], max_epochs=4).run()
    assert_equal_weights(*(read_weights_file(f / "epoch_4.pth") for f in (three_epochs, tmp_path / "whole")))


# ---------------------------------------------------------------------- refused


def assert_refuses(training, kind: type, message: str, checkpoint: str | None = None) -> None:
    """It raises and changes nothing in its work_dir."""
    folder = training.work_dir.path
    before = hashes(folder)
    with pytest.raises(kind, match=message):
        training.run(checkpoint)
    assert hashes(folder) == before


def test_a_finished_training_is_not_repeated(model_dir, lines_lmdb, three_epochs):
    message = r"holds? a finished training|belongs to a finished training of 3 epochs.*raise train.max_epochs"
    for checkpoint in (None, str(three_epochs / "epoch_3")):
        training = prepare(model_dir, lines_lmdb, three_epochs, max_epochs=3)
        assert_refuses(training, ConfigurationError, message, checkpoint)


@pytest.mark.parametrize(
    "name", ["epoch_1.pth", "epoch_7_trainer_state.pth", "output/pytorch_model.pt", "output_best/pytorch_model.pt"]
)
def test_files_of_another_program_are_not_overwritten(model_dir, lines_lmdb, tmp_path, name):
    (tmp_path / "work" / name).parent.mkdir(parents=True)
    (tmp_path / "work" / name).write_bytes(b"precious")
    assert_refuses(
        prepare(model_dir, lines_lmdb, tmp_path / "work"),
        ConfigurationError,
        f"{name}: belongs to another training.*name another work_dir",
    )


@pytest.mark.parametrize("name", ["output", "output_best"])
def test_the_model_directory_is_not_overwritten(model_dir, lines_lmdb, tmp_path, name):
    shutil.copytree(model_dir, tmp_path / "work" / name)
    with pytest.raises(ConfigurationError, match=f"its {name}/ is the model directory itself"):
        prepare(tmp_path / "work" / name, lines_lmdb, tmp_path / "work")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer": {"type": "AdamW", "lr": 5e-3}}, r"train.optimizer was .*0.001.*, is .*0.005"),
        ({"lr_scheduler": {"type": "StepLR", "step_size": 1}}, r"train.lr_scheduler was .*None.* is .*StepLR"),
        ({"dataloader": {"batch_size_per_gpu": 4}}, "train.dataloader.batch_size_per_gpu was 8, is 4"),
        ({"seed": 5}, "train.seed was 0, is 5"),
        ({"precision": "bf16"}, "train.precision was fp32, is bf16"),
        ({"augment": True}, "train.augment was False, is True"),
        ({"ema_decay": 0.9}, "train.ema_decay was None, is 0.9"),
        ({"freeze": "trunk"}, r"train.freeze was \[\], is \['trunk'\]"),
        (
            {"optimizer": {"type": "AdamW", "lr": 1e-3, "options": {"grad_clip": {"max_norm": 3}}}},
            r"train.optimizer.options was .*None.*, is .*'max_norm': 3.0",
        ),
    ],
)
def test_another_training_than_the_one_begun_is_refused(model_dir, lines_lmdb, tmp_path, change, message):
    train = {"checkpoint": {"period": {"resume_interval": 2}}}
    interrupt(prepare(model_dir, lines_lmdb, tmp_path / "work", **train), 30)
    assert_refuses(
        prepare(model_dir, lines_lmdb, tmp_path / "work", **train, **change),
        ConfigurationError,
        f"is a different training: {message}",
    )


def test_checkpoints_that_are_none_are_named(model_dir, lines_lmdb, three_epochs):
    training = prepare(model_dir, lines_lmdb, three_epochs, max_epochs=3)
    assert_refuses(training, CheckpointError, "epoch_9_trainer_state.pth: no such file", str(three_epochs / "epoch_9"))
    torch.save({"epoch": 1}, three_epochs / "upstream_trainer_state.pth")
    assert_refuses(
        training,
        CheckpointError,
        "upstream_trainer_state.pth: holds no state to resume from",
        str(three_epochs / "upstream_trainer_state.pth"),
    )


def test_a_damaged_state_is_named(model_dir, lines_lmdb, tmp_path):
    interrupt(prepare(model_dir, lines_lmdb, tmp_path / "work"), 60)
    state = tmp_path / "work" / "epoch_1_trainer_state.pth"
    state.write_bytes(state.read_bytes()[:1000])
    assert_refuses(prepare(model_dir, lines_lmdb, tmp_path / "work"), CheckpointError, "epoch_1_trainer_state.pth")
