"""The pipeline as its users call it: inputs, output shapes, options, errors; and what the trainer takes."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, render, weaken_positions
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.preprocessors import Preprocessor
from modelscope.trainers import build_trainer
from modelscope.utils.constant import Tasks
from PIL import Image

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import BackendError, ConfigurationError, ImageError, LmdbError
from ms_ocr_handwritten.image import Limits
from ms_ocr_handwritten.lmdb.store import write_lmdb

TEXTS = ["a", "b4d", "0123", "jjgh7", "19e"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return weaken_positions(make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK))


@pytest.fixture(scope="module")
def reader(model_dir):
    return pipeline(Tasks.ocr_recognition, model=str(model_dir), precision="fp32")


@pytest.fixture(scope="module")
def recognizer(model_dir) -> Recognizer:
    return Recognizer.from_pretrained(model_dir, precision="fp32")


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Coloured lines: reading them as RGB or as BGR gives other greys."""
    paths = []
    for index, text in enumerate(TEXTS):
        image = render(text)
        image[:, :, 0] = image[:, :, 0] // 3 + 20  # less blue
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
        paths.append(str(tmp_path / f"{index}.png"))
    return paths


def wrapped(line) -> dict:
    """What upstream's shape is for one line, with ours added."""
    chars = [(char.character, char.score, char.x0, char.x1) for char in line.chars]
    return {"text": [line.text], "score": [line.score], "chars": [chars]}


# ------------------------------------------------------------------ inputs and shapes


def test_one_image_of_every_kind_gives_upstreams_shape(reader, recognizer, files):
    expected = wrapped(recognizer.read(files[0]))
    assert expected["text"][0] and 0 < expected["score"][0] < 1
    assert "".join(char[0] for char in expected["chars"][0]) == expected["text"][0]
    for source in (
        files[0],
        Path(files[0]),
        Path(files[0]).read_bytes(),
        cv2.imread(files[0]),
        Image.open(files[0]),
        {"image": files[0]},
    ):
        assert reader(source) == expected, type(source)


def test_a_path_and_its_array_read_alike_but_swapped_channels_do_not(reader, files):
    array = cv2.imread(files[0])
    assert reader(files[0]) == reader(array)
    assert reader(files[0])["score"] != reader(array[:, :, ::-1])["score"]


def test_grey_arrays_and_images_read_alike(reader, files):
    grey = cv2.imread(files[0], cv2.IMREAD_GRAYSCALE)
    assert reader(grey) == reader(grey[:, :, None]) == reader(Image.fromarray(grey)) == reader(np.stack([grey] * 3, -1))


def test_a_url_reads_as_its_file(reader, files, served):
    assert reader(f"{served}/0.png") == reader(files[0])
    with pytest.raises(ImageError, match="404"):
        reader(f"{served}/none.png")


def test_a_list_gives_a_list_in_order(reader, recognizer, files):
    expected = [wrapped(recognizer.read(file)) for file in files]
    assert len({line["text"][0] for line in expected}) == len(files)
    got = reader(files)
    assert [line["text"] for line in got] == [line["text"] for line in expected]
    assert [line["score"] for line in got] == [pytest.approx(line["score"], rel=1e-4) for line in expected]
    assert [set(line) for line in got] == [{"text", "score", "chars"}] * len(files)
    assert reader([]) == []


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_a_batch_size_gives_bare_values(reader, recognizer, files, batch_size):
    got = reader(files, batch_size=batch_size)
    for line, file in zip(got, files, strict=True):
        expected = recognizer.read(file)
        assert line["text"] == expected.text
        assert line["score"] == pytest.approx(expected.score, rel=1e-5)
        assert [char[0] for char in line["chars"]] == list(expected.text)


def test_an_lmdb_as_data_set_gives_a_generator(reader, recognizer, tmp_path):
    write_lmdb(tmp_path / "lines", [(png(render(text)), text) for text in TEXTS])
    got = reader(MsDataset.load("any", namespace="any", split="test", local_lmdb=str(tmp_path / "lines")))
    assert iter(got) is iter(got)
    assert [line["text"] for line in got] == [[recognizer.read(render(text)).text] for text in TEXTS]


def test_a_data_set_of_paths_gives_a_generator(reader, recognizer, files):
    got = reader(MsDataset.load(files, target="image"))
    assert iter(got) is iter(got)
    assert [line["text"] for line in got] == [[recognizer.read(file).text] for file in files]


def test_a_generator_is_read_a_batch_at_a_time(reader, files):
    taken = []
    source = (taken.append(file) or file for file in files)
    got = reader(source, batch_size=2)
    assert taken == []
    next(got)
    assert taken == files[:4]  # the next batch is loaded while this one is computed
    assert len(list(got)) == len(files) - 1


def test_a_loaded_model_reads_as_its_directory(reader, model_dir, files):
    model = Model.from_pretrained(str(model_dir))
    assert pipeline(Tasks.ocr_recognition, model=model, precision="fp32")(files[0]) == reader(files[0])
    chunks = Preprocessor.from_pretrained(str(model_dir))(files[:2])["image"]
    assert tuple(chunks.shape) == (6, 3, 32, 300)
    output = model(chunks)
    assert output["preds"] == [reader(file)["text"][0] for file in files[:2]]
    assert tuple(output["probs"].shape) == (2, 201, 22)


# ------------------------------------------------------------------ options


def test_options_reach_the_recogniser(model_dir, files):
    with pytest.raises(ImageError, match="over the limit of 100 pixels"):
        pipeline(Tasks.ocr_recognition, model=str(model_dir), limits=Limits(max_pixels=100))(files[0])
    reader = pipeline(Tasks.ocr_recognition, model=str(model_dir), precision="bf16", backend="torch", device="cpu")
    assert (reader.precision, reader.backend) == ("bf16", "torch")
    assert reader(files[0])["text"][0]
    assert pipeline(Tasks.ocr_recognition, model=model_dir, precision="fp32").precision == "fp32"  # a Path


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("precision", "int3", "precision is 'int3'.*'fp32'"),
        ("backend", "tensorrt", "backend is 'tensorrt'.*'torch'"),
        ("device", "tpu:x", "device is 'tpu:x'.*'cpu'"),
    ],
)
def test_bad_values_are_refused_with_those_allowed(model_dir, option, value, message):
    with pytest.raises(BackendError, match=message):
        pipeline(Tasks.ocr_recognition, model=str(model_dir), **{option: value})


def test_unknown_and_unusable_arguments_are_refused(model_dir, reader):
    with pytest.raises(ConfigurationError, match="unknown argument precison; allowed here: model, precision, backend"):
        pipeline(Tasks.ocr_recognition, model=str(model_dir), precison="fp32")
    with pytest.raises(ConfigurationError, match="preprocessor is not used"):
        pipeline(Tasks.ocr_recognition, model=str(model_dir), preprocessor=Preprocessor.from_pretrained(str(model_dir)))
    with pytest.raises(ConfigurationError, match="backend is 'onnxruntime', but the model is a loaded one"):
        pipeline(Tasks.ocr_recognition, model=Model.from_pretrained(str(model_dir)), backend="onnxruntime")
    with pytest.raises(ConfigurationError, match="model is a list; give one model directory"):
        pipeline(Tasks.ocr_recognition, model=[str(model_dir)])
    with pytest.raises(ConfigurationError, match="unknown key model.dropuot"):
        Model.from_pretrained(str(model_dir), dropuot=0.1)
    with pytest.raises(ConfigurationError, match="unknown argument optimisers; allowed here: model, train_dataset"):
        build_trainer(Trainers.ocr_recognition, {"model": str(model_dir), "optimisers": 1})
    with pytest.raises(ConfigurationError, match="batch_size is 0"):
        reader([], batch_size=0)


def test_the_model_section_can_be_overridden(model_dir):
    assert Model.from_pretrained(str(model_dir), device="cpu").recognizer.config.dropout == 0
    sizes = {**TINY_NETWORK, "num_classes": 22, "dropout": 0.5}
    assert Model.from_pretrained(str(model_dir), network=sizes).recognizer.config.dropout == 0.5


# ------------------------------------------------------------------ errors


def test_what_is_no_image_is_an_image_error(reader, tmp_path, files):
    (tmp_path / "text.png").write_text("no image")
    for source, message in (
        (str(tmp_path / "none.png"), "none.png"),
        (str(tmp_path / "text.png"), "text.png"),
        (7, "int"),
        (None, "None: no image; cv2.imread returns it"),
        ({"picture": files[0]}, "'picture'.*'image'"),
        (np.zeros((4, 4, 7), np.uint8), r"\(4, 4, 7\)"),
    ):
        with pytest.raises(ImageError, match=message):
            reader(source)
        with pytest.raises(ImageError, match=message):
            reader([files[0], source], batch_size=2)
    assert reader(files[0])["text"][0]  # still usable


def test_a_directory_that_is_no_model_is_named(tmp_path, model_dir):
    with pytest.raises(ConfigurationError, match=f"{tmp_path}: holds no configuration.json"):
        pipeline(Tasks.ocr_recognition, model=str(tmp_path))
    with pytest.raises(ConfigurationError, match="./nowhere: no such directory"):
        pipeline(Tasks.ocr_recognition, model="./nowhere")
    folder = shutil.copytree(model_dir, tmp_path / "copy")
    (folder / "pytorch_model.pt").unlink()
    with pytest.raises(ValueError, match="copy: holds no model.onnx"):
        pipeline(Tasks.ocr_recognition, model=str(folder))
    with pytest.raises(ValueError, match="copy: holds no pytorch_model.pt"):
        pipeline(Tasks.ocr_recognition, model=str(folder), backend="torch")


def test_local_data_sets_are_checked(tmp_path, lines_lmdb):
    with pytest.raises(LmdbError, match="nowhere"):
        MsDataset.load("any", local_lmdb=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="either local_lmdb or local_file"):
        MsDataset.load("any", local_lmdb=str(lines_lmdb), local_file=str(lines_lmdb))
    with pytest.raises(ConfigurationError, match="unknown argument splt; allowed here: local_lmdb"):
        MsDataset.load("any", local_lmdb=str(lines_lmdb), splt="test")
    assert len(MsDataset.load("any", "any", local_file=str(lines_lmdb))) == 48
    both = MsDataset.load(local_lmdb=[str(lines_lmdb), str(lines_lmdb)])
    assert len(both) == 96 and both[95]["label"] == both[47]["label"] == both[-1]["label"]
    with pytest.raises(IndexError):
        both[96]


# ------------------------------------------------------------------ what the trainer takes as data


def test_a_data_set_of_the_hub_is_found_where_modelscope_put_it(tmp_path, model_dir):
    from modelscope.msdatasets.dataset_cls.dataset import ExternalDataset

    write_lmdb(tmp_path / "split" / "lmdb", [(png(render(text)), text) for text in TEXTS])
    downloaded = MsDataset(ExternalDataset({"test": str(tmp_path / "split")}, {}))
    trainer = build_trainer(Trainers.ocr_recognition, {"model": str(model_dir), "eval_dataset": downloaded})
    assert trainer.evaluate()["lines"] == len(TEXTS)


def test_what_is_no_data_set_or_model_is_refused(model_dir):
    with pytest.raises(ConfigurationError, match="train_dataset is a int; give MsDataset.load"):
        build_trainer(Trainers.ocr_recognition, {"model": str(model_dir), "train_dataset": 7})
    with pytest.raises(ConfigurationError, match="model is a NoneType; give one model directory"):
        build_trainer(Trainers.ocr_recognition, {"model": None})
    with pytest.raises(ConfigurationError, match="train_dataset is missing"):
        build_trainer(Trainers.ocr_recognition, {"model": str(model_dir)}).train()
    with pytest.raises(ConfigurationError, match="cfg_modify_fn returned None"):
        build_trainer(Trainers.ocr_recognition, {"model": str(model_dir), "cfg_modify_fn": lambda cfg: None})


def test_overrides_follow_upstreams_order(model_dir):
    """cfg_modify_fn, then cfg_options, then the arguments that have a name."""

    def modify(cfg):
        cfg.train.max_epochs = 2
        cfg.train.seed = 2
        cfg.train.logging.interval = 2
        return cfg

    trainer = build_trainer(
        Trainers.ocr_recognition,
        {
            "model": str(model_dir),
            "cfg_modify_fn": modify,
            "max_epochs": 4,
            "cfg_options": {"train.seed": 3, "train.max_epochs": 3},
        },
    )
    train = json.loads(json.dumps(trainer.raw))["train"]
    assert (train["logging"]["interval"], train["seed"], train["max_epochs"]) == (2, 3, 4)
