"""What users do with what `local_lmdb=` gives, as with a `datasets.Dataset`; and training straight from data sets."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import png, random_texts, render
from modelscope.metainfo import Trainers
from modelscope.msdatasets import MsDataset
from modelscope.trainers import build_trainer
from PIL import Image

from ms_ocr_handwritten.data.reader import line_reader
from ms_ocr_handwritten.errors import ConfigurationError, DataError, LmdbError
from ms_ocr_handwritten.lmdb.store import write_lmdb

TEXTS = [f"line{number}" for number in range(10)]


@pytest.fixture
def lines(tmp_path) -> MsDataset:
    """Ten lines of two LMDBs."""
    for name, texts in (("a", TEXTS[:6]), ("b", TEXTS[6:])):
        write_lmdb(tmp_path / name, [(text.encode() + b" image", text) for text in texts])
    return MsDataset.load("any", local_lmdb=[str(tmp_path / "a"), str(tmp_path / "b")])


def labels(dataset) -> list[str]:
    assert [record["image"] for record in dataset] == [label.encode() + b" image" for label in dataset["label"]]
    return dataset["label"]


def test_slices_lists_and_columns_give_lists_as_in_datasets(lines):
    plain = datasets.Dataset.from_dict({"image": [t.encode() + b" image" for t in TEXTS], "label": TEXTS})
    for key in (slice(2, 8, 3), slice(-3, None), [7, 0, -1], slice(5, 5)):
        assert lines[key] == plain[key]
    assert lines["label"] == list(plain["label"]) and lines[-1] == plain[-1] and lines[6] == plain[6]
    with pytest.raises(KeyError, match="text: no such column; available: image, label"):
        lines["text"]


def test_select_and_shuffle(lines):
    chosen = lines.select([7, 5, 5])
    assert labels(chosen) == ["line7", "line5", "line5"] and labels(chosen.select(range(1, 3))) == ["line5", "line5"]
    assert labels(lines) == TEXTS  # it stays as it was
    drawn = labels(lines.shuffle(seed=1))
    assert sorted(drawn) == TEXTS != drawn == labels(lines.shuffle(seed=1)) != labels(lines.shuffle(seed=2))
    with pytest.raises(IndexError):
        lines.select([10])


@pytest.mark.parametrize(
    "sizes", [{}, {"test_size": 0.2}, {"test_size": 3}, {"train_size": 0.55}, {"train_size": 2, "test_size": 0.15}]
)
def test_splits_have_the_sizes_of_datasets(lines, sizes):
    parts = lines.train_test_split(**sizes, seed=3)
    theirs = datasets.Dataset.from_dict({"label": TEXTS}).train_test_split(**sizes, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {name: len(part) for name, part in theirs.items()}
    assert not set(labels(parts["train"])) & set(labels(parts["test"]))
    in_order = lines.train_test_split(**sizes, shuffle=False)
    assert labels(in_order["train"]) == TEXTS[: len(in_order["train"])]


def test_a_split_that_leaves_nothing_is_refused(lines):
    with pytest.raises(ConfigurationError, match="train_size=None, test_size=10 of 10 lines are 0 and 10"):
        lines.train_test_split(test_size=10)


def test_a_record_of_a_selection_that_cannot_be_read_is_named_by_its_own_key(tmp_path):
    write_lmdb(tmp_path / "a", [(b"x", "a"), (b"x", "b")])
    selection = MsDataset.load("any", local_lmdb=str(tmp_path / "a")).select([1])
    reader = selection.line_readers()[0]
    assert reader.key(0) == f"{tmp_path / 'a'} image-000000002"
    assert reader.path.startswith(f"{tmp_path / 'a'} (1 lines, ")


def test_as_a_data_set_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_lmdb(tmp_path / "a", [(png(render(text)), text) for text in TEXTS[:2]])
    copied = MsDataset.load("any", local_lmdb=str(tmp_path / "a")).to_hf_dataset()
    assert copied["label"][:] == TEXTS[:2] and copied[0]["image"].size == render(TEXTS[0]).shape[1::-1]


# ---------------------------------------------------------------------- training


def hugging_face(texts: list[str], text_column: str = "text") -> datasets.Dataset:
    pictures = [Image.fromarray(np.ascontiguousarray(render(text)[:, :, ::-1])) for text in texts]
    return datasets.Dataset.from_dict({"image": pictures, text_column: texts}).cast_column("image", datasets.Image())


def losses(model_dir: Path, work_dir: Path, **data_sets) -> list[float]:
    """The losses that a short training writes down."""
    trainer = build_trainer(
        name=Trainers.ocr_recognition,
        default_args={
            "model": str(model_dir),
            "work_dir": str(work_dir),
            "cfg_options": {
                "train.dataloader.workers_per_gpu": 0,
                "train.logging.interval": 1,
                "train.precision": "fp32",
            },
            "max_epochs": 1,
            **data_sets,
        },
    )
    trainer.train()
    rows = [json.loads(line) for line in (work_dir / "train_log.jsonl").read_text().splitlines()]
    return [value for row in rows for key, value in sorted(row.items()) if key in ("loss", "avg_loss", "CER")]


def test_training_from_a_data_set_learns_what_its_lmdb_would_teach(tiny_model_dir, tmp_path):
    texts = random_texts(12, 4)
    write_lmdb(tmp_path / "lines", [(png(render(text)), text) for text in texts])
    paths = {"train_dataset": str(tmp_path / "lines"), "eval_dataset": str(tmp_path / "lines")}
    sets = {
        "train_dataset": MsDataset(hugging_face(texts)),
        "eval_dataset": [hugging_face(texts[:6], "label"), hugging_face(texts[6:], "sentence")],
    }
    of_lmdb, of_sets = (losses(tiny_model_dir, tmp_path / name, **data) for name, data in (("a", paths), ("b", sets)))
    assert len(of_lmdb) >= 2 and of_sets == of_lmdb


def test_training_from_a_selection(tiny_model_dir, tmp_path):
    texts = random_texts(12, 4)
    write_lmdb(tmp_path / "lines", [(png(render(text)), text) for text in texts])
    write_lmdb(tmp_path / "last", [(png(render(text)), text) for text in texts[6:]])
    whole = MsDataset.load("any", local_lmdb=str(tmp_path / "lines"))
    of_lmdb = losses(tiny_model_dir, tmp_path / "a", train_dataset=str(tmp_path / "last"))
    assert losses(tiny_model_dir, tmp_path / "b", train_dataset=whole.select(range(6, 12))) == of_lmdb


def test_data_sets_are_told_apart_and_their_bad_rows_named(tiny_model_dir, tmp_path):
    good, bad = (
        line_reader(hugging_face(["a"])),
        line_reader(datasets.Dataset.from_dict({"image": [b"x"], "text": ["a"]})),
    )
    assert good.path != line_reader(hugging_face(["b"])).path
    with pytest.raises(
        LmdbError, match=rf"{bad.path}: row 0: .*not a readable image.*; correct the record, or set train.on_bad_sample"
    ):
        losses(
            tiny_model_dir,
            tmp_path / "work",
            train_dataset=datasets.Dataset.from_dict({"image": [b"x"], "text": ["a"]}),
        )
    with pytest.raises(DataError, match="which column holds the text.*rename it to text"):
        line_reader(hugging_face(["a"], "what"))
