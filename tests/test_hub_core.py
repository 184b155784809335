"""Ids where no ModelScope is asked for by name: `Recognizer` and the command line, against the hub on loopback."""

from pathlib import Path

import pytest
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render, weaken_positions
from fresh import fresh
from hub_server import Hub

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.model_id import is_model_id, local_directory

MODEL_ID = "damo/cv_convnextTiny_ocr-recognition-handwritten_damo"

CORE = """
from click.testing import CliRunner
from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.cli import main
recognizer = Recognizer.from_pretrained(VALUES["id"], revision="v2.3.0")
commands = {
    "recognize": ["recognize", "--model", VALUES["id"], VALUES["image"]],
    "evaluate": ["evaluate", "--model", VALUES["id"], "--format", "json", VALUES["lmdb"]],
    "train": ["train", "--model", VALUES["id"], "--train", VALUES["lmdb"], "--work-dir", "work",
              "--set", "train.max_epochs=1", "--set", "train.optimizer.lr=0.0"],
    "export": ["export", "onnx", "--model", VALUES["id"], "--out", "model.onnx"],
    "export into the cache": ["export", "onnx", "--model", VALUES["id"]],
}
results = {name: CliRunner().invoke(main, arguments) for name, arguments in commands.items()}
answer(text=recognizer.read(VALUES["image"]).text, codes={name: one.exit_code for name, one in results.items()},
       stdout={name: one.stdout for name, one in results.items()}, error=results["export into the cache"].stderr,
       tail=[one.stderr[-800:] for one in results.values()], pipelines="modelscope.pipelines" in sys.modules)
"""


@pytest.fixture
def model_dir(tmp_path) -> Path:
    return weaken_positions(make_model_dir(tmp_path / "served", ALPHABET, scale=3.0, **TINY_NETWORK))


def test_recognizer_and_commands_take_ids(tmp_path, model_dir):
    image = tmp_path / "line.png"
    image.write_bytes(png(render("b4d")))
    write_lmdb(tmp_path / "lines", [(png(render(text)), text) for text in random_texts(8, 4)])
    hub = Hub(models={MODEL_ID: {"master": model_dir, "v2.3.0": model_dir}}).start(tmp_path)
    try:
        environment = hub.environment(tmp_path / "cache")
        got = fresh(CORE, tmp_path, environment=environment, id=MODEL_ID, image=image, lmdb=tmp_path / "lines")
    finally:
        hub.stop()
    expected = Recognizer.from_pretrained(model_dir).read(image).text
    assert got["text"] == expected != ""
    assert got["codes"] == {
        "recognize": 0, "evaluate": 0, "train": 0, "export": 0, "export into the cache": 1
    }, got["tail"]  # fmt: skip
    assert got["stdout"]["recognize"] == f"{expected}\n", "nothing but the text, whatever ModelScope prints"
    assert '"lines": 8' in got["stdout"]["evaluate"]
    assert (tmp_path / "work" / "output" / "pytorch_model.pt").exists()
    assert (tmp_path / "model.onnx").stat().st_size > 100_000
    assert f"error: {MODEL_ID}: is not a directory; to export a model by its id, give --out FILE" in got["error"]
    assert got["pipelines"] is False
    assert hub.unknown == [] and got["attempts"] == []


@pytest.mark.parametrize("model", ["owner/name", "./name", "~/name", "/name", "name", "a/b/c", "owner/", "/"])
def test_the_form_of_an_id(model):
    assert is_model_id(model) == (model == "owner/name")


def test_only_a_text_that_is_no_directory_can_be_an_id(tmp_path, monkeypatch, blocked_network):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_directory("owner/name") == "owner/name"
    with pytest.raises(ConfigurationError, match="other/name/configuration.json: no such file"):
        Recognizer.from_pretrained(Path("other/name"))
    assert blocked_network == []
