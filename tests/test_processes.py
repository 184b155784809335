"""A recogniser in other processes: forked after it has read, spawned, pickled."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, render

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.backends.pytorch import TorchBackend
from ms_ocr_handwritten.errors import BackendError
from ms_ocr_handwritten.image import Limits
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.onnx.export import export_onnx

IMAGES = [render("abc123"), render("j")]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK)
    export_onnx(own_network(folder), folder / "model.onnx")
    return folder


def own_network(folder):
    model = ModelDir.open(folder)
    return load_network(model.configuration.network, model.require_weights())


def texts(recognizer) -> list[str]:
    return [line.text for line in recognizer.read_many(IMAGES)]


FORKED = """
import os, signal, sys
import torch
torch.set_num_threads(2)
from conftest import render
from ms_ocr_handwritten import Recognizer

image = render("abc123")
recognizer = Recognizer.from_pretrained(sys.argv[1], sys.argv[2], device="cpu" if sys.argv[2] == "torch" else None)
expected = recognizer.read(image).text
process = os.fork()
if process == 0:
    signal.alarm(30)  # ends it where it hangs
    read = [recognizer.read(image).text, *(line.text for line in recognizer.read_many([image] * 3))]
    os._exit(0 if read == [expected] * 4 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_a_process_that_is_forked_after_a_read_reads(model_dir, backend):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-c", FORKED, model_dir, backend]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_backend_that_does_not_survive_a_fork_says_so(model_dir, monkeypatch):
    """As on a GPU and with OpenVINO, which raise what every backend does by default."""
    recognizer = Recognizer.from_pretrained(model_dir, "torch", device="cpu")
    monkeypatch.setattr(TorchBackend, "asynchronous", True)
    process = os.fork()
    if process == 0:
        signal.alarm(30)
        try:
            recognizer.read(IMAGES[0])
        except BackendError as error:
            os._exit(0 if "before this process was forked" in str(error) and "'spawn'" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_a_pool_that_is_spawned_is_sent_the_recogniser(model_dir):
    recognizer = Recognizer.from_pretrained(model_dir, "onnxruntime", threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(recognizer.read, IMAGES) == [recognizer.read(image) for image in IMAGES]


def test_it_is_pickled_by_its_directory_and_options(model_dir, monkeypatch, tmp_path):
    monkeypatch.chdir(model_dir.parent)
    limits = Limits(max_pixels=1000)
    recognizer = Recognizer.from_pretrained(model_dir.name, "torch", "bf16", device="cpu", limits=limits)
    pickled = pickle.dumps(recognizer)
    assert len(pickled) < 2000  # no weights
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(pickled)
    assert (copy.backend, copy.precision, copy.limits) == ("torch", "bf16", limits)
    small = np.full((8, 40), 255, np.uint8)
    assert copy.read(small) == recognizer.read(small)


def test_one_made_of_a_network_is_pickled_with_it(model_dir):
    network = own_network(model_dir)
    with torch.no_grad():
        network.vitstr.head.bias[5] += 3
    recognizer = Recognizer.from_network(network, ModelDir.open(model_dir).vocabulary, "fp32")
    assert texts(pickle.loads(pickle.dumps(recognizer))) == texts(recognizer)


def test_one_made_of_a_backend_is_not_pickled(model_dir):
    recognizer = Recognizer.from_pretrained(model_dir, "torch", device="cpu")
    with pytest.raises(pickle.PicklingError, match="from_pretrained"):
        pickle.dumps(Recognizer(recognizer._backend, recognizer.vocabulary))
