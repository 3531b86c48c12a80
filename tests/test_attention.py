"""Is our attention torch's attention? Parity, masks, and the cache."""

import pytest
import torch
from close import assert_close
from torch import nn

from prunecap_lib.attention import (
    FLOPS_PER_LOAD,
    CrossAttention,
    SelfAttention,
    attend,
    attend_with_policy,
    policy_with_self,
)
from prunecap_lib.masks import causal_mask, padding_mask

torch.manual_seed(0)


@pytest.fixture
def pair():
    """SelfAttention and torch's MultiheadAttention with the same weights."""
    torch.manual_seed(0)
    ours, theirs = SelfAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    return ours, theirs


@pytest.mark.parametrize("need_weights", [False, True])
def test_self_attention_equals_torch(pair, need_weights):
    ours, theirs = pair
    x, mask = torch.randn(2, 7, 24), causal_mask(7)
    y, weights = ours(x, mask, need_weights=need_weights)
    expected, expected_weights = theirs(x, x, x, attn_mask=~mask[0, 0], average_attn_weights=False)
    assert_close(y, expected)
    if need_weights:
        assert_close(weights, expected_weights)


def test_a_float_mask_is_added_to_the_scores():
    q, k, v, bias = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8), torch.randn(1, 3, 5, 7)
    expected = (q @ k.transpose(-2, -1) / 8**0.5 + bias).softmax(-1)
    fused, _ = attend(q, k, v, bias)
    explicit, weights = attend(q, k, v, bias, need_weights=True)
    assert_close(weights, expected)
    for y in (fused, explicit):
        assert_close(y, expected @ v)


def test_dropped_tokens_are_as_good_as_gone():
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    kept = torch.tensor([1.0, 1, 0, 1, 0, 1, 1])
    y, weights = attend_with_policy(q, k, v, kept, need_weights=True)
    there = kept == 1
    assert_close(y, attend(q, k[:, :, there], v[:, :, there])[0])
    assert (weights[..., ~there] == 0).all() and attend_with_policy(q, k, v, kept)[1] is None
    itself = policy_with_self(kept.expand(2, 7))
    expected = attend(q, k, v, itself == 1)[0]
    assert_close(attend_with_policy(q, k, v, itself)[0], expected)
    assert itself[0, 0].diagonal().tolist() == [1] * 7 and itself[0, 0, 0].tolist() == kept.tolist()


def test_a_dropped_token_learns_what_keeping_it_would_change():
    q, k, v = (torch.randn(1, 1, 3, 4, dtype=torch.double) for _ in range(3))
    kept = torch.tensor([1.0, 0, 1], dtype=torch.double, requires_grad=True)
    slope = torch.autograd.grad(attend_with_policy(q, k, v, kept)[0].sum(), kept)[0][1]
    step = torch.tensor([0.0, 1e-3, 0], dtype=torch.double)
    change = (attend_with_policy(q, k, v, kept + step)[0] - attend_with_policy(q, k, v, kept)[0]).sum() / 1e-3
    assert slope.abs() > 1e-3
    assert_close(slope, change, within=1e-2)


def test_nothing_kept_is_nothing_seen():
    q, k, v, kept = *(torch.randn(1, 2, 3, 4) for _ in range(3)), torch.zeros(3, requires_grad=True)
    y, _ = attend_with_policy(q, 100 * k, v, kept)
    y.sum().backward()
    assert (y == 0).all() and kept.grad.isfinite().all()


def test_cross_attention_equals_torch():
    ours, theirs = CrossAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]).data
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]).data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory = torch.randn(2, 5, 24), torch.randn(2, 9, 24)
    y, _ = ours(x, ours.project_memory(memory))
    assert_close(y, theirs(x, memory, memory)[0])


@pytest.mark.parametrize("heads", [1, 3])
def test_queries_carried_back_see_what_projected_keys_give(heads):
    layer = CrossAttention(24, heads)
    q, memory = torch.randn(2, 5, heads, 24 // heads), torch.randn(2, 19, 24)
    expected, _ = attend(q.transpose(1, 2), *layer.project_memory(memory))
    assert_close(layer.attend_memory(q, memory), expected.transpose(1, 2))


@pytest.mark.parametrize("S, D, heads", [(64, 128, 4), (197, 512, 4), (49, 256, 8)])
def test_memory_stays_unprojected_while_that_saves_work(S, D, heads):
    """Counted here by hand: a product of [a, b] and [b, c] takes a * b * c multiplications."""
    layer, memory, width = CrossAttention(D, heads).to("meta"), torch.empty(32, S, D, device="meta"), D // heads
    projected, a_look = 32 * 2 * S * D * D, 32 * heads * 2 * S * width
    matrices = FLOPS_PER_LOAD * 2 * D * D  # the two of them are read again
    a_carried_look = 32 * heads * (2 * width * D + 2 * S * D) + matrices
    turn = next(looks for looks in range(1, 2000) if looks * a_carried_look >= projected + looks * a_look)
    assert 1 < turn < 1999
    assert layer.project_memory(memory, n_queries=turn - 1)[0] is memory
    assert layer.project_memory(memory, n_queries=turn)[0].dim() == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_explicit_and_fused_attention_agree(dtype):
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=dtype).unbind(0)
    for mask in (causal_mask(6), torch.randn(2, 1, 1, 6)):
        fused, none = attend(q, k, v, mask)
        explicit, weights = attend(q, k, v, mask, need_weights=True)
        assert none is None
        assert_close(fused, explicit)
    assert attend(q, k, v, causal_mask(6), need_weights=True)[1].triu(1).abs().max() == 0


def test_masks_say_true_where_a_word_may_look():
    ids = torch.tensor([[1, 5, 2, 0]])
    assert padding_mask(ids).tolist() == [[[[True, True, True, False]]]]
    assert causal_mask(3)[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
