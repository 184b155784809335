"""Data sets as their own libraries write them: Hugging Face `datasets`, pandas, webdataset, lmdb, and IAM's files."""

import io
import json
import os
import tarfile
from pathlib import Path

import datasets
import lmdb
import numpy as np
import pandas
import pytest
from conftest import noise, png
from PIL import Image

from ms_ocr_handwritten.data.formats import find_format
from ms_ocr_handwritten.data.record import Columns
from ms_ocr_handwritten.data.rows import DatasetReader
from ms_ocr_handwritten.errors import DataError
from ms_ocr_handwritten.lmdb.build import BuildOptions, BuildReport, ReadOptions, build_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader

PICTURES = [noise(20, 60 + number, seed=number) for number in range(3)]  # BGR
FILES = [png(picture) for picture in PICTURES]
TEXTS = ["第一", "two  ", "3"]
WRITERS = ["w1", "w1", "w2"]


def pillow(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))


def built(tmp_path: Path, source, form: str = "", **read) -> tuple[list[tuple[bytes, str]], BuildReport, LmdbReader]:
    options = BuildOptions(form=form, read=ReadOptions(**read))
    report = build_lmdb(tmp_path / "out", source, on_bad_sample="skip", options=options)
    reader = LmdbReader(tmp_path / "out")
    return [reader.read(index) for index in range(len(reader))], report, reader


def pixels(image: bytes) -> np.ndarray:
    """BGR uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(image)).convert("RGB"))[:, :, ::-1]


def hugging_face(**columns) -> datasets.Dataset:
    rows = {"image": [pillow(picture) for picture in PICTURES], "text": TEXTS, "writer": WRITERS} | columns
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


# ---------------------------------------------------------------------- datasets


def test_a_data_set_saved_to_disk(tmp_path):
    hugging_face().save_to_disk(tmp_path / "saved")
    assert find_format(tmp_path / "saved") == ("datasets", tmp_path / "saved")
    samples, report, reader = built(tmp_path, tmp_path / "saved")
    assert [label for _, label in samples] == TEXTS and report.skipped == ()
    assert all(np.array_equal(pixels(image), picture) for (image, _), picture in zip(samples, PICTURES))
    assert [reader.beside(index, "writer") for index in range(3)] == WRITERS


def test_a_data_set_in_memory_with_other_columns_classes_and_gaps(tmp_path):
    features = datasets.Features({"scan": datasets.Image(), "word": datasets.ClassLabel(names=["zero", "one"])})
    rows = {"scan": [pillow(PICTURES[0]), None, pillow(PICTURES[2])], "word": [1, 0, None]}
    dataset = datasets.Dataset.from_dict(rows, features)
    samples, report, _ = built(tmp_path, dataset, columns=Columns(image="scan", text="word"))
    assert [label for _, label in samples] == ["one"]
    assert [one.where for one in report.skipped] == ["data set of 3 rows: row 1", "data set of 3 rows: row 2"]
    assert "an image as NoneType is not read" in report.skipped[0].reason
    assert "the column word is empty (null), not a text" in report.skipped[1].reason


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    with pytest.raises(DataError, match="no column 'scan'; available: image, text, writer"):
        built(tmp_path, hugging_face(), columns=Columns(image="scan"))
    renamed = hugging_face().rename_column("text", "what")
    with pytest.raises(
        DataError,
        match=r"which column holds the text\? Available: image, .*what.*; rename it to text, or name it \(--text-col",
    ):
        built(tmp_path, renamed)


def test_one_of_several_subsets_is_asked_for(tmp_path):
    both = datasets.DatasetDict({"train": hugging_face(), "test": hugging_face().select([2])})
    both.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"which is meant\? These are there: train, test; name one \(--subset\)"):
        built(tmp_path, tmp_path / "saved")
    assert [label for _, label in built(tmp_path, tmp_path / "saved", subset="test")[0]] == ["3"]


def test_an_id_of_the_cache_needs_no_network(tmp_path, monkeypatch, blocked_network):
    """The cache as `datasets` lays it out for owner/name; what is not there says so, without waiting."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    hugging_face().to_parquet(tmp_path / "lines.parquet")
    prepared = datasets.load_dataset_builder("parquet", data_files=str(tmp_path / "lines.parquet"))
    folder = tmp_path / "cache" / "me___lines" / "default" / "0.0.0" / ("0" * 40)
    prepared.download_and_prepare(folder)
    (folder / "parquet-train.arrow").rename(folder / "lines-train.arrow")
    blocked_network.clear()  # the library counts who loads what
    assert [label for _, label in built(tmp_path, "me/lines", form="datasets", subset="train")[0]] == TEXTS
    assert blocked_network == []
    with pytest.raises(DataError, match="me/other: neither a data set saved to disk nor one in the cache"):
        build_lmdb(tmp_path / "other", "me/other", options=BuildOptions(form="datasets"))


def test_modelscopes_data_set(tmp_path):
    from modelscope.msdatasets import MsDataset

    samples, _, _ = built(tmp_path, MsDataset(hugging_face()))
    assert [label for _, label in samples] == TEXTS


def test_a_streamed_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="IterableDataset: .* load it without streaming"):
        built(tmp_path, hugging_face().to_iterable_dataset())


# ---------------------------------------------------------------------- Parquet, WebDataset


def test_parquet_of_pandas_and_of_datasets(tmp_path):
    (tmp_path / "in").mkdir()
    pandas.DataFrame({"image": FILES, "label": TEXTS}).to_parquet(tmp_path / "in" / "a.parquet")
    hugging_face().to_parquet(tmp_path / "in" / "b.parquet")
    whole = (tmp_path / "in" / "a.parquet").read_bytes()
    (tmp_path / "in" / "c.parquet").write_bytes(whole[:-20])
    assert find_format(tmp_path / "in") == ("parquet", tmp_path / "in")
    samples, report, _ = built(tmp_path, tmp_path / "in")
    assert [label for _, label in samples] == TEXTS * 2 and [image for image, _ in samples[:3]] == FILES
    assert all(np.array_equal(pixels(image), picture) for (image, _), picture in zip(samples[3:], PICTURES))
    assert "c.parquet: not a Parquet file, or a damaged one" in report.skipped[0].reason
    counted = []
    build_lmdb(tmp_path / "b", tmp_path / "in", None, "skip", lambda *call: counted.append(call))
    assert counted[0] == (1, 6) and counted[-1] == (7, 7)  # a file that cannot be counted is found when it is read


def test_webdataset_as_its_own_writer_writes_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "in").mkdir()
    for shard, numbers in (("00.tar", [0, 1]), ("01.tar.gz", [2])):
        with webdataset.TarWriter(str(tmp_path / "in" / shard)) as writer:
            for number in numbers:
                sample = {"__key__": f"a/{number:04d}", "png": FILES[number], "txt": TEXTS[number]}
                writer.write(sample | ({"json": {"writer": "w2"}} if number else {}))
    assert find_format(tmp_path / "in") == ("webdataset", tmp_path / "in")
    samples, report, reader = built(tmp_path, tmp_path / "in")
    assert samples == list(zip(FILES, TEXTS)) and report.skipped == ()
    assert [reader.beside(index, "writer") for index in range(3)] == ["", "w2", "w2"]
    assert reader.beside(2, "source") == "01.tar.gz/a/0002"


def test_pictures_with_a_text_file_each_are_packed_in_order(tmp_path):
    """As kraken's and Tesseract's training has them; unpacked, or packed in the order of the disk, they are refused."""
    for number, image in enumerate(FILES):
        (tmp_path / f"{number}.png").write_bytes(image)
        (tmp_path / f"{number}.gt.txt").write_text(TEXTS[number] + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="images with a text file each are packed into a tar first"):
        find_format(tmp_path)
    for name, order in (("x.tar", sorted(tmp_path.iterdir())), ("y.tar", sorted(tmp_path.glob("*.png")))):
        with tarfile.open(tmp_path / name, "w") as archive:
            for file in order:
                archive.add(file, f"./{file.name}")
    samples, report, _ = built(tmp_path, tmp_path / "x.tar")
    assert samples == list(zip(FILES, TEXTS)) and report.skipped == ()
    os.rename(tmp_path / "out", tmp_path / "first")
    with pytest.raises(DataError, match="no text among .png; .* follow each other: pack with `tar --sort=name`"):
        built(tmp_path, tmp_path / "y.tar")


def test_a_shard_that_is_cut_off_keeps_its_first_samples(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number, image in enumerate(FILES):
            for name, content in (
                (f"{number}.png", image),
                (f"{number}.json", json.dumps({"text": TEXTS[number]}).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("alone.png"))
        end = archive.offset
    whole = (tmp_path / "x.tar").read_bytes()
    samples, report, _ = built(tmp_path, tmp_path / "x.tar")
    assert samples == list(zip(FILES, TEXTS)) and "alone: no text among .png" in report.skipped[0].reason
    os.rename(tmp_path / "out", tmp_path / "first")
    (tmp_path / "x.tar").write_bytes(whole[: end - 2500])
    samples, report, _ = built(tmp_path, tmp_path / "x.tar")
    assert samples == list(zip(FILES, TEXTS))[:2]
    assert "x.tar: truncated or damaged after" in report.skipped[0].reason


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_member_that_is_too_large_costs_its_own_sample_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("ms_ocr_handwritten.data.webdataset._LARGEST", 100_000)
    large = bytes(100_001)
    samples, report, _ = built(
        tmp_path,
        shard(
            tmp_path / "x.tar",
            *(("0.npy", large), ("0.png", FILES[0]), ("0.txt", b"a")),
            *(("1.png", large), ("1.txt", b"b")),
            *(("2.png", FILES[2]), ("2.txt", b"c")),
        ),
    )
    assert samples == [(FILES[0], "a"), (FILES[2], "c")]
    assert [one.reason for one in report.skipped] == [
        f"{tmp_path / 'x.tar'}: 1.png has 100001 bytes, over the limit of 100000; make it smaller"
    ]


def test_null_is_no_text_and_nesting_without_end_no_crash(tmp_path):
    deep = b'{"text": ' + 100_000 * b"["
    samples, report, reader = built(
        tmp_path,
        shard(
            tmp_path / "x.tar",
            *(("0.png", FILES[0]), ("0.json", b'{"text": null}')),
            *(("1.png", FILES[1]), ("1.json", b'{"text": "b", "writer": null}')),
            *(("2.png", FILES[2]), ("2.json", deep)),
        ),
    )
    assert samples == [(FILES[1], "b")] and reader.beside(0, "writer") == ""
    assert "0: no text among .png, .json" in report.skipped[0].reason
    assert "2: its text is not UTF-8, or its .json is not JSON" in report.skipped[1].reason


# ---------------------------------------------------------------------- LMDBs of others, IAM


def test_an_lmdb_of_deep_text_recognition_benchmark_or_paddleocr(tmp_path):
    """As create_lmdb_dataset.py writes it: records counted from 1, labels as they are, num-samples last."""
    with (
        lmdb.open(str(tmp_path / "theirs"), map_size=2**20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number, (image, text) in enumerate(zip(FILES, ["Ab，c", "", "ＡＢ"]), start=1):
            transaction.put(b"image-%09d" % number, image)
            transaction.put(b"label-%09d" % number, text.encode())
        transaction.put(b"num-samples", b"3")
    assert find_format(tmp_path / "theirs") == ("lmdb", tmp_path / "theirs")
    samples, report, reader = built(tmp_path, tmp_path / "theirs")
    assert samples == [(FILES[0], "Ab，c"), (FILES[2], "ＡＢ")]  # neither lower case nor half-width
    assert report.skipped[0].where == f"{tmp_path / 'theirs'} image-000000002"
    assert reader.beside(1, "source") == "theirs/image-000000003"


IAM_LINES = """#--- lines.txt ---------------------------------------------------------------#
# iam database line information
a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to|stop|Mr.|Gaitskell|from
a01-000u-01 err 156 19 395 932 1850 105 nominating|any|more|"|Labour
a01-000x-00 ok 156
a02-000-00 ok 156 19 1 1 1 1 lost
"""


def iam(tmp_path: Path) -> Path:
    root = tmp_path / "iam"
    folder = root / "lines" / "a01" / "a01-000u"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"a01-000u-{number:02d}.png").write_bytes(FILES[number])
    return root


def test_iam_by_its_text_files(tmp_path):
    root = iam(tmp_path)
    (root / "ascii").mkdir()
    (root / "ascii" / "lines.txt").write_text(IAM_LINES)
    (root / "ascii" / "forms.txt").write_text("# form writer ...\na01-000u 000 2 prt 7 5 52 36\n")
    assert find_format(root) == ("iam", root)
    samples, report, reader = built(tmp_path, root)
    assert samples == list(zip(FILES, ["A MOVE to stop Mr. Gaitskell from", 'nominating any more " Labour']))
    assert [reader.beside(1, kind) for kind in ("writer", "page")] == ["000", "a01-000u"]
    assert [one.where.rpartition(":")[2] for one in report.skipped] == ["5", "6"]
    assert "expected 9, the words last" in report.skipped[0].reason and "no a02-000-00.png" in report.skipped[1].reason


def test_iam_by_its_forms(tmp_path):
    root = iam(tmp_path)
    (root / "xml").mkdir()
    lines = '<line id="a01-000u-00" text="A &quot;MOVE&quot;"/><line id="a01-000u-01" text="two"/>'
    form = f'<form id="a01-000u" writer-id="042"><handwritten-part>{lines}</handwritten-part></form>'
    (root / "xml" / "a01-000u.xml").write_text(form)
    (root / "xml" / "a01-003.xml").write_text("<form ")
    assert find_format(root) == ("iam", root)
    samples, report, reader = built(tmp_path, root)
    assert samples == list(zip(FILES, ['A "MOVE"', "two"])) and reader.beside(0, "writer") == "042"
    assert "a01-003.xml: not well-formed XML" in report.skipped[0].reason


# ---------------------------------------------------------------------- detection


def test_what_is_not_known_or_not_one_thing_is_said(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a.docx: of no known format; name it \(--from table\|casia\|"):
        find_format(tmp_path / "a.docx")
    with pytest.raises(DataError, match="the folder holds no file of a known format"):
        find_format(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        find_format(tmp_path / "nowhere")
    (tmp_path / "x.parquet").write_bytes(b"x")
    (tmp_path / "x.gnt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"several data sets: .* \(casia\), .* \(parquet\); name one"):
        find_format(tmp_path)
    with pytest.raises(DataError, match="--from docx: not a known format; give one of table, casia"):
        build_lmdb(tmp_path / "out", tmp_path, options=BuildOptions(form="docx"))


# ---------------------------------------------------------------------- read at random


def test_a_reader_at_random_gives_what_an_lmdb_of_it_gives(tmp_path):
    import pickle

    reader = pickle.loads(pickle.dumps(DatasetReader(hugging_face())))
    samples, _, _ = built(tmp_path, hugging_face())
    assert len(reader) == 3 and reader.key(1) == f"{reader.path}: row 1"
    assert [(reader.image_bytes(index), reader.label(index)) for index in range(3)] == samples
