"""Whether bf16 is worth using on this machine: measured on CPUs, queried from the driver on GPUs."""

import functools
import time

import torch

WORTHWHILE = 1.5  # minimum speed-up of bf16 products for bf16 to be used; emulated bf16 is slower than fp32
GEMM_SIZE = 768  # rows, columns and depth of the products measured


def bf16_is_faster(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 at least WORTHWHILE times as fast as fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    rates = gemm_rates()
    return rates["bf16"] > WORTHWHILE * rates["fp32"]


@functools.cache
def gemm_rates() -> dict[str, float]:
    """GFLOP/s of matrix products on this CPU by precision, with the current number of threads: the best of five."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.ones(2, GEMM_SIZE, GEMM_SIZE, dtype=dtype)
        seconds = []
        for _ in range(6):  # the first is a warm-up
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * GEMM_SIZE**3 / min(seconds[1:]) / 1e9
    return rates
