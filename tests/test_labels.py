"""Labels that fit neither vocabulary nor line, and records that cannot be read: refused, dropped, grown, skipped."""

import io
import json
import re
from pathlib import Path

import cv2
import lmdb
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render
from PIL import Image
from training_tools import dataset_of, lmdb_of, network_of, prepare, read_raw, read_weights_file

from ms_ocr_handwritten.errors import LabelError, LmdbError
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.training.dataset import unalignable
from ms_ocr_handwritten.training.setup import evaluate_model_dir

TEXTS = ["a0", "b中", "1", "中é中", "c2"]


@pytest.fixture
def mixed_lmdb(tmp_path: Path) -> Path:
    """Five lines, of which the second and the fourth hold characters that the vocabulary lacks."""
    return lmdb_of(tmp_path / "mixed", TEXTS, [png(render("abc"))] * 5)


# ---------------------------------------------------------------------- unknown characters


def test_unknown_characters_stop_the_training_before_anything_is_written(tiny_model_dir, mixed_lmdb, tmp_path):
    with pytest.raises(LabelError) as caught:
        prepare(tiny_model_dir, mixed_lmdb, tmp_path / "work")
    assert str(caught.value).splitlines() == [
        "2 characters of the labels are not in vocab.txt:",
        f"  '中' (U+4E2D) 3 times, first at {mixed_lmdb} image-000000002, {mixed_lmdb} image-000000004",
        f"  'é' (U+00E9) 1 times, first at {mixed_lmdb} image-000000004",
        "correct the labels, or set train.unknown_characters to 'drop' (those lines) or 'grow' (the vocabulary)",
    ]
    assert not (tmp_path / "work").exists()


def test_full_width_forms_are_known_by_their_half_width_form(tiny_model_dir, tmp_path):
    training = prepare(tiny_model_dir, lmdb_of(tmp_path / "lines", ["ａ１"]), tmp_path / "work")
    sample = training.dataset[0]
    assert sample.ids == training.vocabulary.encode("a1") and sample.label == "ａ１"


def test_lines_with_unknown_characters_are_dropped_and_listed(tiny_model_dir, mixed_lmdb, tmp_path, capsys):
    training = prepare(tiny_model_dir, mixed_lmdb, tmp_path / "work", unknown_characters="drop")
    assert [training.dataset.label(index) for index in range(len(training.dataset))] == ["a0", "1", "c2"]
    told = capsys.readouterr().err
    assert "2 lines left out" in told and "'中' (U+4E2D) 3 times" in told and "image-000000004" in told


def test_characters_of_the_evaluation_set_alone_and_blank_labels_are_named(mixed_lmdb, tmp_path, capsys):
    model_dir = make_model_dir(tmp_path / "model", ALPHABET + " ", **TINY_NETWORK)
    lines = lmdb_of(tmp_path / "lines", ["a", " ", "b", ""], [png(render("ab"))] * 4)
    training = prepare(model_dir, lines, tmp_path / "work", [mixed_lmdb])
    told = capsys.readouterr().err
    assert "2 characters of the evaluation set are not in the vocabulary and count as errors" in told
    assert f"'中' (U+4E2D) 3 times, first at {mixed_lmdb} image-000000002, " in told
    assert f"2 labels are blank, so these lines are learnt as empty: {lines} image-000000002, " in told
    assert len(training.dataset) == 4
    prepare(model_dir, lmdb_of(tmp_path / "good", ["a"]), tmp_path / "other", [tmp_path / "good"])
    assert capsys.readouterr().err == ""


def test_all_lines_dropped_is_an_error(tiny_model_dir, tmp_path):
    with pytest.raises(LmdbError, match="the training set holds no line"):
        prepare(
            tiny_model_dir,
            lmdb_of(tmp_path / "lines", ["中"], [png(render("a"))]),
            tmp_path / "work",
            unknown_characters="drop",
        )


def test_growing_keeps_old_rows_bit_for_bit_and_is_the_same_each_time(tiny_model_dir, mixed_lmdb, tmp_path, capsys):
    old, runs = network_of(tiny_model_dir), []
    for seed in (0, 0, 1):
        training = prepare(tiny_model_dir, mixed_lmdb, tmp_path / "work", unknown_characters="grow", seed=seed)
        runs.append(training.network.vitstr.head)
        assert training.vocabulary.characters == (*ALPHABET, "é", "中")
        assert [training.dataset.label(index) for index in range(5)] == TEXTS
    count = old.config.num_classes
    assert count == 22 and runs[0].weight.shape == (24, 48)
    for head in runs:
        assert torch.equal(head.weight[:count], old.vitstr.head.weight)
        assert torch.equal(head.bias[:count], old.vitstr.head.bias)
    assert torch.equal(runs[0].weight, runs[1].weight) and not torch.equal(runs[0].weight, runs[2].weight)
    assert torch.equal(training.network.cnn_model.stages[0][0].gamma, old.cnn_model.stages[0][0].gamma)
    assert "2 characters added to the vocabulary" in capsys.readouterr().err


def test_new_characters_do_not_disturb_what_is_read(tiny_model_dir, mixed_lmdb, lines_lmdb, tmp_path):
    before = evaluate_model_dir(tiny_model_dir, read_raw(tiny_model_dir), [lines_lmdb])
    training = prepare(tiny_model_dir, mixed_lmdb, tmp_path / "work", [lines_lmdb], unknown_characters="grow")
    assert training.evaluate() == pytest.approx(before, rel=1e-3)


def test_output_of_a_grown_training_reloads(tiny_model_dir, mixed_lmdb, tmp_path):
    training = prepare(tiny_model_dir, mixed_lmdb, tmp_path / "work", [mixed_lmdb], unknown_characters="grow")
    summary = training.run()
    output = ModelDir.open(tmp_path / "work" / "output")
    assert output.configuration.network.num_classes == 24
    assert output.vocabulary.characters[-2:] == ("é", "中")
    assert evaluate_model_dir(output.path, output.raw, [mixed_lmdb]) == pytest.approx(summary, rel=1e-5)
    assert json.loads((tiny_model_dir / "configuration.json").read_text())["model"]["network"]["num_classes"] == 22


def test_growing_fills_unused_rows_of_a_larger_head(mixed_lmdb, tmp_path):
    """The official head has rows that no line of vocab.txt names; they too stay bit for bit."""
    model_dir = make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "num_classes": 40})
    training = prepare(model_dir, mixed_lmdb, tmp_path / "work", unknown_characters="grow")
    assert training.network.config.num_classes == 40
    assert torch.equal(training.network.vitstr.head.weight, network_of(model_dir).vitstr.head.weight)


def test_evaluation_counts_unknown_characters_as_wrong_without_a_loss(tiny_model_dir, mixed_lmdb, tmp_path):
    summary = evaluate_model_dir(tiny_model_dir, read_raw(tiny_model_dir), [mixed_lmdb])
    assert (summary["lines"], summary["characters"]) == (5, 10)
    known = lmdb_of(tmp_path / "known", ["a0", "1", "c2"], [png(render("abc"))] * 3)
    expected = evaluate_model_dir(tiny_model_dir, read_raw(tiny_model_dir), [known])["avg_loss"]
    assert summary["avg_loss"] == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------- labels too long for their lines


def crowded(tmp_path: Path) -> Path:
    """201 columns of three chunks: 201 characters fit, 102 equal ones (203 columns) do not."""
    return lmdb_of(tmp_path / "crowded", ["ab", "01" * 100 + "0", "a" * 102, "c", "9" * 200], [png(render("abc"))] * 5)


def test_unalignable_labels_stop_the_training_by_their_keys(tiny_model_dir, tmp_path):
    path = crowded(tmp_path)
    with pytest.raises(
        LabelError,
        match=re.escape(
            f"2 labels need more columns than their lines have (one per character, one more between equal neighbours): "
            f"{path} image-000000003, {path} image-000000005; correct them, or set train.unalignable to 'drop'"
        ),
    ):
        prepare(tiny_model_dir, path, tmp_path / "work")


def test_unalignable_labels_are_dropped_and_named(tiny_model_dir, tmp_path, capsys):
    path = crowded(tmp_path)
    training = prepare(tiny_model_dir, path, tmp_path / "work", unalignable="drop", max_epochs=1)
    assert [len(training.dataset.label(index)) for index in range(len(training.dataset))] == [2, 201, 1]
    assert f"2 lines left out, too short for their labels: {path} image-000000003, " in capsys.readouterr().err
    training.run()  # no loss is infinite


def encoded_with_orientation(image, orientation: int) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_long_lines_have_more_columns_whichever_way_they_are_stored(tiny_model_dir, tmp_path):
    """41:1, so 1,312 px, six chunks, 390 columns; stored upright, and lying on its side with EXIF saying so."""
    wide = cv2.resize(render("0123456789"), (32 * 41, 32))
    lying = encoded_with_orientation(cv2.rotate(wide, cv2.ROTATE_90_COUNTERCLOCKWISE), 6)
    labels = ["a" * 195, "a" * 196, "a" * 195, "a" * 196]  # 389 and 391 columns
    dataset = dataset_of(tiny_model_dir, lmdb_of(tmp_path / "long", labels, [png(wide), png(wide), lying, lying]))
    assert [dataset[index].chunks for index in range(4)] == [6, 6, 6, 6]
    assert unalignable(dataset) == [1, 3]


# ---------------------------------------------------------------------- records that cannot be read


@pytest.fixture
def broken_lmdb(tmp_path: Path) -> Path:
    """Ten lines; the third's image is no image, the sixth's label no UTF-8, the eighth's image is missing."""
    path = lmdb_of(tmp_path / "broken", random_texts(10, 3))
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-000000003", b"no image")
        transaction.put(b"label-000000006", b"\xff\xfe")
        transaction.delete(b"image-000000008")
        transaction.put(b"spare", b"")  # the number of records stays right
    return path


def test_broken_records_raise_with_their_key(tiny_model_dir, broken_lmdb):
    dataset = dataset_of(tiny_model_dir, broken_lmdb)
    assert dataset[0].label
    for index, key in ((2, "image-000000003"), (5, "label-000000006"), (7, "image-000000008")):
        with pytest.raises(LmdbError, match=f"{key}.*correct the record, or set train.on_bad_sample to 'skip'"):
            dataset[index]


def test_broken_labels_stop_the_training_before_it_starts(tiny_model_dir, broken_lmdb, tmp_path):
    with pytest.raises(LmdbError, match="label-000000006 is not UTF-8"):
        prepare(tiny_model_dir, broken_lmdb, tmp_path / "work")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_records_are_skipped_named_and_logged(tiny_model_dir, broken_lmdb, tmp_path, capsys, workers):
    loader = {"batch_size_per_gpu": 4, "workers_per_gpu": workers}
    training = prepare(
        tiny_model_dir,
        broken_lmdb,
        tmp_path / "work",
        [broken_lmdb],
        on_bad_sample="skip",
        max_epochs=1,
        dataloader=loader,
    )
    summary = training.run()
    assert summary["lines"] == 7
    told = capsys.readouterr().err
    entries = [json.loads(line) for line in (tmp_path / "work" / "train_log.jsonl").read_text().splitlines()]
    logged = sorted(entry["left_out"] for entry in entries if "left_out" in entry)
    assert len(logged) == 3
    training.epoch = 0
    of_batch = {f"image-{index + 1:09d}": n for n, batch in enumerate(training.batches(), 1) for index in batch}
    for entry in entries:
        if "left_out" in entry:
            key = entry["left_out"].replace("label-", "image-")
            assert [n for name, n in of_batch.items() if name in key] == [entry["iter"]]
    for key in ("image-000000003", "label-000000006", "image-000000008"):
        assert sum(key in reason for reason in logged) == 1 and told.count(key) == 2  # training and evaluation


def test_a_worker_that_meets_a_broken_record_names_it(tiny_model_dir, broken_lmdb, tmp_path):
    training = prepare(
        tiny_model_dir,
        broken_lmdb,
        tmp_path / "work",
        on_bad_sample="skip",
        dataloader={"batch_size_per_gpu": 4, "workers_per_gpu": 1},
    )
    training.dataset.on_bad_sample = "error"
    with pytest.raises(LmdbError, match="-00000000[368]"):
        training.run()


def test_a_batch_of_broken_records_alone_teaches_nothing(tiny_model_dir, broken_lmdb, tmp_path):
    """One line a batch: seven steps teach, three are empty, the log stays JSON."""
    training = prepare(
        tiny_model_dir,
        broken_lmdb,
        tmp_path / "work",
        on_bad_sample="skip",
        max_epochs=1,
        dataloader={"batch_size_per_gpu": 1},
        logging={"interval": 1},
    )
    training.run()

    def refuse(constant: str):
        raise AssertionError(constant)

    lines = (tmp_path / "work" / "train_log.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in (json.loads(line, parse_constant=refuse) for line in lines) if "loss" in entry]
    assert len(losses) == 10 and losses.count(None) == 3
    weights = read_weights_file(tmp_path / "work" / "epoch_1.pth")
    assert all(value.isfinite().all() for value in weights.values())
