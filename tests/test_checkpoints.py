"""The files of a training: which, when, that they are whole, and that no two share an inode."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ALPHABET
from training_tools import assert_equal_weights, hashes, log, prepare, read_weights_file

from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.training.checkpoints import WorkDir, save_model_dir
from ms_ocr_handwritten.training.identity import lines_digest
from ms_ocr_handwritten.vocab import Vocabulary


@pytest.fixture
def three_epochs(tiny_model_dir, lines_lmdb, tmp_path) -> Path:
    train = {"max_epochs": 3, "checkpoint": {"best": {"metric_key": "avg_loss"}}}
    prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb], **train).run()
    return tmp_path / "work"


def test_files_of_a_training(three_epochs):
    names = set(hashes(three_epochs))
    model = {"configuration.json", "vocab.txt", "pytorch_model.pt"}
    assert names == {"best.json", "resume.json", "train_log.jsonl"} | {
        f"{folder}/{name}" for folder in ("output", "output_best") for name in model
    } | {f"epoch_{n}{suffix}" for n in (1, 2, 3) for suffix in (".pth", "_trainer_state.pth")}
    assert {path.stat().st_mode & 0o777 for path in three_epochs.rglob("*") if path.is_file()} == {0o644}


def test_copying_an_epoch_over_the_output_changes_no_other_file(three_epochs):
    files = [path for path in three_epochs.rglob("*") if path.is_file()]
    assert len({path.stat().st_ino for path in files}) == len(files)
    before = hashes(three_epochs)
    shutil.copy(three_epochs / "epoch_1.pth", three_epochs / "output" / "pytorch_model.pt")
    after = hashes(three_epochs)
    assert after.pop("output/pytorch_model.pt") == before["epoch_1.pth"] != before.pop("output/pytorch_model.pt")
    assert after == before


def test_intervals_and_the_number_of_checkpoints_kept(tiny_model_dir, lines_lmdb, tmp_path):
    checkpoint = {"period": {"interval": 2, "max_checkpoint_num": 2}}
    prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", max_epochs=7, checkpoint=checkpoint).run()
    work = WorkDir(tmp_path / "work")
    assert work.epochs() == [6, 7]
    assert sorted(path.name for path in work.path.glob("*.pth")) == [
        "epoch_6.pth",
        "epoch_6_trainer_state.pth",
        "epoch_7.pth",
        "epoch_7_trainer_state.pth",
        "latest_trainer_state.pth",
    ]
    prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", max_epochs=8, checkpoint=checkpoint).run()
    assert work.epochs() == [7, 8]


@pytest.mark.parametrize("rule, best_of", [("min", min), ("max", max)])
def test_output_best_is_the_best(tiny_model_dir, lines_lmdb, tmp_path, rule, best_of):
    train = {"max_epochs": 3, "checkpoint": {"best": {"metric_key": "avg_loss", "rule": rule}}}
    prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb], **train).run()
    losses = {entry["epoch"]: entry["avg_loss"] for entry in log(tmp_path / "work") if entry["mode"] == "eval"}
    best = best_of(losses, key=losses.get)
    assert json.loads((tmp_path / "work/best.json").read_text()) == {
        "epoch": best,
        "metric": "avg_loss",
        "value": losses[best],
        "evaluation": [lines_digest(LmdbReader(lines_lmdb))],
    }
    found = read_weights_file(tmp_path / "work/output_best/pytorch_model.pt")
    assert_equal_weights(found, read_weights_file(tmp_path / "work" / f"epoch_{best}.pth"))


def test_a_model_dir_that_is_there_takes_the_new_vocabulary_and_configuration(tiny_model_dir, lines_lmdb, tmp_path):
    network = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work").network
    for characters, raw in ((ALPHABET, {"a": 1}), (ALPHABET + "é", {"a": 2})):
        save_model_dir(tmp_path / "dir", network, Vocabulary(tuple(characters)), raw)
        assert (tmp_path / "dir" / "vocab.txt").read_text(encoding="utf-8") == "".join(f"{c}\n" for c in characters)
        assert json.loads((tmp_path / "dir" / "configuration.json").read_text()) == raw
