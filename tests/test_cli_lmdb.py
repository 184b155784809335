"""`ms-ocr lmdb ...` as a user calls it: texts, JSON, exit codes, and that help stays cheap."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ms_ocr_handwritten.cli import main


def ms_ocr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="ms-ocr")


@pytest.fixture
def table(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        Image.effect_noise((60, 20), 50).save(tmp_path / name)
    path = tmp_path / "labels.tsv"
    path.write_text("a.png\t第一行\nb.png\tb é\n", encoding="utf-8")
    return path


@pytest.fixture
def lines(table) -> Path:
    assert ms_ocr("lmdb", "build", table.parent / "lines", table).exit_code == 0
    return table.parent / "lines"


def test_build_says_what_it_wrote(table, tmp_path):
    result = ms_ocr("lmdb", "build", tmp_path / "out", table)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{tmp_path / 'out'}: 2 samples written, 0 records left out\n"


def test_build_into_an_existing_folder_is_one_line_on_stderr(lines, table):
    result = ms_ocr("lmdb", "build", lines, table)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: {lines}: exists already and is left as it is; choose another path, or move it away first\n"
    )


def test_build_leaves_a_bad_row_out_or_stops_at_it_when_told(table, tmp_path):
    table.write_text("a.png\tx \nno.png\ty\n", encoding="utf-8")
    result = ms_ocr("lmdb", "build", "--strict", tmp_path / "out", table)
    assert (result.exit_code, sorted(tmp_path.glob("*out*"))) == (1, [])
    assert result.stderr.startswith(f"error: {table}:2: image {tmp_path / 'no.png'} does not exist")
    result = ms_ocr("lmdb", "build", tmp_path / "out", table)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out'}: 1 sample written, 1 record left out",
        f"  1 label with a leading, trailing or double space: {table}:1",
        f"  {table}:2: image {tmp_path / 'no.png'} does not exist; correct the name, or give the image root",
    ]
    result = ms_ocr("lmdb", "build", "--json", tmp_path / "other", table)
    assert result.exit_code == 1  # something was left out
    report = json.loads(result.stdout)
    assert report["written"] == 1 and report["skipped"][0]["where"] == f"{table}:2"


def test_build_takes_the_images_from_elsewhere(table, tmp_path):
    (tmp_path / "tables").mkdir()
    moved = table.rename(tmp_path / "tables" / "labels.tsv")
    assert ms_ocr("lmdb", "build", tmp_path / "out", moved).exit_code == 1
    assert ms_ocr("lmdb", "build", tmp_path / "out", moved, "--image-root", tmp_path).exit_code == 0


def test_inspect_sums_up(lines):
    result = ms_ocr("lmdb", "inspect", lines)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{lines}: 2 samples\nformats:    PNG 2\nwidth:      60 to 60, median 60 px\n")
    assert "characters: 6 different: '第' 1" in result.stdout
    assert json.loads(ms_ocr("lmdb", "inspect", "--json", lines).stdout)["label_lengths"] == {"3": 2}


def test_inspect_beside_a_vocabulary_and_as_a_page(table, tmp_path):
    table.write_text("a.png\t第一行\nb.png\tb é\n", encoding="utf-8")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "vocab.txt").write_text("第\n一\n行\nb\n \nz\n", encoding="utf-8")
    page = tmp_path / "page.html"
    assert ms_ocr("lmdb", "build", tmp_path / "lines", table).exit_code == 0
    result = ms_ocr("lmdb", "inspect", tmp_path / "lines", "--vocab", tmp_path / "vocab.txt", "--report", page)
    assert result.stdout.splitlines()[-3:] == [
        "doubles:    1 image more than once: image-000000001 = image-000000002",
        "vocabulary: 5 of its 6 characters occur",
        "lacking:    1 character that it does not contain: 'é' 1",
    ]
    drawn = page.read_text(encoding="utf-8")
    assert "é (U+00E9) 1" in drawn and drawn.count("<svg") == 2 and "<title>90 to 90: 2</title>" in drawn
    again = ms_ocr("lmdb", "inspect", tmp_path / "lines", "--report", page)
    assert (again.exit_code, again.stderr[:7]) == (1, "error: ") and "exists already" in again.stderr


def test_a_report_that_cannot_be_written_says_why(lines, tmp_path):
    (tmp_path / "file").touch()
    result = ms_ocr("lmdb", "inspect", lines, "--report", tmp_path / "file" / "report.html")
    assert result.exit_code == 1 and "report.html: cannot be written (Not a directory)" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 elsewhere")
def test_lmdbs_may_have_names_that_are_no_utf_8(table, tmp_path):
    strange = tmp_path / os.fsdecode(b"lines \xff")
    result = ms_ocr("lmdb", "build", strange, table)
    assert result.exit_code == 0, result.stderr
    result = ms_ocr("lmdb", "inspect", strange, "--report", tmp_path / "report.html")
    assert result.exit_code == 0, result.stderr
    assert "lines \\udcff</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ms_ocr("lmdb", "split", strange, "--share", "0.5").exit_code == 0
    assert ms_ocr("lmdb", "export", strange, tmp_path / "folder").exit_code == 0


def test_validate_passes_or_lists_the_problems(lines, tmp_path):
    result = ms_ocr("lmdb", "validate", lines)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{lines}: 2 samples looked at, 0 problems\ncharacters and alignment were not checked: give --vocab\n"
    )
    (tmp_path / "vocab.txt").write_text("第\n一\n行\nb\n \n", encoding="utf-8")
    result = ms_ocr("lmdb", "validate", lines, "--vocab", tmp_path / "vocab.txt")
    assert result.exit_code == 1
    assert "unknown-character: 1\n  label-000000002  unknown-character: 'é' (U+00E9) in 'b é'\n" in result.stdout
    report = json.loads(ms_ocr("lmdb", "validate", "--json", lines, "--vocab", tmp_path / "vocab.txt").stdout)
    assert report["problems"][0]["key"] == "label-000000002"


def test_a_long_list_says_how_much_it_leaves_out(tmp_path):
    with lmdb.open(str(tmp_path / "bad")) as environment, environment.begin(write=True) as transaction:
        for number in range(1, 31):
            transaction.put(b"image-%d" % number, b"")
    result = ms_ocr("lmdb", "validate", tmp_path / "bad")
    assert result.exit_code == 1
    assert "31 problems" in result.stdout and "... and 11 more; --json lists all" in result.stdout
    assert len(json.loads(ms_ocr("lmdb", "validate", "--json", tmp_path / "bad").stdout)["problems"]) == 31


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_a_missing_path_is_an_error_without_a_traceback(command, tmp_path):
    result = ms_ocr("lmdb", command, tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"error: .*nowhere: no such file or folder; .*\n", result.stderr)


@pytest.mark.parametrize("arguments", [("lmdb", "inspect"), ("lmdb", "melt"), ("melt",), ("lmdb", "inspect", "--fast")])
def test_wrong_usage_has_exit_code_2(arguments):
    assert ms_ocr(*arguments).exit_code == 2


def test_what_cannot_be_written_is_named_with_the_reason(lines, table, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    page = tmp_path / "file" / "page.html"
    result = ms_ocr("lmdb", "inspect", lines, "--report", page)
    assert result.exit_code == 1 and f"error: {page}: cannot be written (Not a directory)" in result.stderr
    (tmp_path / ".again.building" / "building.lock").mkdir(parents=True)  # stands in the way of that file
    result = ms_ocr("lmdb", "build", tmp_path / "again", table)
    assert result.exit_code == 1 and "building.lock: cannot be written (Is a directory)" in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(lines):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "ms_ocr_handwritten.cli", "lmdb", "inspect", str(lines)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    expected = "error: stdout cannot be written (No space left on device); make room and run it again\n"
    assert (result.returncode, result.stderr) == (1, expected)


def test_help_imports_nothing_heavy():
    script = """if True:
        import sys, resource
        from ms_ocr_handwritten.cli import main
        main(["--help"], prog_name="ms-ocr", standalone_mode=False)
        for arguments in (["lmdb", "build"], ["recognize"], ["evaluate"], ["train"], ["export", "onnx"], ["synth"]):
            main([*arguments, "--help"], prog_name="ms-ocr", standalone_mode=False)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        heavy = {"torch", "modelscope", "transformers", "numpy", "cv2", "PIL", "lmdb", "tqdm"} & sys.modules.keys()
        print(sorted(heavy), usage.ru_utime + usage.ru_stime)"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    heavy, seconds = output.stdout.splitlines()[-1].rsplit(" ", 1)
    assert "Usage: ms-ocr [OPTIONS] COMMAND" in output.stdout
    assert heavy == "[]" and float(seconds) < 0.5


def test_version():
    from ms_ocr_handwritten import __version__

    assert ms_ocr("--version").stdout == f"ms-ocr {__version__}\n"
