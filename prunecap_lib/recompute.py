"""How does training hold less? What a block computed on the way is let go, and computed again when its gradient is due.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


def checkpointed(on: bool, function: Callable[..., T], *args, **more) -> T:
    """``function(*args, **more)``; with ``on``, only what goes in and comes out is kept for the backward pass.

    Gradients are the same, to the last bit where the function's sums are: the second time it draws the same dropout.
    """
    if on and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False, **more)
    return function(*args, **more)
