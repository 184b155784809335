"""`ms-ocr train`, `export` and `synth`: real runs on tiny lines, overrides, refusals, two processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render
from test_synth import small_inputs  # noqa: F401  (a fixture)

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.cli.train import override
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb
from ms_ocr_handwritten.model_dir import default_model_dir
from ms_ocr_handwritten.nets.weights import read_weights
from ms_ocr_handwritten.onnx.export import OPSET
from ms_ocr_handwritten.synth.text import KINDS
from ms_ocr_handwritten.training.distributed import Ranks

FAST = ("--set", "train.max_epochs=2", "--set", "train.dataloader.batch_size_per_gpu=16")


def ms_ocr(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="ms-ocr")


def train(model: Path, lines: Path, work_dir: Path, *more: object) -> Result:
    return ms_ocr("train", "--model", model, "--train", lines, "--eval", lines, "--work-dir", work_dir, *FAST, *more)


def evaluations(work_dir: Path) -> dict[int, dict]:
    entries = [json.loads(line) for line in (work_dir / "train_log.jsonl").read_text().splitlines()]
    return {entry["epoch"]: entry for entry in entries if entry["mode"] == "eval"}


def test_without_a_model_the_embedded_one_is_trained_on(lines_lmdb, tmp_path):
    work = tmp_path / "work"
    result = ms_ocr(
        "train",
        "--train",
        lines_lmdb,
        "--work-dir",
        work,
        "--set",
        "train.max_epochs=1",
        "--set",
        "train.optimizer.lr=0.0",
    )
    assert result.exit_code == 0, result.stderr
    expected, trained = (
        read_weights(Path(folder) / "pytorch_model.pt") for folder in (default_model_dir(), work / "output")
    )
    assert all(torch.equal(value.float(), trained[name]) for name, value in expected.items())  # at a rate of 0


def test_train_writes_the_work_dir_and_prints_the_last_scores(tiny_model_dir, lines_lmdb, tmp_path):
    work = tmp_path / "work"
    result = train(
        tiny_model_dir, lines_lmdb, work, "--set", "train.optimizer.lr=0.0005", "--set", 'train.precision="fp32"'
    )
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["lines"], summary["characters"]) == (48, sum(map(len, random_texts(48, 4))))
    last = evaluations(work)[2]
    assert last["avg_loss"] < evaluations(work)[1]["avg_loss"] and {key: last[key] for key in summary} == summary
    assert {path.name for path in work.glob("*.pth")} >= {"epoch_1.pth", "epoch_2.pth"}
    written = json.loads((work / "output" / "configuration.json").read_text())["train"]
    assert (written["optimizer"]["lr"], written["work_dir"], written["max_epochs"]) == (0.0005, str(work), 2)
    assert ms_ocr("evaluate", "--model", work / "output", lines_lmdb).exit_code == 0

    result = train(tiny_model_dir, lines_lmdb, work, "--set", "train.optimizer.lr=0.0005")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {work}") and "finished training of 2 epochs" in result.stderr

    result = train(tiny_model_dir, lines_lmdb, work, "--set", "train.optimizer.lr=0.0005", "--from", work / "epoch_1")
    assert result.exit_code == 0, result.stderr
    assert f"resuming after epoch 1, batch 0; later epochs moved to {work / 'superseded_1'}" in result.stderr
    assert json.loads(result.stdout)["avg_loss"] == pytest.approx(summary["avg_loss"], rel=1e-4)


def test_config_names_another_file_and_no_eval_gives_no_scores(tiny_model_dir, lines_lmdb, tmp_path):
    raw = json.loads((tiny_model_dir / "configuration.json").read_text())
    raw["train"]["max_epochs"] = 1
    raw["train"]["checkpoint"]["period"]["save_dir"] = str(tmp_path / "elsewhere")
    (tmp_path / "mine.json").write_text(json.dumps(raw))
    base = ("train", "--model", tiny_model_dir, "--train", lines_lmdb, "--config", tmp_path / "mine.json")
    result = ms_ocr(*base, "--work-dir", tmp_path / "work")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {})
    assert (tmp_path / "work" / "epoch_1.pth").exists() and not (tmp_path / "elsewhere").exists()
    result = ms_ocr(
        *base,
        "--work-dir",
        tmp_path / "work2",
        "--set",
        f"train.checkpoint.period.save_dir={json.dumps(str(tmp_path / 'elsewhere'))}",
    )
    assert result.exit_code == 0 and (tmp_path / "elsewhere" / "epoch_1.pth").exists()


def test_a_wrong_configuration_is_refused_before_anything_is_written(tiny_model_dir, lines_lmdb, tmp_path):
    work = tmp_path / "work"
    result = train(tiny_model_dir, lines_lmdb, work, "--set", "train.epochs=3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "unknown key train.epochs; allowed here: " in result.stderr
    (tmp_path / "list.json").write_text("[]")
    result = train(tiny_model_dir, lines_lmdb, work, "--config", tmp_path / "list.json")
    assert result.stderr.startswith(f"error: {tmp_path / 'list.json'}: holds a list, not an object; ")
    result = train(tiny_model_dir, tmp_path / "none", work)
    assert result.stderr.startswith(f"error: {tmp_path / 'none'}: no such file or folder; ")
    assert not work.exists()
    assert ms_ocr("train", "--model", tiny_model_dir).exit_code == 2


def test_override_sets_json_values_and_makes_missing_objects():
    raw = {"train": {"max_epochs": 30, "optimizer": {"lr": 0.1}}}
    for assignment in (
        "train.max_epochs=2",
        "train.optimizer.lr=5e-4",
        "train.lr_scheduler.milestones=[1, 2]",
        'train.optimizer.type="SGD"',
        "evaluation.period.interval=2",
        "train.augment=true",
    ):
        override(raw, assignment)
    assert raw == {
        "train": {
            "max_epochs": 2,
            "optimizer": {"lr": 0.0005, "type": "SGD"},
            "augment": True,
            "lr_scheduler": {"milestones": [1, 2]},
        },
        "evaluation": {"period": {"interval": 2}},
    }


@pytest.mark.parametrize(
    "assignment, message",
    [
        (
            "train.max_epochs",
            "--set train.max_epochs: expected a dotted key, = and a JSON value, such as train.optimizer.lr=0.0005",
        ),
        (
            "train..lr=1",
            "--set train..lr=1: expected a dotted key, = and a JSON value, such as train.optimizer.lr=0.0005",
        ),
        ("=1", "--set =1: expected a dotted key, = and a JSON value, such as train.optimizer.lr=0.0005"),
        (
            "train.optimizer.type=SGD",
            "--set train.optimizer.type=SGD: 'SGD' is not JSON; a text needs double quotes within "
            "the shell's own: --set 'train.optimizer.type=\"SGD\"'",
        ),
        (
            "train.max_epochs.first=1",
            "--set train.max_epochs.first: train.max_epochs is 30, not an object; it has no keys to set",
        ),
    ],
)
def test_override_refuses(assignment, message):
    raw = {"train": {"max_epochs": 30}}
    with pytest.raises(ConfigurationError) as error:
        override(raw, assignment)
    assert str(error.value) == message and raw == {"train": {"max_epochs": 30}}


def test_two_processes_train_as_one_and_print_once(tiny_model_dir, tmp_path):
    write_lmdb(tmp_path / "lines", [(png(render(text)), text) for text in (*random_texts(15, 3), "x")])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "-m",
        "ms_ocr_handwritten.cli",
        "train",
        "--model",
        tiny_model_dir,
        "--train",
        tmp_path / "lines",
        "--eval",
        tmp_path / "lines",
        "--work-dir",
        tmp_path / "work",
        *FAST,
        "--set",
        'train.unknown_characters="drop"',
    ]
    run = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr
    printed = re.sub(r"\[Gloo\][^[{]*", "", run.stdout)  # what PyTorch 2.10 itself prints
    assert json.loads(printed)["lines"] == 16
    assert run.stderr.count("1 lines left out, for characters that are not in vocab.txt") == 1


def test_a_process_that_is_done_leaves_its_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    Ranks.join().leave()
    assert not torch.distributed.is_initialized()
    Ranks.join().leave()  # alone


def test_the_module_runs_as_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "ms_ocr_handwritten.cli", "export", "onnx"], capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr.startswith("Usage: ms-ocr export onnx [OPTIONS]\n")


def test_export_writes_model_onnx_and_replaces_it_only_when_told(tmp_path):
    model = make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    result = ms_ocr("export", "onnx", "--model", model)
    path = model / "model.onnx"
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: {path.stat().st_size} bytes, opset {OPSET}\n"
    images = [render(text) for text in random_texts(5, 40)]
    expected, lines = (
        [line.text for line in Recognizer.from_pretrained(model, backend, "fp32").read_many(images)]
        for backend in ("torch", "onnxruntime")
    )
    assert lines == expected and any(expected)

    path.write_bytes(b"mine")
    result = ms_ocr("export", "onnx", "--model", model)
    assert (result.exit_code, result.stdout, path.read_bytes()) == (1, "", b"mine")
    assert (
        result.stderr == f"error: {path}: exists already and is left as it is; give --force to replace it, or "
        "another --out\n"
    )
    assert ms_ocr("export", "onnx", "--model", model, "--force").exit_code == 0
    assert onnx.load(path).opset_import[0].version == OPSET


def test_export_to_another_file_with_another_opset(tiny_model_dir, tmp_path):
    path = tmp_path / "new" / "small.onnx"
    result = ms_ocr("export", "onnx", "--model", tiny_model_dir, "--out", path, "--opset", 16)
    assert result.exit_code == 0 and onnx.load(path).opset_import[0].version == 16
    assert not (tiny_model_dir / "model.onnx").exists()
    result = ms_ocr("export", "onnx", "--model", tiny_model_dir, "--out", tmp_path / "x.onnx", "--opset", 99)
    assert result.exit_code == 1 and not list(tmp_path.glob("*x.onnx*"))
    assert result.stderr == (f"error: opset 99 is not in 14 to 20; try {OPSET}\n")
    assert ms_ocr("export", "onnx", "--model", tiny_model_dir, "--opset", 13).exit_code == 2
    assert f"[default: {OPSET}]" in ms_ocr("export", "onnx", "--help").stdout


def test_export_needs_weights(tiny_model_dir):
    (tiny_model_dir / "pytorch_model.pt").unlink()
    result = ms_ocr("export", "onnx", "--model", tiny_model_dir)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tiny_model_dir}: holds no pytorch_model.pt; ")


def test_the_help_of_synth_lists_every_kind_of_text():
    listed = re.search(r"Only texts of this kind \((.*?)\)", " ".join(ms_ocr("synth", "--help").stdout.split()))
    assert listed and listed[1].split(", ") == list(KINDS)


def test_synth_draws_the_lines_of_a_seed(small_inputs, tmp_path):  # noqa: F811
    base = ("synth", "--inputs", small_inputs, "--seed", 5)
    result = ms_ocr(*base, "--out", tmp_path / "all", "--lines", 4)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'all'}: 4 samples written\n")
    assert ms_ocr(*base, "--out", tmp_path / "last", "--lines", 2, "--start", 2).exit_code == 0
    lines, last = LmdbReader(tmp_path / "all"), LmdbReader(tmp_path / "last")
    assert [lines.read(2), lines.read(3)] == [last.read(0), last.read(1)] and len(last) == 2
    assert lines.read(0) != lines.read(1)
    assert ms_ocr(*base, "--out", tmp_path / "narrow", "--lines", 4, "--max-width", 40).exit_code == 0
    narrow = LmdbReader(tmp_path / "narrow")
    assert sum(len(narrow.label(i)) for i in range(4)) < sum(len(lines.label(i)) for i in range(4))


def test_synth_draws_only_the_kinds_of_text_that_are_asked_for(small_inputs, tmp_path):  # noqa: F811
    base = ("synth", "--inputs", small_inputs, "--lines", 12, "--out")
    assert ms_ocr(*base, tmp_path / "words", "--only", "words").exit_code == 0
    lines = LmdbReader(tmp_path / "words")
    allowed = set("一二十口王" + ",。、;:?!…·“”《》()「」")  # the words of the inputs, and marks between them
    assert set("".join(lines.label(index) for index in range(12))) <= allowed
    result = ms_ocr(*base, tmp_path / "poems", "--only", "poems", "--only", "words")
    assert (result.exit_code, result.stdout) == (1, "") and not (tmp_path / "poems").exists()
    assert result.stderr.startswith("error: --only poems: no such kind; available: words, prose, rare, english")


def test_synth_refuses_an_existing_folder_and_missing_inputs(small_inputs, tmp_path):  # noqa: F811
    (tmp_path / "mine").mkdir()
    result = ms_ocr("synth", "--inputs", small_inputs, "--out", tmp_path / "mine", "--lines", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {tmp_path / 'mine'}: exists already and is left as it is; ")
    result = ms_ocr("synth", "--inputs", tmp_path / "none", "--out", tmp_path / "out", "--lines", 1)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert result.stderr.startswith(f"error: {tmp_path / 'none'}: neither strokes/ nor fonts/ with glyphs; ")
