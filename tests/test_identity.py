"""A work_dir belongs to one training: what another one is told, how it starts anew, and what may change after all."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import random_texts
from test_resume import assert_refuses, interrupt
from training_tools import assert_equal_weights, hashes, lmdb_of, log, prepare, read_weights_file

from ms_ocr_handwritten.backends import precision
from ms_ocr_handwritten.errors import CheckpointError, ConfigurationError, OutputError
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.training.identity import lines_digest, weights_digest

ONE_EPOCH = {"max_epochs": 1, "dataloader": {"batch_size_per_gpu": 16}}


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return lmdb_of(tmp_path / "few", random_texts(8, 3, seed=5))


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """As many lines as `few`, others."""
    return lmdb_of(tmp_path / "others", random_texts(8, 3, seed=6))


def finished(model_dir: Path, lines: Path, work: Path, *arguments, **train) -> Path:
    prepare(model_dir, lines, work, *arguments, **{**ONE_EPOCH, **train}).run()
    return work


# ---------------------------------------------------------------------- refused


def test_another_training_set_is_refused_with_the_remedies(tiny_model_dir, few, others, tmp_path):
    work = finished(tiny_model_dir, few, tmp_path / "work")
    training = prepare(tiny_model_dir, others, work, **{**ONE_EPOCH, "max_epochs": 2})
    assert_refuses(
        training,
        ConfigurationError,
        "this is a different training: training set 1 of 1 holds different lines; .*another work_dir .*resume=False "
        r"\(--no-resume\).* aside, .*train\('.*/work/epoch_N'\) \(--from\)",
    )
    two = prepare(tiny_model_dir, [few, others], work, **{**ONE_EPOCH, "max_epochs": 2})
    assert_refuses(two, ConfigurationError, "the number of training sets was 1, is 2")


def test_other_initial_weights_are_refused(tiny_model_dir, few, tmp_path):
    work = finished(tiny_model_dir, few, tmp_path / "work")
    shutil.copytree(work / "output", tmp_path / "other_model")
    training = prepare(tmp_path / "other_model", few, work, **{**ONE_EPOCH, "max_epochs": 2})
    assert_refuses(training, ConfigurationError, "is a different training: the initial weights differ")


def test_what_changes_nothing_may_change(tiny_model_dir, few, tmp_path):
    """Places, workers, and what is saved and logged; the content is what counts."""
    work = finished(tiny_model_dir, few, tmp_path / "work")
    for name in ("model", "lines", "moved"):
        shutil.move({"model": tiny_model_dir, "lines": few, "moved": work}[name], tmp_path / name)
    train = {
        "max_epochs": 2,
        "dataloader": {"batch_size_per_gpu": 16, "workers_per_gpu": 1},
        "logging": {"interval": 3},
    }
    prepare(tmp_path / "model", tmp_path / "lines", tmp_path / "moved", **train).run()
    assert [entry["epoch"] for entry in log(tmp_path / "moved")] == [1, 2]


def test_automatic_precision_stays_what_it_began_in(tiny_model_dir, lines_lmdb, tmp_path, monkeypatch):
    """On another machine, or a busy one, it would be measured otherwise."""
    train = {"max_epochs": 1, "checkpoint": {"period": {"resume_interval": 1}}, "precision": "auto"}
    for name, rates in (("named", None), ("auto", [900.0, 1.0])):
        for rate in rates or [900.0]:
            monkeypatch.setattr(precision, "gemm_rates", lambda rate=rate: {"fp32": 100.0, "bf16": rate})
            training = prepare(tiny_model_dir, lines_lmdb, tmp_path / name, **train)
            if name == "auto" and rate == 900.0:
                interrupt(training, 20)
            else:
                training.run()
        assert training.bf16 is True
    assert_equal_weights(*(read_weights_file(tmp_path / name / "epoch_1.pth") for name in ("named", "auto")))


def test_a_work_dir_that_cannot_be_made_is_named(tiny_model_dir, few, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(
            OutputError, match=f"work_dir {path}: the folder cannot be created .{reason}.; name another"
        ):
            prepare(tiny_model_dir, few, path).run()


# ---------------------------------------------------------------------- allowed


def test_starting_anew_moves_all_aside(tiny_model_dir, few, others, tmp_path, capsys):
    work = finished(tiny_model_dir, few, tmp_path / "work", [few])
    before = hashes(work)
    prepare(tiny_model_dir, others, work, [others], **ONE_EPOCH).run(resume=False)
    assert f"starting from the beginning; the former files are in {work / 'superseded_1'}" in capsys.readouterr().err
    after = hashes(work)
    assert {name.removeprefix("superseded_1/"): value for name, value in after.items() if "/" in name} | before == {
        **before,
        **{name.removeprefix("superseded_1/"): value for name, value in after.items() if name.startswith("output")},
    } | before
    finished(tiny_model_dir, others, tmp_path / "plain", [others])
    assert_equal_weights(*(read_weights_file(folder / "epoch_1.pth") for folder in (work, tmp_path / "plain")))
    assert [entry["mode"] for entry in log(work)] == ["train", "eval"]
    with pytest.raises(ConfigurationError, match="resume=False starts from the beginning, but .*epoch_1 is named"):
        prepare(tiny_model_dir, others, work, **ONE_EPOCH).run(str(work / "epoch_1"), resume=False)


def test_from_a_chosen_epoch_it_may_go_on_otherwise(tiny_model_dir, few, others, tmp_path, capsys):
    """And when that is interrupted, it goes on without being chosen again."""
    work = finished(tiny_model_dir, few, tmp_path / "work")
    train = {"max_epochs": 3, "dataloader": {"batch_size_per_gpu": 4}, "checkpoint": {"period": {"resume_interval": 1}}}
    training = prepare(tiny_model_dir, others, work, **train)
    with pytest.raises(KeyboardInterrupt):
        training.dataset.image_bytes = lambda index: (_ for _ in ()).throw(KeyboardInterrupt)
        training.run(str(work / "epoch_1"))
    told = capsys.readouterr().err
    assert (
        "from here on with changes: training set 1 of 1 holds different lines; "
        "train.dataloader.batch_size_per_gpu was 16" in told
    )
    prepare(tiny_model_dir, others, work, **train).run()
    assert "resuming after epoch 1, batch 0" in capsys.readouterr().err
    assert [entry["epoch"] for entry in log(work)] == [1, 2, 3]


def test_a_moving_average_may_begin_or_end_at_a_chosen_epoch(tiny_model_dir, few, tmp_path):
    """It begins with the weights of that epoch; the rate is so small that nothing moves behind it."""
    still = {"max_epochs": 2, "optimizer": {"type": "AdamW", "lr": 1e-30}}
    plain, averaged = finished(tiny_model_dir, few, tmp_path / "plain"), tmp_path / "averaged"
    finished(tiny_model_dir, few, averaged, ema_decay=0.9)
    prepare(tiny_model_dir, few, plain, **ONE_EPOCH | still, ema_decay=0.9).run(str(plain / "epoch_1"))
    assert_equal_weights(*(read_weights_file(plain / f"epoch_{n}.pth") for n in (1, 2)))
    prepare(tiny_model_dir, few, averaged, **ONE_EPOCH | still).run(str(averaged / "epoch_1"))
    assert_equal_weights(*(read_weights_file(folder / "epoch_2.pth") for folder in (plain, averaged)))


def test_another_evaluation_set_begins_the_best_anew(tiny_model_dir, few, others, tmp_path, capsys):
    work = finished(tiny_model_dir, few, tmp_path / "work", [few])
    best = json.loads((work / "best.json").read_text()) | {"value": -1.0}
    (work / "best.json").write_text(json.dumps(best))  # no evaluation can be better
    same = prepare(tiny_model_dir, few, work, [few], **{**ONE_EPOCH, "max_epochs": 2})
    same.run()
    assert json.loads((work / "best.json").read_text()) == best
    prepare(tiny_model_dir, few, work, [others], **{**ONE_EPOCH, "max_epochs": 3}).run()
    assert "another evaluation set or metric: the best result is determined anew" in capsys.readouterr().err
    assert json.loads((work / "best.json").read_text())["epoch"] == 3
    assert json.loads((work / "superseded_1" / "best.json").read_text()) == best


def test_no_line_of_the_log_is_written_twice(tiny_model_dir, lines_lmdb, tmp_path):
    train = {"max_epochs": 2, "logging": {"interval": 1}, "checkpoint": {"period": {"resume_interval": 2}}}
    work = tmp_path / "work"
    for lines in (47, 16 + 24):  # in batch 6, after 4 were saved; in the second epoch
        interrupt(prepare(tiny_model_dir, lines_lmdb, work, [lines_lmdb], **train), lines)
    prepare(tiny_model_dir, lines_lmdb, work, [lines_lmdb], **train).run()
    positions = [(entry["mode"], entry["epoch"], entry.get("iter")) for entry in log(work)]
    one = [("train", 1, batch) for batch in range(1, 7)] + [("eval", 1, None)]
    assert positions == one + [(mode, 2, batch) for mode, _, batch in one]


# ---------------------------------------------------------------------- the digests


def test_digests_are_of_content_alone(tiny_model_dir, few, others, tmp_path):
    shutil.copytree(few, tmp_path / "copy")
    digests = [lines_digest(LmdbReader(path)) for path in (few, tmp_path / "copy", others)]
    assert digests[0] == digests[1] != digests[2]
    reader = LmdbReader(few)
    samples = [reader.read(index) for index in range(len(reader))]
    images, labels = zip(*samples)
    for name, changed_images, changed_labels in (
        ("label", images, [*labels[:-1], "a"]),
        ("image", [*images[:-1], images[0]], labels),
        ("order", images[::-1], labels[::-1]),
    ):
        assert lines_digest(LmdbReader(lmdb_of(tmp_path / name, changed_labels, changed_images))) != digests[0], name
    network = prepare(tiny_model_dir, few, tmp_path / "work").network
    before = weights_digest(network)
    network.vitstr.head.bias.data[3] += 1e-7
    assert weights_digest(network) != before


@pytest.mark.parametrize(
    "content", ["", "[]", '{"epoch": 1}', '{"epoch": "1", "metric": "cer", "value": 0.1}', "[" * 9999]
)
def test_a_damaged_best_is_named(tiny_model_dir, few, tmp_path, content):
    work = finished(tiny_model_dir, few, tmp_path / "work", [few])
    (work / "best.json").write_text(content)
    training = prepare(tiny_model_dir, few, work, [few], **{**ONE_EPOCH, "max_epochs": 2})
    assert_refuses(training, CheckpointError, "best.json: damaged .*; remove it: the next evaluation then")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"state": 3, "finished": 1}', '{"state": "a", "finished": 1e400}', '{"state": "a", "finished": -1}'],
)
def test_a_damaged_resume_file_is_named(tiny_model_dir, few, tmp_path, content):
    work = finished(tiny_model_dir, few, tmp_path / "work")
    (work / "resume.json").write_text(content)
    training = prepare(tiny_model_dir, few, work, **{**ONE_EPOCH, "max_epochs": 2})
    assert_refuses(training, CheckpointError, "resume.json: damaged .*; remove it and continue from an epoch_N")
