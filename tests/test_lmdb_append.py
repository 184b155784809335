"""Lines appended to an LMDB: what is there stays, what was said to be stored is stored, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest
from conftest import noise, png, render

from ms_ocr_handwritten.data.record import Record
from ms_ocr_handwritten.errors import ImageError, LabelError, LmdbError
from ms_ocr_handwritten.lmdb.append import append_record
from ms_ocr_handwritten.lmdb.check import validate_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb

APPEND = """
import sys
from ms_ocr_handwritten.data.record import Record
from ms_ocr_handwritten.lmdb.append import append_record
path, picture, name, times = sys.argv[1:]
picture = open(picture, "rb").read()
for index in range(int(times)):
    print(append_record(path, Record("here", f"{name} {index}", picture, f"{name}.png")), flush=True)
"""


def record(text: str, picture: bytes, source: str = "a.png") -> Record:
    return Record("here", text, picture, source)


def appending(path: Path, name: str, times: int) -> subprocess.Popen:
    picture = path.with_name("line.png")
    picture.write_bytes(png(render("abc")))
    command = [sys.executable, "-c", APPEND, path, picture, name, str(times)]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


def stored(path: Path) -> list[tuple[bytes, str]]:
    reader = LmdbReader(path)
    return [reader.read(index) for index in range(len(reader))]


def test_the_first_line_begins_it_and_the_others_follow(tmp_path):
    path, pictures = tmp_path / "new" / "lines", [png(render(text)) for text in ("ab", "cd", "ef")]
    counts = [append_record(path, record(f"字 {n}", picture, f"{n}.png")) for n, picture in enumerate(pictures)]
    assert counts == [1, 2, 3]
    assert stored(path) == [(picture, f"字 {n}") for n, picture in enumerate(pictures)]
    assert [LmdbReader(path).beside(n, "source") for n in range(3)] == ["0.png", "1.png", "2.png"]
    assert validate_lmdb(path).ok
    assert sorted(os.listdir(path.parent)) == ["lines"]


def test_what_is_there_stays_byte_for_byte(lines_lmdb):
    before = stored(lines_lmdb)
    picture = png(noise(40, 3000))  # a few of them outgrow a map as large as the file
    for _ in range(3):
        append_record(lines_lmdb, record("more", picture))
    assert stored(lines_lmdb) == before + [(picture, "more")] * 3


@pytest.mark.parametrize(
    ("text", "picture", "error", "told"),
    [
        (" ", png(render("a")), LabelError, "label of the line is empty"),
        ("a", b"no picture", ImageError, "here"),
        ("a\ud800", png(render("a")), LabelError, "UTF-8"),
    ],
)
def test_what_is_no_sample_is_refused(tmp_path, text, picture, error, told):
    with pytest.raises(error, match=told):
        append_record(tmp_path / "lines", record(text, picture))
    assert os.listdir(tmp_path) == []


def test_nothing_is_written_over_a_record_beyond_the_count(tmp_path):
    path, picture = tmp_path / "lines", png(render("a"))
    write_lmdb(path, [(picture, "a"), (picture, "b")])
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"1")
    with pytest.raises(LmdbError, match="image-000000002 beyond its 1 samples"):
        append_record(path, record("c", picture))
    with lmdb.open(str(path)) as environment, environment.begin() as transaction:
        assert transaction.get(b"label-000000002") == b"b"
        assert transaction.get(b"num-samples") == b"1"


def test_one_that_is_truncated_or_none_is_left_alone(lines_lmdb, tmp_path):
    file = lines_lmdb / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    before = file.read_bytes()
    with pytest.raises(LmdbError, match="truncated"):
        append_record(lines_lmdb, record("a", png(render("a"))))
    assert file.read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(LmdbError, match="no data.mdb"):
        append_record(tmp_path / "folder", record("a", png(render("a"))))
    assert os.listdir(tmp_path / "folder") == []


def test_while_this_process_reads_it(lines_lmdb):
    reader = LmdbReader(lines_lmdb)
    assert len(reader) == 48
    with pytest.raises(LmdbError, match="this process is reading it"):
        append_record(lines_lmdb, record("a", png(render("a"))))
    del reader
    assert append_record(lines_lmdb, record("a", png(render("a")))) == 49


def test_several_processes_take_turns(tmp_path):
    path = tmp_path / "lines"
    append_record(path, record("first", png(render("a"))))
    children = [appending(path, name, 20) for name in ("x", "y")]
    counts = [int(count) for child in children for count in child.communicate(timeout=60)[0].split()]
    assert sorted(counts) == list(range(2, 42))
    labels = [label for _, label in stored(path)]
    assert labels[0] == "first"
    assert sorted(labels[1:]) == sorted(f"{name} {index}" for name in ("x", "y") for index in range(20))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_at_any_moment_it_holds_what_was_said_to_be_stored(tmp_path):
    path = tmp_path / "lines"
    for attempt in range(2):
        child = appending(path, str(attempt), 1_000_000)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.03 + 0.1 * attempt)
        child.send_signal(signal.SIGKILL)
        said = int([first, *child.communicate(timeout=30)[0].split("\n")[:-1]][-1])  # whole lines
        assert said <= len(LmdbReader(path)) <= said + 1  # the last may be stored and not have been said
        assert validate_lmdb(path).ok
    assert append_record(path, record("then", png(render("a")))) == len(LmdbReader(path))
