"""Rates of the schedule against hand-written tables, refused arguments, the moving average."""

import math
from dataclasses import replace

import pytest
import torch
from training_tools import prepare, read_weights_file

from ms_ocr_handwritten.config import OptimizerConfig, SchedulerConfig
from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.training.optimisation import Schedule, build_optimizer, learning_plan, moving_average


class Walk:
    """A parameter whose gradient is always 1, so that each step of SGD moves it by the rate."""

    def __init__(self, config: SchedulerConfig, steps_per_epoch: int, epochs: int, rate: float = 1.0) -> None:
        self.parameter = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.optimizer = build_optimizer(OptimizerConfig("SGD", {"lr": rate}), [self.parameter])
        self.schedule, self.steps_per_epoch = Schedule(config, self.optimizer, steps_per_epoch, epochs), steps_per_epoch

    def rates(self, epochs: int) -> list[float]:
        """The rate of each step, by what it did."""
        rates = []
        for _ in range(epochs):
            for _ in range(self.steps_per_epoch):
                self.parameter.data.zero_()
                self.parameter.grad = torch.ones_like(self.parameter)
                self.schedule.before_step()
                self.optimizer.step()
                self.schedule.after_step()
                rates.append(-self.parameter.item())
                assert self.schedule.rate == pytest.approx(rates[-1])
            self.schedule.after_epoch()
        return rates


def cosine(steps: int) -> list[float]:
    return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]


def test_no_scheduler_keeps_the_rate():
    assert Walk(SchedulerConfig(), 2, 2, rate=0.5).rates(2) == pytest.approx([0.5] * 4)


def test_steps_at_milestones_by_epoch():
    config = SchedulerConfig("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1})
    assert Walk(config, 2, 4).rates(4) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_steps_at_milestones_by_step():
    config = SchedulerConfig("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1}, by_epoch=False)
    assert Walk(config, 2, 2).rates(2) == pytest.approx([1, 0.1, 0.1, 0.01])


def test_cosine_ends_with_the_training_by_epoch_and_by_step():
    by_epoch = Walk(SchedulerConfig("CosineAnnealingLR"), 2, 4).rates(4)
    assert by_epoch == pytest.approx([rate for rate in cosine(4) for _ in range(2)])
    assert Walk(SchedulerConfig("CosineAnnealingLR", by_epoch=False), 2, 4).rates(4) == pytest.approx(cosine(8))


def test_a_horizon_that_is_given_stays():
    config = SchedulerConfig("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.2})
    assert Walk(config, 1, 4).rates(4) == pytest.approx([0.2 + 0.8 * rate for rate in cosine(8)[:4]])


def test_a_polynomial_ends_with_the_training():
    by_epoch = Walk(SchedulerConfig("PolynomialLR", {"power": 2.0}), 2, 4).rates(4)
    assert by_epoch == pytest.approx([(1 - epoch / 4) ** 2 for epoch in range(4) for _ in range(2)])


def test_one_cycle_by_step():
    """From max/25 by a half cosine to the maximum after 30 % of the steps, then to max/250,000."""
    config = SchedulerConfig("OneCycleLR", {"max_lr": 2.0, "cycle_momentum": False}, by_epoch=False)
    rates = Walk(config, 11, 1).rates(1)
    start, top, end = 2.0 / 25, 2.0, 2.0 / 25 / 1e4

    def between(a: float, b: float, part: float) -> float:
        return b + (a - b) * (1 + math.cos(math.pi * part)) / 2

    peak = 0.3 * 11 - 1  # of the steps 0 to 10
    expected = [
        between(start, top, step / peak) if step <= peak else between(top, end, (step - peak) / (10 - peak))
        for step in range(11)
    ]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_warm_up_rises_to_the_schedule():
    config = SchedulerConfig(warmup_iters=4, warmup_ratio=0.2)
    assert Walk(config, 6, 1).rates(1) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize(
    "by_epoch, expected",
    [
        (True, [0.5, 0.75, 0.1, 0.1, 0.01, 0.01]),
        (False, [0.5, 0.075, 0.01, 0.01, 0.01, 0.01]),
    ],
)
def test_warm_up_multiplies_a_schedule_and_leaves_no_trace(by_epoch, expected):
    config = SchedulerConfig(
        "MultiStepLR", {"milestones": [1, 2], "gamma": 0.1}, by_epoch, warmup_iters=2, warmup_ratio=0.5
    )
    assert Walk(config, 2, 3).rates(3) == pytest.approx(expected)


RESUMED = [
    SchedulerConfig("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1}, warmup_iters=3),
    SchedulerConfig("CosineAnnealingLR", by_epoch=False, warmup_iters=5),
    SchedulerConfig("OneCycleLR", {"max_lr": 1.0, "cycle_momentum": False}, by_epoch=False),
    SchedulerConfig("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}, by_epoch=False),
    SchedulerConfig("ExponentialLR", {"gamma": 0.7}),
]


@pytest.mark.parametrize("config", RESUMED, ids=lambda config: config.type)
def test_a_schedule_goes_on_where_it_was_saved(config):
    whole = Walk(config, 3, 4).rates(4)
    first = Walk(config, 3, 4)
    begun = first.rates(2)
    second = Walk(config, 3, 4)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.schedule.load_state_dict(first.schedule.state_dict())
    assert begun + second.rates(2) == whole  # bit for bit


@pytest.mark.parametrize("config", RESUMED, ids=lambda config: config.type)
def test_more_epochs_move_the_end_of_the_schedule(config):
    """A training of 2 epochs that goes on to 5 has, from then on, the rates of one of 5."""
    first = Walk(config, 3, 2)
    first.rates(2)
    second = Walk(config, 3, 5)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.schedule.load_state_dict(first.schedule.state_dict())
    assert second.rates(3) == Walk(config, 3, 5).rates(5)[6:]


def test_what_torch_does_not_take_is_named():
    def schedule(type, **arguments):
        return Walk(SchedulerConfig(type, arguments), 1, 1)

    with pytest.raises(ConfigurationError, match="unknown key train.lr_scheduler.gama; torch's StepLR takes .*step_s"):
        schedule("StepLR", step_size=1, gama=0.1)
    with pytest.raises(ConfigurationError, match=r"train.lr_scheduler: torch's StepLR refuses {} .*step_size"):
        schedule("StepLR")
    for name in ("StepLr", "ReduceLROnPlateau", "math", "LRScheduler"):
        with pytest.raises(ConfigurationError, match=f"train.lr_scheduler.type is {name!r}.*'CosineAnnealingLR'"):
            schedule(name)


def test_optimisers_that_torch_has_not_are_named():
    parameter = torch.nn.Parameter(torch.zeros(1))
    for name in ("Adamw", "LBFGS", "Optimizer", "lr_scheduler"):
        with pytest.raises(ConfigurationError, match=f"train.optimizer.type is {name!r}.*'AdamW'"):
            build_optimizer(OptimizerConfig(name, {}), [parameter])
    with pytest.raises(ConfigurationError, match="unknown key train.optimizer.learning_rate; torch's AdamW takes .*lr"):
        build_optimizer(OptimizerConfig("AdamW", {"learning_rate": 1.0}), [parameter])
    for arguments in ({"lr": -1.0}, {"lr": "fast"}):
        with pytest.raises(ConfigurationError, match="train.optimizer: torch's AdamW refuses"):
            build_optimizer(OptimizerConfig("AdamW", arguments), [parameter])


def test_moving_average_by_hand():
    module = torch.nn.Linear(1, 1, bias=False)
    average = moving_average(module, 0.75)
    for weight, expected in ((8.0, 8.0), (4.0, 7.0), (-1.0, 5.0)):  # the first is taken as it is
        with torch.no_grad():
            module.weight.fill_(weight)
        average.update_parameters(module)
        assert average.module.weight.item() == expected


def test_training_evaluates_and_saves_the_moving_average(tiny_model_dir, lines_lmdb, tmp_path):
    """One step an epoch, so that each epoch's state holds the weights that the step made."""
    training = prepare(
        tiny_model_dir,
        lines_lmdb,
        tmp_path / "work",
        [lines_lmdb],
        ema_decay=0.75,
        max_epochs=3,
        dataloader={"batch_size_per_gpu": 48},
    )
    summary = training.run()
    average = None
    for epoch in (1, 2, 3):
        state = torch.load(tmp_path / "work" / f"epoch_{epoch}_trainer_state.pth", weights_only=True)
        weights = state["network"]
        average = weights if average is None else {n: 0.75 * average[n] + 0.25 * weights[n] for n in weights}
        saved = read_weights_file(tmp_path / "work" / f"epoch_{epoch}.pth")
        for name, value in average.items():
            torch.testing.assert_close(saved[f"recognizer.{name}"], value, rtol=1e-5, atol=1e-7)
    head = "vitstr.head.weight"
    assert (average[head] - weights[head]).abs().max() > 1e-4
    assert summary["avg_loss"] == training.evaluate()["avg_loss"]
    training.average = None
    assert summary["avg_loss"] != training.evaluate()["avg_loss"]


def test_a_schedules_horizon_may_move_and_nothing_else():
    optimizer = OptimizerConfig("SGD", {"lr": 0.1, "momentum": 0.9})
    cosine = SchedulerConfig("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.01}, warmup_iters=3, warmup_ratio=0.5)
    plan = learning_plan(optimizer, cosine)
    assert plan == learning_plan(optimizer, replace(cosine, arguments={"eta_min": 0.01, "T_max": 9}))
    for other in (
        learning_plan(replace(optimizer, arguments={"lr": 0.1}), cosine),
        learning_plan(replace(optimizer, type="Adam"), cosine),
        learning_plan(optimizer, replace(cosine, arguments={"T_max": 8, "eta_min": 0.02})),
        learning_plan(optimizer, replace(cosine, type="StepLR")),
        learning_plan(optimizer, replace(cosine, by_epoch=not cosine.by_epoch)),
        learning_plan(optimizer, replace(cosine, warmup_iters=4)),
        learning_plan(optimizer, replace(cosine, warmup_ratio=0.4)),
    ):
        assert other != plan
