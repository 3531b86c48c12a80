"""Is the fused token the paper's weighted average of what would be dropped?"""

import pytest
import torch
from close import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecap_lib.errors import InputError
from prunecap_lib.pruning import fuse_rest, keep_top_k
from prunecap_lib.tokens import VisualTokens


def some_tokens(B=2, N=12, prefix=0):
    x = torch.randn(B, N, 5, generator=torch.Generator().manual_seed(0))
    return VisualTokens.full(x, (1, N), torch.randn(B, prefix, 5) if prefix else None)


@settings(max_examples=100)
@given(st.data())
def test_fused_is_the_weighted_average_of_the_rest(data):
    B, N = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 10))
    k = data.draw(st.integers(1, N - 1))
    rows = st.lists(st.integers(-1, 4), min_size=N, max_size=N)
    scores = torch.tensor(data.draw(st.lists(rows, min_size=B, max_size=B))).float()
    tokens = some_tokens(B, N)
    fused = fuse_rest(tokens, scores, k)
    assert fused.x.shape == (B, k + 1, 5) and (fused.size.sum(1) == N).all()
    for b in range(B):
        order = sorted(range(N), key=lambda i: (-scores[b, i].item(), i))
        rest = order[k:]
        weights = [max(scores[b, i].item(), 0) for i in rest]
        weights = weights if sum(weights) else [1] * len(rest)
        average = sum(w * tokens.x[b, i] for w, i in zip(weights, rest, strict=True)) / sum(weights)
        assert fused.index[b].tolist() == sorted(order[: k + 1])
        place = fused.index[b].tolist().index(order[k])
        assert_close(fused.x[b, place], average)
        assert fused.size[b, place] == N - k
        assert (fused.cell_to_token[b] == place).nonzero().flatten().tolist() == sorted(rest)
        for position, cell in enumerate(fused.index[b].tolist()):
            if position != place:
                assert torch.equal(fused.x[b, position], tokens.x[b, cell])


def test_keeping_all_fuses_nothing():
    tokens = some_tokens()
    assert fuse_rest(tokens, tokens.x[..., 0], 12) is tokens


def test_equal_scores_fuse_the_last():
    tokens = some_tokens(prefix=2)
    fused = fuse_rest(tokens, torch.ones(2, 12), 4)
    assert fused.index.tolist() == [[0, 1, 2, 3, 4]] * 2 and fused.prefix is tokens.prefix
    assert_close(fused.x[:, 4], tokens.x[:, 4:].mean(1))


def test_one_picture_alone_is_the_same():
    tokens = some_tokens(B=3)
    scores = tokens.x[..., 0].abs()
    together = fuse_rest(tokens, scores, 5)
    for b in range(3):
        chosen = torch.tensor([b])
        alone = fuse_rest(tokens.select(chosen), scores[chosen], 5)
        assert torch.equal(alone.x, together.x[chosen]) and torch.equal(alone.group, together.group[chosen])


def test_fusing_twice_carries_the_first_group_on():
    tokens = some_tokens(B=1, N=6)
    once = fuse_rest(tokens, torch.tensor([[6.0, 5, 4, 3, 2, 1]]), 3)                   # {0} {1} {2} {3, 4, 5}
    twice = fuse_rest(once, torch.tensor([[9.0, 1, 5, 4]]), 2)                          # the fused one weighs 4 of 5
    assert twice.index.tolist() == [[0, 2, 3]] and twice.group.tolist() == [[0, 2, 1, 2, 2, 2]]
    assert_close(twice.x[0, 2], (once.x[0, 1] + 4 * once.x[0, 3]) / 5)


def test_gradient_reaches_every_token():
    x = torch.randn(1, 6, 3, requires_grad=True)
    fuse_rest(VisualTokens.full(x, (2, 3)), torch.rand(1, 6) + 0.1, 2).x.sum().backward()
    assert (x.grad > 0).all()


def test_what_cannot_weigh_is_refused():
    tokens, scores = some_tokens(), torch.ones(2, 12)
    with pytest.raises(InputError, match="cannot keep 13 of 12"):
        fuse_rest(tokens, scores, 13)
    for value, says in ((float("nan"), "NaN"), (float("inf"), "infinite")):
        with pytest.raises(InputError, match=says):
            fuse_rest(tokens, scores.index_fill(1, torch.tensor([3]), value), 4)
    assert keep_top_k(tokens, scores.index_fill(1, torch.tensor([3]), float("inf")), 1).index.tolist() == [[3], [3]]
    assert not fuse_rest(tokens, scores.index_fill(1, torch.tensor([3]), -float("inf")), 4).x.isnan().any()
