"""`ms-ocr recognize --out`: very many lines, killed and gone on with, by several processes; compared byte by byte."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import lmdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render, weaken_positions

from ms_ocr_handwritten.bulk.parts import Parts
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.cli.sources import Place, count, expand, places
from ms_ocr_handwritten.errors import OutputError
from ms_ocr_handwritten.lmdb.store import write_lmdb

LINES = 60
SIZE = 8  # lines in a part: the last of eight holds four
BAD = 13  # the line that is no image


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    found = [png(render(text)) for text in random_texts(LINES, 9)]
    found[BAD] = b"no image"
    return found


@pytest.fixture(scope="module")
def lines(images, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "lmdb"
    write_lmdb(path, [(image, "a") for image in images])
    return path


@pytest.fixture(scope="module")
def whole(model, lines, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = recognize(model, lines, folder / "out.jsonl")
    assert result.exit_code == 1 and f"1 of {LINES} could not be read" in result.stderr  # BAD
    return files(folder)


def arguments(model: Path, source: Path, out: Path, *more: object) -> list[str]:
    fixed = ["--backend", "torch", "--precision", "fp32", "--batch-size", "4", "--part-size", SIZE]
    return list(map(str, ["recognize", source, "--model", model, "--out", out, *fixed, *more]))


def recognize(model: Path, source: Path, out: Path, *more: object) -> Result:
    return CliRunner().invoke(main, arguments(model, source, out, *more), prog_name="ms-ocr")


def start(*given: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "ms_ocr_handwritten.cli", *map(str, given)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def parts(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if not name.endswith(".run.json")}


def test_parts_hold_the_rows_of_jsonl_in_order(model, lines, whole, images):
    printed = CliRunner().invoke(
        main,
        [
            "recognize",
            str(lines),
            "--model",
            str(model),
            "--format",
            "jsonl",
            "--backend",
            "torch",
            "--precision",
            "fp32",
        ],
    )
    assert list(whole) == [*(f"out-{part:05d}.jsonl" for part in range(8)), "out.run.json"]
    rows = [[json.loads(row) for row in content.splitlines()] for content in parts(whole).values()]
    assert list(map(len, rows)) == [SIZE] * 7 + [4]
    rows = [row for part in rows for row in part]
    assert [row["path"] for row in rows] == [f"{lines}/image-{index + 1:09d}" for index in range(LINES)]
    bad = rows.pop(BAD)
    assert list(bad) == ["path", "error"] and bad["error"].startswith("8 encoded bytes: not a readable image")
    for row, wanted in zip(rows, map(json.loads, printed.stdout.splitlines()), strict=True):
        assert (row["path"], row["text"]) == (wanted["path"], wanted["text"])
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-5) and list(row) == list(wanted)


def test_parquet_holds_the_same_in_columns(model, lines, whole, tmp_path):
    assert recognize(model, lines, tmp_path / "out.parquet").exit_code == 1
    assert sorted(os.listdir(tmp_path)) == [*(f"out-{part:05d}.parquet" for part in range(8)), "out.run.json"]
    table = pa.parquet.ParquetDataset(sorted(tmp_path.glob("*.parquet"))).read()
    assert [str(field.type) for field in table.schema if field.name != "chars"] == [
        "string",
        "string",
        "double",
        "string",
    ]
    rows = [json.loads(row) for content in parts(whole).values() for row in content.splitlines()]
    for row, wanted in zip(table.to_pylist(), rows, strict=True):
        assert row == {"text": "", "score": 0.0, "chars": [], "error": "", **wanted}


def test_what_is_there_is_neither_written_over_nor_mixed(model, lines, whole, tmp_path):
    assert recognize(model, lines, tmp_path / "out.jsonl").exit_code == 1
    again = recognize(model, lines, tmp_path / "out.jsonl")
    assert again.exit_code == 1 and "out-00000.jsonl: exists already; --resume" in again.stderr
    (tmp_path / "out-00003.jsonl").unlink()
    other = recognize(model, lines, tmp_path / "out.jsonl", "--resume", "--n-best", 2)
    assert other.exit_code == 1 and "n_best 1, now 2" in other.stderr
    other = recognize(model, lines, tmp_path / "out.jsonl", "--resume", "--part-size", 9)
    assert other.exit_code == 1 and "part_size 8, now 9" in other.stderr
    assert "out-00003.jsonl" not in os.listdir(tmp_path)
    resumed = recognize(model, lines, tmp_path / "out.jsonl", "--resume")
    assert resumed.exit_code == 0 and ": 8 lines read, " in resumed.stderr and "7 parts already there" in resumed.stderr
    assert files(tmp_path) == whole
    assert ": 0 lines read" in recognize(model, lines, tmp_path / "out.jsonl", "--resume").stderr


def test_another_source_is_refused(model, images, tmp_path):
    write_lmdb(tmp_path / "lmdb", [(image, "a") for image in images[:9]])
    recognize(model, tmp_path / "lmdb", tmp_path / "out.jsonl")
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-000000001", images[8])
    (tmp_path / "out-00001.jsonl").unlink()
    result = recognize(model, tmp_path / "lmdb", tmp_path / "out.jsonl", "--resume")
    assert result.exit_code == 1 and "out.run.json: was made by a different run: sources " in result.stderr


def test_another_lexicon_is_refused(model, lines, tmp_path):
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("ab\nba\n")
    recognize(model, lines, tmp_path / "out.jsonl", "--lexicon", lexicon)
    (tmp_path / "out-00001.jsonl").unlink()
    lexicon.write_text("ab\n")
    result = recognize(model, lines, tmp_path / "out.jsonl", "--lexicon", lexicon, "--resume")
    assert result.exit_code == 1 and "was made by a different run: decoding files " in result.stderr
    lexicon.write_text("ab\nba\n")
    assert recognize(model, lines, tmp_path / "out.jsonl", "--lexicon", lexicon, "--resume").exit_code == 1
    assert (tmp_path / "out-00001.jsonl").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 elsewhere")
def test_names_that_are_no_utf_8_are_gone_on_with(model, images, tmp_path):
    strange = tmp_path / os.fsdecode(b"scan \xff.png")
    strange.write_bytes(images[0])
    assert recognize(model, strange, tmp_path / "out.jsonl").exit_code == 0
    assert json.loads((tmp_path / "out-00000.jsonl").read_text())["path"].endswith("scan \ufffd.png")
    again = recognize(model, strange, tmp_path / "out.jsonl", "--resume")
    assert again.exit_code == 0 and "1 part already there" in again.stderr


def test_after_each_kill_9_it_goes_on_byte_for_byte(model, lines, whole, tmp_path):
    """Killed in the midst of the first part, then as soon as two and five are there, in the midst of others."""
    command = arguments(model, lines, tmp_path / "out.jsonl", "--resume")
    for wanted in (".out-00000.jsonl.*", "out-00001.jsonl", "out-00004.jsonl"):
        process = start(*command)
        while not list(tmp_path.glob(wanted)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
    there = [name for name in os.listdir(tmp_path) if name.startswith("out-")]
    assert 5 <= len(there) < 8
    result = CliRunner().invoke(main, command)
    assert f": {LINES - SIZE * len(there)} lines read, " in result.stderr
    assert files(tmp_path) == whole  # no temporary file is left either


def test_shards_and_workers_write_the_same_parts(model, lines, whole, tmp_path):
    out = tmp_path / "out.jsonl"
    assert recognize(model, lines, out, "--shard", "3/3").exit_code == 0
    assert list(parts(files(tmp_path))) == ["out-00002.jsonl", "out-00005.jsonl"]
    assert recognize(model, lines, out, "--shard", "1/3").exit_code == 0
    result = recognize(model, lines, out, "--resume", "--workers", 2)
    assert result.exit_code == 1  # BAD, in part 1; 4 and 7 are left, too
    assert ": 20 lines read, " in result.stderr and "5 parts already there" in result.stderr
    assert files(tmp_path) == whole
    assert "'4/3' is not a share such as 1/8" in recognize(model, lines, out, "--shard", "4/3").stderr


def workers_of(process: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_a_killed_worker_is_named_and_none_outlives_its_parent(model, lines, whole, tmp_path):
    command = arguments(model, lines, tmp_path / "out.jsonl", "--resume", "--workers", 2)
    for killed in ("worker", "parent"):
        process = start(*command)
        while not list(tmp_path.glob(".out-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        os.kill(workers_of(process)[0] if killed == "worker" else process.pid, signal.SIGKILL)
        said = process.stderr.read().decode()  # until the last worker has let go of it
        process.stderr.close()
        assert process.wait() == (1 if killed == "worker" else -signal.SIGKILL)
        assert ("1 of 2 workers ended early (exit code -9; " in said) == (killed == "worker")
        assert not set(whole) <= set(os.listdir(tmp_path))
    CliRunner().invoke(main, command[:-2])
    assert files(tmp_path) == whole


# ---------------------------------------------------------------------- sources


@pytest.fixture
def holders(images, tmp_path, monkeypatch) -> Path:
    """A list, a Parquet file and a tar file of the first lines; the working directory holds them."""
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        Path(f"{index}.png").write_bytes(images[index])
    Path("list.txt").write_text("0.png\n\n2.png\ngone.png\n", encoding="utf-8")
    column = [
        {"bytes": images[0], "path": None},
        {"bytes": None, "path": "1.png"},
        None,
        {"bytes": images[2], "path": "x"},
    ]
    pa.parquet.write_table(pa.table({"scan": column, "id": range(4)}), "rows.parquet")
    with tarfile.open("shard.tar", "w") as archive:
        for name, content in (("a.png", images[0]), ("a.txt", b"text"), ("b.json", b"{}"), ("b.png", images[1])):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return tmp_path


def test_lists_parquet_and_tar_files_are_read(model, holders, images):
    names = ("list.txt", "rows.parquet", "shard.tar")
    found = list(expand(names, column="scan"))
    assert [source.name for source in found] == [
        "0.png", "2.png", "gone.png",
        "rows.parquet#0", "rows.parquet#1", "rows.parquet#2", "rows.parquet#3",
        "shard.tar/a.png", "shard.tar/b.png",
    ]  # fmt: skip
    wanted = ["0.png", "2.png", "gone.png", images[0], "1.png", None, images[2], images[0], images[1]]
    assert [None if isinstance(one.image, Exception) else one.image for one in found] == wanted
    assert count(names) is None and count(names[:2]) == 7
    assert all(isinstance(place, Place) for place in list(places(names, column="scan"))[3:])
    result = CliRunner().invoke(
        main, ["recognize", *names, "--image-column", "scan", "--model", str(model), "--backend", "torch"]
    )
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 7
    assert "gone.png: no such file" in result.stderr and "rows.parquet#2: an image as NoneType" in result.stderr


def test_a_damaged_holder_is_named(model, holders):
    Path("rows.parquet").write_bytes(b"PAR1")
    with open("shard.tar", "r+b") as archive:
        archive.truncate(512 + 100)
    result = CliRunner().invoke(main, ["recognize", "rows.parquet", "shard.tar", "--model", str(model)])
    assert result.exit_code == 1 and result.stdout == ""
    assert "rows.parquet: not a Parquet file, or a damaged one" in result.stderr
    assert "shard.tar/a.png: a.png: cannot be read, the file is truncated or damaged" in result.stderr


def test_options_of_runs_need_out(model, lines):
    result = CliRunner().invoke(main, ["recognize", str(lines), "--workers", "2"])
    assert result.exit_code == 2 and "need --out" in result.stderr
    assert "give such a name" in recognize(model, lines, Path("out.csv")).stderr
    result = recognize(model, lines, Path("out.jsonl"), "--format", "tsv")
    assert result.exit_code == 2 and "the name of --out, out.jsonl, says what is written there" in result.stderr


def test_what_is_asked_is_checked_before_it_is_written_down(model, lines, tmp_path):
    """So that a mistyped name can be corrected, and the same --out given again."""
    for asked in (["--lexicon", "nowhere.txt"], ["--allowed", "ŋ"], ["--lexicon-mode", "words"]):
        result = recognize(model, lines, tmp_path / "out" / "out.jsonl", *asked)
        assert result.exit_code == 1 and asked[1] in result.stderr
        assert not (tmp_path / "out").exists()


def test_errors_draw_no_bar_where_stderr_is_no_terminal(model, lines, tmp_path):
    result = recognize(model, lines, tmp_path / "out.jsonl")
    error, summary, count = result.stderr.splitlines()
    assert error.startswith(f"error: {lines}/image-{BAD + 1:09d}: ") and " lines read, " in summary
    assert count == f"1 of {LINES} could not be read"


def test_a_file_in_place_of_the_folder_and_a_second_run_are_named(model, lines, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    result = recognize(model, lines, tmp_path / "file" / "out.jsonl")
    assert result.exit_code == 1 and "file: cannot be listed (Not a directory); name a file" in result.stderr
    parts_of = Parts(tmp_path / "out.jsonl")
    message = "out-00000.jsonl: another run writes it at the same time; .* --shard"
    with pytest.raises(OutputError, match=message), parts_of.writing(0), parts_of.writing(0):
        pass
    assert os.path.exists(tmp_path / "out-00000.jsonl")
