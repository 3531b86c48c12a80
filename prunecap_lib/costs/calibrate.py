"""How fast is this machine at best? Its own matrix products and copies tell, where no data sheet does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from .latency import wait_for
from .predict import SHARE, Device

CPU_SHARE = (0.6, 0.9)
"""What training reaches of the limit that this file's rates set, on a CPU: ten captioners on one core were at 0.61 to
0.84 (``benchmarks/predict.py``)."""


def this_machine(*, side: int | None = None, numbers: int | None = None, turns: int = 5) -> Device:
    """Measure the GPU that is here, or else the CPU: about a second. The best of ``turns`` counts.

    Args:
        side: of the square matrices that are multiplied. numbers: of the 32-bit numbers that are copied.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    side, numbers = side or (8192 if gpu else 1536), numbers or (2**28 if gpu else 2**25)

    def rate(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / best(lambda: a @ b, device, turns)

    a, b = (torch.ones(numbers, device=device) for _ in range(2))
    bandwidth = 8 * numbers / best(lambda: b.copy_(a), device, turns)
    half, full = rate(torch.bfloat16), rate(torch.float32)
    memory = torch.cuda.get_device_properties(device).total_memory if gpu else \
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name() if gpu else f"this CPU, {threads} thread{'s' if threads > 1 else ''}"
    return Device(name, memory, half=half, tf32=full, fp32=full, bandwidth=bandwidth,
                  share=SHARE if gpu else CPU_SHARE, kernels=device.type)


def best(function: Callable, device: torch.device, turns: int) -> float:
    """Seconds of the fastest of ``turns`` runs; one more warms up."""
    seconds = []
    for _ in range(turns + 1):
        wait_for(device)
        start = time.perf_counter()
        function()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
