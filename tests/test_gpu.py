"""Reading on a GPU: recorded kernels find what the network does, in every number of chunks and after every change."""

import contextlib
import linecache
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, unsure_lines
from training_tools import prepare

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.backends.pytorch import best_columns, without_tf32
from ms_ocr_handwritten.config import LoaderConfig
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.compiled import compiled
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.training.evaluation import make_loader

GPU = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


def load(model_dir):
    model = ModelDir.open(model_dir)
    return load_network(model.configuration.network, model.weights), model.vocabulary


@pytest.fixture
def backend(tmp_path):
    network, vocabulary = load(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))
    return Recognizer.from_network(network, vocabulary, "fp32", device="gpu")._backend


def check(backend, chunks):
    """The ids and log-probabilities of as many random chunks are those that the network gives one kernel at a time."""
    grey = np.random.default_rng(chunks).random((chunks, 32, 300), np.float32)
    ids, log_probs, _ = backend.piece_columns(grey)
    with torch.inference_mode(), without_tf32(backend.device):
        logits = backend.network.classify(backend.network.encode(torch.from_numpy(grey[:, None]).cuda()))
        expected_ids, expected_log_probs, _ = best_columns(logits)
    assert (ids == expected_ids.cpu().numpy()).mean() > 0.999  # but for near ties
    np.testing.assert_allclose(log_probs, expected_log_probs.cpu().numpy(), atol=1e-4)
    return ids


def test_all_numbers_of_chunks_give_the_networks_columns(backend):
    for chunks in (1, 2, 3, 5, 5, 24, 3, 100, 1):
        check(backend, chunks)
    assert sorted(backend._prepare().fast.recordings) == [(count, 300) for count in (1, 2, 3, 6, 24, 128)]


def test_new_weights_and_moved_ones_are_seen(backend):
    before = check(backend, 2)
    with torch.no_grad():
        backend.network.vitstr.head.weight.mul_(-1)
    assert (check(backend, 2) != before).any()
    backend.network.cpu().cuda()
    check(backend, 2)


@pytest.fixture(scope="module")
def lines():
    return unsure_lines(120)


@pytest.fixture(scope="module")
def exact():
    return Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", device="gpu")


def test_lists_read_as_single_lines_and_as_a_cpu_does(exact, lines):
    texts = [line.text for line in exact.read_many(lines, batch_size=16)]
    assert texts == [exact.read(line).text for line in lines]
    on_cpu = Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", device="cpu")
    assert sum(line.text != text for line, text in zip(on_cpu.read_many(lines), texts)) <= 1  # a near tie


def test_bf16_checked_by_fp32_reads_what_fp32_does(exact, lines):
    mixed = Recognizer.from_pretrained(default_model_dir(), "torch", "bf16+fp32", device="gpu")
    assert [line.text for line in mixed.read_many(lines)] == [line.text for line in exact.read_many(lines)]
    assert 0 < mixed._backend.checked < mixed._backend.computed


def test_threads_may_share_a_recogniser(exact, lines):
    expected = [exact.read(line).text for line in lines]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert [line.text for line in pool.map(exact.read, lines)] == expected


def test_a_step_of_training_waits_for_the_gpu_within_ctc_alone(tmp_path, lines_lmdb):
    """PyTorch's own `ctc_loss` brings lengths to the device and waits; nothing of ours does."""
    training = prepare(make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK), lines_lmdb, tmp_path / "work")
    loader = make_loader(training.dataset, 3 * [[0, 1, 2]], LoaderConfig(workers_per_gpu=1), True, GPU)
    for batch in loader:
        assert batch.pieces[0].is_pinned()
        training._learn(batch, 1.0)
        training._update()
    with monitored_waits() as waits:
        training._learn(batch, 1.0)
        training._update()
    assert [place for place in waits if "ctc_loss" not in place and "run_backward" not in place] == []


def test_a_compiled_network_has_the_columns_and_gradients_of_its_own(tmp_path):
    network, _ = load(make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK))
    network.cuda().train()
    encode = compiled(network)
    for chunks in (2, 5, 16):
        grey = torch.rand(chunks, 1, 32, 300, device=GPU)
        found = []
        for one in (network.encode, encode):
            network.zero_grad()
            with without_tf32(GPU):
                columns = one(grey)
                (columns * torch.linspace(-1, 1, columns.numel(), device=GPU).view_as(columns)).sum().backward()
            gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
            found.append((columns.detach(), gradients))
        (expected, exact), (columns, gradients) = found
        torch.testing.assert_close(columns, expected, atol=1e-4, rtol=1e-4)
        assert gradients.keys() == exact.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[name], atol=2e-3 * exact[name].abs().max().item(), rtol=2e-3)


@contextlib.contextmanager
def monitored_waits():
    """What PyTorch warns of where it waits for the GPU: the line of code that asks for it."""
    places: list[str] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield places
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one in caught:
        if "synchronizing" in str(one.message):
            places.append(linecache.getline(one.filename, one.lineno).strip())
