"""`ms-ocr evaluate --peer`: a row for each reader, the same pixels for both, and what happens where the peer fails.

Tests that read with the peer need `pip install .[peer]` and are skipped without it.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, render
from test_cli_evaluate import evaluate
from test_cli_recognize import SURE, always_a  # noqa: F401  (a fixture)

from ms_ocr_handwritten.cli import peer
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.recognizer import Line

needs_rapidocr = pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra `peer`")

COLOURED = np.where(render("345") < 128, np.uint8([0, 90, 255]), np.uint8([250, 180, 0]))  # orange on blue, as BGR
IMAGES = [render("12"), COLOURED, np.full((40, 60, 3), 255, np.uint8)]
LABELS = ["12", "345", "a"]  # the model reads "a" three times; the peer "12", "345" and nothing
LONG = np.full((10, 2500, 3), 255, np.uint8)  # the peer scales it to a height of 0 px
FIGURES = {
    "model": {"lines": 3, "characters": 6, "cer": 5 / 6, "accuracy": 1 / 3, "AR": 1 / 6, "CR": 1 / 6},
    "rapidocr": {"lines": 3, "characters": 6, "cer": 1 / 6, "accuracy": 2 / 3, "AR": 5 / 6, "CR": 5 / 6},
}


@pytest.fixture
def sets(tmp_path: Path, monkeypatch) -> Path:
    """The working directory: lines/ is an LMDB of IMAGES and LABELS, table/ the same with labels.tsv."""
    monkeypatch.chdir(tmp_path)
    write_lmdb("lines", [(png(image), label) for image, label in zip(IMAGES, LABELS, strict=True)])
    Path("table").mkdir()
    for number, image in enumerate(IMAGES):
        Path(f"table/{number}.png").write_bytes(png(image))
    rows = "".join(f"{number}.png\t{label}\n" for number, label in enumerate(LABELS))
    Path("table/labels.tsv").write_text(rows, encoding="utf-8")
    return tmp_path


@needs_rapidocr
def test_both_read_every_set_and_nothing_is_asked_of_the_network(always_a, sets, blocked_network):  # noqa: F811
    result = evaluate("--model", always_a, "--peer", "rapidocr", "lines", "table", "--format", "json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["sets"]
    assert [(row["path"], row["reader"]) for row in rows] == [
        ("lines", "model"),
        ("lines", "rapidocr"),
        ("table", "model"),
        ("table", "rapidocr"),
    ]
    for row in rows:
        expected = FIGURES[row["reader"]]
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert blocked_network == []


@needs_rapidocr
def test_the_table_says_who_reads_and_the_log_is_quiet(always_a, sets):  # noqa: F811
    command = [sys.executable, "-m", "ms_ocr_handwritten.cli", "evaluate", "--model", str(always_a), "lines"]
    run = subprocess.run([*command, "--peer", "rapidocr"], check=False, capture_output=True, text=True)
    said_once = "an image of 46x40 px has wide margins (ink takes 42% of its height); crop it closer, or set "
    assert (run.returncode, run.stderr) == (0, f"{said_once}trim='auto' (said once)\n")
    assert [re.split("  +", line.strip()) for line in run.stdout.splitlines()] == [
        [
            "lines",
            "chars",
            "CER",
            "CER loose",
            "lines right",
            "right loose",
            "AR",
            "CR",
            "unknown chars",
            "unreadable",
            "in neither",
            "reader",
            "path",
        ],
        ["3", "6", *["83.33 %"] * 2, *["33.33 %"] * 2, *["16.67 %"] * 2, "0", "0", "0", "model", "lines"],
        ["3", "6", *["16.67 %"] * 2, *["66.67 %"] * 2, *["83.33 %"] * 2, "0", "0", "0", "rapidocr", "lines"],
    ]


@needs_rapidocr
def test_the_peer_reads_as_it_does_by_itself_on_what_opencv_gives(always_a, sets):  # noqa: F811
    from rapidocr import RapidOCR

    assert evaluate("--model", always_a, "--peer", "rapidocr", "table", "--per-line", "lines.tsv").exit_code == 0
    header, *rows = [line.split("\t") for line in Path("lines.tsv").read_text(encoding="utf-8").splitlines()]
    assert header == ["path", "reader", "label", "text", "score"]
    assert rows[:3] == [
        [f"table/{number}.png", "model", label, "a", f"{SURE:.6f}"] for number, label in enumerate(LABELS)
    ]
    engine = RapidOCR(params={"Global.log_level": "critical"})
    scores = []
    for number, (label, row) in enumerate(zip(LABELS, rows[3:], strict=True)):
        image = cv2.imread(f"table/{number}.png")
        alone, swapped = (
            engine(one, use_det=False, use_cls=False, use_rec=True)
            for one in (image, np.ascontiguousarray(image[..., ::-1]))
        )
        assert row == [f"table/{number}.png", "rapidocr", label, alone.txts[0], f"{alone.scores[0]:.6f}"]
        scores.append((alone.scores[0], swapped.scores[0]))
    assert scores[1][0] != scores[1][1]  # the coloured line tells BGR from RGB
    assert rows[5][3:] == ["", "0.000000"]


@needs_rapidocr
def test_each_counts_what_its_own_vocabulary_lacks(tmp_path):
    model = make_model_dir(tmp_path / "model", ALPHABET + "\U00012000", **TINY_NETWORK)
    labels = ["1\u4e00\U00012000\U00012001", "\U00012001\uff11"]  # the hanzi is for the peer alone, the first sign for
    write_lmdb(tmp_path / "lines", [(png(render("1")), label) for label in labels])  # the model, the second for neither
    result = evaluate("--model", model, "--peer", "rapidocr", tmp_path / "lines", "--format", "json")
    ours, others = json.loads(result.stdout)["sets"]
    assert (ours["unknown"], ours["unknown_characters"]) == ({"\U00012001": 2, "\u4e00": 1}, 3)
    assert (others["unknown"], others["unknown_characters"]) == ({"\U00012001": 2, "\U00012000": 1}, 3)
    for row in (ours, others):
        assert (row["in_neither"], row["in_neither_characters"]) == ({"\U00012001": 2}, 2)
        assert row["characters"] == 6  # all of them count
    assert others["cer"] >= 3 / 6


@needs_rapidocr
def test_the_vocabulary_of_the_peer_is_that_of_its_file():
    import onnxruntime
    import rapidocr

    weights = Path(rapidocr.__file__).parent / "models" / "PP-OCRv6_rec_small.onnx"
    metadata = onnxruntime.InferenceSession(weights).get_modelmeta().custom_metadata_map
    assert peer.RapidOcr().vocabulary.characters == (*metadata["character"].split("\n"), " ")


@needs_rapidocr
def test_no_result_is_an_empty_text(monkeypatch):
    reader = peer.RapidOcr()
    monkeypatch.setitem(peer._ALONE, "use_rec", False)  # then it has no texts at all, as when nothing is recognised
    assert list(reader.read_many([IMAGES[0]])) == [Line("", 0.0, ())]


@needs_rapidocr
def test_what_the_peer_alone_cannot_read_is_named_and_left_out_of_its_row(always_a, sets):  # noqa: F811
    write_lmdb("mixed", [(png(IMAGES[0]), "12"), (png(LONG), "a"), (b"no image", "b")])
    result = evaluate("--model", always_a, "--peer", "rapidocr", "mixed", "--format", "json", "--per-line", "lines.tsv")
    assert result.exit_code == 1
    ours, others = json.loads(result.stdout)["sets"]
    assert (ours["lines"], ours["unreadable"], ours["cer"]) == (2, 1, pytest.approx(2 / 3))
    assert (others["lines"], others["unreadable"], others["cer"]) == (1, 2, 0)
    by_model, too_long, by_peer, summary = result.stderr.splitlines()
    assert by_model.startswith("error: mixed/image-000000003: model: 8 encoded bytes: not a readable image")
    assert by_peer == by_model.replace("model", "rapidocr")
    assert too_long == (
        "error: mixed/image-000000002: rapidocr: rapidocr fails on an image of 2500x10 px "
        "(ResizeImgError); leave it out of the set for figures on the same lines"
    )
    assert summary == "3 of 6 could not be read"
    assert Path("lines.tsv").read_text(encoding="utf-8").splitlines()[5] == "mixed/image-000000002\trapidocr\ta\t\t"


@pytest.mark.parametrize("missing", ["rapidocr", "onnxruntime"])
def test_a_missing_package_names_the_extra(always_a, sets, monkeypatch, missing):  # noqa: F811
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setitem(sys.modules, missing, None)
    result = evaluate("--model", always_a, "--backend", "torch", "--peer", "rapidocr", "lines")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: --peer rapidocr needs the packages rapidocr and onnxruntime (")
    assert f"{missing}" in result.stderr.partition("(")[2]
    assert result.stderr.endswith("; `pip install ms_ocr_handwritten[peer]`\n")


@needs_rapidocr
def test_missing_weights_are_not_fetched(always_a, sets, monkeypatch, blocked_network):  # noqa: F811
    monkeypatch.setitem(peer._WEIGHTS, "Rec", "none.onnx")
    result = evaluate("--model", always_a, "--peer", "rapidocr", "lines")
    assert (result.exit_code, result.stdout, blocked_network) == (1, "", [])
    assert "none.onnx is missing, which rapidocr brings from 3.10 on; `pip install --upgrade" in result.stderr
