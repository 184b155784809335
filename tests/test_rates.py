"""`ms-ocr train --find-lr`: the loss over rising rates, what is suggested, and that nothing is written."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ALPHABET, TINY_NETWORK, make_model_dir
from training_tools import hashes, lmdb_of, prepare, training_raw

from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import ConfigurationError, LmdbError, OcrError
from ms_ocr_handwritten.training import rates
from ms_ocr_handwritten.training.rates import rising_rate, sweep_rates
from ms_ocr_handwritten.training.setup import prepare_training


@pytest.fixture
def model_dir(tmp_path):
    return make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK)


def rising(model_dir, lines, work_dir, **train):
    raw = training_raw(model_dir, **train)
    rising_rate(raw)
    return prepare_training(model_dir, raw, [lines], [], work_dir)


def test_the_suggested_rate_learns_better_than_much_lower_and_higher_ones(model_dir, lines_lmdb, tmp_path):
    before = hashes(tmp_path)
    result = CliRunner().invoke(
        main,
        [
            *("train", "--model", str(model_dir), "--train", str(lines_lmdb), "--work-dir", str(tmp_path / "work")),
            *("--set", "train.dataloader.batch_size_per_gpu=8", "--find-lr"),
        ],
    )
    assert result.exit_code == 0, result.stderr
    assert hashes(tmp_path) == before
    found = json.loads(result.stdout)
    assert f"--set train.optimizer.lr={found['lr']:g}" in result.stderr
    np.testing.assert_allclose(found["rates"], np.geomspace(1e-6, 1e-1, 100)[: len(found["rates"])])
    assert found["lr"] == float(f"{found['rates'][int(np.argmin(found['losses']))] / 10:.0e}")
    ends = {}
    for rate in (found["lr"] / 100, found["lr"], found["lr"] * 100):
        optimizer = {"type": "AdamW", "lr": rate}
        training = prepare(model_dir, lines_lmdb, tmp_path / f"{rate}", optimizer=optimizer, max_epochs=3)
        training.run()
        ends[rate] = training.losses.latest
    assert min(ends, key=ends.get) == found["lr"]


def test_the_losses_are_the_smoothed_ones_of_a_training_at_these_rates(model_dir, lines_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "STEPS", 2)
    sweep = sweep_rates(rising(model_dir, lines_lmdb, tmp_path / "work", seed=3))
    training = prepare(
        model_dir, lines_lmdb, tmp_path / "other", seed=3, logging={"interval": 1}, max_epochs=1, optimizer={"lr": 1e-6}
    )
    training.run()
    log = [json.loads(line) for line in (tmp_path / "other" / "train_log.jsonl").read_text().splitlines()]
    first = [entry["loss"] for entry in log if entry["mode"] == "train"][:2]
    assert len(sweep.losses) == 2
    assert sweep.losses[0] == pytest.approx(first[0], rel=1e-4)
    assert sweep.losses[1] == pytest.approx((0.9 * first[0] + first[1]) / 1.9, rel=1e-3)


def test_it_ends_where_the_loss_grows(model_dir, lines_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "DIVERGED", 1.1)
    monkeypatch.setattr(rates, "MOST", 1e6)  # the network is lost before half of the steps
    sweep = sweep_rates(rising(model_dir, lines_lmdb, tmp_path / "work"))
    growth = np.array(sweep.losses) / np.minimum.accumulate(sweep.losses)
    assert len(sweep.rates) < 100
    assert growth[-1] > 1.1 >= growth[:-1].max()


def test_a_first_loss_that_is_no_number_is_an_error(model_dir, lines_lmdb, tmp_path):
    training = rising(model_dir, lines_lmdb, tmp_path / "work")
    with torch.no_grad():
        training.network.classifier.bias.fill_(float("nan"))
    with pytest.raises(OcrError, match="the loss is nan in epoch 1, batch 1"):
        sweep_rates(training)


def test_lines_that_cannot_be_read_are_named_and_end_it_where_there_are_no_others(model_dir, tmp_path, capsys):
    lines = lmdb_of(tmp_path / "bad", ["ab", "cd"], [b"no image", b"none either"])
    with pytest.raises(LmdbError, match="no line that can be read"):
        sweep_rates(rising(model_dir, lines, tmp_path / "work", on_bad_sample="skip"))
    assert "left out" in capsys.readouterr().err


def test_several_processes_are_refused(model_dir, lines_lmdb, tmp_path):
    training = rising(model_dir, lines_lmdb, tmp_path / "work")
    training.ranks = dataclasses.replace(training.ranks, world=2)
    with pytest.raises(ConfigurationError, match="one process alone"):
        sweep_rates(training)
