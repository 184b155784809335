"""Reading and writing the LMDB: one environment a process, forks, spawns, bad databases, crashes."""

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import lmdb
import pytest

from ms_ocr_handwritten.errors import LmdbError
from ms_ocr_handwritten.lmdb import store
from ms_ocr_handwritten.lmdb.open import shared_environment
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb

SAMPLES = [(b"image %d" % i, f"第{i}行 ") for i in range(7)]


@pytest.fixture
def path(tmp_path) -> Path:
    write_lmdb(tmp_path / "lines", SAMPLES)
    return tmp_path / "lines"


def raw_lmdb(path: Path, records: dict[str, bytes]) -> Path:
    """An LMDB of exactly these records, whether they make sense or not."""
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    return path


def records(count: int) -> dict[str, bytes]:
    keys = {f"{kind}-{i:09d}": b"x" for i in range(1, count + 1) for kind in ("image", "label")}
    return keys | {"num-samples": str(count).encode()}


def read_all(reader: LmdbReader) -> list[tuple[bytes, str]]:
    return [reader.read(i) for i in range(len(reader))]


def read_with_both(reader: LmdbReader) -> tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]]:
    return read_all(reader), read_all(LmdbReader(reader.path))


def in_child(method: str, function, *arguments):
    """The result, or the exception, of a call in a process of its own, which may die without taking us along."""
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        return pool.submit(function, *arguments).result(timeout=60)


# Reading


def test_the_records_are_those_of_upstreams_format(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        stored = {key.decode(): value for key, value in transaction.cursor()}
    assert stored["num-samples"] == b"7"
    assert stored["image-000000001"] == b"image 0"
    assert stored["label-000000007"] == "第6行 ".encode()
    assert len(stored) == 15
    assert LmdbReader.image_key(0) == "image-000000001"


@pytest.mark.parametrize("name", ["lines", "lines/data.mdb", "single.mdb", "link"])
def test_a_folder_its_file_a_single_file_and_a_link_read_alike(path, name):
    shutil.copy(path / "data.mdb", path.parent / "single.mdb")
    (path.parent / "link").symlink_to(path)
    reader = LmdbReader(path.parent / name)
    assert len(reader) == 7
    assert read_all(reader) == SAMPLES
    assert reader.image_bytes(3) == b"image 3" and reader.label(3) == "第3行 "


def test_readers_of_one_process_share_one_environment(path):
    (path.parent / "link").symlink_to(path)
    readers = [LmdbReader(path), LmdbReader(path.parent / "link"), LmdbReader(path / "data.mdb")]
    assert [read_all(reader) for reader in readers] == [SAMPLES] * 3
    del readers
    gc.collect()
    lmdb.open(str(path), readonly=True, lock=False).close()  # lmdb refuses this while a reader is open


def test_nothing_is_opened_before_the_first_read(path):
    reader = LmdbReader(path)
    with (
        lmdb.open(str(path), readonly=True, lock=False),
        pytest.raises(LmdbError, match="already open in this process.*read through LmdbReader"),
    ):
        len(reader)
    assert len(reader) == 7


def test_threads_may_open_read_and_close_at_once(path):
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(200):  # each reader is gone, and its environment perhaps closed, before the next
                if read_all(LmdbReader(path)) != SAMPLES:
                    wrong.append("samples")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


GROW = """
import lmdb, sys
with lmdb.open(sys.argv[1], map_size=2**26) as environment, environment.begin(write=True) as transaction:
    for key, value in (("image", bytes(12 * 2**20)), ("label", b"x")):
        transaction.put(f"{key}-000000004".encode(), value)
    transaction.put(b"num-samples", b"4")
"""


@pytest.fixture
def small(tmp_path) -> Path:
    """An LMDB of which a reader maps 10 MiB; GROW makes it larger."""
    return raw_lmdb(tmp_path / "small", records(3))


def test_what_another_process_makes_grow_is_read_on_by_all_threads(small):
    wrong, grown = [], threading.Event()

    def work(reader: LmdbReader) -> None:
        try:
            afterwards = 0
            while afterwards < 200:
                afterwards += grown.is_set()
                if read_all(reader) != [(b"x", "x")] * 3:
                    wrong.append("samples")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(LmdbReader(small),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    subprocess.run([sys.executable, "-c", GROW, small], check=True)
    grown.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    gc.collect()
    assert len(LmdbReader(small).image_bytes(3)) == 12 * 2**20


def test_while_a_thread_reads_no_other_maps_anew(small):
    shared, read = shared_environment(str(small)), []
    with shared.reading() as transaction:
        subprocess.run([sys.executable, "-c", GROW, small], check=True)
        other = threading.Thread(target=lambda: read.append(shared.get("image-000000001", "")))
        other.start()
        other.join(0.2)
        assert other.is_alive() and transaction.get(b"image-000000002") == b"x"  # which would end the process
    other.join(10)
    assert read == [b"x"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_reads_what_its_parent_has_open(path, method):
    reader = LmdbReader(path)
    assert read_all(reader) == SAMPLES
    assert in_child(method, read_with_both, reader) == (SAMPLES, SAMPLES)
    assert read_all(reader) == SAMPLES


def test_a_forked_child_opens_an_environment_of_its_own(path):
    reader = LmdbReader(path)
    parents = reader._open().environment
    if (pid := os.fork()) == 0:
        own = reader._open().environment
        os._exit(0 if own is not parents and reader.label(0) == SAMPLES[0][1] else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_dataloader_workers_read_while_the_parent_does(path):
    data = pytest.importorskip("torch.utils.data")
    reader = LmdbReader(path)
    first = reader.read(0)
    loader = data.DataLoader(reader_as_dataset(reader), num_workers=2, batch_size=None, multiprocessing_context="fork")
    for _ in range(2):
        assert [tuple(sample) for sample in loader] == SAMPLES
    assert reader.read(0) == first


def reader_as_dataset(reader: LmdbReader):
    class Samples:
        def __len__(self):
            return len(reader)

        def __getitem__(self, index):
            return reader.read(index)

    return Samples()


def test_a_pickle_carries_the_path_alone(path):
    reader = LmdbReader(path)
    read_all(reader)
    data = pickle.dumps(reader)
    assert len(data) < 300 and b"image" not in data
    assert read_all(pickle.loads(data)) == SAMPLES


def test_a_database_built_anew_at_the_same_path_is_read_anew(path):
    old = LmdbReader(path)
    assert len(old) == 7
    shutil.rmtree(path)
    write_lmdb(path, [(b"new", "新")])
    assert read_all(LmdbReader(path)) == [(b"new", "新")]


def test_an_index_outside_is_an_index_error(path):
    for index in (-1, 7):
        with pytest.raises(IndexError, match=rf"lines: no sample {index}, there are 7 \(0 to 6\)"):
            LmdbReader(path).read(index)


# Bad databases


def test_a_path_that_is_no_lmdb(tmp_path):
    with pytest.raises(LmdbError, match="nowhere: no such file or folder; give the folder that holds data.mdb"):
        LmdbReader(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LmdbError, match="empty: the folder holds no data.mdb"):
        LmdbReader(tmp_path / "empty")
    (tmp_path / "text").write_text("no database" * 5000)
    with pytest.raises(LmdbError, match="text: not an LMDB .*ms-ocr lmdb build"):
        len(LmdbReader(tmp_path / "text"))
    (tmp_path / "zero.mdb").write_bytes(b"")
    with pytest.raises(LmdbError, match="zero.mdb is empty; copy or build the LMDB again"):
        len(LmdbReader(tmp_path / "zero.mdb"))


def test_a_truncated_file_is_an_error_and_not_a_dead_process(tmp_path):
    write_lmdb(tmp_path / "lines", [(b"x" * 100_000, "a")] * 5)
    file = tmp_path / "lines" / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(LmdbError, match=r"lines: truncated, \d+ bytes of \d+ are there; copy or build"):
        in_child("spawn", LmdbReader(tmp_path / "lines").read, 4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num-samples": None}, "key num-samples is missing.*ms-ocr lmdb build"),
        ({"num-samples": b"three"}, "key num-samples holds b'three', which is not a count; run `ms-ocr lmdb validate`"),
        ({"num-samples": b"-1"}, "key num-samples holds b'-1', which is not a count"),
        ({"num-samples": b"4"}, "says 4 samples, which are 8 records, but 6 are there; run `ms-ocr lmdb validate`"),
        ({"image-000000003": None, "other": b""}, "says 3 samples, but key image-000000003 is missing; run"),
        ({"label-000000003": None, "other": b""}, "says 3 samples, but key label-000000003 is missing; run"),
    ],
)
def test_a_wrong_count_is_found_at_once(tmp_path, change, message):
    content = {key: value for key, value in (records(3) | change).items() if value is not None}
    with pytest.raises(LmdbError, match=f"bad: .*{message}"):
        len(LmdbReader(raw_lmdb(tmp_path / "bad", content)))


def test_a_bad_record_is_named_by_its_key_and_the_others_are_read(tmp_path):
    content = records(4) | {"label-000000002": b"ab\xff", "x": b"", "y": b""}
    del content["image-000000001"], content["label-000000003"]
    reader = LmdbReader(raw_lmdb(tmp_path / "bad", content))
    with pytest.raises(LmdbError, match="bad: key image-000000001 is missing; run `ms-ocr lmdb validate`"):
        reader.read(0)
    with pytest.raises(LmdbError, match="bad: key label-000000002 is not UTF-8 .*byte 2.*convert"):
        reader.read(1)
    with pytest.raises(LmdbError, match="bad: key label-000000003 is missing"):
        reader.label(2)
    assert reader.read(3) == (b"x", "x")


# Writing


def test_the_map_grows_and_no_batch_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_FIRST_MAP_SIZE", 2**16)
    monkeypatch.setattr(store, "_BATCH_BYTES", 50_000)
    samples = [(bytes([i]) * 9_000, str(i)) for i in range(100)]
    assert write_lmdb(tmp_path / "deep" / "lines", iter(samples)) == 100
    assert read_all(LmdbReader(tmp_path / "deep" / "lines")) == samples
    assert os.listdir(tmp_path / "deep") == ["lines"]


def test_an_existing_target_is_left_as_it_is(path):
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(LmdbError, match="lines: exists already and is left as it is; choose another path"):
        write_lmdb(path, [(b"new", "新")])
    assert (path / "data.mdb").read_bytes() == before
    (path.parent / "file").write_text("mine")
    with pytest.raises(LmdbError, match="file: exists already"):
        write_lmdb(path.parent / "file", SAMPLES)
    assert (path.parent / "file").read_text() == "mine"


def test_a_target_that_appears_meanwhile_is_left_as_it_is(tmp_path):
    def samples():
        yield SAMPLES[0]
        (tmp_path / "lines").mkdir()

    with pytest.raises(LmdbError, match="lines: exists already"):
        write_lmdb(tmp_path / "lines", samples())
    assert os.listdir(tmp_path) == ["lines"] and os.listdir(tmp_path / "lines") == []


@pytest.mark.parametrize(
    "sample, message",
    [
        ((b"", "a"), r"sample 1 is \(bytes, str\); expected .*not empty"),
        (("a.png", "a"), r"sample 1 is \(str, str\); expected"),
        ((b"x", b"a"), r"sample 1 is \(bytes, bytes\); expected"),
        ((b"x", "\ud800"), "of sample 1 cannot be UTF-8"),
    ],
)
def test_a_sample_of_the_wrong_kind_stops_the_writing_and_leaves_nothing(tmp_path, sample, message):
    with pytest.raises(LmdbError, match=message):
        write_lmdb(tmp_path / "lines", [SAMPLES[0], sample])
    assert os.listdir(tmp_path) == []


def test_no_sample_and_a_failing_source_leave_nothing(tmp_path):
    with pytest.raises(LmdbError, match="lines: no sample was given"):
        write_lmdb(tmp_path / "lines", [])

    def failing():
        yield SAMPLES[0]
        raise FileNotFoundError("the caller's own")

    with pytest.raises(FileNotFoundError, match="the caller's own"):
        write_lmdb(tmp_path / "lines", failing())
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_no_folder_of_the_final_name(tmp_path):
    script = """if True:
        import sys
        from ms_ocr_handwritten.lmdb.store import write_lmdb
        def samples():
            for i in range(10**9):
                if i == 40: print("under way", flush=True)  # two batches are committed by then
                yield bytes(2**20), "a"
        write_lmdb(sys.argv[1], samples())"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lines")], stdout=subprocess.PIPE, env=environment
    )
    assert writer.stdout.readline() == b"under way\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".lines.") and left.endswith(".partial")
    assert write_lmdb(tmp_path / "lines", SAMPLES) == 7
    assert read_all(LmdbReader(tmp_path / "lines")) == SAMPLES
