"""Are operations counted as a person would count them?"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecap_lib.costs.flops import Operations, total_flops


def counted(function):
    with Operations() as operations:
        function()
    return operations.done


def test_a_matrix_product_reads_two_and_writes_one():
    a, b = torch.zeros(2, 3), torch.zeros(3, 5)
    (product,) = counted(lambda: a @ b)
    assert (product.name, product.unit) == ("mm", "fp32")
    assert (product.flops, product.bytes) == (2 * 2 * 3 * 5, 4 * (6 + 15 + 10))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_sixteen_bits_are_half_the_bytes(dtype):
    a = torch.zeros(4, 4, dtype=dtype)
    (product,) = counted(lambda: a @ a)
    assert product.bytes == 2 * 3 * 16 and product.unit == "half"


def test_views_and_empty_memory_move_nothing():
    a = torch.zeros(4, 6)
    assert counted(lambda: (a.t().reshape(2, 12)[:1].expand(5, -1), a.detach(), torch.empty(9))) != []  # one copy
    assert counted(lambda: (a.view(2, 12)[:1].expand(5, -1), a.t(), a.detach(), torch.empty(9))) == []


def test_an_expanded_tensor_is_read_once():
    (added,) = counted(lambda: torch.zeros(1).expand(1000) + 1)[-1:]
    assert added.bytes == 4 + 4000


def test_in_place_reads_and_writes():
    a, b = torch.zeros(10), torch.zeros(10)
    (added,) = counted(lambda: a.add_(b))
    assert added.bytes == 4 * 30
    (added,) = counted(lambda: torch._foreach_add_([a, b], [b, a]))
    assert added.bytes == 4 * 60


@pytest.mark.parametrize("groups", [1, 8])
def test_each_gradient_of_a_convolution_takes_what_the_forward_pass_took(groups):
    """Depthwise, too, where torch's own formula counts each group's weights once for every group."""
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    images = torch.zeros(2, 8, 5, 5, requires_grad=True)
    forward = 2 * 2 * 8 * 5 * 5 * (8 // groups) * 3 * 3
    assert total_flops(counted(lambda: convolution(images))) == forward
    assert total_flops(counted(lambda: convolution(images).sum().backward())) == 3 * forward
    assert total_flops(counted(lambda: convolution(images.detach()).sum().backward())) == 2 * forward
    assert {op.unit for op in counted(lambda: convolution(images)) if op.flops} == {"tf32"}


@pytest.mark.parametrize("shape", [(2, 4, 6, 8)])
def test_fused_attention_is_not_free(shape):
    B, h, T, Dh = shape
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    product = 2 * B * h * T * T * Dh
    assert total_flops(counted(lambda: F.scaled_dot_product_attention(q, k, v))) == 2 * product
    # backward: scores once more, and two products for each of the two
    assert total_flops(counted(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())) == 7 * product
