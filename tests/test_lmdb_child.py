"""A child that dies, and an LMDB that is cut while it is open: reports, not dead processes."""

import os

import pytest
from test_lmdb_check import VOCABULARY, write

from ms_ocr_handwritten.errors import LmdbError
from ms_ocr_handwritten.lmdb.check import Problem, validate_lmdb
from ms_ocr_handwritten.lmdb.child import ChildDied, events_of_child
from ms_ocr_handwritten.lmdb.store import LmdbReader


def numbers(count, then):
    """Run in a child: some numbers, and an end."""
    yield from range(count)
    if then == "abort":
        os.abort()
    if then == "error":
        raise LmdbError("lines: no LMDB")
    if then == "exit":
        os._exit(3)


def test_events_come_until_the_child_ends_and_say_how():
    assert list(events_of_child(numbers, 3, "end")) == [0, 1, 2]
    for then, error, message in (
        ("abort", ChildDied, "SIGABRT"),
        ("exit", ChildDied, "exit code 3"),
        ("error", LmdbError, "no LMDB"),
    ):
        heard = []
        with pytest.raises(error, match=message):
            for event in events_of_child(numbers, 2, then):
                heard.append(event)
        assert heard == [0, 1]


def test_an_lmdb_that_is_cut_while_it_is_open_is_an_error(tmp_path):
    path = write(tmp_path / "lines")
    reader = LmdbReader(path)
    assert len(reader) == 3
    os.truncate(path / "data.mdb", 8192)
    with pytest.raises(LmdbError, match="lines: was truncated while it was open; copy or build the LMDB again"):
        reader.read(0)


def test_an_lmdb_that_is_cut_while_it_is_validated_is_a_report(tmp_path):
    path = write(tmp_path / "lines", labels=("a",) * 300)

    def cut(done, total):
        if done == 1:
            os.truncate(path / "data.mdb", 8192)

    report = validate_lmdb(path, VOCABULARY, cut)
    assert not report.ok and set(report.kinds) == {"damaged"}
    assert isinstance(report.problems[-1], Problem)
