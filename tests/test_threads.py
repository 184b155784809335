"""Threads that share a recogniser from its first line on: what is prepared then is prepared once, and for all; and
where a program has several that read, one computes, since PyTorch is slow in two.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, png, unsure_lines

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.app.handlers import Choice, Handlers, Source
from ms_ocr_handwritten.app.reading import Recognizers
from ms_ocr_handwritten.backends.pytorch import TorchBackend
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.decoding.candidates import Wanted
from ms_ocr_handwritten.image import line_canvas
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network

COLD_STARTS = int(os.environ.get("MS_OCR_COLD_STARTS", "100"))  # 10,000 were run once by hand
THREADS = 32


@pytest.fixture
def eager_threads():
    """Threads take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16+fp32"])
def test_threads_may_share_a_cold_start(tmp_path, precision, eager_threads):
    model = ModelDir.open(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))
    network = load_network(model.configuration.network, model.weights)
    canvas = line_canvas(np.random.default_rng(0).integers(0, 256, (32, 60, 3), np.uint8))
    expected = Recognizer.from_network(network, model.vocabulary, precision).read_canvases([canvas])[0].text
    together = threading.Barrier(THREADS)

    def read(recognizer):
        together.wait()
        return recognizer.read_canvases([canvas])[0].text

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(COLD_STARTS // 2):
            recognizer = Recognizer.from_network(network, model.vocabulary, precision)
            assert set(pool.map(read, [recognizer] * THREADS)) == {expected}


def test_another_threads_constraint_takes_no_padding_away(model):
    """Where Python hashes a key it may let another thread run, which is done here on purpose."""
    backend = TorchBackend(
        load_network(ModelDir.open(model).configuration.network, ModelDir.open(model).weights), "fp32"
    )
    of_others = cycle([Wanted(classes=(2, 3)), Wanted(classes=(2, 3, 4))])

    class Interrupted(Wanted):
        def __hash__(self) -> int:
            backend.padding_candidates(next(of_others))
            return super().__hash__()

    assert backend.padding_candidates(Interrupted(classes=(2,))).ids.shape == (75, 2)


@pytest.fixture
def computing(monkeypatch) -> set[str]:
    """The names of the threads that open PyTorch's backends and compute in them."""
    names: set[str] = set()

    def noting(function):
        def noted(self, *arguments):
            names.add(threading.current_thread().name)
            return function(self, *arguments)

        return noted

    for name in ("__init__", "_begun", "_checked", "_prepare"):
        monkeypatch.setattr(TorchBackend, name, noting(getattr(TorchBackend, name)))
    return names


@pytest.fixture
def model(tmp_path) -> str:
    return str(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))


def test_whichever_threads_read_one_computes(model, computing):
    lines = unsure_lines(6)
    wanted = Recognizer.from_pretrained(model, "torch")
    expected = [wanted.read(line) for line in lines]
    constrained = [wanted.read(line, allowed="ab12") for line in lines]
    computing.clear()
    with ThreadPoolExecutor(1, "the-one") as thread, ThreadPoolExecutor(4) as readers:
        recognizer = thread.submit(Recognizer.from_pretrained, model, "torch").result().computed_in(thread)
        assert (recognizer.backend, recognizer.precision) == (wanted.backend, wanted.precision)
        assert [line.text for line in readers.map(recognizer.read, lines)] == [line.text for line in expected]
        many = [readers.submit(lambda: list(recognizer.read_many(lines, 4))) for _ in range(2)]
        allowed = readers.map(lambda line: recognizer.read(line, allowed="ab12"), lines)
        assert [line.text for line in allowed] == [line.text for line in constrained]
        for one in many:
            assert [line.text for line in one.result()] == [line.text for line in expected]
    assert computing == {"the-one_0"}


def test_the_app_computes_in_one_thread(model, computing):
    handlers = Handlers(Recognizers([model], "torch"))
    source = Source(png(unsure_lines(2)[0]), "line.png")
    for precision in ("auto", "fp32"):
        with ThreadPoolExecutor(1) as gradios:
            assert gradios.submit(handlers.read, source, Choice(model, precision), "en").result().text
    assert computing == {"ms-ocr-read_0"}


def test_the_server_computes_lines_and_pages_in_one_thread(model, computing, monkeypatch):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("rapidocr")
    pytest.importorskip("uvicorn")
    page = (ROOT / "examples" / "pages" / "english.jpg").read_bytes()

    async def requests(app) -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            sent = (("/recognize", png(unsure_lines(2)[0])), ("/page", page))
            return [(await client.post(path, content=body, timeout=60)).status_code for path, body in sent]

    statuses: list[int] = []
    monkeypatch.setattr(
        "ms_ocr_handwritten.serve.server.serve", lambda app, *_: statuses.extend(asyncio.run(requests(app)))
    )
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--model", model, "--backend", "torch"])
    assert (done.exit_code, statuses) == (0, [200, 200]), done.output
    assert computing == {"ms-ocr-read_0"}
