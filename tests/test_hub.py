"""The card word for word but for the addresses, against a hub on loopback: there, late, dying, silent, away.

Nothing of ModelScope or of this package is replaced; scripts run in processes of their own.
"""

import shutil
import socket
import time
from pathlib import Path

import modelscope
import pytest
import torch
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, png, random_texts, render, weaken_positions
from fresh import fresh
from hub_server import Hub
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.utils.constant import Tasks
from packaging.version import Version

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import ConfigurationError, HubError
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.plugin.hub import resolve_model

MODEL_ID = "damo/cv_convnextTiny_ocr-recognition-handwritten_damo"
DATA_SET = "damo/ICDAR13_HCTR_Dataset"
NEW_CACHE = Version(modelscope.__version__) >= Version("1.38")
CARD_PATH = ROOT / "examples" / "card.py"
WEIGHTS = "FilePath=pytorch_model.pt"


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "line.png"
    path.write_bytes(png(render("b4d")))
    return path


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[str, Path]:
    """Two revisions of a model in the official layout, which read differently, and a data set."""
    folder = tmp_path_factory.mktemp("repositories")
    master = weaken_positions(make_model_dir(folder / "master", ALPHABET, scale=3.0, **TINY_NETWORK))
    (master / "README.md").write_text("# Handwriting\n")
    (master / "resources").mkdir()
    (master / "resources" / "demo.png").write_bytes(png(render("b4d")))
    older = shutil.copytree(master, folder / "v2.3.0")
    weights = torch.load(older / "pytorch_model.pt", weights_only=True)
    weights["recognizer.vitstr.head.weight"] = weights["recognizer.vitstr.head.weight"].flip(0)
    torch.save(weights, older / "pytorch_model.pt")
    write_lmdb(folder / "test" / "lmdb", [(png(render(text)), text) for text in random_texts(24, 4)])
    return {"master": master, "v2.3.0": older, "test": folder / "test"}


@pytest.fixture
def hub(repositories, tmp_path):
    revisions = {name: repositories[name] for name in ("master", "v2.3.0")}
    made = Hub(models={MODEL_ID: revisions}, data_sets={DATA_SET: {"test": repositories["test"]}}).start(tmp_path)
    yield made
    made.stop()
    assert made.unknown == []


def text_of(directory: Path, image: Path) -> str:
    return Recognizer.from_pretrained(directory).read(image).text


# ------------------------------------------------------------------ the hub is there, and then it is not

CARD = """
import shutil
import cv2
import ms_ocr_handwritten
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.utils.constant import DownloadMode, Tasks

model_id = "damo/cv_convnextTiny_ocr-recognition-handwritten_damo"
cache_path = snapshot_download(model_id)
model = Model.from_pretrained(model_id)

ocr_recognition = pipeline(Tasks.ocr_recognition, model=model_id)
texts = [ocr_recognition(image)["text"] for image in (VALUES["url"], VALUES["path"], cv2.imread(VALUES["path"]))]

train_dataset = MsDataset.load(
    dataset_name='ICDAR13_HCTR_Dataset',
    split='test',
    namespace='damo',
    download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS)
test_dataset = MsDataset.load(
    dataset_name='ICDAR13_HCTR_Dataset',
    split='test',
    namespace='damo',
    download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS)

def _cfg_modify_fn(cfg):
    cfg.train.max_epochs = 1
    return cfg

work_dir = VALUES["work_dir"]
kwargs = dict(
    model=model_id,
    train_dataset=train_dataset,
    eval_dataset=test_dataset,
    work_dir=work_dir,
    cfg_modify_fn=_cfg_modify_fn)
trainer = build_trainer(name=Trainers.ocr_recognition, default_args=kwargs)
scores = trainer.train()

shutil.copy(f"{work_dir}/epoch_1.pth", f"{work_dir}/output/pytorch_model.pt")
tuned = pipeline(Tasks.ocr_recognition, model=f"{work_dir}/output")

answer(texts=texts, lines=scores["lines"], tuned=tuned(VALUES["path"])["text"],
       places=[cache_path, trainer.model_dir, ocr_recognition.model_dir], split=list(
           test_dataset.config_kwargs["split_config"]))
"""


CARD_FILE = """
import contextlib, io, runpy
import ms_ocr_handwritten
sys.argv = ["card.py", "--image", VALUES["path"], "--work-dir", "second"]
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    runpy.run_path(VALUES["card"], run_name="__main__")
answer(printed=dict(line.split(maxsplit=1) for line in printed.getvalue().splitlines() if ": " in line))
"""


def test_the_card_online_and_again_offline(hub, repositories, tmp_path, image, served):
    """Offline by way of the file for the real hub, which exports to ONNX too."""
    cache = tmp_path / "cache"
    values = {"url": f"{served}/line.png", "path": image, "work_dir": "first"}
    online = fresh(CARD, tmp_path, environment=hub.environment(cache), **values)
    text = text_of(repositories["master"], image)
    assert online["texts"] == 3 * [[text]] and text
    assert (online["lines"], online["split"]) == (24, ["test"])
    assert online["tuned"] == [text_of(tmp_path / "first" / "output", image)]
    assert {Path(place).is_relative_to(cache) for place in online["places"]} == {True}
    assert online["attempts"] == []
    assert sum(WEIGHTS in line for line in hub.asked) == 1
    assert sum(line.startswith("GET /bucket/") for line in hub.asked) == 1
    hub.stop()
    asked = len(hub.asked)
    offline = fresh(CARD_FILE, tmp_path, environment=hub.environment(cache), card=CARD_PATH, path=image)
    printed = offline["printed"]
    assert (printed["model:"], printed["read:"]) == (online["places"][0], text)
    assert printed["trained:"].startswith("24 lines, CER ") and printed["reloaded:"] == online["tuned"][0]
    assert (tmp_path / printed["exported:"]).stat().st_size > 100_000
    assert len(hub.asked) == asked and offline["attempts"] == []
    assert f"{MODEL_ID}: the hub at {hub.address} cannot be reached (ConnectionRefusedError" in offline["stderr"]


REVISIONS = """
import time
import ms_ocr_handwritten
from ms_ocr_handwritten.errors import HubError
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
started = time.monotonic()
reader = pipeline("ocr-recognition", model=VALUES["id"], model_revision="v2.3.0")
waited = time.monotonic() - started
older = reader(VALUES["image"])["text"]
kwargs = dict(model=VALUES["id"], model_revision="v2.3.0", eval_dataset=VALUES["lmdb"])
trainer = build_trainer("ocr-recognition", kwargs)
model = Model.from_pretrained(VALUES["id"], revision="v2.3.0")
loaded = pipeline("ocr-recognition", model=model)(VALUES["image"])["text"]
errors = []
for id, revision in ((VALUES["id"], "v9"), ("damo/nothing_ocr-recognition", None)):
    try:
        pipeline("ocr-recognition", model=id, model_revision=revision)
    except HubError as error:
        errors.append(str(error))
newest = pipeline("ocr-recognition", model=VALUES["id"], model_revision="master")(VALUES["image"])["text"]
sys.modules["oss2"] = None
try:
    MsDataset.load("ICDAR13_HCTR_Dataset", namespace="damo", split="test")
except HubError as error:
    errors.append(str(error))
answer(texts=[older, loaded, newest], lines=trainer.evaluate()["lines"], waited=waited, errors=errors)
"""


def test_revisions_from_a_hub_that_is_three_seconds_late(hub, repositories, tmp_path, image, lines_lmdb):
    hub.late = 3.0
    cache = tmp_path / "cache"
    got = fresh(REVISIONS, tmp_path, environment=hub.environment(cache), id=MODEL_ID, image=image, lmdb=lines_lmdb)
    older, newest = text_of(repositories["v2.3.0"], image), text_of(repositories["master"], image)
    assert older != newest
    assert (got["texts"], got["lines"]) == ([[older], [older], [newest]], 48)
    assert got["waited"] > 3
    unknown_revision, unknown_model, *no_oss2 = got["errors"]
    assert no_oss2 or not NEW_CACHE, "some before 1.38 have imported it by then"
    assert not no_oss2 or no_oss2[0].startswith(
        f"data set {DATA_SET}: ModelScope needs oss2 to fetch it; `pip install 'modelscope["
    )
    assert unknown_revision.startswith(f"{MODEL_ID}: the hub at {hub.address} has no revision 'v9'")
    assert f"no such model on the hub at {hub.address}" in unknown_model
    said = f"{MODEL_ID}: downloading from {hub.address} into {cache}"
    assert got["stderr"].count(said) >= 1
    assert "pytorch_model.pt" in got["stderr"] and "100%" in got["stderr"], "ModelScope's bar"


# ------------------------------------------------------------------ the hub dies in the middle of the weights

ONCE = """
import ms_ocr_handwritten
from modelscope.pipelines import pipeline
errors = []
for patience in VALUES["patience"]:
    os.environ["MS_OCR_HUB_PATIENCE"] = patience
    try:
        text = pipeline("ocr-recognition", model=VALUES["id"])(VALUES["image"])["text"]
    except OSError as error:
        errors.append([type(error).__name__, str(error)])
answer(text=globals().get("text"), errors=errors)
"""


def test_a_download_that_broke_off_goes_on_the_next_time(hub, repositories, tmp_path, image):
    cache = tmp_path / "cache"
    values = {"id": MODEL_ID, "image": image}
    hub.break_off = "pytorch_model.pt"
    got = fresh(ONCE, tmp_path, environment=hub.environment(cache), patience=["10", "0"], **values)
    assert [name for name, _ in got["errors"]] == ["HubError", "HubError"]
    broken, offline = (message for _, message in got["errors"])
    assert (
        f"from {hub.address} broke off (" in broken
        and f"is kept in {cache}" in broken
        and "continues from there" in broken
    )
    assert "only a part of it is in" in offline or "it is not in ModelScope's cache" in offline
    assert "default_model_dir()" in broken and "default_model_dir()" in offline
    assert list(cache.rglob("pytorch_model.pt")) == [] or not NEW_CACHE
    hub.break_off, hub.broken = None, False
    asked = len(hub.asked)
    got = fresh(ONCE, tmp_path, environment=hub.environment(cache), patience=["10"], **values)
    assert (got["text"], got["errors"]) == ([text_of(repositories["master"], image)], [])
    again = [line for line in hub.asked[asked:] if WEIGHTS in line]
    assert len(again) == 1
    if NEW_CACHE:  # older ones keep nothing of a part that broke
        size = (repositories["master"] / "pytorch_model.pt").stat().st_size
        assert again[0].endswith(f"bytes={size // 2}-")


# ------------------------------------------------------------------ the hub is silent, or away

ROUTES = """
import time
import ms_ocr_handwritten
from ms_ocr_handwritten.errors import HubError
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer
id = VALUES["id"]
routes = {
    "pipeline": lambda: pipeline("ocr-recognition", model=id),
    "default model": lambda: pipeline("ocr-recognition"),
    "trainer": lambda: build_trainer("ocr-recognition", dict(model=id)),
    "model": lambda: Model.from_pretrained(id),
    "preprocessor": lambda: Preprocessor.from_pretrained(id),
    "recognizer": lambda: ms_ocr_handwritten.Recognizer.from_pretrained(id),
    "snapshot": lambda: snapshot_download(id),
    "data set": lambda: MsDataset.load("ICDAR13_HCTR_Dataset", namespace="damo", split="test"),
}
messages, seconds = {}, 0
for hub in VALUES["hubs"]:
    os.environ["MODELSCOPE_DOMAIN"] = hub
    for name, route in routes.items():
        started = time.monotonic()
        try:
            route()
        except HubError as error:
            messages[f"{hub} {name}"] = str(error)
        seconds += time.monotonic() - started
answer(messages=messages, seconds=seconds, routes=len(routes))
"""


def test_every_route_says_within_the_patience_what_is_missing(hub, tmp_path):
    """One hub accepts connections and says nothing, the other refuses them."""
    cache = tmp_path / "cache"
    away = Hub().start(tmp_path)
    away.stop()
    hub.silent = True
    environment = hub.environment(cache) | {"MS_OCR_HUB_PATIENCE": "0.5"}
    why = {
        f"127.0.0.1:{hub.port}": "did not answer within 0.5 s (MS_OCR_HUB_PATIENCE",
        f"127.0.0.1:{away.port}": "cannot be reached (ConnectionRefusedError",
    }
    got = fresh(ROUTES, tmp_path, environment=environment, id=MODEL_ID, hubs=list(why))
    assert len(got["messages"]) == 2 * got["routes"] == 16
    for which, message in got["messages"].items():
        address, _, name = which.partition(" ")
        assert f"the hub at https://{address} {why[address]}" in message, which
        assert f"not in ModelScope's cache, {cache}" in message, which
        assert ("local_lmdb=" if name == "data set" else "default_model_dir()") in message, which
    assert got["seconds"] < 16, "half a second for each of eight, and what a busy machine adds"
    hub.silent = False


def test_a_name_server_that_hangs_costs_no_more_than_the_patience(monkeypatch, tmp_path):
    """The look-up outlasts any socket's time limit."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "hub.invalid")
    monkeypatch.setenv("MS_OCR_HUB_PATIENCE", "0.3")

    def hang(*_, **__):
        time.sleep(2)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    with pytest.raises(HubError, match="did not answer within 0.3 s"):
        pipeline(Tasks.ocr_recognition, model=MODEL_ID)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e400"])
def test_a_patience_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv("MS_OCR_HUB_PATIENCE", text)
    with pytest.raises(ConfigurationError, match=f"MS_OCR_HUB_PATIENCE is '{text}'; expected seconds"):
        resolve_model(MODEL_ID)


# ------------------------------------------------------------------ what needs no hub

FROM_THE_CACHE = """
import ms_ocr_handwritten
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
texts, places = [], []
for id in VALUES["ids"]:
    reader = pipeline("ocr-recognition", model=id)
    texts += reader(VALUES["image"])["text"]
    trainer = build_trainer("ocr-recognition", dict(model=id))
    places.append([reader.model_dir, Model.from_pretrained(id).model_dir, trainer.model_dir])
answer(texts=texts, places=places)
"""
LAYOUTS = ["models/{owner}/{name}"] + (
    ["models/{owner}--{name}/snapshots/master", "hub/{owner}/{name}"] if NEW_CACHE else []
)


def test_every_layout_of_modelscopes_cache_is_read_offline(hub, repositories, tmp_path, image):
    """Those of ModelScope from 1.38 on, and of older ones."""
    hub.stop()
    cache, ids, places = tmp_path / "cache", [], []
    for index, layout in enumerate(LAYOUTS):
        ids.append(f"damo/cv_{index}_ocr-recognition")
        places.append(cache / layout.format(owner="damo", name=ids[-1].removeprefix("damo/")))
        shutil.copytree(repositories["master"], places[-1])
        (places[-1] / ".msc").write_bytes(_index(ids[-1], repositories["master"]))
    environment = hub.environment(cache) | {"MS_OCR_HUB_PATIENCE": "0"}
    got = fresh(FROM_THE_CACHE, tmp_path, environment=environment, ids=ids, image=image)
    assert got["texts"] == len(LAYOUTS) * [text_of(repositories["master"], image)]
    assert got["places"] == [3 * [str(place)] for place in places]
    assert got["attempts"] == [] and hub.asked == []


def _index(model: str, folder: Path) -> bytes:
    """The list of files that ModelScope before 1.38 keeps beside them."""
    import pickle

    return pickle.dumps([{"Path": path.name, "Revision": "master"} for path in folder.iterdir() if path.is_file()])


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
