"""Is what should be kept kept? Counts, order, ties, baselines, and the tokens' memory of their place."""

import math

import pytest
import torch
from close import assert_close
from hypothesis import given
from hypothesis import strategies as st

from prunecap_lib.errors import InputError
from prunecap_lib.pruning import SCORES, keep_count, keep_top_k, oracle_score, score_tokens
from prunecap_lib.tokens import VisualTokens


def some_tokens(B=2, H=3, W=4, C=5, prefix=0):
    x = torch.randn(B, H * W, C, generator=torch.Generator().manual_seed(0))
    return VisualTokens.full(x, (H, W), torch.randn(B, prefix, C) if prefix else None,
                             cls_attention=x[..., 0], attention_received=x[..., 1], key_norm=x[..., 2])


@pytest.mark.parametrize("n, ratio, k", [(10, 0.0, 10), (10, 0.3, 7), (10, 0.7, 3), (49, 0.3, 35), (64, 0.3, 45),
                                         (196, 0.5, 98), (3, 0.99, 1), (1, 0.9, 1)])
def test_keep_count(n, ratio, k):
    assert keep_count(n, ratio) == k


@given(n=st.integers(1, 400), percent=st.integers(0, 99))
def test_keep_count_is_the_exact_ceiling(n, percent):
    assert keep_count(n, percent / 100) == max(1, math.ceil((100 - percent) * n / 100 - 1e-12))


@pytest.mark.parametrize("ratio", [-0.01, 1, 2.0, float("nan"), float("inf")])
def test_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(InputError, match="outside"):
        keep_count(10, ratio)


@given(st.data())
def test_kept_are_the_best_unique_and_sorted(data):
    B, N = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, N))
    scores = torch.tensor(data.draw(st.lists(st.lists(st.integers(0, 4), min_size=N, max_size=N), min_size=B,
                                             max_size=B))).float()
    tokens = VisualTokens.full(torch.arange(B * N).float().view(B, N, 1), (1, N))
    kept = keep_top_k(tokens, scores, k)
    for b in range(B):
        expected = sorted(sorted(range(N), key=lambda i: (-scores[b, i].item(), i))[:k])
        assert kept.index[b].tolist() == expected
        assert kept.x[b, :, 0].tolist() == [b * N + i for i in expected]


def test_equal_scores_keep_the_first():
    kept = keep_top_k(some_tokens(), torch.zeros(2, 12), 5)
    assert kept.index.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_signals_and_prefix_travel_along():
    tokens = some_tokens(prefix=2)
    kept = keep_top_k(tokens, tokens.x[..., 2], 5)
    assert kept.prefix is tokens.prefix and kept.sequence.shape == (2, 7, 5)
    assert_close(kept.cls_attention, kept.x[..., 0])
    assert_close(kept.attention_received, kept.x[..., 1])
    assert_close(kept.key_norm, kept.x[..., 2])


def test_pruning_twice_still_knows_the_cells():
    tokens = some_tokens(B=3)
    twice = keep_top_k(keep_top_k(tokens, tokens.x[..., 0], 8), tokens.x[:, :8, 3], 4)
    for b in range(3):
        assert_close(twice.x[b], tokens.x[b, twice.index[b]])


def test_scatter_puts_values_on_their_cells():
    tokens = some_tokens()
    kept = keep_top_k(tokens, tokens.x[..., 0], 5)
    grid = kept.scatter(kept.x[..., 1], fill=-9)
    assert grid.shape == (2, 3, 4)
    for b in range(2):
        for value, cell in zip(kept.x[b, :, 1], kept.index[b], strict=True):
            assert grid[b, cell // 4, cell % 4] == value
    assert (grid == -9).sum() == 2 * 7
    assert kept.scatter(kept.x.transpose(1, 2)).shape == (2, 5, 3, 4)


def test_pictures_can_be_taken_out_and_joined_again():
    tokens = some_tokens(B=3, prefix=1)
    again = VisualTokens.cat([tokens.select(torch.tensor([0])), tokens.select(torch.tensor([1, 2]))])
    for name in ("x", "index", "prefix", "cls_attention", "attention_received"):
        assert torch.equal(getattr(again, name), getattr(tokens, name))


@pytest.mark.parametrize("scorer", SCORES)
def test_every_scorer_gives_one_number_a_token(scorer):
    scores = score_tokens(scorer, some_tokens(), pilot=lambda tokens: tokens.x.sum(-1),
                          relevance=lambda tokens: tokens.x.sum(-1))
    assert scores.shape == (2, 12) and not scores.isnan().any()


def test_norm_scores_are_opposite():
    tokens = some_tokens()
    assert_close(score_tokens("norm_largest", tokens), -score_tokens("norm_smallest", tokens))
    assert_close(score_tokens("norm_largest", tokens), tokens.x.norm(dim=-1))


@pytest.mark.parametrize("H, W, k", [(8, 8, 32), (7, 7, 25), (14, 14, 98)])
def test_grid_spreads_better_than_chance(H, W, k):
    """No kept cell set leaves a hole: the farthest dropped cell is nearer to a kept one than under random."""
    tokens = VisualTokens.full(torch.zeros(1, H * W, 1), (H, W))

    def hole(scorer, seed=0):
        scores = score_tokens(scorer, tokens, generator=torch.Generator().manual_seed(seed))
        kept = keep_top_k(tokens, scores, k).index[0]
        cells = torch.stack([kept // W, kept % W], 1).float()
        everything = torch.cartesian_prod(torch.arange(H), torch.arange(W)).float()
        return torch.cdist(everything, cells).min(1).values.max().item()

    assert hole("grid") <= min(hole("random", seed) for seed in range(20))
    assert hole("grid") < 1.5


def test_the_oracle_keeps_what_is_covered_and_spreads_the_rest():
    tokens = VisualTokens.full(torch.zeros(1, 64, 1), (8, 8))
    cover = torch.zeros(1, 64)
    cover[0, [20, 21, 44]] = torch.tensor([0.2, 1.0, 0.01])
    score = oracle_score(tokens, cover)
    assert score[0].argsort(descending=True)[:3].tolist() == [21, 20, 44]
    empty = [cell for cell in score_tokens("grid", tokens)[0].argsort(descending=True).tolist() if cover[0, cell] == 0]
    assert score[0].argsort(descending=True)[3:].tolist() == empty
    assert oracle_score(tokens, -cover)[0].argsort()[:3].tolist() == [21, 20, 44]


def test_the_oracle_follows_the_cells_of_pruned_tokens():
    tokens, cover = some_tokens(), torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    fewer = keep_top_k(tokens, tokens.x[..., 0], 5)
    expected = cover.gather(1, fewer.index)
    assert_close(oracle_score(fewer, cover).float(), expected)


def test_random_follows_its_generator():
    first, again, other = (score_tokens("random", some_tokens(), generator=torch.Generator().manual_seed(s))
                           for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bad_scores_are_named():
    tokens = some_tokens()
    with pytest.raises(InputError, match="NaN"):
        keep_top_k(tokens, torch.full((2, 12), float("nan")), 3)
    with pytest.raises(InputError, match="cannot keep 13 of 12"):
        keep_top_k(tokens, torch.zeros(2, 12), 13)
    with pytest.raises(InputError, match="choose one of random"):
        score_tokens("luck", tokens)
    with pytest.raises(InputError, match="no such signal"):
        score_tokens("cls_attention", VisualTokens.full(torch.zeros(1, 4, 2), (2, 2)))


@pytest.mark.parametrize("side, k", [(8, 45), (8, 32), (8, 20), (7, 35), (14, 138), (14, 98), (16, 180)])
def test_grid_does_not_favour_the_border(side, k):
    """A baseline that keeps the border drops what stands in the middle, and flatters every other score."""
    tokens = VisualTokens.full(torch.zeros(1, side * side, 1), (side, side))
    kept = torch.zeros(side * side)
    kept[keep_top_k(tokens, score_tokens("grid", tokens), k).index[0]] = 1
    kept = kept.view(side, side)
    inside = kept[1:-1, 1:-1].mean()
    border = (kept.sum() - kept[1:-1, 1:-1].sum()) / (4 * side - 4)
    assert abs(border - inside) < 0.4 * k / side**2
