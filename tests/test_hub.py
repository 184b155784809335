"""What is asked of the network: nothing for local work; for a model id the hub, or ModelScope's cache."""

import shutil
import socket
import time
from pathlib import Path

import pytest
from conftest import png, render
from fresh import fresh
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer
from modelscope.utils.constant import Tasks

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import HubError
from ms_ocr_handwritten.plugin.hub import resolve_model

MODEL_ID = "damo/cv_convnextTiny_ocr-recognition-handwritten_damo"


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "line.png"
    path.write_bytes(png(render("b4d")))
    return path


def test_local_work_asks_nothing_of_the_network(tiny_model_dir, lines_lmdb, tmp_path, image, blocked_network):
    model = Model.from_pretrained(str(tiny_model_dir))
    lines = MsDataset.load("ICDAR13_HCTR_Dataset", namespace="damo", split="test", local_lmdb=str(lines_lmdb))
    for given in (str(tiny_model_dir), model):
        assert pipeline(Tasks.ocr_recognition, model=given)(str(image))["text"][0]
        trainer = build_trainer(
            Trainers.ocr_recognition,
            {"model": given, "eval_dataset": lines, "work_dir": str(tmp_path / "work"), "model_revision": "v2.3.0"},
        )
        assert trainer.evaluate()["lines"] == 48
    assert blocked_network == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda: pipeline(Tasks.ocr_recognition, model=MODEL_ID),
        lambda: pipeline(Tasks.ocr_recognition),
        lambda: build_trainer(Trainers.ocr_recognition, {"model": MODEL_ID}),
        lambda: Model.from_pretrained(MODEL_ID),
        lambda: Preprocessor.from_pretrained(MODEL_ID),
    ],
    ids=["pipeline", "default-model", "trainer", "model", "preprocessor"],
)
def test_an_id_out_of_reach_says_so_within_a_second(blocked_network, monkeypatch, tmp_path, ask):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(HubError, match=r"damo/cv_.*cannot be reached.*default_model_dir\(\)"):
        ask()
    assert time.monotonic() - started < 1
    assert len(blocked_network) == 1


def test_a_hub_that_never_answers_costs_less_than_a_second(blocked_network, monkeypatch, tmp_path):
    """A name server that hangs: the look-up outlasts any socket's time limit."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))

    def hang(*_, **__):
        time.sleep(2)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    with pytest.raises(HubError, match="cannot be reached"):
        pipeline(Tasks.ocr_recognition, model=MODEL_ID)
    assert time.monotonic() - started < 1


def test_a_proxy_counts_as_the_way_to_the_hub(monkeypatch, served, blocked_network):
    monkeypatch.setenv("https_proxy", served)
    monkeypatch.setenv("http_proxy", served)
    monkeypatch.setenv("no_proxy", "")
    assert resolve_model(MODEL_ID) == MODEL_ID
    assert blocked_network == []


FROM_THE_CACHE = """
import time
import ms_ocr_handwritten
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
started = time.monotonic()
reader = pipeline("ocr-recognition", model=VALUES["id"])
model = Model.from_pretrained(VALUES["id"])
trainer = build_trainer("ocr-recognition", dict(model=VALUES["id"]))
answer(text=reader(VALUES["image"])["text"], seconds=time.monotonic() - started,
       places=[reader.model_dir, model.model_dir, trainer.model_dir])
"""


@pytest.mark.parametrize(
    "layout", ["models/{owner}--{name}/snapshots/master", "models/{owner}/{name}", "hub/{owner}/{name}"]
)
def test_an_id_in_modelscopes_cache_reads_offline(tmp_path, tiny_model_dir, image, layout):
    """The layouts of ModelScope from 1.38 on, and of two older ones."""
    owner, name = MODEL_ID.split("/")
    place = tmp_path / "cache" / layout.format(owner=owner, name=name)
    shutil.copytree(tiny_model_dir, place)
    got = fresh(FROM_THE_CACHE, tmp_path, id=MODEL_ID, image=image)
    assert got["text"] == [Recognizer.from_pretrained(tiny_model_dir).read(image).text]
    assert {str(Path(one).resolve()) for one in got["places"]} == {str(place.resolve())}
    assert got["seconds"] < 10 and set(got["attempts"]) == {"www.modelscope.cn"}
