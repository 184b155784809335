"""A lower bound on the network's time: its operations divided by the measured rate of a large matrix product.

Convolutions and linear layers only (including the two products of attention), a multiplication and an addition counted
as two. Norms, GELU, softmax, images and decoding come on top; they account for a share below 100 %.
"""

import statistics
from collections.abc import Iterable

import torch
from clock import seconds

from ms_ocr_handwritten.geometry import CHUNK_COLUMNS as COLUMNS
from ms_ocr_handwritten.geometry import COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.recognisers import ConvNextViTConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZE = {"cpu": 2048, "gpu": 8192}  # of the square matrices


def chunk_flop(config: ConvNextViTConfig) -> int:
    """Operations per chunk, 32 x 300 px to 75 columns of logits: 4.2e9 for the official size."""
    rows = LINE_HEIGHT // COLUMN_WIDTH
    before, macs = 1, 0
    for index, (channels, depth) in enumerate(zip(config.dims, config.depths)):
        places = (rows >> index) * COLUMNS
        kernel = 2 if index else COLUMN_WIDTH**2
        macs += places * kernel * before * channels  # the stem, or the downsampling
        macs += depth * places * (49 * channels + 8 * channels**2)  # 7x7 depthwise, C -> 4C -> C
        before = channels
    width, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
    block = COLUMNS * (4 * width**2 + 2 * width * hidden) + 2 * COLUMNS**2 * width
    macs += COLUMNS * before * width + config.blocks * block + COLUMNS * width * config.num_classes
    return 2 * macs


class Floor:
    """Rates of a large matrix product, sampled between the rounds of the timings they are compared with."""

    def __init__(self, precisions: Iterable[str], device: str) -> None:
        size, place = SIZE[device], "cuda" if device == "gpu" else "cpu"
        self.flop = 2 * size**3
        self.matrices = {
            name: torch.randn(2, size, size, device=place).to(DTYPES[name])
            for name in dict.fromkeys(precisions)
            if name in DTYPES
        }
        self.samples: dict[str, list[float]] = {name: [] for name in self.matrices}  # FLOP/s

    def sample(self) -> None:
        """Measure each rate once, after an untimed product."""
        for name, (left, right) in self.matrices.items():
            torch.mm(left, right)
            duration, _ = seconds(torch.mm, left, right)
            self.samples[name].append(self.flop / duration)

    def rate(self, precision: str) -> float:
        """FLOP/s, median of the samples so far."""
        return statistics.median(self.samples[precision])

    def share(self, precision: str, flop: float, milliseconds: float) -> float | None:
        """Percent of `milliseconds` that the products alone would take; None for a precision without a rate."""
        if precision not in self.samples:
            return None
        return 100 * 1000 * flop / self.rate(precision) / milliseconds

    def note(self) -> str:
        size = len(next(iter(self.matrices.values()))[0])
        rates = ", ".join(f"{name} {self.rate(name) / 1e9:.0f} GFLOP/s" for name in self.samples)
        return f"matrix products of {size} x {size} in the same run: {rates}"
