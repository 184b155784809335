"""`ms-ocr evaluate`: figures worked out by hand, what is left out, and what it writes and imports."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import lmdb
import pytest
from click.testing import CliRunner, Result
from conftest import ALPHABET, png, render
from test_atomic import full_disk
from test_cli_recognize import SURE, always_a  # noqa: F401  (a fixture)

from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.cli.evaluate import evaluate_sources
from ms_ocr_handwritten.cli.sources import Source
from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.recognizer import Line
from ms_ocr_handwritten.vocab import Vocabulary

# Read as "a" each: 0 errors, 1 deletion, 1 substitution (x is in no vocabulary), 0 errors once folded; 5 characters.
LABELS = ["a", "ab", "x", "\uff41"]
FIGURES = {
    "lines": 4,
    "characters": 5,
    "cer": 0.4,
    "AR": 0.6,
    "CR": 0.6,
    "accuracy": 0.5,
    "cer_raw": 0.6,
    "accuracy_raw": 0.25,
    "cer_loose": 0.4,
    "accuracy_loose": 0.5,
    "unknown_characters": 1,
    "unreadable": 0,
}


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)], prog_name="ms-ocr")


@pytest.fixture
def sets(tmp_path: Path, monkeypatch) -> Path:
    """The working directory: lines/ is an LMDB of LABELS, table/ the same with labels.tsv."""
    monkeypatch.chdir(tmp_path)
    write_lmdb("lines", [(png(render("a")), label) for label in LABELS])
    Path("table").mkdir()
    for number in range(len(LABELS)):
        Path(f"table/{number}.png").write_bytes(png(render("a")))
    rows = "".join(f"{number}.png\t{label}\tmore\n" for number, label in enumerate(LABELS))
    Path("table/labels.tsv").write_text(rows, encoding="utf-8")
    return tmp_path


def test_json_holds_the_figures_of_every_set(always_a, sets):  # noqa: F811
    result = evaluate(
        "--model",
        always_a,
        "--backend",
        "torch",
        "--precision",
        "fp32",
        "table",
        "lines",
        "--format",
        "json",
        "--batch-size",
        3,
    )
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["backend"], report["precision"]) == ("torch", "fp32")
    for row, path in zip(report["sets"], ("table", "lines"), strict=True):
        assert (row.pop("path"), row.pop("unknown")) == (path, {"x": 1})
        assert row == pytest.approx(FIGURES)


def test_text_is_a_table(always_a, sets):  # noqa: F811
    result = evaluate("--model", always_a, "lines", "table")
    assert result.stdout.splitlines() == [
        "lines  chars      CER  CER loose  lines right  right loose       AR       CR  unknown chars  unreadable  path",
        "    4      5  40.00 %    40.00 %      50.00 %      50.00 %  60.00 %  60.00 %              1           0  lines",
        "    4      5  40.00 %    40.00 %      50.00 %      50.00 %  60.00 %  60.00 %              1           0  table",
    ]


def test_per_line_is_a_new_file(always_a, sets):  # noqa: F811
    result = evaluate("--model", always_a, "lines", "--per-line", "lines.tsv")
    assert result.exit_code == 0
    expected = "path\tlabel\ttext\tscore\n" + "".join(
        f"lines/image-00000000{number}\t{label}\ta\t{SURE:.6f}\n" for number, label in enumerate(LABELS, start=1)
    )
    assert Path("lines.tsv").read_text(encoding="utf-8") == expected
    result = evaluate("--model", always_a, "table", "--per-line", "lines.tsv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: lines.tsv: exists already and is left as it is; choose another --per-line\n"
    assert Path("lines.tsv").read_text(encoding="utf-8") == expected
    result = evaluate("--model", always_a, "table", "--per-line", "lines.tsv/lines.tsv")
    assert result.stderr.startswith("error: lines.tsv/lines.tsv: cannot be written (Not a directory)")
    result = evaluate("--model", always_a, "table", "--lexicon", "no.txt", "--per-line", "new/lines.tsv")
    assert "no.txt: cannot be read" in result.stderr and not os.listdir("new")  # what is not whole is not there


def test_a_full_disk_under_per_line_is_one_line(always_a, sets):  # noqa: F811
    with full_disk(100):
        result = evaluate("--model", always_a, "lines", "--per-line", "lines.tsv")
    assert result.stderr.startswith("error: lines.tsv: cannot be written (File too large); free some space")
    assert not os.path.exists("lines.tsv")


def test_unreadable_lines_are_named_counted_and_left_out(always_a, sets):  # noqa: F811
    with lmdb.open("lines") as environment, environment.begin(write=True) as transaction:
        transaction.put(b"image-000000002", b"no image")  # the deletion
    result = evaluate("--model", always_a, "lines", "--format", "json", "--per-line", "lines.tsv")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)["sets"]
    assert (row["lines"], row["unreadable"], row["cer"]) == (3, 1, pytest.approx(1 / 3))
    assert result.stderr.startswith("error: lines/image-000000002: 8 encoded bytes: not a readable image")
    assert result.stderr.endswith("\n1 of 4 could not be read\n")
    assert Path("lines.tsv").read_text(encoding="utf-8").splitlines()[2] == "lines/image-000000002\tab\t\t"


def test_a_set_of_which_nothing_is_readable_has_no_rates(always_a, sets):  # noqa: F811
    Path("broken").mkdir()
    Path("broken/data.mdb").touch()
    result = evaluate("--model", always_a, "broken")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].split() == ["0", "0", "-", "-", "-", "-", "-", "-", "0", "1", "broken"]


def test_a_path_that_is_no_set_stops_it_before_anything_is_read(sets):
    Path("empty").mkdir()
    result = evaluate("--model", "no_model", "lines", "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: empty: neither an LMDB (a folder with data.mdb) nor a folder with labels.tsv; name one of the two\n"
    )
    Path("table/labels.tsv").write_text("0.png\ta\nnone.png\tb\n", encoding="utf-8")
    result = evaluate("--model", "no_model", "table")
    assert result.stderr.startswith("error: table/labels.tsv:2: image table/none.png does not exist; ")


def test_any_recogniser_can_be_scored(capsys):
    texts = {"one": "abcd", "two": "A, b"}  # an insertion; loosely right
    sources = [
        Source("1", "one", "abc"),
        Source("2", "two", "ab"),
        Source("3", "bad", "c"),
        Source("4", ImageError("gone"), "d"),
    ]
    seen = []

    def read(images):
        for image in images:
            yield Line(texts[image], 0.5, ()) if image in texts else ImageError("what is that")

    result = evaluate_sources(read, sources, Vocabulary(("a", "b", "A")), lambda *pair: seen.append(pair))
    summary = result.row("both")
    assert (summary["cer"], summary["cer_loose"], summary["CR"]) == (
        4 / 5,
        1 / 5,
        1 - 1 / 5,
    )  # a -> A, and ", " goes in
    assert (result.unreadable, result.unknown) == (2, Counter("c"))  # of lines that were read
    assert [source for source, _ in seen] == sources
    assert capsys.readouterr().err == "error: 3: what is that\nerror: 4: gone\n"


def test_a_model_in_onnx_gives_the_same_figures_without_torch(always_a, sets):  # noqa: F811
    assert CliRunner().invoke(main, ["export", "onnx", "--model", str(always_a)]).exit_code == 0
    (always_a / "pytorch_model.pt").unlink()
    script = """if True:
        import sys
        from ms_ocr_handwritten.cli import main
        main(sys.argv[1:], standalone_mode=False)
        print(sorted({"torch", "modelscope", "transformers", "datasets"} & sys.modules.keys()))"""
    arguments = ["evaluate", "--model", str(always_a), "lines", "--format", "json"]
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    report, _, imported = run.stdout.rstrip().rpartition("\n")
    assert imported == "[]"
    report = json.loads(report)
    assert report["backend"] == "onnxruntime" and report["sets"][0]["cer"] == pytest.approx(0.4)
    assert report["sets"][0]["unknown"] == {"x": 1}


def test_the_alphabet_lacks_the_unknown_character():
    assert "x" not in ALPHABET and "a" in ALPHABET
