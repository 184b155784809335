"""Files that appear whole: the umask, the order of flush and rename, and what is left where they cannot be written."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from training_tools import hashes

from ms_ocr_handwritten.atomic import appearing_whole, write_atomically
from ms_ocr_handwritten.errors import OutputError
from ms_ocr_handwritten.training.checkpoints import WorkDir


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process can grow beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "folder" / "file", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == mode


def test_writing_leaves_the_old_file_where_it_fails(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    with full_disk(1000), pytest.raises(OutputError, match="file: cannot be written .File too large.; free some space"):
        write_atomically(path, bytes(2000))
    assert hashes(tmp_path).keys() == {"file"} and path.read_bytes() == b"old"
    other = tmp_path / "link"
    os.link(path, other)
    write_atomically(path, b"new")
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"old")


def test_a_trainings_log_holds_whole_lines_on_a_full_disk_too(tmp_path):
    work_dir = WorkDir(tmp_path)
    work_dir.log({"mode": "train", "epoch": 1})
    before = work_dir.log_file.read_bytes()
    with (
        full_disk(len(before) + 10),
        pytest.raises(OutputError, match=r"train_log.jsonl: cannot be written \(No space"),
    ):
        work_dir.log({"mode": "train", "epoch": 2})
    assert work_dir.log_file.read_bytes() == before
    work_dir.log({"mode": "train", "epoch": 3})
    assert [json.loads(line)["epoch"] for line in work_dir.log_file.read_text().splitlines()] == [1, 3]


def test_what_stands_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match=f"^{tmp_path}/file/x: cannot be written .(File exists|Not a directory)"):
        write_atomically(tmp_path / "file" / "x", b"")
    with pytest.raises(OutputError, match=f"^{tmp_path}/folder: cannot be written .Is a directory"):
        write_atomically(tmp_path / "folder", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """Renamed first, a crash of the machine could leave an empty file under the final name."""
    seen, fsync, replace = [], os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        seen.append(("flushed", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def seen_replace(source: Path, target: Path) -> None:
        seen.append(("renamed", os.stat(source).st_ino, os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    with appearing_whole(tmp_path / "file") as temporary:
        Path(temporary).write_bytes(b"data")
    inode = (tmp_path / "file").stat().st_ino
    assert seen == [("flushed", inode, 4), ("renamed", inode, 4)]
