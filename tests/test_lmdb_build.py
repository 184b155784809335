"""Tables of labels, good and bad, and the LMDBs made of them."""

import gc
import os
import re
from pathlib import Path

import lmdb
import pytest
from PIL import Image

from ms_ocr_handwritten.data.record import Columns
from ms_ocr_handwritten.data.table import read_labels_file
from ms_ocr_handwritten.errors import DataError, ImageError, LabelError, LmdbError
from ms_ocr_handwritten.lmdb.build import BuildOptions, ReadOptions, build_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three line images and one that is cut off, in a folder of their own."""
    folder = tmp_path / "lines"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.jpg"):
        Image.effect_noise((60, 20), 50).save(folder / name)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-300])
    return folder


def table(folder: Path, text: str | bytes, name: str = "labels.tsv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


EXPECTED = [("a.png", "第一, 行"), ("b.png", 'say "b" ')]


@pytest.mark.parametrize(
    "name, text",
    [
        ("labels.tsv", 'a.png\t第一, 行\nb.png\tsay "b" \tpage 7\n'),
        ("labels.txt", '\ufefffile\ttext\r\na.png\t第一, 行\r\n\r\nb.png\tsay "b" \r\n'),
        ("labels.csv", 'a.png,"第一, 行"\nb.png,"say ""b"" "\n'),
        ("labels.csv", 'filename,label\na.png,"第一, 行"\nb.png,"say ""b"" "\n'),
        ("labels.csv", 'x,y\na.png,"第一, 行"\nb.png,"say ""b"" "\n'),
        ("labels.csv", 'label,writer,image\n"第一, 行",w,a.png\n"say ""b"" ",w,b.png\n'),
        ("labels.tsv", 'image_path\tsentence\tid\na.png\t第一, 行\t1\nb.png\tsay "b" \t2\n'),
        ("LABELS.CSV", '\ufeffFile,Text\r\n"a.png","第一, 行"\r\n\r\nb.png,"say ""b"" "'),
    ],
)
def test_tables_in_all_forms_read_alike(folder, name, text):
    assert read_labels_file(table(folder, text, name)) == [(folder / file, label) for file, label in EXPECTED]


def test_a_json_list_of_files_shares_its_text(folder):
    """As PaddleOCR's SimpleDataSet has it: any of the pictures of one text may be drawn."""
    rows = '["a.png", "b.png"]\tx\nc.jpg\ty\n[not json\tz\n["no.png", "a.png"]\tv\n' + 100_000 * "[" + "\tw\n"
    path = table(folder, rows, "rec_gt.txt")
    report = build_lmdb(folder / "out", path, on_bad_sample="skip")
    assert [LmdbReader(folder / "out").label(index) for index in range(3)] == ["x", "x", "y"]
    assert [one.where.rpartition(":")[2] for one in report.skipped] == ["3", "4", "4", "5"]


def test_writers_pages_and_folders_of_a_table_are_kept(folder, tmp_path):
    rows = "file,text,writer,page\nlines/a.png,x,w1,p1\nlines/b.png,y,w2,\n"
    build_lmdb(tmp_path / "out", table(tmp_path, rows, "labels.csv"))
    reader = LmdbReader(tmp_path / "out")
    assert [[reader.beside(index, kind) for kind in ("source", "writer", "page")] for index in range(2)] == [
        ["lines/a.png", "w1", "p1"],
        ["lines/b.png", "w2", ""],
    ]
    del reader
    assert upstreams_records(tmp_path / "out") == [
        ((folder / "a.png").read_bytes(), "x"),
        ((folder / "b.png").read_bytes(), "y"),
    ]


def upstreams_records(path: Path) -> list[tuple[bytes, str]]:
    """What a reader sees that knows ModelScope's three kinds of keys alone."""
    gc.collect()  # of this process no other reader may hold it
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        count = int(transaction.get(b"num-samples"))
        return [
            (transaction.get(b"image-%09d" % number), transaction.get(b"label-%09d" % number).decode())
            for number in range(1, count + 1)
        ]


def test_columns_are_named_by_the_caller_where_their_names_are_not_usual(folder, tmp_path):
    path = table(folder, "what,where,x\none,a.png,1\n", "labels.csv")
    with pytest.raises(DataError, match="which column holds the image.*what, where, x"):
        build_lmdb(tmp_path / "out", path)
    options = BuildOptions(read=ReadOptions(columns=Columns(image="where", text="what")))
    build_lmdb(tmp_path / "out", path, options=options)
    assert LmdbReader(tmp_path / "out").label(0) == "one"


def test_labels_are_normalised_when_told_and_odd_ones_named(folder, tmp_path):
    path = table(folder, "a.png\tcafe\u0301\nb.png\t a  b\nc.jpg\tﬁ\n")
    report = build_lmdb(tmp_path / "plain", path)
    assert {remark.kind: (remark.samples, remark.first) for remark in report.remarks} == {
        "decomposed": (1, (f"{path}:1",)),
        "spaces": (1, (f"{path}:2",)),
    }
    for form, expected in ((None, "cafe\u0301"), ("nfc", "café"), ("nfkc", "café")):
        build_lmdb(tmp_path / str(form), path, options=BuildOptions(normalise=form))
        reader = LmdbReader(tmp_path / str(form))
        assert reader.label(0) == expected and reader.label(2) == ("fi" if form == "nfkc" else "ﬁ")


def test_images_may_lie_elsewhere_than_the_table(folder, tmp_path):
    path = table(tmp_path, "a.png\tx\n")
    assert read_labels_file(path, folder) == [(folder / "a.png", "x")]


def test_a_file_called_file_is_no_header(folder):
    (folder / "file").write_bytes((folder / "a.png").read_bytes())
    assert read_labels_file(table(folder, "file\ttext\n")) == [(folder / "file", "text")]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("labels.tsv", "a.png\tx\nno.png\ty\n", "labels.tsv:2: image .*no.png does not exist; correct the name"),
        ("labels.tsv", "a.png\tx\nb.png\ty\n./a.png\tz\n", r"labels.tsv:3: .*a.png has a label already, at .*tsv:1;"),
        ("labels.tsv", "\na.png\t \n", "labels.tsv:2: the label of .*a.png is empty; write its text, or remove"),
        ("labels.tsv", "a.png x\n", "labels.tsv:1: no tab in 'a.png x'; expected: file TAB text"),
        ("labels.tsv", b"a.png\tx\nb.png\t\xd0\n", "labels.tsv:2: not UTF-8 .*; convert the table to UTF-8"),
        ("labels.csv", "a.png,one, two\n", "labels.csv:1: 3 fields; expected file,text, and a text with a comma in"),
        ("labels.csv", "a.png\n", "labels.csv:1: 1 fields; expected file,text"),
        ("labels.csv", 'a.png,x\nb.png,"y\n', "labels.csv:2: .*quote the text"),
        ("labels.csv", b"a.png,x\nb.png,\xd0\n", "labels.csv:2: not UTF-8"),
        ("labels.json", "{}", "labels.json: the name ends in neither .tsv, .txt nor .csv; rename it"),
    ],
)
def test_a_bad_table_is_named_with_its_line_and_the_remedy(folder, name, text, message):
    with pytest.raises(LabelError, match=message):
        read_labels_file(table(folder, text, name))


def test_a_missing_table_is_named(folder):
    with pytest.raises(LabelError, match="nowhere.tsv: cannot be read .*No such file"):
        read_labels_file(folder / "nowhere.tsv")


def test_the_files_are_stored_byte_for_byte(folder, tmp_path):
    calls: list[tuple[int, int]] = []
    rows = "file\ttext\nc.jpg\tＣ 在\na.png\ta\n"
    report = build_lmdb(tmp_path / "out", table(folder, rows), progress=lambda *call: calls.append(call))
    assert (report.path, report.written, report.skipped) == (str(tmp_path / "out"), 2, ())
    reader = LmdbReader(tmp_path / "out")
    assert [reader.read(i) for i in range(len(reader))] == [
        ((folder / "c.jpg").read_bytes(), "Ｃ 在"),
        ((folder / "a.png").read_bytes(), "a"),
    ]
    assert calls == [(1, 3), (2, 3), (2, 2)]  # lines of the table, then what they were


BAD = "a.png\tx\ncut.png\ty\nno.png\tz\nb.png\t\na.png\tagain\nb.png\tb\n"


def test_a_bad_image_stops_the_building_and_leaves_nothing(folder, tmp_path):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ImageError, match="labels.tsv:2: .*cut.png: .*decoded"):
        build_lmdb(tmp_path / "out", table(folder, BAD))
    assert sorted(os.listdir(tmp_path)) == before


def test_skipped_rows_are_counted_and_listed(folder, tmp_path):
    path = table(folder, BAD)
    report = build_lmdb(tmp_path / "out", path, on_bad_sample="skip")
    assert report.written == 2
    assert [skipped.where for skipped in report.skipped] == [f"{path}:{line}" for line in (2, 3, 4, 5)]
    reasons = ["cut.png", "does not exist", "is empty", "has a label already"]
    assert all(re.search(reason, skipped.reason) for reason, skipped in zip(reasons, report.skipped))
    assert [LmdbReader(tmp_path / "out").label(i) for i in range(2)] == ["x", "b"]


def test_a_row_that_cannot_be_parsed_ends_nothing(folder, tmp_path):
    path = table(folder, b"a.png\tx\nb.png y\n\xd0\nc.jpg\tz\n")
    report = build_lmdb(tmp_path / "out", path, on_bad_sample="skip")
    assert [skipped.where for skipped in report.skipped] == [f"{path}:2", f"{path}:3"]
    assert report.written == 2
    with pytest.raises(LabelError, match="labels.tsv:2: no tab"):
        build_lmdb(tmp_path / "strict", path)
    assert not list(tmp_path.glob("*strict*")) and not list(tmp_path.glob(".*"))


def test_when_nothing_is_left_nothing_is_written(folder, tmp_path):
    with pytest.raises(LmdbError, match="out: no samples.*; the first of 1 records: .*cut.png.*decoded"):
        build_lmdb(tmp_path / "out", table(folder, "cut.png\tx\n"), on_bad_sample="skip")
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_not_there_or_empty_is_said_to_be(folder, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        build_lmdb(tmp_path / "out", tmp_path / "nowhere", options=BuildOptions(form="casia"))
    with pytest.raises(LmdbError, match="nothing is written; the source is empty"):
        build_lmdb(tmp_path / "out", table(folder, "file\ttext\n"))
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


def test_a_misspelt_choice_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="on_bad_sample is 'ignore'; give 'error' or 'skip'"):
        build_lmdb(tmp_path / "out", table(folder, "a.png\tx\n"), on_bad_sample="ignore")
