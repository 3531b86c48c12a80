"""Does the greedy search choose what DivPrune's definition says, in the same order?"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecap_lib.errors import InputError
from prunecap_lib.pruning import diversity_score, keep_top_k
from prunecap_lib.tokens import VisualTokens


def naive_order(x):
    """The paper's greedy search over one picture, in loops."""
    def distance(i, j):
        return round(1 - float(torch.cosine_similarity(x[i].double(), x[j].double(), dim=0)), 6)

    left, chosen = list(range(len(x))), []
    while left:
        others = chosen or left
        nearest = {i: min((distance(i, j) for j in others if j != i), default=0) for i in left}
        chosen.append(max(left, key=lambda i: (nearest[i], -i)))
        left.remove(chosen[-1])
    return chosen


@settings(max_examples=50)
@given(B=st.integers(1, 3), N=st.integers(1, 10), seed=st.integers(0, 10_000))
def test_order_is_the_greedy_one(B, N, seed):
    x = torch.randn(B, N, 4, generator=torch.Generator().manual_seed(seed))
    scores = diversity_score(VisualTokens.full(x, (1, N)))
    for b in range(B):
        assert scores[b].argsort(descending=True).tolist() == naive_order(x[b])
        assert sorted(scores[b].tolist()) == list(range(1, N + 1))


@pytest.mark.parametrize("k", [1, 5, 19, 20])
def test_stopping_early_chooses_the_same(k):
    tokens = VisualTokens.full(torch.randn(2, 20, 6), (4, 5))
    early = diversity_score(tokens, k)
    assert torch.equal(keep_top_k(tokens, early, k).index, keep_top_k(tokens, diversity_score(tokens), k).index)
    assert ((early > 0).sum(1) == k).all()


def test_copies_come_last():
    """Three different tokens among copies of the first: they are the first three, whatever their lengths."""
    x = torch.eye(4)[[0, 0, 1, 0, 2, 0]] * torch.tensor([1.0, 2, 3, 4, 5, 6])[:, None]
    tokens = VisualTokens.full(x[None], (2, 3))
    assert keep_top_k(tokens, diversity_score(tokens), 3).index.tolist() == [[0, 2, 4]]


def test_equal_tokens_are_chosen_in_order():
    """One direction, many lengths: without rounding the cosines differ in the last bit."""
    x = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 196)[:, None]
    assert diversity_score(VisualTokens.full(x.expand(2, -1, -1), (14, 14))).tolist() == [list(range(196, 0, -1))] * 2


def test_one_picture_alone_is_the_same():
    tokens = VisualTokens.full(torch.randn(3, 20, 6), (4, 5))
    together = diversity_score(tokens)
    for b in range(3):
        assert torch.equal(diversity_score(tokens.select(torch.tensor([b])))[0], together[b])


def test_a_picture_with_nan_is_refused():
    x = torch.randn(2, 6, 3)
    x[1, 4, 0] = float("nan")
    tokens = VisualTokens.full(x, (2, 3))
    scores = diversity_score(tokens)
    assert scores[1].isnan().all() and not scores[0].isnan().any()
    with pytest.raises(InputError, match="NaN"):
        keep_top_k(tokens, scores, 2)
