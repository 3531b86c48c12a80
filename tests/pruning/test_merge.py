"""Is merging what the paper defines, for ties, unequal sizes and whole batches too?"""

import math
import random

import pytest
import torch
from close import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecap_lib.attention import attend
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import merge_similar, proportional_bias
from prunecap_lib.tokens import VisualTokens

# Of length 0, 1 and 2: their cosines are exact in floating point, so that ties are ties.
EXACT = [(0, 0, 0, 0), (1, 0, 0, 0), (0, -1, 0, 0), (0, 2, 0, 0), (1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, 1)]


def naive(x, metric, cells, r):
    """Section 3 of the paper, read aloud, for one picture: lists of features and cells of what is left."""
    def cosine(i, j):
        lengths = math.hypot(*metric[i]) * math.hypot(*metric[j])
        return sum(a * b for a, b in zip(metric[i], metric[j], strict=True)) / lengths if lengths else 0.0

    first, second = list(range(0, len(x), 2)), list(range(1, len(x), 2))
    edges = []
    for i in first if second else []:                           # one edge from each token of the first set
        partner = max(second, key=lambda j: (cosine(i, j), -j))
        edges.append((cosine(i, partner), i, partner))
    groups = {i: [i] for i in range(len(x))}
    for _, i, partner in sorted(edges, key=lambda edge: (-edge[0], edge[1]))[:r]:       # keep the r most similar
        groups[partner] += groups.pop(i)
    features = []
    for group in groups.values():
        sizes = [len(cells[i]) for i in group]
        features.append([sum(s * x[i][c] for s, i in zip(sizes, group, strict=True)) / sum(sizes)
                         for c in range(len(x[0]))])
    return features, [set().union(*(cells[i] for i in group)) for group in groups.values()], list(groups)


def check_against_naive(tokens, metric, r):
    merged = merge_similar(tokens, r, metric)
    for b in range(len(tokens.x)):
        N = tokens.x.shape[1]
        cells = [set((tokens.cell_to_token[b] == n).nonzero().flatten().tolist()) for n in range(N)]
        features, groups, stayed = naive(tokens.x[b].tolist(), metric[b].tolist(), cells, r)
        assert merged.index[b].tolist() == tokens.index[b, stayed].tolist()
        assert [set((merged.cell_to_token[b] == n).nonzero().flatten().tolist()) for n in range(N - r)] == groups
        assert_close(merged.x[b], torch.tensor(features))


@pytest.mark.slow
@settings(max_examples=200)
@given(B=st.integers(1, 3), N=st.integers(1, 9), seed=st.integers(0, 2**32), data=st.data())
def test_merging_is_the_papers(B, N, seed, data):
    r, draw = data.draw(st.integers(0, N // 2)), random.Random(seed)
    group = [[*range(N), *(draw.randrange(-1, N) for _ in range(6))] for _ in range(B)]  # sizes from 1 to 7
    x = torch.tensor([[[draw.gauss(0, 1) for _ in range(2)] for _ in range(N)] for _ in range(B)])
    metric = torch.tensor([[draw.choice(EXACT) for _ in range(N)] for _ in range(B)]).float()
    tokens = VisualTokens(x, torch.arange(N).expand(B, N), (1, N + 6), group=torch.tensor(group))
    check_against_naive(tokens, metric, r)


@pytest.mark.parametrize("N, r", [(49, 10), (64, 32), (31, 15)])
def test_merging_by_features(N, r):
    x = torch.randn(2, N, 16, generator=torch.Generator().manual_seed(N))
    check_against_naive(VisualTokens.full(x, (1, N)), x, r)


def test_equal_tokens_join_the_first():
    """One direction, many lengths: without rounding the cosines differ in the last bit."""
    x = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 196)[:, None]
    x = x.expand(2, -1, -1)
    merged = merge_similar(VisualTokens.full(x, (14, 14)), 16)
    assert merged.index.tolist() == [[1, *range(3, 32, 2), *range(32, 196)]] * 2
    assert merged.size[:, 0].tolist() == [17, 17]


def test_prefix_tokens_take_no_part():
    x = torch.randn(2, 8, 4)
    with_prefix = merge_similar(VisualTokens.full(x, (2, 4), prefix := torch.randn(2, 3, 4)), 4)
    assert with_prefix.prefix is prefix
    assert torch.equal(with_prefix.x, merge_similar(VisualTokens.full(x, (2, 4)), 4).x)


def test_one_picture_alone_is_the_same():
    tokens = VisualTokens.full(torch.randn(3, 20, 6), (4, 5))
    together = merge_similar(tokens, 7)
    for b in range(3):
        alone = merge_similar(tokens.select(torch.tensor([b])), 7)
        assert_close(alone.x[0], together.x[b])
        assert torch.equal(alone.group[0], together.group[b])


def test_gradient_reaches_every_token():
    x = torch.randn(1, 9, 3, requires_grad=True)
    merge_similar(VisualTokens.full(x, (3, 3)), 4).x.sum().backward()
    assert (x.grad > 0).all()


@pytest.mark.parametrize("N, r", [(7, 4), (6, -1), (1, 1)])
def test_impossible_r(N, r):
    with pytest.raises(InputError, match=f"cannot merge {r} of {N} tokens.*between 0 and {N // 2}, or merge"):
        merge_similar(VisualTokens.full(torch.randn(1, N, 2), (1, N)), r)


def test_nothing_to_merge_and_bad_metrics():
    tokens = VisualTokens.full(torch.randn(2, 6, 4), (2, 3), torch.randn(2, 1, 4))
    assert merge_similar(tokens, 0) is tokens
    with pytest.raises(InputError, match="none for prefix tokens"):
        merge_similar(tokens, 2, tokens.sequence)
    with pytest.raises(InputError, match="NaN"):
        merge_similar(tokens, 2, tokens.x.index_fill(1, torch.tensor([1]), float("nan")))


def test_proportional_attention_is_attention_over_the_copies():
    """Where only equal tokens have merged, words notice nothing."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(2, 5, 8, generator=generator).repeat_interleave(2, dim=1)        # 0 = 1, 2 = 3, ...
    whole = VisualTokens.full(pairs, (2, 5), torch.randn(2, 2, 8, generator=generator))
    merged = merge_similar(whole, 3)
    bias = proportional_bias(merged)
    assert bias.shape == (2, 1, 1, 2 + 7) and (bias[..., :2] == 0).all()
    assert sorted(bias[0].exp().flatten().round().tolist()) == [1] * 6 + [2] * 3
    q = torch.randn(2, 1, 4, 8, generator=generator)
    expected, _ = attend(q, *[whole.sequence[:, None]] * 2)
    k = merged.sequence[:, None]
    with_bias = (q @ k.mT / 8**0.5 + bias).softmax(-1) @ k
    assert_close(with_bias, expected)
    assert not torch.allclose(attend(q, k, k)[0], expected, atol=1e-3)
