"""How many operations does a function take? Counted while it runs; shapes alone are enough.

A FLOP is one multiplication or one addition, so a product of [m, k] and [k, n] takes 2 m k n. As everywhere in
the field only matrix products and convolutions are counted, not norms, activations or softmax. (Many papers
count a multiplication and its addition as one: their "FLOPs" are half of these.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .outline import MetaScalars


def count_flops(function: Callable, *inputs) -> int:
    """FLOPs of ``function(*inputs)``, without gradients. Modules and tensors may be on the meta device."""
    return counted(function, *inputs)[0]


def counted(function: Callable, *inputs) -> tuple[int, Any]:
    """FLOPs of ``function(*inputs)``, and what it returned."""
    # The counter does not know the CPU's fused attention and would take it as free; and inference mode would hand
    # it whole operations instead of their parts.
    with (torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH),
          FlopCounterMode(display=False) as counter, MetaScalars()):
        result = function(*inputs)
    return counter.get_total_flops(), result
