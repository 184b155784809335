"""`ReadLines` in the engines that it is for, which are real here: datasets, Ray Data, a pool; against `read_many`."""

import io
import json
import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, encoded, make_model_dir, png, random_texts, render, weaken_positions
from datasets.fingerprint import Hasher
from PIL import Image

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.bulk import ReadLines
from ms_ocr_handwritten.errors import BackendError, ConfigurationError, ImageError

BAD = 5  # the row that holds no image


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Random weights that read different lines differently."""
    return weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    lines = [png(render(text)) for text in random_texts(40, 9)]
    return [*lines[:BAD], b"no image", *lines[BAD:]]


@pytest.fixture(scope="module")
def expected(model, images) -> list[dict]:
    """What `read_many` says of each image, as rows."""
    rows = []
    for line in Recognizer.from_pretrained(model, "torch", "fp32").read_many(images, errors="yield"):
        if isinstance(line, ImageError):
            rows.append({"text": "", "score": 0.0, "chars": [], "error": str(line).removeprefix(f"image {BAD}: ")})
        else:
            chars = [vars(char) for char in line.chars]
            rows.append({"text": line.text, "score": line.score, "chars": chars, "error": ""})
    assert len({row["text"] for row in rows}) > 20
    assert rows[BAD]["error"].startswith("8 encoded bytes: not a readable image")
    return rows


def reader(model: Path, **options) -> ReadLines:
    return ReadLines(model, backend="torch", precision="fp32", **options)


def rows_of(columns: dict) -> list[dict]:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def check(rows: list[dict], expected: list[dict]) -> None:
    """The same text and errors; numbers as near as another number of lines in a batch allows."""
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected):
        assert (row["text"], row["error"]) == (wanted["text"], wanted["error"])
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-5)
        assert [char["character"] for char in row["chars"]] == [char["character"] for char in wanted["chars"]]
        for char, other in zip(row["chars"], wanted["chars"]):
            assert [char[key] for key in ("x0", "x1")] == pytest.approx([other[key] for key in ("x0", "x1")])
            assert char["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_batch_in_a_dict_keeps_its_columns(model, images, expected):
    batch = {"id": list(range(41)), "image": images}
    read = reader(model)(batch)
    assert list(read) == ["id", "image", "text", "score", "chars", "error"]
    assert read["id"] is batch["id"] and read["image"] is images and list(batch) == ["id", "image"]
    check(rows_of(read), expected)


def test_images_of_every_kind(model, images, expected, tmp_path):
    (tmp_path / "line.png").write_bytes(images[0])
    picture = Image.open(io.BytesIO(images[0]))
    bgr = render(random_texts(40, 9)[0])
    kinds = [str(tmp_path / "line.png"), {"bytes": None, "path": str(tmp_path / "line.png")}, picture, bgr,
             bgr.tolist(), {"bytes": images[0], "path": "gone.png"}]  # fmt: skip
    column = np.empty(len(kinds) + 3, object)  # as Ray's batches hold what is no number
    column[:] = [*kinds, None, [[1], [2, 3]], 7]
    read = reader(model)({"image": column})
    assert read["text"] == [expected[0]["text"]] * len(kinds) + [""] * 3
    assert [bool(error) for error in read["error"]] == [False] * len(kinds) + [True] * 3


def test_rgb_arrays_read_as_their_files(model):
    """Red ink on cyan paper is dark on light one way round alone."""
    rgb = np.where(render("a1b2") < 128, np.uint8([255, 0, 0]), np.uint8([0, 255, 255]))
    stored = encoded(Image.fromarray(rgb))
    wanted = reader(model)({"image": [stored]})["score"]
    assert reader(model, rgb=True)({"image": [rgb]})["score"] == wanted
    assert reader(model)({"image": [rgb]})["score"] != wanted


def test_a_table_is_given_columns_of_certain_types(model, images, expected):
    table = pa.table({"image": images, "id": range(41)})
    read = reader(model)(table)
    check(read.to_pylist(), expected)
    assert read.select(["image", "id"]) == table
    nothing = reader(model)(pa.table({"image": [b"no image"], "id": [1]}))
    assert nothing.schema == read.schema
    assert nothing.drop_columns(["image", "id"]).to_pylist()[0].keys() == expected[0].keys()
    empty = reader(model)(table.slice(0, 0))
    assert empty.schema == read.schema and empty.num_rows == 0


def test_alternatives_are_a_column_where_they_are_asked_for(model, images):
    read = reader(model, n_best=2, allowed=["ab", "1"])({"image": images[BAD : BAD + 2]})
    (line,) = Recognizer.from_pretrained(model, "torch", "fp32").read_many([images[BAD + 1]], n_best=2, allowed="ab1")
    assert [[(one["text"], pytest.approx(one["log_probability"])) for one in row] for row in read["alternatives"]] == [
        [],
        list(line.alternatives),
    ]
    assert len(line.alternatives) == 2


def test_what_is_amiss_with_all_rows_is_said(model, images):
    with pytest.raises(ConfigurationError, match=r"no column 'image'; available: id, png; .*ReadLines\(image=\)"):
        reader(model)({"id": [1], "png": images[:1]})
    labelled = {"image": images[:1], "text": ["as written"]}
    with pytest.raises(ConfigurationError, match=r"the rows hold text already; .*ReadLines\(prefix=\)"):
        reader(model)(labelled)
    assert list(reader(model, prefix="read_")(labelled)) == [
        *labelled, "read_text", "read_score", "read_chars", "read_error"
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="a batch of rows is list; .*batched=True"):
        reader(model)(images)
    with pytest.raises(BackendError, match="backend is 'tf'"):
        ReadLines(model, backend="tf")({"image": images})


def test_it_is_pickled_by_its_arguments(model, images):
    one = reader(model, lexicon=["ab", "12"])
    one({"image": images[:1]})
    assert len(pickle.dumps(one)) < 2000 and pickle.loads(pickle.dumps(one)) == one
    assert Hasher.hash(one) == Hasher.hash(reader(model, lexicon=iter(["ab", "12"])))


def test_other_weights_are_another_reader(model, images, tmp_path):
    """So that neither the cache of `datasets` nor that of the process gives what the former weights read."""
    folder = make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK)
    before = reader(folder)
    first = before({"image": images[:1]})["score"]
    (folder / "pytorch_model.pt").write_bytes((model / "pytorch_model.pt").read_bytes())
    after = reader(folder)
    assert Hasher.hash(before) != Hasher.hash(after)
    assert after({"image": images[:1]})["score"] == reader(model)({"image": images[:1]})["score"] != first


def test_another_lexicon_or_language_model_is_another_reader(model, tmp_path):
    """Under the same name: what counts is what the files hold."""
    lexicon, language_model = tmp_path / "words.txt", tmp_path / "lm.arpa"
    folder = make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK)
    raw = json.loads((folder / "configuration.json").read_text()) | {"decoder": {"language_model": "own.arpa"}}
    (folder / "configuration.json").write_text(json.dumps(raw))
    hashes = set()
    for path in (lexicon, language_model, tmp_path / "lm.arpa.json", folder / "own.arpa"):
        for content in ("one", "two"):
            path.write_text(content)
            hashes.add(Hasher.hash(reader(folder, lexicon=str(lexicon), language_model=language_model)))
            again = Hasher.hash(reader(folder, lexicon=str(lexicon), language_model=language_model))
            assert again in hashes
    assert len(hashes) == 8


# ---------------------------------------------------------------------- engines


def test_datasets_map_in_two_processes(model, images, expected, tmp_path):
    rows = {"image": [{"bytes": one, "path": None} for one in images], "id": list(range(41))}
    features = datasets.Features(image=datasets.Image(), id=datasets.Value("int64"))
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "data")
    data = datasets.load_from_disk(tmp_path / "data")
    read = data.map(reader(model), batched=True, batch_size=7, num_proc=2)
    check(read.remove_columns(["image", "id"]).to_list(), expected)
    assert read.features["image"] == datasets.Image() and read["id"] == rows["id"]
    assert read.cast_column("image", datasets.Image(decode=False))["image"][:] == rows["image"]  # as they were stored
    alone = data.with_format("arrow").map(reader(model), batched=True, batch_size=7, remove_columns=["id"])
    check(alone.with_format(None).select_columns(list(expected[0])).to_list(), expected)
    only = data.select(range(8)).map(reader(model), batched=True, remove_columns=data.column_names)
    assert only.column_names == list(expected[0])


def test_a_spawned_pool(model, images, expected):
    batches = [{"image": images[start : start + 10]} for start in range(0, 41, 10)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        read = list(pool.imap(reader(model), batches))
        threads = pool.apply(torch.get_num_threads)
    check([row for batch in read for row in rows_of(batch)], expected)
    assert threads == 1 or os.cpu_count() == 1


def test_ray_reads_the_rows_of_a_killed_actor_again(model, images, expected, tmp_path):
    ray_data = pytest.importorskip("ray.data", reason="ray is not installed (extra `bulk`)")
    import ray

    marker = str(tmp_path / "killed")

    class Mortal(ReadLines):
        """Its process is killed once, after it has read a batch and before anybody is given it."""

        def __call__(self, batch):
            read = super().__call__(batch)
            if 20 in batch["id"]:
                try:
                    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return read
                os.kill(os.getpid(), signal.SIGKILL)
            return {**read, "process": np.full(len(batch["id"]), os.getpid())}

    ray.init(
        num_cpus=3,  # two for the actors, and one for what feeds them
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _system_config={"worker_niceness": 0},  # else this waits for all else that the machine does
    )
    try:
        ray_data.DataContext.get_current().enable_progress_bars = False
        rows = [{"id": index, "image": image} for index, image in enumerate(images)]
        data = ray_data.from_items(rows, override_num_blocks=6).map_batches(
            Mortal,
            fn_constructor_kwargs={"model": str(model), "backend": "torch", "precision": "fp32"},
            batch_size=4,
            concurrency=2,
            num_cpus=1,
        )
        rows = data.take_all()
    finally:
        ray.shutdown()
    assert os.path.exists(marker)
    assert sorted(row["id"] for row in rows) == list(range(41))
    rows.sort(key=lambda row: row["id"])
    assert [row["image"] for row in rows] == images
    check(rows, expected)
    assert len({row["process"] for row in rows}) >= 2
