"""A build that is killed, runs out of disk, or is given twice: nothing is lost, doubled or mixed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import noise, png

from ms_ocr_handwritten.errors import LmdbError
from ms_ocr_handwritten.lmdb import build, resumable
from ms_ocr_handwritten.lmdb.build import build_lmdb
from ms_ocr_handwritten.lmdb.resumable import ResumableWriter, Sample, SkippedSample
from ms_ocr_handwritten.lmdb.store import LmdbReader

LINES = 300
BAD = {5, 250}  # rows without an image


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(LINES):
        if number not in BAD:
            (tmp_path / "images" / f"{number}.png").write_bytes(png(noise(20, 40, seed=number)))
    path = tmp_path / "labels.tsv"
    path.write_text("".join(f"images/{number}.png\t {number}\n" for number in range(LINES)))
    return path


def content(path: Path) -> list[tuple[bytes, str, str]]:
    reader = LmdbReader(path)
    return [(*reader.read(index), reader.beside(index, "source")) for index in range(len(reader))]


SLOWLY = """if True:
    import sys, time
    from ms_ocr_handwritten.lmdb import resumable
    from ms_ocr_handwritten.lmdb.build import build_lmdb
    resumable._BATCH_BYTES = 8_000
    build_lmdb(sys.argv[1], sys.argv[2], None, "skip", lambda done, total: (print(done, flush=True), time.sleep(0.002)))
"""


def test_a_kill_in_the_middle_loses_and_doubles_nothing(table, tmp_path):
    whole = build_lmdb(tmp_path / "whole", table, on_bad_sample="skip")
    child = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(tmp_path / "out"), str(table)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    for line in child.stdout:
        if int(line) == 150:
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL and not (tmp_path / "out").exists()
    done = []
    resumed = build_lmdb(tmp_path / "out", table, on_bad_sample="skip", progress=lambda now, _: done.append(now))
    assert 100 <= resumed.resumed <= 160 and done[0] == resumed.resumed + 1
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert (resumed.written, resumed.skipped, resumed.remarks) == (whole.written, whole.skipped, whole.remarks)
    assert whole.written == LINES - len(BAD) and len(whole.skipped) == len(BAD)
    assert sorted(os.listdir(tmp_path / "out")) == ["data.mdb"] and not list(tmp_path.glob(".*"))


def interrupt_at(table: Path, out: Path, record: int, monkeypatch) -> None:
    monkeypatch.setattr(resumable, "_BATCH_BYTES", 8_000)

    def stop(done: int, total: int | None) -> None:
        if done == record:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_lmdb(out, table, on_bad_sample="skip", progress=stop)


def test_another_build_of_the_same_name_begins_anew(table, tmp_path, monkeypatch):
    interrupt_at(table, tmp_path / "out", 100, monkeypatch)
    rows = table.read_text().splitlines(keepends=True)
    time.sleep(0.01)
    table.write_text("".join(rows[10:20]))
    report = build_lmdb(tmp_path / "out", table)
    assert (report.written, report.resumed) == (10, 0)
    assert [label for _, label, _ in content(tmp_path / "out")] == [f" {number}" for number in range(10, 20)]


def test_other_options_are_another_build(table, tmp_path, monkeypatch):
    interrupt_at(table, tmp_path / "out", 100, monkeypatch)
    report = build_lmdb(tmp_path / "out", table, on_bad_sample="skip", options=build.BuildOptions(normalise="nfc"))
    assert report.resumed == 0


def test_an_interruption_before_anything_is_stored_leaves_nothing(table, tmp_path, monkeypatch):
    before = sorted(os.listdir(tmp_path))
    interrupt_at(table, tmp_path / "out", 1, monkeypatch)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_second_process_is_told_to_wait(tmp_path):
    with ResumableWriter(tmp_path / "out", "one"), pytest.raises(LmdbError, match="another process is building it"):
        ResumableWriter(tmp_path / "out", "one")


def test_a_full_disk_is_named_and_what_is_there_is_gone_on_with(tmp_path, monkeypatch):
    put = resumable.put_records
    sample = Sample(b"image", "label", {"writer": "w"})
    with ResumableWriter(tmp_path / "out", "one") as writer:
        writer.add(sample)
        writer.commit()
        monkeypatch.setattr(resumable, "put_records", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        writer.skip(SkippedSample("there", "why"))
        with pytest.raises(
            LmdbError, match="out: cannot be written .*No space left.*; free some space and build again"
        ):
            writer.commit()
    monkeypatch.setattr(resumable, "put_records", put)
    with ResumableWriter(tmp_path / "out", "one") as writer:
        assert (writer.resumed, writer.samples) == (1, 1)
        writer.skip(SkippedSample("there", "why"))
        assert writer.skipped() == (SkippedSample("there", "why"),)
        writer.finish()
    assert LmdbReader(tmp_path / "out").beside(0, "writer") == "w" and len(LmdbReader(tmp_path / "out")) == 1


def test_nothing_of_the_building_stays_in_the_lmdb(table, tmp_path):
    import lmdb

    build_lmdb(tmp_path / "out", table, on_bad_sample="skip")
    with lmdb.open(str(tmp_path / "out"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        kinds = {key.decode().rpartition("-")[0] for key in transaction.cursor().iternext(values=False)}
    assert kinds == {"image", "label", "source", "num"}
