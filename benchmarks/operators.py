"""Where our time goes, by PyTorch's profiler: lists of mixed widths, and training steps, official size, on the CPU.

An operator's time is its self time, without the operators it calls. The rest of the elapsed time is spent outside
PyTorch: images, decoding to text, Python.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from facts import has_bf16
from images import mixed
from learners import make_learner, write_lines
from options import Options
from peers import OWN_BATCH, official_model_dir
from report import Section, Table, progress

from ms_ocr_handwritten import Recognizer

GROUPS = {  # prefixes of operator names; the first matching group counts
    "products of matrices": ("mkldnn::_linear", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution", "aten::_conv", "aten::_slow_conv"),
    "layer norms": ("aten::native_layer_norm",),
    "attention (training: its softmax)": ("aten::_scaled_dot", "aten::_softmax", "aten::softmax"),
    "GELU (reading: within the products)": ("aten::gelu",),
    "best class of each column, CTC": (
        "aten::max",
        "aten::amax",
        "aten::exp",
        "aten::log",
        "aten::sub",
        "aten::clamp",
        "aten::sum",
        "aten::_ctc",
        "aten::index",
        "aten::scatter",
        "aten::gather",
        "aten::_unique",
        "aten::sort",
        "aten::searchsorted",
    ),
    "optimiser": ("aten::_fused_adam", "aten::_foreach"),
}
OTHERS, OUTSIDE = "sums, scaling, copies", "outside of PyTorch"
LINES = 64


def run(options: Options) -> Section:
    if options.device == "gpu":  # there kernels run in recorded graphs, without operators
        return Section([Table("Where the time goes", ("",), [("shown for the CPU alone: --device cpu",)])])
    precisions = ["fp32", *(["bf16"] if has_bf16("cpu") else [])]
    images = mixed(LINES, np.random.default_rng(0))
    columns: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        reads, learns = (
            official_model_dir(Path(folder) / "reads"),
            official_model_dir(Path(folder) / "learns", reads=False),
        )
        write_lines(Path(folder) / "ours", images)
        for precision in precisions:
            recognizer = Recognizer.from_pretrained(reads, "torch", precision, device="cpu")
            columns[f"reading, {precision}"] = _shares(lambda: list(recognizer.read_many(images, OWN_BATCH)), LINES)
        for precision in precisions:
            learner = make_learner(precision, learns, Path(folder), "cpu")
            learner.take(options.batch)
            steps = max(1, LINES // options.batch)
            columns[f"training, {precision}"] = _shares(
                lambda: [learner.step() for _ in range(steps)], steps * options.batch
            )
    rows = [(group, *(found.get(group, 0.0) for found in columns.values())) for group in (*GROUPS, OTHERS, OUTSIDE)]
    rows.append(("all", *(sum(found.values()) for found in columns.values())))
    return Section([Table("Where the time goes, ms a line of mixed widths", ("", *columns), rows)], samples=columns)


def _shares(work: Callable[[], object], lines: int) -> dict[str, float]:
    """Milliseconds per line by group, of the second run of `work`."""
    progress("operators ...")
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        work()
        wall = time.perf_counter() - start
    found: dict[str, float] = {}
    for event in profiler.key_averages():
        group = next((name for name, starts in GROUPS.items() if event.key.startswith(starts)), OTHERS)
        found[group] = found.get(group, 0.0) + event.self_cpu_time_total / 1000 / lines
    return found | {OUTSIDE: 1000 * wall / lines - sum(found.values())}
