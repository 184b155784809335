"""States that another program, an attacker or a fault has made: refused by name before anything is loaded."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir, random_texts
from test_atomic import full_disk
from training_tools import hashes, lmdb_of, prepare

from ms_ocr_handwritten.config import OptimizerConfig
from ms_ocr_handwritten.errors import CheckpointError, OutputError
from ms_ocr_handwritten.training.checkpoints import save_torch
from ms_ocr_handwritten.training.optimisation import build_optimizer
from ms_ocr_handwritten.training.state import kept_after_a_step

TRAIN = {"max_epochs": 3, "dataloader": {"batch_size_per_gpu": 4}, "ema_decay": 0.5}


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> dict[str, Any]:
    """A model, lines, and the state of their training after an epoch."""
    folder = tmp_path_factory.mktemp("begun")
    model = make_model_dir(folder / "model", ALPHABET, **TINY_NETWORK)
    lines = lmdb_of(folder / "lines", random_texts(8, 3))
    prepare(model, lines, folder / "work", **{**TRAIN, "max_epochs": 1}).run()
    state = torch.load(folder / "work" / "epoch_1_trainer_state.pth", weights_only=True)
    return {"model": model, "lines": lines, "state": state}


def set_to(*names: Any, value: Any) -> Callable[[dict], None]:
    """A change of one entry; of the first parameter's where `names` ask for the optimiser."""

    def change(state: dict) -> None:
        for name in names[:-1]:
            state = state[name]
        state[names[-1]] = value

    return change


CHANGES = {
    "another shape in the optimiser": (
        set_to("optimizer", 3, "exp_avg", value=torch.zeros(1)),
        r"does not fit the optimiser of this training. of another shape or type: 3.exp_avg is \(1,\)",
    ),
    "another type in the optimiser": (
        set_to("optimizer", 0, "exp_avg_sq", value=torch.zeros(16, 1, 4, 4, dtype=torch.int64)),
        "0.exp_avg_sq is .*torch.int64, expected .*torch.float32",
    ),
    "a sparse tensor": (
        set_to("optimizer", 0, "exp_avg", value=torch.zeros(16, 1, 4, 4).to_sparse()),
        "0.exp_avg is .*torch.sparse_coo",
    ),
    "a number for a tensor": (set_to("optimizer", 0, "exp_avg", value=3), "0.exp_avg is a int, expected"),
    "a list for a parameter": (set_to("optimizer", 0, value=[]), "missing: 0.step, 0.exp_avg, 0.exp_avg_sq"),
    "no optimiser": (
        lambda state: state["optimizer"].clear(),
        r"missing: \d+, the first 0.step, 0.exp_avg, 0.exp_avg_s",
    ),
    "more parameters": (set_to("optimizer", 99, value={"step": torch.zeros(())}), "unexpected: 99.step"),
    "another network": (
        set_to("network", "vitstr.head.bias", value=torch.zeros(9)),
        r"does not fit the network of this training. of another shape or type: vitstr.head.bias is \(9,\)",
    ),
    "weights that are none": (set_to("network", "vitstr.head.bias", value="x"), "vitstr.head.bias is a str"),
    "another average": (
        lambda state: state["average"].pop("n_averaged"),
        "does not fit the moving average.*n_averaged",
    ),
    "a random state of another size": (
        set_to("random_states", 0, "cpu", value=torch.zeros(7, dtype=torch.uint8)),
        "does not fit the random state",
    ),
    "a random state that is none": (
        lambda state: state["random_states"][0]["cpu"].fill_(255),
        "its random number state is refused",
    ),
    "no random state": (set_to("random_states", value=[]), "random_states holds no state of a rank"),
    "endless advances": (
        set_to("schedule", "advances", value=10**12),
        "schedule.advances is 1000000000000, which is no",
    ),
    "a number that is none": (set_to("schedule", "steps", value=float("nan")), "schedule.steps is nan"),
    "epochs before the first": (set_to("epoch", value=-1), "epoch is -1, which is not a number"),
    "truth for a number": (set_to("iteration", value=True), "iteration is True"),
    "batches that are not there": (set_to("iteration", value=2), "claims 2 batches of an epoch that has 2"),
    "no identity": (lambda state: state.pop("identity"), "identity is missing"),
    "a vocabulary that is none": (set_to("vocabulary", value=3), "vocabulary is a int"),
    "an older format": (set_to("format", value=2), "holds no state to resume from .format 3."),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_does_not_fit_is_refused(begun, tmp_path, name):
    """The first of them made PyTorch's fused optimiser write beyond its memory."""
    change, message = CHANGES[name]
    state = copy.deepcopy(begun["state"])
    change(state)
    save_torch(state, tmp_path / "work" / "epoch_1_trainer_state.pth")
    (tmp_path / "work" / "resume.json").write_text('{"state": "epoch_1_trainer_state.pth", "finished": 1}')
    before = hashes(tmp_path / "work")
    with pytest.raises(CheckpointError, match=f"epoch_1_trainer_state.pth: .*{message}"):
        prepare(begun["model"], begun["lines"], tmp_path / "work", **TRAIN).run()
    assert hashes(tmp_path / "work") == before


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "RMSprop", "Adagrad", "Adafactor", "NAdam", "Rprop"])
def test_what_an_optimiser_keeps_is_found_for_each_kind(kind):
    config = OptimizerConfig(kind, {"lr": 0.01} | ({"momentum": 0.9} if kind == "SGD" else {}))
    parameters = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = build_optimizer(config, parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kept, expected = optimizer.state_dict()["state"], kept_after_a_step(config, parameters)

    def shapes(state: dict) -> dict:
        return {
            (number, name): (value.shape, value.dtype) if isinstance(value, torch.Tensor) else type(value)
            for number, values in state.items()
            for name, value in values.items()
        }

    assert shapes(kept) == shapes(expected) and (kept or kind == "SGD")


def test_a_full_disk_keeps_the_former_state(begun, tmp_path):
    """The state of the second epoch does not fit; with room again the training goes on from the first."""
    work = tmp_path / "work"
    prepare(begun["model"], begun["lines"], work, **{**TRAIN, "max_epochs": 1}).run()
    before = hashes(work)
    size = (work / "epoch_1_trainer_state.pth").stat().st_size
    with (
        full_disk(size - 1),
        pytest.raises(OutputError, match="epoch_2_trainer_state.pth: cannot be written .File too"),
    ):
        prepare(begun["model"], begun["lines"], work, **{**TRAIN, "max_epochs": 2}).run()
    after = hashes(work)
    assert {**before, "train_log.jsonl": after["train_log.jsonl"]} == after
    prepare(begun["model"], begun["lines"], work, **{**TRAIN, "max_epochs": 2}).run()
    assert (work / "epoch_2.pth").exists()
