"""What keeps a fine-tuned network from forgetting: rehearsal, frozen parts, and figures of old skills."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render
from test_cli_train import ms_ocr
from training_tools import lmdb_of, log, network_of, prepare, read_raw, read_weights_file

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import ConfigurationError, LabelError
from ms_ocr_handwritten.training.setup import evaluate_model_dir, prepare_training


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """10 lines of old skills."""
    return lmdb_of(tmp_path / "old", random_texts(10, 3, seed=9))


# ---------------------------------------------------------------------- rehearsal


def epoch_lines(training, epoch: int) -> tuple[list[list[int]], list[int], list[int]]:
    """Batches of an epoch; its lines of the training set, and those of old skills."""
    training.epoch = epoch
    batches = training.batches()
    lines = [index for batch in batches for index in batch]
    own = len(training.dataset.own_lines())
    return batches, [index for index in lines if index < own], [index for index in lines if index >= own]


@pytest.mark.parametrize("share, count", [(0.2, 12), (0.5, 48), (0.001, 1)])
def test_rehearsed_lines_are_a_share_of_all(tiny_model_dir, lines_lmdb, old, tmp_path, share, count):
    """48 lines to learn come once; of the 10 others none comes twice before all came."""
    rehearsal = {"lmdb": [str(old)], "share": share}
    training = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", rehearsal=rehearsal)
    batches, own, rehearsed = epoch_lines(training, 0)
    assert sorted(own) == list(range(48)) and len(rehearsed) == count
    drawn = {index: rehearsed.count(index) for index in range(48, 58)}
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert batches == epoch_lines(training, 0)[0] != epoch_lines(training, 1)[0]


def unshuffled(model_dir, lines, work_dir, old, share, batch_size):
    """A training that rehearses lines of `old`, and takes all in order."""
    rehearsal = {"lmdb": str(old), "share": share}
    dataloader = {"batch_size_per_gpu": batch_size, "shuffle": False}
    return prepare(model_dir, lines, work_dir, rehearsal=rehearsal, dataloader=dataloader)


def test_without_shuffling_rehearsed_lines_are_spread_evenly(tiny_model_dir, lines_lmdb, old, tmp_path):
    training = unshuffled(tiny_model_dir, lines_lmdb, tmp_path / "work", old, share=0.25, batch_size=8)
    batches, own, _ = epoch_lines(training, 0)
    assert own == list(range(48))
    assert [sum(index >= 48 for index in batch) for batch in batches] == [2] * 8
    in_order = [index >= 48 for batch in batches for index in batch]
    assert in_order == [False, False, True, False] * 16  # each amid the three that it goes with


def test_of_as_many_rehearsed_lines_each_follows_one_to_be_learnt(tiny_model_dir, lines_lmdb, old, tmp_path):
    training = unshuffled(tiny_model_dir, lines_lmdb, tmp_path / "work", old, share=0.5, batch_size=2)
    batches, own, _ = epoch_lines(training, 0)
    assert own == list(range(48)) and all(first < 48 <= second for first, second in batches)


def test_rehearsed_lines_are_learnt_and_checked_as_others_are(tiny_model_dir, lines_lmdb, old, tmp_path):
    """The second training has no other lines than the first but those; unknown characters in them are refused."""
    losses = []
    for name, rehearsal in (("plain", {}), ("rehearsed", {"lmdb": [str(old)], "share": 0.5})):
        training = prepare(tiny_model_dir, lines_lmdb, tmp_path / name, [old], rehearsal=rehearsal)
        losses.append(training.run()["avg_loss"])
    assert losses[1] < losses[0]
    strange = lmdb_of(tmp_path / "strange", ["中"], [b"no image"])
    with pytest.raises(LabelError, match=f"first at {strange} image-000000001"):
        prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", rehearsal={"lmdb": [str(strange)]})


# ---------------------------------------------------------------------- frozen parts

PREFIXES = {
    "trunk": r"cnn_model\.",
    "encoder": r"vitstr\.(patch_embed|pos_embed|blocks|norm)",
    "head": r"vitstr\.head\.",
}


@pytest.mark.parametrize("frozen", [("trunk",), ("encoder",), ("head",), ("trunk", "encoder")])
def test_frozen_parts_stay_bit_for_bit_and_the_others_move(lines_lmdb, tmp_path, frozen):
    model_dir = make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "dropout": 0.1, "drop_path": 0.1})
    train = {"freeze": list(frozen), "max_epochs": 1, "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1}}
    prepare(model_dir, lines_lmdb, tmp_path / "work", **train).run()
    before = read_weights_file(model_dir / "pytorch_model.pt")
    after = read_weights_file(tmp_path / "work" / "epoch_1.pth")
    for part, pattern in PREFIXES.items():
        names = [name for name in before if re.match(f"recognizer.{pattern}", name)]
        unmoved = [name for name in names if torch.equal(before[name], after[name])]
        assert names and unmoved == (names if part in frozen else []), part


def test_frozen_parts_compute_what_they_compute_when_reading(lines_lmdb, tmp_path):
    """Without stochastic depth, which would be noise that nothing learns from."""
    model_dir = make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "drop_path": 0.9})
    training = prepare(model_dir, lines_lmdb, tmp_path / "work", freeze="trunk", max_epochs=1)
    training.run()
    network, grey = training.network, torch.rand(4, 1, 32, 300)
    assert network.training and network.vitstr.training
    assert torch.equal(network.cnn_model(grey), network_of(model_dir).cnn_model(grey))


def test_a_frozen_head_cannot_grow(tiny_model_dir, tmp_path):
    lines = lmdb_of(tmp_path / "lines", ["é"], [b"an image that is never read"])
    with pytest.raises(ConfigurationError, match="train.freeze names the head, .*'grow'"):
        prepare(tiny_model_dir, lines, tmp_path / "work", freeze="head", unknown_characters="grow")


# ---------------------------------------------------------------------- old skills


def test_old_skills_are_told_at_each_evaluation_with_a_warning(lines_lmdb, tmp_path, capsys):
    """The old skill of a random network is to read what it reads."""
    model = make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    images = [render(text) for text in random_texts(10, 3, seed=9)]
    texts = [line.text for line in Recognizer.from_pretrained(model, "torch", "fp32").read_many(images)]
    old = lmdb_of(tmp_path / "old", texts, [png(image) for image in images])
    before = evaluate_model_dir(model, read_raw(model), [old])
    assert before["cer"] == 0.0 and before["characters"] > 20
    raw = read_raw(model)
    raw["train"] = {"max_epochs": 2}
    raw["evaluation"]["old_skills"] = [str(old)]
    capsys.readouterr()
    summary = prepare_training(model, raw, [lines_lmdb], [lines_lmdb], tmp_path / "work").run()
    told = capsys.readouterr().err
    assert f"old skills before this training: CER {100 * before['cer']:.2f} %, " in told
    entries = [entry for entry in log(tmp_path / "work") if entry["mode"] == "eval"]
    assert [entry["old_skills_cer_before"] for entry in entries] == [before["cer"]] * 2
    after = evaluate_model_dir(tmp_path / "work" / "output", read_raw(model), [old])
    assert summary["old_skills_cer"] == entries[1]["old_skills_cer"] == after["cer"] > before["cer"]
    assert summary["old_skills_accuracy"] == after["accuracy"] and summary["lines"] == 48
    assert f"warning: old skills got worse after epoch 2: CER {100 * after['cer']:.2f} %" in told
    assert "rehearse them (train.rehearsal), freeze a part (train.freeze), or lower train.optimizer.lr" in told


def test_old_skills_alone_are_told_too_and_stay_after_an_interruption(tiny_model_dir, lines_lmdb, old, tmp_path):
    """What they were before is of the initial weights, not of those that it goes on from."""
    raw = read_raw(tiny_model_dir)
    raw["train"] = {"max_epochs": 1}
    raw["evaluation"]["old_skills"] = [str(old)]
    before = evaluate_model_dir(tiny_model_dir, raw, [old])
    for epochs in (1, 2):
        raw["train"]["max_epochs"] = epochs
        summary = prepare_training(tiny_model_dir, raw, [lines_lmdb], [], tmp_path / "work").run()
        assert summary["old_skills_cer_before"] == before["cer"] and "lines" not in summary


# ---------------------------------------------------------------------- the command


def test_the_command_rehearses_freezes_watches_and_starts_anew(tiny_model_dir, lines_lmdb, old, tmp_path):
    base = ("train", "--model", tiny_model_dir, "--train", lines_lmdb, "--work-dir", tmp_path / "work")
    base += ("--set", "train.max_epochs=1", "--rehearse", old, "--set", "train.rehearsal.share=0.25")
    result = ms_ocr(*base, "--old-skills", old, "--freeze", "trunk", "--freeze", "head")
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)) == {
        f"old_skills_{n}{w}" for n in ("cer", "accuracy") for w in ("", "_before")
    }
    written = read_raw(tmp_path / "work" / "output")
    assert written["train"]["rehearsal"] == {"lmdb": [str(old)], "share": 0.25}
    assert written["train"]["freeze"] == ["trunk", "head"] and written["evaluation"]["old_skills"] == [str(old)]
    result = ms_ocr(*base)
    assert result.exit_code == 1 and "train.freeze was ['trunk', 'head'], is []" in result.stderr
    result = ms_ocr(*base, "--no-resume")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "work" / "superseded_1" / "epoch_1.pth").exists()
    assert ms_ocr(*base, "--freeze", "body").exit_code == 2
