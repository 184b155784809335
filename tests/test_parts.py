"""The parts of a long run: which are there, what they hold, and when a run is another one."""

import json
import os

import pyarrow.parquet
import pytest

from ms_ocr_handwritten.bulk.parts import Parts, groups, json_row
from ms_ocr_handwritten.errors import ConfigurationError, ImageError
from ms_ocr_handwritten.line import Character, Line

A_LINE = Line("手a", 0.5, (Character("手", 0.25, 1.0, 2.5), Character("a", 1.0, 3.0, 4.0)))


def test_items_go_to_parts_in_order_also_when_some_are_not_taken():
    assert [(part, list(group)) for part, group in groups("abcdefg", 3)] == [
        (0, ["a", "b", "c"]),
        (1, ["d", "e", "f"]),
        (2, ["g"]),
    ]
    assert [part for part, _ in groups("abcdef", 3)] == [0, 1]
    assert [(part, next(group)) for part, group in groups("abcdefg", 3)] == [(0, "a"), (1, "d"), (2, "g")]
    assert list(groups("", 3)) == []


def test_parts_that_are_there_are_those_of_this_run_alone(tmp_path):
    parts = Parts(tmp_path / "a.b.jsonl")
    assert Parts(tmp_path / "nowhere" / "a.jsonl").done() == set() == parts.done()
    for name in (
        *("a.b-00000.jsonl", "a.b-00012.jsonl", "a.b-123456.jsonl"),
        *("a.b-0001.jsonl", "axb-00002.jsonl", "xa.b-00003.jsonl", "a.b-00004.parquet", "a.b-00005.jsonl.gz"),
        *(".a.b-00006.jsonl.12ab.saving", "a.b-00007xjsonl", "a.b.run.json", "a.b.jsonl"),
    ):
        (tmp_path / name).touch()
    assert parts.done() == {0, 12, 123456}
    assert [parts.path(part).name for part in sorted(parts.done())] == [
        "a.b-00000.jsonl",
        "a.b-00012.jsonl",
        "a.b-123456.jsonl",
    ]
    with pytest.raises(ConfigurationError, match="a.csv: results are written as .jsonl or .parquet"):
        Parts(tmp_path / "a.csv")


def test_a_part_appears_with_the_end_of_its_block_or_not_at_all(tmp_path):
    parts = Parts(tmp_path / "a.jsonl")
    with pytest.raises(KeyboardInterrupt), parts.writing(1) as write:
        write("1.png", A_LINE)
        assert parts.done() == set()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with parts.writing(1) as write:
        write("1 手.png", A_LINE)
        write("2.png", ImageError("no image"))
    assert parts.done() == {1}
    first, second, end = parts.path(1).read_bytes().decode("utf-8").split("\n")
    assert (json.loads(first), end) == (json.loads(json_row("1 手.png", A_LINE)), "") and "手" in first
    assert json.loads(second) == {"path": "2.png", "error": "no image"}


@pytest.mark.parametrize("stem", ["a", "a [1]", "a*"])
def test_what_a_kill_left_of_a_part_vanishes_and_nothing_else(tmp_path, stem):
    parts = Parts(tmp_path / f"{stem}.jsonl")
    kept = [f".{stem}-00000.jsonl.12ab.saving", f".ab-{stem}-00001.jsonl.12ab.saving", ".ab-00001.jsonl.12ab.saving"]
    for name in (*kept, f".{stem}-00001.jsonl.12ab.saving", f".{stem}-00001.jsonl.34cd.saving"):
        (tmp_path / name).touch()
    with parts.writing(1):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, f"{stem}-00001.jsonl"])


@pytest.mark.parametrize("count", [0, 1, 512, 1027])
def test_parquet_holds_all_rows_in_order(tmp_path, count):
    parts = Parts(tmp_path / "a.parquet", n_best=2)
    with parts.writing(0) as write:
        for number in range(count):
            write(f"{number}.png", Line(str(number), number / 2000, (), ((str(number), -1.0), ("x", -2.0))))
    table = pyarrow.parquet.read_table(parts.path(0))
    assert table.column_names == ["path", "text", "score", "chars", "error", "alternatives"]
    assert table["path"].to_pylist() == [f"{number}.png" for number in range(count)]
    assert table["text"].to_pylist() == [str(number) for number in range(count)]
    assert table["score"].to_pylist() == [number / 2000 for number in range(count)]


def test_an_error_says_its_row_by_its_name_alone():
    error = ImageError("no image")
    error.index = 7
    assert json_row("2.png", error) == '{"path": "2.png", "error": "no image"}'


def test_a_run_is_the_same_one_or_refused(tmp_path):
    parts, told = Parts(tmp_path / "手.jsonl"), {"sources": ("a", "é"), "size": 8}
    assert parts.former() is None
    parts.agree(told)
    assert parts.former() == {"sources": ["a", "é"], "size": 8}
    before = parts.run_file.stat()
    parts.agree(dict(reversed(told.items())))
    assert parts.run_file.stat() == before
    for other, message in (
        (told | {"size": 9}, ": size 8, now 9; .*another --out"),
        (told | {"n_best": 2}, ": n_best None, now 2;"),
        ({"sources": ["a", "é"]}, ": size 8, now None;"),
        ({"sources": ["a"], "size": 9}, r"sources \['a', 'é'\], now \['a'\], size 8, now 9;"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            parts.agree(other)
    assert parts.run_file.stat() == before


@pytest.mark.parametrize(
    "content, message", [(b"{", "cannot be read"), (b"\xff", "cannot be read"), (b"[1]", "is not")]
)
def test_a_damaged_file_of_the_run_is_named_and_kept(tmp_path, content, message):
    parts = Parts(tmp_path / "a.jsonl")
    parts.run_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"a.run.json: {message}.*use another --out"):
        parts.agree({"size": 8})
    assert parts.run_file.read_bytes() == content
