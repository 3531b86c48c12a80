"""Which positions may a word look at? One convention everywhere: True = may attend.

Both masks broadcast over attention scores [B, heads, T, S] and are combined with ``&``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def padding_mask(ids: Tensor, pad: int = 0) -> Tensor:
    """Hide padding: ids [B, T] -> [B, 1, 1, T], True at real words."""
    return (ids != pad)[:, None, None, :]


def causal_mask(T: int, device: torch.device | str | None = None) -> Tensor:
    """Hide the future (the "subsequent" mask): [1, 1, T, T], True where column <= row.

    Source: Vaswani et al. 2017, section 3.2.3.
    """
    return torch.ones(T, T, dtype=torch.bool, device=device).tril()[None, None]
