"""A step of learning asks the device for no number: losses are looked at later, sizes are known on the host."""

import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_tools import dataset_of, network_of, prepare

from ms_ocr_handwritten.errors import OcrError
from ms_ocr_handwritten.training.dataset import collate
from ms_ocr_handwritten.training.loss import LineLoss
from ms_ocr_handwritten.training.losses import STEPS_OF_GPU, Losses

GPU = torch.device("cuda")  # named alone: nothing is put there
ASKING = {"_local_scalar_dense", "nonzero", "_unique2", "unique_consecutive", "masked_select", "repeat_interleave"}


class Asked(TorchDispatchMode):
    """Operators within it that need a floating point number, or a size, from the device that computes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, first = function.overloadpacket.__name__, args[0] if args else None
        floating = isinstance(first, torch.Tensor) and first.is_floating_point()
        masks = (
            [index for index in args[1] if index is not None and index.dtype is torch.bool] if name == "index" else []
        )
        if name in ASKING - {"_local_scalar_dense"} or (name == "_local_scalar_dense" and floating) or masks:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_a_step_asks_for_nothing(tiny_model_dir, lines_lmdb):
    dataset, network = dataset_of(tiny_model_dir, lines_lmdb), network_of(tiny_model_dir).train()
    batch = collate([dataset[index] for index in range(6)], skip_padding=True)
    module, optimizer = LineLoss(network), torch.optim.AdamW(network.parameters(), fused=True)
    with Asked() as asked:
        loss = module(batch)[0].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert asked.found == []
    with asked:
        loss.item()
    assert asked.found == ["_local_scalar_dense"]  # or it would find nothing


def test_on_a_cpu_each_loss_is_looked_at():
    losses = Losses(torch.device("cpu"))
    assert math.isnan(losses.latest)
    losses.add(1, 1, torch.tensor(2.0, requires_grad=True) * 1)
    assert losses.latest == losses.look() == 2.0
    with pytest.raises(OcrError, match=r"the loss is inf in epoch 2, batch 3; lower train.optimizer.lr, or clip"):
        losses.add(2, 3, torch.tensor(math.inf))


def test_losses_of_a_gpu_are_looked_at_together():
    losses = Losses(GPU)
    for number in range(1, STEPS_OF_GPU):
        losses.add(1, number, torch.tensor(float(number)))
        assert math.isnan(losses.latest)
    losses.add(1, STEPS_OF_GPU, torch.tensor(0.5))
    assert losses.latest == 0.5
    losses.add(2, 1, torch.tensor(0.25))
    assert losses.look() == 0.25 == losses.look()


def test_a_loss_that_is_no_number_is_named_later_by_its_own_batch():
    losses = Losses(GPU)
    for batch, value in enumerate((1.0, math.inf, math.nan), start=7):
        losses.add(3, batch, torch.tensor(value))
    with pytest.raises(OcrError, match="the loss is inf in epoch 3, batch 8; lower train.optimizer.lr"):
        losses.look()


def run(model_dir, lmdb, work_dir, at_once: int, **train) -> list[dict]:
    """The log of a training whose losses are looked at `at_once`."""
    training = prepare(model_dir, lmdb, work_dir, **{"max_epochs": 2, "logging": {"interval": 3}, **train})
    training.losses.at_once = at_once
    training.run()
    return [json.loads(line) for line in training.work_dir.log_file.read_text().splitlines()]


def test_what_is_logged_is_the_loss_of_its_own_step(tiny_model_dir, lines_lmdb, tmp_path):
    at_each, later = (
        [(entry["epoch"], entry["iter"], entry["loss"]) for entry in log if entry["mode"] == "train"]
        for log in (run(tiny_model_dir, lines_lmdb, tmp_path / str(n), n) for n in (1, 100))
    )
    assert at_each == later and len({loss for *_, loss in later}) >= 4


def test_no_state_is_saved_behind_a_loss_that_is_no_number(tiny_model_dir, lines_lmdb, tmp_path):
    network = network_of(tiny_model_dir)
    with torch.no_grad():
        network.vitstr.head.bias[5] = math.nan
    training = prepare(
        tiny_model_dir, lines_lmdb, tmp_path, network=network, checkpoint={"period": {"resume_interval": 2}}
    )
    training.losses.at_once = 100
    with pytest.raises(OcrError, match="the loss is nan in epoch 1, batch 1"):
        training.run()
    assert not list(tmp_path.rglob("*_trainer_state.pth"))
