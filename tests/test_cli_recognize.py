"""`ms-ocr recognize` as a user calls it: what it takes, what it prints where, and what it imports."""

import dataclasses
import functools
import http.server
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, render

from ms_ocr_handwritten import Recognizer, backends
from ms_ocr_handwritten.cli import main, reading
from ms_ocr_handwritten.cli.reading import read_sources
from ms_ocr_handwritten.cli.sources import Source, count, expand
from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.lmdb.store import write_lmdb

SURE = math.exp(5) / (math.exp(5) + len(ALPHABET) + 1)  # softmax of one logit of 5 among zeros, blank and id 1 included


def recognize(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["recognize", *map(str, arguments)], prog_name="ms-ocr")


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ms_ocr_handwritten.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@pytest.fixture
def always_a(tmp_path: Path) -> Path:
    """A model that reads every image as "a", with confidence SURE."""
    folder = make_model_dir(tmp_path / "always_a", ALPHABET, **TINY_NETWORK)
    weights = {name: torch.zeros_like(value) for name, value in torch.load(folder / "pytorch_model.pt").items()}
    weights["recognizer.vitstr.head.bias"][2 + ALPHABET.index("a")] = 5.0
    torch.save(weights, folder / "pytorch_model.pt")
    return folder


@pytest.fixture
def scans(tmp_path: Path, monkeypatch) -> Path:
    """scans/{b.png, a.JPG, notes.txt, sub/c.png}; the working directory is the one above."""
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    for name, text in (("b.png", "b12"), ("a.JPG", "a"), ("sub/c.png", "cc")):
        (folder / name).write_bytes(png(render(text)))
    (folder / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return folder


def test_one_image_is_its_text_alone(always_a, scans):
    result = recognize("--model", always_a, "scans/b.png")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a\n", "")


def test_paths_are_read_in_order_and_folders_by_name(always_a, scans):
    write_lmdb("lines", [(png(render("d")), "d"), (png(render("e")), "e")])
    result = recognize("--model", always_a, "scans/sub/c.png", "scans", "lines", "scans/*.png")
    assert (result.exit_code, result.stderr) == (0, "")
    names = [
        "scans/sub/c.png",
        "scans/a.JPG",
        "scans/b.png",
        "scans/sub/c.png",
        "lines/image-000000001",
        "lines/image-000000002",
        "scans/b.png",
    ]
    assert result.stdout == "".join(f"{name}\ta\n" for name in names)


@pytest.mark.parametrize("path", ["scans/sub", "scans/sub/*"])
def test_a_folder_of_one_image_still_shows_its_name(always_a, scans, path):
    assert recognize("--model", always_a, path).stdout == "scans/sub/c.png\ta\n"


def test_tsv_has_a_header_scores_and_escapes(always_a, scans):
    Path("scans/t\ta\\b\n.png").write_bytes(png(render("x")))
    result = recognize("--model", always_a, "scans/b.png", "scans/t\ta\\b\n.png", "--format", "tsv")
    assert result.stdout == f"path\tscore\ttext\nscans/b.png\t{SURE:.6f}\ta\nscans/t\\ta\\\\b\\n.png\t{SURE:.6f}\ta\n"


def test_hidden_files_in_folders_are_left_out_and_counted(always_a, scans):
    for name in (".ipynb_checkpoints/b.png", "__MACOSX/sub/._c.png", "sub/._c.png", ".DS_Store", ".git/notes.txt"):
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        (scans / name).write_bytes(b"no image")
    result = recognize("--model", always_a, "scans")
    assert result.exit_code == 0
    assert result.stdout == "scans/a.JPG\ta\nscans/b.png\ta\nscans/sub/c.png\ta\n"
    assert result.stderr == "scans: 3 hidden images left out (such as .x.png, __MACOSX)\n"
    assert count(("scans", "scans/*", "nowhere")) == len(list(expand(("scans", "scans/*", "nowhere")))) == 9
    (scans / ".ipynb_checkpoints/b.png").write_bytes(png(render("b")))
    assert recognize("--model", always_a, "scans/.ipynb_checkpoints/b.png").stdout == "a\n"  # it is named


def test_control_characters_in_a_name_do_not_break_its_line(always_a, scans):
    Path("scans/x\n\x1b[2J\\y.png").write_bytes(png(render("x")))
    Path("scans/z\n.png").write_bytes(b"no image")
    result = recognize("--model", always_a, "scans/x*", "scans/z*")
    assert result.stdout == "scans/x\\n\\x1b[2J\\\\y.png\ta\n"
    assert result.stderr.splitlines()[0].startswith("error: scans/z\\n.png: not a readable image")


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_jsonl_is_what_the_recogniser_says(tmp_path, scans, batch_size):
    model = make_model_dir(tmp_path / "random", ALPHABET, scale=3.0, **TINY_NETWORK)
    result = recognize(
        "--model", model, "scans", "--format", "jsonl", "--batch-size", batch_size, "--precision", "fp32"
    )
    names = ["scans/a.JPG", "scans/b.png", "scans/sub/c.png"]
    rows = [json.loads(row) for row in result.stdout.splitlines()]
    assert [row["path"] for row in rows] == names and len({row["score"] for row in rows}) == 3
    for row, line in zip(rows, Recognizer.from_pretrained(model, precision="fp32").read_many(names)):
        assert list(row) == ["path", "text", "score", "chars"]
        assert list(row["chars"][0]) == ["character", "score", "x0", "x1"]
        assert (row["text"], len(row["chars"])) == (line.text, len(line.chars)) and line.text
        assert row["score"] == pytest.approx(line.score, abs=1e-5)
        expected = dataclasses.asdict(line.chars[-1])
        assert row["chars"][-1] == {
            key: pytest.approx(value) if key == "score" else value for key, value in expected.items()
        }


def test_what_cannot_be_read_is_named_and_the_rest_is_read(always_a, scans):
    (scans / "bad.png").write_bytes(b"no image")
    Path("empty").mkdir()
    result = recognize("--model", always_a, "nowhere*.png", "scans", "empty", "scans/b.png", "file:///etc/passwd")
    assert result.exit_code == 1
    assert result.stdout == "".join(f"scans/{name}\ta\n" for name in ("a.JPG", "b.png", "sub/c.png", "b.png"))
    assert result.stderr.splitlines() == [
        "error: nowhere*.png: no such file or folder, and nothing matches it as a pattern "
        f"(looked in {os.getcwd()}); check the path",
        "error: scans/bad.png: not a readable image, "
        "no PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or JPEG 2000 file; give a PNG or JPEG",
        "error: empty: the folder holds no image (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp), and no data.mdb; "
        "name another",
        "error: file:///etc/passwd: file:// is not supported; give an http(s) URL, a plain path or the bytes",
        "4 of 8 could not be read",
    ]


def test_a_bad_record_of_an_lmdb_is_named_by_its_key(always_a, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lmdb("lines", [(png(render(text)), text) for text in "abcd"])
    with lmdb.open("lines") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-000000002", b"no image")
        transaction.delete(b"image-000000003")
        transaction.put(b"spare", b"")  # so that the number of records still agrees
    result = recognize("--model", always_a, "lines")
    assert result.exit_code == 1
    assert result.stdout == "lines/image-000000001\ta\nlines/image-000000004\ta\n"
    first, second, summary = result.stderr.splitlines()
    assert first.startswith("error: lines/image-000000002: 8 encoded bytes: not a readable image")
    assert second.startswith("error: ") and "lines: key image-000000003 is missing" in second
    assert summary == "2 of 4 could not be read"


def test_an_image_that_is_no_line_is_named(always_a, scans):
    (scans / "tall.png").write_bytes(png(render("a").repeat(100, axis=0)))
    result = recognize("--model", always_a, "scans/tall.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: scans/tall.png: an image of 28x4000 px is 0 px wide")


def test_a_broken_lmdb_is_one_error(always_a, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lines").mkdir()
    Path("lines/data.mdb").touch()
    result = recognize("--model", always_a, "lines")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("data.mdb is empty; copy or build the LMDB again\n1 of 1 could not be read\n")


def test_urls_are_fetched(always_a, scans):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=scans))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        assert recognize("--model", always_a, f"{address}/b.png").stdout == "a\n"
        result = recognize("--model", always_a, f"{address}/none.png", f"{address}/b.png")
    finally:
        server.shutdown()
        server.server_close()
    assert (result.exit_code, result.stdout) == (1, f"{address}/b.png\ta\n")
    assert result.stderr.startswith(f"error: {address}/none.png: download failed")


def test_no_more_than_a_batch_is_held_in_memory():
    taken = []

    def sources():
        for number in range(100):
            taken.append(number)
            yield Source(str(number), ImageError("bad") if number % 2 else b"image")

    def read(images):
        for first in images:
            second = next(images)
            yield from (first, second)

    for done, (source, line) in enumerate(read_sources(read, sources())):
        assert source.name == str(done) and isinstance(line, ImageError) == bool(done % 2)
        assert len(taken) <= done + 4
    assert done == 99


def test_a_missing_model_and_wrong_options_are_errors(tmp_path, scans):
    result = recognize("--model", tmp_path / "none", "scans")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {tmp_path / 'none' / 'configuration.json'}: no such file; ")
    assert recognize().exit_code == 2
    assert recognize("scans", "--batch-size", 0).exit_code == 2
    assert "'tf' is not one of 'auto', 'torch', 'onnxruntime'" in recognize("scans", "--backend", "tf").stderr


def test_the_choices_are_those_of_the_backends():
    assert (reading.BACKENDS, reading.PRECISIONS) == (backends.BACKENDS, backends.PRECISIONS)


def test_a_reader_that_leaves_early_ends_it_quietly(always_a, tmp_path):
    write_lmdb(tmp_path / "lines", [(png(render("a")), "a")] * 400)
    process = start("recognize", "--model", always_a, tmp_path / "lines", "--batch-size", 1, OMP_NUM_THREADS="1")
    assert process.stdout.readline() == f"{tmp_path / 'lines'}/image-000000001\ta\n".encode()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_pipe_gets_utf_8_whatever_the_locale(always_a, scans):
    (scans / "ñ行.png").write_bytes(png(render("a")))
    process = start("recognize", "--model", always_a, "scans/ñ行.png", "scans/none.png", PYTHONIOENCODING="gbk")
    output, errors = process.communicate(timeout=60)
    assert output.decode("utf-8") == "scans/ñ行.png\ta\n"
    assert process.returncode == 1 and errors.startswith(b"error: scans/none.png: no such file")


def test_neither_modelscope_nor_for_onnx_torch_is_imported(always_a, scans):
    assert CliRunner().invoke(main, ["export", "onnx", "--model", str(always_a)]).exit_code == 0
    (always_a / "pytorch_model.pt").unlink()
    script = """if True:
        import sys
        from ms_ocr_handwritten.cli import main
        main(sys.argv[1:], standalone_mode=False)
        print(sorted({"torch", "modelscope", "transformers", "datasets"} & sys.modules.keys()))"""
    arguments = ["recognize", "--model", str(always_a), "scans/b.png", "--backend", "onnxruntime"]
    output = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert output.stdout == "a\n[]\n"
