"""Loss against ModelScope's own, batches, accumulation, precision, workers: what makes one step right."""

import copy
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, png, random_texts, render
from modelscope.models.cv.ocr_recognition.model import OCRRecognition as UpstreamModel
from modelscope.models.cv.ocr_recognition.preprocessor import OCRRecognitionPreprocessor as UpstreamPreprocessor
from PIL import Image
from training_tools import (
    assert_equal_weights,
    dataset_of,
    lmdb_of,
    log,
    network_of,
    prepare,
    read_raw,
    read_weights_file,
)

from ms_ocr_handwritten.backends import precision
from ms_ocr_handwritten.config import LoaderConfig
from ms_ocr_handwritten.errors import ConfigurationError, OcrError
from ms_ocr_handwritten.geometry import canvas_columns
from ms_ocr_handwritten.training.batches import epoch_batches
from ms_ocr_handwritten.training.dataset import Batch, LineDataset, Sample, collate
from ms_ocr_handwritten.training.distributed import Ranks
from ms_ocr_handwritten.training.evaluation import chosen_workers, make_loader
from ms_ocr_handwritten.training.loss import LineLoss, read_batch
from ms_ocr_handwritten.training.memory import naming_what_needs_memory
from ms_ocr_handwritten.training.setup import evaluate_model_dir

LONG = "0123456789abcdefghij" * 3  # 27:1, so four chunks


def batch_of(dataset: LineDataset, *, skip_padding: bool) -> Batch:
    return collate([dataset[index] for index in range(len(dataset))], skip_padding=skip_padding)


def losses_and_gradients(network, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    network.zero_grad()
    losses, _ = LineLoss(network)(batch)
    losses.mean().backward()
    return losses.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def assert_close_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Within `tolerance` of the greatest gradient of the same parameter."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * scale + 1e-9, msg=name)


# ---------------------------------------------------------------------- the loss


def test_loss_and_gradients_equal_upstreams(official_model_dir, tmp_path):
    """The same weights, images and labels through ModelScope's model, its preprocessor and its CTCLoss."""
    random = np.random.default_rng(0)
    labels = ["".join(chr(0x4E00 + i) for i in random.integers(0, 7000, n)) for n in (3, 9)] + ["\u4e01\u4e01"]
    images = [png(render("abc123")), png(render("0123456789" * 4)), png(render("x"))]
    path = lmdb_of(tmp_path / "lines", labels, images)

    upstream, read = UpstreamModel(str(official_model_dir)).eval(), UpstreamPreprocessor(str(official_model_dir))
    pictures = []
    for index, image in enumerate(images):
        (tmp_path / f"{index}.png").write_bytes(image)
        pictures.append(read(Image.open(tmp_path / f"{index}.png"))["image"])
    expected = upstream.do_step({"images": torch.stack(pictures), "labels": labels})
    expected["loss"].backward()
    gradients = {n: p.grad for n, p in upstream.recognizer.named_parameters() if p.grad is not None}

    dataset = dataset_of(official_model_dir, path)
    network, batch = network_of(official_model_dir), batch_of(dataset, skip_padding=True)
    losses, found = losses_and_gradients(network, batch)
    assert losses.mean().item() == pytest.approx(expected["loss"].item(), rel=1e-4)
    assert_close_gradients(found, gradients, 1e-3)
    with torch.no_grad():
        _, encoded = LineLoss(network)(batch)
        texts = read_batch(encoded, network.vitstr.head, batch, dataset.vocabulary)
    assert texts == expected["preds"]


@pytest.mark.parametrize("training", [False, True])
def test_skipping_padding_changes_nothing(tmp_path, training):
    """Lines of one, two and four chunks, without dropout."""
    model_dir = make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    dataset = dataset_of(model_dir, lmdb_of(tmp_path / "lines", ["a", "b0" * 10, "c" * 20 + "1", LONG, "0"]))
    skipped, full = (batch_of(dataset, skip_padding=skip) for skip in (True, False))
    assert (len(skipped.pieces[0]), len(full.pieces[0])) == (1 + 2 + 2 + 4 + 1 + 1, 3 + 3 + 3 + 4 + 3)
    network = network_of(model_dir).train(training)
    (losses, gradients), (expected_losses, expected) = (losses_and_gradients(network, b) for b in (skipped, full))
    assert losses.std() > 0
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-4)
    assert_close_gradients(gradients, expected, 1e-4)


def test_batch_by_hand():
    """A line of one inked chunk of three, and one of four chunks: 75 columns a chunk, kept 69, 63, 63, 69."""

    def sample(inked: int, chunks: int) -> Sample:
        return Sample(np.full((inked, 32, 300), inked, np.float32), chunks, [2], "a")

    batch = collate([sample(1, 3), sample(4, 4)], skip_padding=True)
    (grey,) = batch.pieces
    assert grey.shape == (6, 1, 32, 300) and grey[:, 0, 0, 0].tolist() == [1, 4, 4, 4, 4, 0]
    assert batch.lengths.tolist() == [canvas_columns(3), canvas_columns(4)] == [201, 264]
    padding = 5 * 75
    first = [*range(69), *range(padding + 6, padding + 69), *range(padding + 6, padding + 75)]
    second = [*range(75, 144), *range(156, 219), *range(231, 294), *range(306, 375)]
    assert batch.columns.tolist() == [first + [0] * 63, second]


def test_a_line_of_the_loss_is_the_mean_over_its_characters(tiny_model_dir, tmp_path):
    dataset = dataset_of(tiny_model_dir, lmdb_of(tmp_path / "lines", ["abcd"]))
    network, batch = network_of(tiny_model_dir), batch_of(dataset, skip_padding=True)
    losses, encoded = LineLoss(network)(batch)
    log_probs = network.classify(encoded)[batch.columns[0]].log_softmax(-1)[:, None]
    total = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor([batch.ids[0]]), batch.lengths, torch.tensor([4]), reduction="sum"
    )
    assert losses.tolist() == pytest.approx([total.item() / 4], rel=1e-5)


# ---------------------------------------------------------------------- batches


def test_batches_depend_on_seed_and_epoch_alone(tiny_model_dir, lines_lmdb, tmp_path):
    def batches(seed: int, epoch: int, **loader) -> list[list[int]]:
        training = prepare(
            tiny_model_dir, lines_lmdb, tmp_path / "work", seed=seed, dataloader={"batch_size_per_gpu": 20, **loader}
        )
        training.epoch = epoch
        return training.batches()

    first = batches(0, 0)
    assert [len(batch) for batch in first] == [20, 20, 8]
    assert sorted(index for batch in first for index in batch) == list(range(48))
    assert first == batches(0, 0)
    assert first != batches(0, 1) and first != batches(1, 0) and batches(0, 1) != batches(1, 0)
    assert batches(0, 0, drop_last=True) == first[:2]
    in_order = [[*range(20)], [*range(20, 40)], [*range(40, 48)]]
    assert batches(0, 0, shuffle=False) == batches(5, 3, shuffle=False) == in_order


@pytest.mark.parametrize("size, sizes", [(24, [24, 24]), (40, [40]), (100, [48])])
def test_a_short_last_batch_is_dropped_unless_it_is_the_only_one(tiny_model_dir, lines_lmdb, tmp_path, size, sizes):
    loader = {"batch_size_per_gpu": size, "drop_last": True}
    training = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", dataloader=loader)
    assert [len(batch) for batch in training.batches()] == sizes


def test_ranks_share_the_lines_and_get_equally_many(tiny_model_dir, lines_lmdb, tmp_path):
    """48 lines for 5 ranks: the first two come twice."""
    loader = {"batch_size_per_gpu": 4, "shuffle": False}
    training = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", dataloader=loader)
    for rank in range(5):
        ranks = Ranks(rank, 5, torch.device("cpu"))
        found = epoch_batches(training.dataset, training.config, 0, ranks)
        lines = [index % 48 for index in range(rank, 50, 5)]
        assert found == [lines[:4], lines[4:8], lines[8:]]


def assert_same_batches(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected) > 1
    for a, b in zip(found, expected):
        assert (a.ids, a.labels, a.bad) == (b.ids, b.labels, b.bad)
        tensors = [(*one.pieces, one.columns, one.lengths) for one in (a, b)]
        assert all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_give_the_same_batches(tiny_model_dir, lines_lmdb, start_method):
    """Augmented ones too: what is drawn depends on seed, epoch and line, not on who draws it."""
    if start_method == "fork" and "openvino" in sys.modules:
        pytest.skip("another test has imported OpenVINO: forked workers are refused, as the next test shows")
    dataset = dataset_of(tiny_model_dir, lines_lmdb, augment=True, seed=3)
    dataset.epoch = 1
    order = [[5, 40, 2], [11], [47, 0, 33, 8]]
    alone = list(make_loader(dataset, order, LoaderConfig(), True))
    config = LoaderConfig(workers_per_gpu=2, start_method=start_method)
    assert_same_batches(list(make_loader(dataset, order, config, True)), alone)
    dataset.epoch = 2
    assert not torch.equal(next(iter(make_loader(dataset, order, LoaderConfig(), True))).pieces[0], alone[0].pieces[0])


@pytest.mark.parametrize(
    "device, cores, world, configured, workers",
    [("cpu", 16, 1, 0, 0), ("cuda", 16, 1, 0, 8), ("cuda", 16, 4, 0, 3), ("cuda", 1, 1, 0, 0), ("cuda", 16, 1, 2, 2)],
)
def test_a_gpu_gets_workers_where_none_are_configured(
    tiny_model_dir, lines_lmdb, monkeypatch, device, cores, world, configured, workers
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    dataset, config = dataset_of(tiny_model_dir, lines_lmdb), LoaderConfig(workers_per_gpu=configured)
    loader = make_loader(dataset, [[0, 1]], config, True, torch.device(device))
    assert (loader.num_workers, loader.pin_memory) == (workers, device == "cuda")


def test_workers_that_cannot_be_forked_are_not_chosen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert chosen_workers(LoaderConfig(start_method="spawn"), torch.device("cuda")) == 0
    monkeypatch.setitem(sys.modules, "openvino", sys)
    assert chosen_workers(LoaderConfig(), torch.device("cuda")) == 0


def test_beside_openvino_workers_are_not_forked(tiny_model_dir, lines_lmdb, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", sys)
    dataset, order = dataset_of(tiny_model_dir, lines_lmdb), [[5, 40, 2], [11]]
    loader = make_loader(dataset, order, LoaderConfig(workers_per_gpu=1), True)
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert_same_batches(list(loader), list(make_loader(dataset, order, LoaderConfig(), True)))
    with pytest.raises(ConfigurationError, match="start_method is 'fork', but openvino is imported .* set 'spawn'"):
        make_loader(dataset, order, LoaderConfig(workers_per_gpu=1, start_method="fork"), True)
    make_loader(dataset, order, LoaderConfig(start_method="fork"), True)  # without workers nothing is forked


def test_loaders_leave_the_random_state_alone(tiny_model_dir, lines_lmdb):
    """Dropout goes on with it: a resumed training, which makes one loader more, must draw the same."""
    before = torch.get_rng_state()
    list(make_loader(dataset_of(tiny_model_dir, lines_lmdb), [[0], [1]], LoaderConfig(), True))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------- steps


def trained(model_dir: Path, lines: Path, work_dir: Path, **train) -> dict[str, torch.Tensor]:
    prepare(model_dir, lines, work_dir, max_epochs=1, **train).run()
    return read_weights_file(work_dir / "epoch_1.pth")


SGD = {"type": "SGD", "lr": 1e-2}


@pytest.mark.parametrize("size, accumulate, whole", [(8, 2, 16), (8, 3, 24), (6, 4, 24)])
def test_accumulated_gradients_equal_a_larger_batch(tiny_model_dir, tmp_path, size, accumulate, whole):
    """20 lines: the last step of the epoch has fewer batches, and the last batch fewer lines."""
    path = lmdb_of(tmp_path / "lines", random_texts(20, 4))
    parts = trained(
        tiny_model_dir,
        path,
        tmp_path / "parts",
        dataloader={"batch_size_per_gpu": size},
        optimizer={**SGD, "options": {"cumulative_iters": accumulate}},
    )
    once = trained(tiny_model_dir, path, tmp_path / "once", dataloader={"batch_size_per_gpu": whole}, optimizer=SGD)
    start, name = read_weights_file(tiny_model_dir / "pytorch_model.pt"), "recognizer.vitstr.head.bias"
    assert (once[name] - start[name]).abs().max() > 1e-3
    for name, value in once.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_gradients_are_clipped(tiny_model_dir, lines_lmdb, tmp_path):
    """One step of SGD at rate 1 moves the weights by the clipped gradient, whose norm is max_norm."""
    moved = trained(
        tiny_model_dir,
        lines_lmdb,
        tmp_path / "work",
        dataloader={"batch_size_per_gpu": 48},
        optimizer={"type": "SGD", "lr": 1.0, "options": {"grad_clip": {"max_norm": 0.125}}},
    )
    start = read_weights_file(tiny_model_dir / "pytorch_model.pt")
    norm = sum((moved[name] - start[name]).double().square().sum() for name in start).sqrt().item()
    assert norm == pytest.approx(0.125, rel=1e-3)


def test_two_epochs_equal_a_plain_loop(tiny_model_dir, tmp_path):
    """20 lines in batches of 4, two to a step: 3 steps an epoch, of all lines of a step at once in the loop here."""
    path = lmdb_of(tmp_path / "lines", random_texts(20, 4))
    train = {
        "max_epochs": 2,
        "augment": True,
        "seed": 3,
        "dataloader": {"batch_size_per_gpu": 4},
        "logging": {"interval": 1},
        "optimizer": {
            **{"type": "SGD", "lr": 0.02, "momentum": 0.9},
            "options": {"cumulative_iters": 2, "grad_clip": {"max_norm": 0.5, "norm_type": 1.0}},
        },
        "lr_scheduler": {
            **{"type": "MultiStepLR", "milestones": [1], "gamma": 0.5},
            "options": {"warmup": {"type": "LinearWarmup", "warmup_iters": 4, "warmup_ratio": 0.2}},
        },
    }
    rates = [0.004, 0.008, 0.012, 0.008, 0.01, 0.01]  # 0.02 times 0.2, 0.4, 0.6, 0.8, 1, 1, halved in epoch 2
    training = prepare(tiny_model_dir, path, tmp_path / "work", **train)
    dataset, network = training.dataset, network_of(tiny_model_dir).train()
    loss_of = LineLoss(network)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0, momentum=0.9)
    losses, steps = [], iter(rates)
    for dataset.epoch in (0, 1):
        batches = epoch_batches(dataset, training.config, dataset.epoch, training.ranks)
        for group in (batches[:2], batches[2:4], batches[4:]):
            found = [
                loss_of(collate([dataset[index] for index in batch], skip_padding=training.config.skip_padding))[0]
                for batch in group
            ]
            losses += [one.mean().item() for one in found]
            optimizer.zero_grad()
            torch.cat(found).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5, norm_type=1.0)
            optimizer.param_groups[0]["lr"] = next(steps)
            optimizer.step()
    dataset.epoch, start = 0, time.monotonic()
    training.run()
    told, seconds = log(tmp_path / "work"), time.monotonic() - start
    assert [(entry["epoch"], entry["iter"]) for entry in told] == [(epoch, n) for epoch in (1, 2) for n in range(1, 6)]
    assert [entry["loss"] for entry in told] == pytest.approx(losses, rel=1e-3)
    of_batches = [0.004, 0.004, 0.008, 0.012, 0.012, 0.008, 0.008, 0.01, 0.01]  # the rate of the last step
    assert [entry["lr"] for entry in told[1:]] == pytest.approx(of_batches)
    assert all(entry["lines_per_second"] * seconds > 4 * entry["iter"] for entry in told)
    saved = read_weights_file(tmp_path / "work" / "epoch_2.pth")
    start = read_weights_file(tiny_model_dir / "pytorch_model.pt")
    for name, value in network.state_dict().items():
        moved = (value - start[f"recognizer.{name}"]).abs().max().item()
        torch.testing.assert_close(saved[f"recognizer.{name}"], value, rtol=0, atol=0.02 * moved + 1e-8, msg=name)


def test_the_unused_class_token_stays_bit_for_bit(tiny_model_dir, lines_lmdb, tmp_path):
    start = read_weights_file(tiny_model_dir / "pytorch_model.pt")
    start["recognizer.vitstr.cls_token"].fill_(0.5)
    torch.save(start, tiny_model_dir / "pytorch_model.pt")
    end = trained(tiny_model_dir, lines_lmdb, tmp_path / "work", optimizer={"type": "AdamW", "weight_decay": 0.1})
    assert torch.equal(end["recognizer.vitstr.cls_token"], start["recognizer.vitstr.cls_token"])


def test_bfloat16_trains_close_to_fp32(tiny_model_dir, lines_lmdb, tmp_path):
    figures = {}
    for name in ("fp32", "bf16"):
        training = prepare(tiny_model_dir, lines_lmdb, tmp_path / name, [lines_lmdb], precision=name)
        before = training.evaluate()["avg_loss"]
        figures[name] = (before, training.run()["avg_loss"])
    (before, fp32), (bf16_before, bf16) = figures["fp32"], figures["bf16"]
    assert bf16_before != before and bf16_before == pytest.approx(before, rel=0.02)
    assert fp32 < before / 3 and bf16 == pytest.approx(fp32, rel=0.1)
    weights = read_weights_file(tmp_path / "bf16" / "epoch_2.pth")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_automatic_precision_is_what_all_ranks_are_faster_in(tiny_model_dir, lines_lmdb, tmp_path, monkeypatch, capsys):
    """Rates are set as three kinds of processors have them; what is trained is what the named precision trains."""
    for name, bf16_rate in (("fp32", 5.0), ("fp32", 149.0), ("bf16", 570.0)):
        monkeypatch.setattr(precision, "gemm_rates", lambda rate=bf16_rate: {"fp32": 100.0, "bf16": rate})
        automatic = prepare(tiny_model_dir, lines_lmdb, tmp_path / f"auto_{bf16_rate}", [lines_lmdb], precision="auto")
        named = prepare(tiny_model_dir, lines_lmdb, tmp_path / f"named_{bf16_rate}", [lines_lmdb], precision=name)
        assert automatic.evaluate()["avg_loss"] == named.evaluate()["avg_loss"]
        assert f"train.precision 'auto': {name}, as measured" in capsys.readouterr().err
        assert automatic.run()["avg_loss"] == named.run()["avg_loss"]
        assert_equal_weights(*(read_weights_file(training.work_dir.weights(2)) for training in (automatic, named)))


def test_a_loss_that_is_no_number_stops_the_training(tiny_model_dir, lines_lmdb, tmp_path):
    training = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", optimizer={"type": "SGD", "lr": 1e9})
    with pytest.raises(OcrError, match=r"the loss is (nan|inf) in epoch 1, batch \d; lower train.optimizer.lr"):
        training.run()


def test_a_metric_that_is_not_there_is_named_before_anything_is_trained(tiny_model_dir, lines_lmdb, tmp_path):
    with pytest.raises(ConfigurationError, match="train.checkpoint.best.metric_key is 'ned'; one of lines.* cer,"):
        prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", checkpoint={"best": {"metric_key": "ned"}})


def test_memory_that_does_not_suffice_is_named(tiny_model_dir, lines_lmdb, tmp_path):
    """Address space for little more than what is there already, and a batch of lines of 40 chunks."""
    resource = pytest.importorskip("resource")
    wide = lmdb_of(tmp_path / "wide", ["a"] * 48, [png(np.full((32, 10000, 3), 255, np.uint8))] * 48)
    training = prepare(tiny_model_dir, wide, tmp_path / "work", dataloader={"batch_size_per_gpu": 48})
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, limits[1]))
    try:
        with pytest.raises(OcrError, match=r"out of memory in epoch 1, batch 1 of 48 lines .*; lower train.dataloader"):
            training.run()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize(
    "error, detail",
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), "CUDA out of memory. Tried"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"),
            r"\[enforce\] Default.* tried",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried " + "9" * 300), "Default[^)]{193}"),
    ],
)
def test_memory_that_does_not_suffice_is_named_with_what_needed_it(error, detail):
    says = rf"^out of memory in batch 3 \({detail}\); lower train.dataloader.batch_size_per_gpu \("
    with pytest.raises(OcrError, match=says), naming_what_needs_memory("batch 3"):
        raise error
    with pytest.raises(OcrError, match="; lower a.key "), naming_what_needs_memory("batch 3", "a.key"):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("not enough memory"), KeyError("x")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, naming_what_needs_memory("batch 3"):
        raise error
    assert caught.value is error


def test_several_lmdbs_are_read_one_after_the_other(tiny_model_dir, tmp_path):
    paths = [lmdb_of(tmp_path / name, texts) for name, texts in (("first", ["a", "b"]), ("second", ["c"]))]
    dataset = dataset_of(tiny_model_dir, *paths)
    assert [dataset[index].label for index in range(len(dataset))] == ["a", "b", "c"]
    assert dataset.key(2) == f"{paths[1]} image-000000001"
    assert len(prepare(tiny_model_dir, paths, tmp_path / "work").dataset) == 3


def test_the_same_lmdb_for_training_and_evaluation(tiny_model_dir, lines_lmdb, tmp_path):
    summary = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb]).run()
    assert summary["lines"] == 48
    output = tmp_path / "work" / "output"
    assert evaluate_model_dir(output, read_raw(output), [lines_lmdb]) == pytest.approx(summary, rel=1e-5)


def test_evaluation_does_not_depend_on_the_batch_size(tiny_model_dir, lines_lmdb):
    raw = read_raw(tiny_model_dir)
    summaries = []
    for size in (1, 7, 48):
        raw["evaluation"]["dataloader"]["batch_size_per_gpu"] = size
        summaries.append(evaluate_model_dir(tiny_model_dir, raw, [lines_lmdb]))
    assert all(summary == pytest.approx(summaries[0], rel=1e-5) for summary in summaries[1:])


def test_evaluation_leaves_the_network_as_it_was(tiny_model_dir, lines_lmdb, tmp_path):
    training = prepare(tiny_model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb])
    before = copy.deepcopy(training.network.state_dict())
    for mode in (True, False):
        training.network.train(mode)
        training.evaluate()
        assert training.network.training is mode
    assert_equal_weights(training.network.state_dict(), before)


def test_classes_behind_the_vocabulary_read_as_nothing(lines_lmdb, tmp_path):
    """A head may be larger than its vocabulary; here the network chooses such a class everywhere."""
    model_dir = make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "num_classes": 40})
    weights = read_weights_file(model_dir / "pytorch_model.pt")
    weights["recognizer.vitstr.head.bias"][30] = 1e4
    torch.save(weights, model_dir / "pytorch_model.pt")
    summary = evaluate_model_dir(model_dir, read_raw(model_dir), [lines_lmdb])
    assert (summary["CR"], summary["cer"], summary["lines"]) == (0.0, 1.0, 48)


def test_a_network_of_other_sizes_than_the_files_is_refused(tiny_model_dir, lines_lmdb, tmp_path):
    raw = read_raw(tiny_model_dir)
    raw["model"]["network"]["embed_dim"] = 24
    with pytest.raises(OcrError, match="pytorch_model.pt: does not fit the network"):
        evaluate_model_dir(tiny_model_dir, raw, [lines_lmdb])
