"""Two LMDBs of one, so that no writer is in both; and the way back to files."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import lmdb
import numpy as np
import pytest
from conftest import noise, png
from test_cli_lmdb import ms_ocr

from ms_ocr_handwritten.errors import DataError, LmdbError, OutputError
from ms_ocr_handwritten.lmdb.build import build_lmdb
from ms_ocr_handwritten.lmdb.export import export_lmdb
from ms_ocr_handwritten.lmdb.report import describe_lmdb, html_page
from ms_ocr_handwritten.lmdb.split import split_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb

WRITERS = {"w0": 10, "w1": 5, "w2": 3, "w3": 2}


@pytest.fixture
def lines(tmp_path) -> Path:
    """Twenty lines of four writers, in two folders."""
    rows, number = ["file\ttext\twriter"], 0
    for writer, count in WRITERS.items():
        folder = tmp_path / ("train" if writer < "w2" else "test")
        folder.mkdir(exist_ok=True)
        for _ in range(count):
            (folder / f"{number}.png").write_bytes(png(noise(20, 40, seed=number)))
            rows.append(f"{folder.name}/{number}.png\t{number}\t{writer}")
            number += 1
    (tmp_path / "labels.tsv").write_text("\n".join(rows) + "\n")
    build_lmdb(tmp_path / "lines", tmp_path / "labels.tsv")
    return tmp_path / "lines"


def labels(path: str | Path) -> list[int]:
    reader = LmdbReader(path)
    return [int(reader.label(index)) for index in range(len(reader))]


def groups(path: str | Path, kind: str) -> set[str]:
    reader = LmdbReader(path)
    return {reader.beside(index, kind) for index in range(len(reader))}


def test_lines_are_drawn_by_the_seed_and_none_is_lost(lines, tmp_path):
    split = split_lmdb(lines, 0.8, seed=1)
    train, held_out = labels(split.train.path), labels(split.held_out.path)
    assert (len(train), len(held_out)) == (split.train.samples, split.held_out.samples) == (16, 4)
    assert sorted(train + held_out) == list(range(20)) and held_out != [16, 17, 18, 19]
    assert (split.train.path, split.held_out.path) == (f"{lines}_train", f"{lines}_held_out")
    again = split_lmdb(lines, 0.8, seed=1, train=tmp_path / "a", held_out=tmp_path / "b")
    other = split_lmdb(lines, 0.8, seed=2, train=tmp_path / "c", held_out=tmp_path / "d")
    assert labels(again.held_out.path) == held_out != labels(other.held_out.path)
    assert LmdbReader(lines).read(train[3]) == LmdbReader(split.train.path).read(3)


def test_by_key_the_last_are_held_out(lines):
    assert labels(split_lmdb(lines, 0.85, "key").held_out.path) == [17, 18, 19]


@pytest.mark.parametrize("seed", range(5))
def test_no_writer_is_in_both_and_the_share_is_as_near_as_they_allow(lines, seed):
    split = split_lmdb(lines, 0.75, "writer", seed)
    train, held_out = groups(split.train.path, "writer"), groups(split.held_out.path, "writer")
    assert train | held_out == set(WRITERS) and not train & held_out
    assert (split.train.groups, split.held_out.groups) == (len(train), len(held_out))
    assert 3 <= split.held_out.samples <= 7


def test_by_folder_and_by_whatever_group_is_known(lines, tmp_path):
    split = split_lmdb(lines, 0.75, "folder")
    assert labels(split.held_out.path) == [15, 16, 17, 18, 19]
    assert split_lmdb(lines, 0.75, "group", train=tmp_path / "a", held_out=tmp_path / "b").by == "writer"


def test_what_cannot_be_split_so_says_why(lines, tmp_path):
    with pytest.raises(DataError, match="20 of 20 samples have no page, the first is .*image-000000001; split"):
        split_lmdb(lines, by="page")
    write_lmdb(tmp_path / "bare", [(b"x", "1"), (b"y", "2")])
    with pytest.raises(DataError, match="its samples tell no writers, pages or folders apart; split by line"):
        split_lmdb(tmp_path / "bare", by="group")
    least = split_lmdb(tmp_path / "bare", 0.01)
    assert (least.train.samples, least.held_out.samples) == (1, 1)
    with pytest.raises(LmdbError, match="lines_train: exists already"):
        os.mkdir(f"{lines}_train")
        split_lmdb(lines)
    with pytest.raises(ValueError, match="share is 1; give a number between 0 and 1"):
        split_lmdb(lines, 1)


def test_a_record_that_cannot_be_read_ends_no_split(lines):
    with lmdb.open(str(lines), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"image-000000003")
    split = split_lmdb(lines, 0.8)
    skipped = split.train.skipped + split.held_out.skipped
    assert [one.where for one in skipped] == [f"{lines} image-000000003"]
    assert sorted(labels(split.train.path) + labels(split.held_out.path)) == [n for n in range(20) if n != 2]


def test_build_splits_in_one_command(lines, tmp_path):
    result = ms_ocr("lmdb", "build", tmp_path / "new", tmp_path / "labels.tsv", "--split", 0.75, "--split-by", "folder")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        f"{tmp_path / 'new'}_train: 15 samples of 1 folder",
        f"{tmp_path / 'new'}_held_out: 5 samples of 1 folder",
    ]
    refused = ms_ocr("lmdb", "build", tmp_path / "new", tmp_path / "labels.tsv", "--split", 0.75)
    assert refused.exit_code == 1 and "new_train: exists already" in refused.stderr
    assert ms_ocr("lmdb", "split", lines, "--share", 1.5).exit_code == 2
    assert "samples" in ms_ocr("lmdb", "split", lines, "--by", "group", "--seed", 3).stdout


# ---------------------------------------------------------------------- export


@pytest.mark.parametrize("to, table", [("folder", "labels.tsv"), ("rec_gt", "rec_gt.txt")])
def test_files_and_a_table_build_the_same_lmdb_again(lines, tmp_path, to, table):
    assert ms_ocr("lmdb", "export", lines, tmp_path / "files", "--to", to).stdout == (
        f"{tmp_path / 'files'}: 20 lines written, 0 records left out\n"
    )
    assert (tmp_path / "files" / "images" / "0000" / "000000020.png").is_file()
    build_lmdb(tmp_path / "again", tmp_path / "files" / table)
    before, after = LmdbReader(lines), LmdbReader(tmp_path / "again")
    assert [before.read(index) for index in range(20)] == [after.read(index) for index in range(20)]
    assert groups(tmp_path / "again", "writer") == (set(WRITERS) if to == "folder" else {""})


def test_of_two_exports_at_once_to_one_place_one_is_refused_and_none_mixed(lines, tmp_path):
    begun, released = threading.Event(), threading.Event()

    def hold(done, total):
        begun.set()
        released.wait(60)

    def begin_another(done, total):
        if done == total // 2:
            held.append(pool.submit(export_lmdb, lines, tmp_path / "files", "folder", hold))
            begun.wait(60)

    held = []
    with ThreadPoolExecutor(1) as pool:
        export_lmdb(lines, tmp_path / "files", "rec_gt", begin_another)
        released.set()
        with pytest.raises(OutputError, match="files: cannot be written"):
            held[0].result()
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["images", "rec_gt.txt"]
    assert len(list((tmp_path / "files" / "images").rglob("*.png"))) == 20
    assert not list(tmp_path.glob(".files*"))


def test_parquet_is_read_by_datasets_as_pictures(lines, tmp_path):
    export_lmdb(lines, tmp_path / "files", "parquet")
    rows = datasets.Dataset.from_parquet(str(tmp_path / "files" / "data-00000.parquet"), cache_dir=str(tmp_path / "c"))
    assert isinstance(rows.features["image"], datasets.Image) and rows["text"][:] == [str(n) for n in range(20)]
    assert np.array_equal(np.array(rows[7]["image"])[:, :, ::-1], noise(20, 40, seed=7)) and rows[19]["writer"] == "w3"


def test_what_a_table_cannot_hold_is_left_out_by_name_and_nothing_is_overwritten(tmp_path):
    write_lmdb(tmp_path / "lines", [(b"GIF89a", "a\tb"), (b"\xff\xd8", "c")])
    report = export_lmdb(tmp_path / "lines", tmp_path / "files", "folder")
    assert report.written == 1 and "image-000000001: its text 'a\\tb' has a tab" in report.skipped[0].reason
    assert (tmp_path / "files" / "images" / "0000" / "000000002.jpg").read_bytes() == b"\xff\xd8"
    rows = datasets.Dataset.from_dict({"image": [png(noise(20, 40))] * 2, "text": ["x", "y"], "writer": ["w\t1", "w2"]})
    build_lmdb(tmp_path / "named", rows)
    report = export_lmdb(tmp_path / "named", tmp_path / "named_files", "folder")
    assert report.written == 1 and "image-000000001: its writer 'w\\t1' has a tab" in report.skipped[0].reason
    assert export_lmdb(tmp_path / "named", tmp_path / "rec_gt", "rec_gt").written == 2  # which names no writers
    with pytest.raises(OutputError, match="files: exists already"):
        export_lmdb(tmp_path / "lines", tmp_path / "files", "parquet")
    assert export_lmdb(tmp_path / "lines", tmp_path / "parquet", "parquet").written == 2


# ---------------------------------------------------------------------- description


def test_the_description_finds_doubles_and_counts_writers(lines, tmp_path):
    description = describe_lmdb(lines)
    assert (description.writers, description.doubles) == (4, ()) and description.widths == {60: 20}
    write_lmdb(tmp_path / "doubled", [(b"1", "<a>"), (b"2", "b"), (b"1", "c"), (b"2", "d"), (b"1", "e")])
    doubled = describe_lmdb(tmp_path / "doubled")
    assert doubled.doubles == (
        ("image-000000001", "image-000000003", "image-000000005"),
        ("image-000000002", "image-000000004"),
    )
    page = html_page(doubled)
    assert "&lt; (U+003C) 1" in page and "<a>" not in page
