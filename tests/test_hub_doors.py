"""ModelScope's other doors, and what upstream's own tests for these tasks call, against the hub on loopback."""

import base64
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, png, render, weaken_positions
from fresh import fresh
from hub_server import Hub
from modelscope.metainfo import Trainers
from modelscope.models.cv.ocr_recognition.modules.CRNN.main_model import CRNN
from modelscope.models.cv.ocr_recognition.modules.LightweightEdge.main_model import LightweightEdge
from modelscope.trainers import build_trainer
from test_registration import make_upstream_model_dir

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import BackendError
from ms_ocr_handwritten.lmdb.store import write_lmdb

GENERAL = "damo/cv_convnextTiny_ocr-recognition-general_damo"  # ModelScope's default for the task
CRNN_ID = "damo/cv_crnn_ocr-recognition-general_damo"  # of upstream's own tests
EDGE_ID = "damo/cv_LightweightEdge_ocr-recognitoin-general_damo"  # sic, on the hub


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("repositories")
    (folder / "line.png").write_bytes(png(render("b4d")))
    write_lmdb(folder / "test" / "lmdb", [(png(render(text)), text) for text in ("b4d", "01")])
    return {
        "convnext": weaken_positions(make_model_dir(folder / "convnext", ALPHABET, scale=3.0, **TINY_NETWORK)),
        "crnn": make_upstream_model_dir(folder / "crnn", CRNN),
        "edge": make_upstream_model_dir(folder / "edge", LightweightEdge),
        "test": folder / "test",
        "image": folder / "line.png",
    }


@pytest.fixture
def hub(folders, tmp_path):
    models = {
        GENERAL: {"master": folders["convnext"], "v2.0.0": folders["convnext"]},
        CRNN_ID: {"master": folders["crnn"], "v1.0.0": folders["crnn"]},
        EDGE_ID: {"master": folders["edge"], "v2.2.2": folders["edge"]},
    }
    made = Hub(models=models, data_sets={"damo/ICDAR13_HCTR_Dataset": {"test": folders["test"]}}).start(tmp_path)
    yield made
    made.stop()
    assert made.unknown == []


DOORS = """
import ms_ocr_handwritten
import torch
from PIL import Image
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks
from modelscope.utils import input_output as server
from ms_ocr_handwritten.plugin.registration import upstream_class

# as upstream's tests of the pipeline
crnn = pipeline(Tasks.ocr_recognition, model=VALUES["crnn"], model_revision="v1.0.0")
texts = [crnn(VALUES["image"])["text"], crnn(Image.open(VALUES["image"]))["text"]]
default = pipeline(Tasks.ocr_recognition, model_revision="v2.0.0")
edge = pipeline(Tasks.ocr_recognition, model=VALUES["edge"])
texts += [default(VALUES["image"])["text"], edge(VALUES["image"])["text"]]

# what code that is handed a pipeline looks at, which ModelScope's own has
model = upstream_class("MODELS", "ocr-recognition", "OCRRecognition")(VALUES["folder"])
class Builtin(upstream_class("PIPELINES", "ocr-recognition", "convnextTiny-ocr-recognition")):
    def initiate_single_model(self, model_or_dir, **kwargs):
        return model
Builtin.__module__, Builtin.__name__ = Builtin.__base__.__module__, Builtin.__base__.__name__  # as its source has it
preprocessor = upstream_class("PREPROCESSORS", "cv", "ocr-recognition")(VALUES["folder"])
builtin = Builtin(VALUES["folder"], preprocessor=preprocessor)
missing = sorted(name for name in vars(builtin) if not hasattr(default, name) and name != "ocr_recognizer")
default.prepare_model(), builtin.prepare_model()
same = {name: getattr(default, name) == getattr(builtin, name) for name in
        ("device", "device_name", "device_map", "framework", "has_multiple_models", "_model_prepare")}
network = default.model
logits = network(default.preprocessor(VALUES["image"])["image"])["probs"]

# as ModelScope's server and its deploy checker
served = server.create_pipeline(VALUES["general"], "v2.0.0")
schemas = [server.get_pipeline_information_by_pipeline(one).schema for one in (served, builtin)]
info = server.get_pipeline_information_by_pipeline(served)
output = server.call_pipeline_with_json(info, served, {"input": {"image": VALUES["base64"]}})
encoded = server.pipeline_output_to_service_base64_output(info.task_name, output)
answer(texts=texts, missing=missing, same=same, logits=list(logits.shape), eval=not network.training,
       models=[type(one).__name__ for one in default.models], schemas=schemas, encoded=encoded,
       task=served.group_key, json=json.loads(json.dumps(server.get_task_schemas(served.group_key))) is not None)
"""


def test_the_other_doors_of_a_pipeline(hub, folders, tmp_path):
    got = fresh(
        DOORS,
        tmp_path,
        environment=hub.environment(tmp_path / "cache"),
        crnn=CRNN_ID,
        edge=EDGE_ID,
        general=GENERAL,
        folder=folders["crnn"],
        image=folders["image"],
        base64=base64.b64encode(folders["image"].read_bytes()).decode(),
    )
    text = Recognizer.from_pretrained(folders["convnext"]).read(folders["image"]).text
    assert got["texts"][0] == got["texts"][1] and got["texts"][2] == [text] and text and got["texts"][3]
    assert got["missing"] == []
    assert got["same"] == dict.fromkeys(got["same"], True)
    assert (got["logits"], got["eval"], got["models"]) == ([1, 201, 22], True, ["OCRRecognition"])
    ours, builtin = got["schemas"]
    assert ours == builtin and ours["input"]["properties"]["image"]["type"] == "string"
    assert got["encoded"]["text"] == [text]
    assert got["task"] == "ocr-recognition" and got["attempts"] == []


def test_modelscopes_own_server_reads_with_this_package(folders):
    """A real process, and the routes of `modelscope server`."""
    pytest.importorskip("fastapi")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MODELSCOPE_LOG_LEVEL": "40"}
    example = [sys.executable, ROOT / "examples" / "modelscope_server.py"]
    options = ["--model", folders["convnext"], "--port", "0"]
    with subprocess.Popen(example + options, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = iter(process.stderr.readline, "")
            address = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            sent = json.dumps({"input": {"image": base64.b64encode(folders["image"].read_bytes()).decode()}}).encode()
            request = urllib.request.Request(f"{address}/call", sent, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                read = json.load(answer)
            with urllib.request.urlopen(f"{address}/describe", timeout=60) as answer:
                described = json.load(answer)
        finally:
            process.terminate()
    line = Recognizer.from_pretrained(folders["convnext"]).read(folders["image"])
    assert line.text and (read["text"], read["score"]) == ([line.text], [pytest.approx(line.score, abs=1e-5)])
    assert len(read["chars"][0]) == len(line.chars)  # which ModelScope's own pipeline does not give
    assert described["schema"]["task_name"] == "ocr-recognition"


TRAINERS = """
import ms_ocr_handwritten
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.metainfo import Trainers
from modelscope.models.cv.ocr_recognition import OCRRecognition
from modelscope.msdatasets import MsDataset
from modelscope.trainers import build_trainer
from modelscope.utils.config import Config, ConfigDict
from modelscope.utils.constant import DownloadMode, ModelFile

cache_path = snapshot_download(VALUES["id"], revision=VALUES["revision"])
cfg = Config.from_file(os.path.join(cache_path, ModelFile.CONFIGURATION))
data = ConfigDict(name="ICDAR13_HCTR_Dataset", split="test", namespace="damo")
datasets = [
    MsDataset.load(dataset_name=data.name, split=data.split, namespace=data.namespace,
                   download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS)
    for _ in range(2)
]
assert all(next(iter(one.config_kwargs["split_config"].values())) for one in datasets)

def epoch(cfg):
    cfg.train.max_epochs = 1
    cfg.train.dataloader.batch_size_per_gpu = 2
    return cfg

def trained(**kwargs):
    trainer = build_trainer(name=Trainers.ocr_recognition, default_args=dict(
        train_dataset=datasets[0], eval_dataset=datasets[1], cfg_modify_fn=epoch, **kwargs))
    trainer.train()
    return [type(trainer).__module__, sorted(os.listdir(kwargs["work_dir"]))]

by_id = trained(model=VALUES["id"], work_dir="by_id", device=VALUES["device"])
model = OCRRecognition.from_pretrained(cache_path)
by_model = trained(cfg_file=os.path.join(cache_path, ModelFile.CONFIGURATION), model=model, work_dir="by_model")
answer(by_id=by_id, by_model=by_model)
"""


@pytest.mark.parametrize(
    "model, revision",
    [  # CRNN in upstream's tests; LightweightEdge has a sixth of the size
        pytest.param(EDGE_ID, "v2.2.2", id="edge"),
        pytest.param(GENERAL, "v2.0.0", id="convnext"),
    ],
)
def test_what_upstreams_tests_of_the_trainer_call(hub, tmp_path, model, revision):
    """Those are skipped upstream: './work_dir/output/pytorch_model.pt' did not come to be."""
    environment = hub.environment(tmp_path / "cache")
    got = fresh(TRAINERS, tmp_path, environment=environment, id=model, revision=revision, device="cpu")
    for name in ("by_id", "by_model"):
        assert got[name][0].startswith("ms_ocr_handwritten.plugin.")
        assert "epoch_1.pth" in got[name][1] and (tmp_path / name / "output" / "pytorch_model.pt").exists()
    assert got["attempts"] == []


def test_a_trainer_computes_where_it_is_told(tiny_model_dir, lines_lmdb, tmp_path):
    arguments = {"model": str(tiny_model_dir), "eval_dataset": str(lines_lmdb), "work_dir": str(tmp_path / "work")}
    trainer = build_trainer(Trainers.ocr_recognition, {**arguments, "train_dataset": str(lines_lmdb), "device": "cpu"})
    assert next(trainer.model.parameters()).device.type == "cpu" and trainer.training.ranks.device.type == "cpu"
    with pytest.raises(BackendError, match="device is 'abacus'; give 'cpu', 'gpu' or a specific one"):
        build_trainer(Trainers.ocr_recognition, {**arguments, "device": "abacus"}).evaluate()
