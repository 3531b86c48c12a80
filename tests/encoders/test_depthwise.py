"""Is the strip-wise weight gradient the true one?"""

import pytest
import torch
from torch.nn import functional as F

from prunecap_lib.encoders.depthwise import DepthwiseConv2d


@pytest.mark.parametrize("k", [3, 5, 7])
def test_gradients_are_right(k):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True)
                       for shape in ((2, 3, 5, 6), (3, 1, k, k), (3,)))
    assert torch.autograd.gradcheck(DepthwiseConv2d.apply, (x, weight, bias))


def test_under_autocast_parameters_get_their_own_type():
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, requires_grad=True)
                       for shape in ((2, 8, 8, 8), (8, 1, 7, 7), (8,)))
    gradients = []
    for conv in (DepthwiseConv2d.apply, lambda x, w, b: F.conv2d(x, w, b, padding=3, groups=8)):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x, weight, bias)
        assert y.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(y.float().square().mean(), (x, weight, bias)))
    for ours, torchs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, torchs, rtol=0.05, atol=0.01 * torchs.abs().max().item())
