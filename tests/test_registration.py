"""Who answers to ModelScope's names, whatever is imported first, and whether or not upstream's own imports succeed."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ALPHABET, configuration, png, render
from fresh import fresh
from modelscope.models.cv.ocr_recognition.modules.CRNN.main_model import CRNN
from modelscope.models.cv.ocr_recognition.modules.LightweightEdge.main_model import LightweightEdge

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.plugin.registration import NAMES, upstream_class

UPSTREAM_MODULES = [upstream for _, upstream in NAMES.values() if upstream]
UPSTREAM_LINES = 7643

# ------------------------------------------------------------------ ways to begin

OURS_FIRST = "import ms_ocr_handwritten"
MODELSCOPE_FIRST = """
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.exporters import Exporter
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.preprocessors import Preprocessor
import ms_ocr_handwritten
"""
IMPORT_UPSTREAM = """
import importlib
imported = []
for name in VALUES["upstream"]:
    try:
        importlib.import_module(name)
        imported.append(name)
    except ImportError:
        pass
"""
UPSTREAM_FIRST = IMPORT_UPSTREAM + OURS_FIRST
UPSTREAM_AFTER = OURS_FIRST + IMPORT_UPSTREAM

WITHOUT_DEPENDENCIES = """
import datasets  # whose pandas needs six itself on Python 3.10
for name in ("six", "edit_distance", "onnx"):
    sys.modules[name] = None
"""
WITH_DEPENDENCIES = """
import importlib.util, types
for name in ("six", "edit_distance", "onnx"):  # an empty module is enough for upstream's to be imported
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
"""

WHO_ANSWERS = """
from modelscope.exporters import Exporter
from modelscope.metrics.builder import build_metric
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import build_custom_dataset
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.preprocessors.builder import build_preprocessor
from modelscope.trainers import build_trainer
from modelscope.utils.config import ConfigDict
from modelscope.utils.constant import Tasks

directory, lmdb = VALUES["directory"], VALUES["lmdb"]
model = Model.from_pretrained(directory)
reader = pipeline(Tasks.ocr_recognition, model=directory)
lines = MsDataset.load("any", namespace="any", split="test", local_lmdb=lmdb)
made = {
    "model": model,
    "pipeline": reader,
    "pipeline of a loaded model": pipeline(Tasks.ocr_recognition, model=model),
    "preprocessor": Preprocessor.from_pretrained(directory),
    "built preprocessor": build_preprocessor(ConfigDict(type="ocr-recognition", model_dir=directory), "cv"),
    "metric": build_metric("ocr-recognition-metric"),
    "trainer": build_trainer("ocr-recognition", dict(model=directory, train_dataset=lines, work_dir="work")),
    "exporter": Exporter.from_model(model),
    "data set": lines,
    "custom data set": build_custom_dataset(ConfigDict(type="OCRRecognition", local_lmdb=lmdb), "ocr-recognition"),
}
answer(modules={what: type(value).__module__ for what, value in made.items()}, imported=globals().get("imported"),
       text=reader(VALUES["image"])["text"])
"""


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "line.png"
    path.write_bytes(png(render("b4d")))
    return path


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(WITHOUT_DEPENDENCIES + OURS_FIRST, id="ours-first"),
        pytest.param(WITHOUT_DEPENDENCIES + MODELSCOPE_FIRST, id="modelscope-first"),
        pytest.param(WITH_DEPENDENCIES + UPSTREAM_FIRST, id="upstream-first"),
        pytest.param(WITH_DEPENDENCIES + UPSTREAM_AFTER, id="upstream-after"),
        pytest.param(WITHOUT_DEPENDENCIES + UPSTREAM_FIRST, id="half-of-upstream-first"),
        pytest.param(WITHOUT_DEPENDENCIES + UPSTREAM_AFTER, id="half-of-upstream-after"),
    ],
)
def test_our_classes_answer(tmp_path, tiny_model_dir, lines_lmdb, image, begin):
    got = fresh(
        begin + WHO_ANSWERS, tmp_path, directory=tiny_model_dir, lmdb=lines_lmdb, image=image, upstream=UPSTREAM_MODULES
    )
    assert len(got["modules"]) == 10
    assert {what: name.split(".")[:2] for what, name in got["modules"].items()} == {
        what: ["ms_ocr_handwritten", "plugin"] for what in got["modules"]
    }
    assert got["text"] == [Recognizer.from_pretrained(tiny_model_dir).read(image).text]
    assert got["attempts"] == []
    if got["imported"] is not None:  # the case is what its name says
        missing = sorted(set(UPSTREAM_MODULES) - set(got["imported"]))
        assert len(missing) == (0 if begin.startswith(WITH_DEPENDENCIES) else 3), missing


# ------------------------------------------------------------------ all recognisers of the family


def make_upstream_model_dir(folder: Path, network_class: type) -> Path:
    """A model of upstream's own class with random weights; its vocabulary begins with ALPHABET.

    As the official one has it, 7,643 lines end with two empty ones.
    """
    folder.mkdir()
    raw = configuration()
    raw["model"] = {
        "type": "OCRRecognition",
        "recognizer": network_class.__name__,
        "inference_kwargs": {"img_height": 32, "img_width": 640, "do_chunking": False},
    }
    raw["train"] = {key: raw["train"][key] for key in ("work_dir", "dataloader", "optimizer", "lr_scheduler")}
    raw["train"]["max_epochs"] = 1
    for part in ("train", "evaluation"):
        del raw[part]["dataloader"]["start_method"]  # a key of ours, which upstream would hand to PyTorch
    (folder / "configuration.json").write_text(json.dumps(raw))
    made_up = [chr(0x4E00 + i) for i in range(UPSTREAM_LINES - 2 - len(ALPHABET))]
    (folder / "vocab.txt").write_text("".join(f"{c}\n" for c in [*ALPHABET, *made_up, "", ""]), encoding="utf-8")
    torch.manual_seed(0)
    weights = {f"recognizer.{name}": value for name, value in network_class().state_dict().items()}
    torch.save(weights, folder / "pytorch_model.pt")
    return folder


READ_AS_UPSTREAM = """
from modelscope.models import Model
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
made, texts = [], []
for directory in VALUES["directories"]:
    reader = pipeline("ocr-recognition", model=directory)
    made += [reader, reader.model, reader.preprocessor, Model.from_pretrained(directory),
             Preprocessor.from_pretrained(directory)]
    texts += reader(VALUES["images"])
answer(modules=[type(value).__module__ for value in made], texts=texts, ours="ms_ocr_handwritten" in sys.modules)
"""


def test_other_recognisers_are_ours_too_and_read_the_same(tmp_path):
    directories = [make_upstream_model_dir(tmp_path / kind.__name__, kind) for kind in (CRNN, LightweightEdge)]
    images = []
    for index, text in enumerate(["b4d", "0123456789"]):
        images.append(tmp_path / f"{index}.png")
        images[-1].write_bytes(png(render(text)))
    alone, before, after = (
        fresh(begin + READ_AS_UPSTREAM, tmp_path, directories=directories, images=images, upstream=UPSTREAM_MODULES)
        for begin in ("", WITHOUT_DEPENDENCIES + OURS_FIRST, WITH_DEPENDENCIES + UPSTREAM_FIRST)
    )
    assert [got["ours"] for got in (alone, before, after)] == [False, True, True]
    assert all(name.startswith("modelscope.") for name in alone["modules"])
    assert len(alone["texts"]) == 4 and all(line["text"][0] for line in alone["texts"])
    for got in (before, after):
        assert all(name.startswith("ms_ocr_handwritten.plugin.") for name in got["modules"])
        assert [line["text"] for line in got["texts"]] == [line["text"] for line in alone["texts"]]
        assert all(0 < line["score"][0] <= 1 and line["chars"][0] for line in got["texts"])
        assert got["attempts"] == []


# ------------------------------------------------------------------ what the import itself does

IMPORT_ALONE = """
import logging
before = set(sys.modules)
root = logging.getLogger()
state = (list(root.handlers), root.level)
import ms_ocr_handwritten
added = {name.partition(".")[0] for name in set(sys.modules) - before}
assert (list(root.handlers), root.level) == state
answer(heavy=sorted(added - set(sys.stdlib_module_names) - {"ms_ocr_handwritten"}),
       ours=sorted(name for name in sys.modules if name.startswith("ms_ocr_handwritten")))
"""


def test_import_is_cheap_and_leaves_the_root_logger_alone(tmp_path):
    got = fresh(IMPORT_ALONE, tmp_path)
    assert got["heavy"] == []
    names = ("ms_ocr_handwritten", "._moved", ".model_id", ".plugin", ".plugin.registration")
    assert got["ours"] == [names[0], *(names[0] + name for name in names[1:])]


READ_WITHOUT_MODELSCOPE = """
from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.lmdb.store import write_lmdb
line = Recognizer.from_pretrained(VALUES["directory"]).read(VALUES["image"])
answer(text=line.text, present=[name for name in ("modelscope", "transformers") if name in sys.modules])
"""


def test_reading_imports_neither_modelscope_nor_transformers(tmp_path, tiny_model_dir, image):
    got = fresh(READ_WITHOUT_MODELSCOPE, tmp_path, directory=tiny_model_dir, image=image)
    assert got["text"] == Recognizer.from_pretrained(tiny_model_dir).read(image).text
    assert (got["present"], got["attempts"]) == ([], [])


def test_signatures_stay_upstreams():
    """Wrapped in place: what editors and callers see of the functions is unchanged."""
    import inspect

    from modelscope.models import Model
    from modelscope.pipelines import pipeline
    from modelscope.trainers import build_trainer

    assert list(inspect.signature(pipeline).parameters)[:3] == ["task", "model", "preprocessor"]
    assert list(inspect.signature(build_trainer).parameters) == ["name", "default_args"]
    assert list(inspect.signature(Model.from_pretrained).parameters)[:2] == ["model_name_or_path", "revision"]


def test_what_modelscope_lacks_has_no_class_of_upstreams():
    with pytest.raises(ImportError, match="ModelScope has no convnextTiny-ocr-recognition of the task ocr-page"):
        upstream_class("PIPELINES", "ocr-page", "convnextTiny-ocr-recognition")
