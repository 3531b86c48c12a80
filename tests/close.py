"""How near must two ways to compute the same thing come, on any processor? As near as arithmetic can, on its scale.

Processors add in different orders. What that changes grows with the values that are added, not with the one that is
left: a result of 0.001 may be the difference of two hundreds. So the scale is the largest absolute value expected.
"""

import torch

TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-5}  # some 400 units of a float32's last digit


def assert_close(found: torch.Tensor, expected: torch.Tensor, within: float | None = None) -> None:
    """No element of ``found`` is further from ``expected`` than ``within`` times the largest absolute value expected.

    Integers and booleans must be equal.
    """
    if not expected.is_floating_point():
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        return
    finite = expected.detach()[expected.detach().isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    within = TOLERANCE[expected.dtype] if within is None else within
    torch.testing.assert_close(found, expected, rtol=0, atol=within * scale)
