"""Do tokens remember their places through every reduction, and do values find the way back to the grid?"""

import pytest
import torch
from close import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecap_lib.pruning import fuse_rest, keep_top_k, merge_similar
from prunecap_lib.tokens import VisualTokens


def one_hot_tokens(B=2, H=3, W=4, **signals):
    """Each token's feature names its cell, so that an average shows which cells went into it."""
    return VisualTokens.full(torch.eye(H * W).expand(B, -1, -1), (H, W), **signals)


def merged_tokens():
    """Two pictures of 2x3 cells. First: {0, 1} {2} {3, 5}, 4 dropped; second: {0} {1, 2, 3, 4} {5}."""
    group = torch.tensor([[0, 0, 1, 2, -1, 2], [0, 1, 1, 1, 1, 2]])
    return VisualTokens(torch.zeros(2, 3, 4), torch.tensor([[0, 2, 3], [0, 1, 5]]), (2, 3), group=group)


@settings(max_examples=100)
@given(steps=st.lists(st.tuples(st.sampled_from(["keep", "fuse", "merge"]), st.integers(1, 12)), max_size=4),
       seed=st.integers(0, 1000))
def test_places_stay_true_through_several_reductions(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = one_hot_tokens()
    for step, amount in steps:
        B, N = tokens.index.shape
        scores = torch.rand(B, N, generator=generator) + 0.1
        before = tokens.size.sum(1)
        if step == "keep":
            tokens = keep_top_k(tokens, scores, min(amount, N))
        elif step == "fuse":
            tokens = fuse_rest(tokens, scores, min(amount, N))
        else:
            tokens = merge_similar(tokens, min(amount, N // 2), torch.randn(B, N, 3, generator=generator))
        if step != "keep":
            assert torch.equal(tokens.size.sum(1), before)
    B, N = tokens.index.shape
    assert torch.equal(tokens.index, tokens.index.sort(dim=1).values)
    positions = torch.arange(N).expand(B, N)
    assert torch.equal(tokens.cell_to_token.gather(1, tokens.index), positions)         # each carries its own cell
    carried = tokens.cell_to_token[:, None] == positions[..., None]                           # [B, N, H*W]
    assert torch.equal(tokens.x > 0, carried)
    assert_close(tokens.x.sum(-1), torch.ones(B, N))
    assert torch.equal(tokens.size, carried.sum(-1).float())
    attention = torch.rand(B, 5, N, generator=generator).softmax(-1)
    assert_close(tokens.scatter(attention).sum((-1, -2)), torch.ones(B, 5))


def test_size_counts_cells():
    assert merged_tokens().size.tolist() == [[2, 1, 2], [1, 4, 1]]
    assert one_hot_tokens().size.tolist() == [[1] * 12] * 2
    assert one_hot_tokens().keep(torch.tensor([[3, 5], [0, 1]])).size.tolist() == [[1, 1]] * 2


def test_carrier_of_unmerged_tokens():
    kept = one_hot_tokens(H=2, W=2).keep(torch.tensor([[1, 3], [0, 1]]))
    assert kept.group is None and kept.cell_to_token.tolist() == [[-1, 0, -1, 1], [0, 1, -1, -1]]


def test_scatter_shares_and_paint_repeats():
    values = torch.tensor([[2.0, 3.0, 4.0], [1.0, 8.0, 5.0]])
    tokens = merged_tokens()
    assert tokens.scatter(values).tolist() == [[[1, 1, 3], [2, 0, 2]], [[1, 2, 2], [2, 2, 5]]]
    assert tokens.to_grid(values, fill=-9).tolist() == [[[2, 2, 3], [4, -9, 4]], [[1, 8, 8], [8, 8, 5]]]
    assert tokens.to_grid(values[:, None].expand(2, 4, 3)).shape == (2, 4, 2, 3)
    assert tokens.scatter(values, fill=float("nan"))[0].isnan().nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.long, torch.bool])
def test_unmerged_paint_and_scatter_agree(dtype):
    kept = one_hot_tokens().keep(torch.tensor([[0, 4, 11], [1, 2, 3]]))
    values = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(dtype)
    assert torch.equal(kept.to_grid(values), kept.scatter(values)) and kept.scatter(values).dtype == dtype


def test_dropping_a_merged_token_drops_its_cells():
    kept = merged_tokens().keep(torch.tensor([[0, 2], [0, 2]]))
    assert kept.group.tolist() == [[0, 0, -1, 1, -1, 1], [0, -1, -1, -1, -1, 1]]
    assert kept.size.tolist() == [[2, 2], [1, 1]]


def test_merge_averages_features_and_signals():
    tokens = one_hot_tokens(B=1, H=1, W=4, cls_attention=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    merged = tokens.merge(torch.tensor([[0, 3, 2, 3]]), torch.tensor([[5.0, 1.0, 7.0, 3.0]]), 3)
    assert merged.x.tolist() == [[[1, 0, 0, 0], [0, 0, 1, 0], [0, 0.25, 0, 0.75]]]
    assert merged.index.tolist() == [[0, 2, 3]] and merged.group.tolist() == [[0, 2, 1, 2]]
    assert merged.cls_attention.tolist() == [[1, 3, 3.5]]


def test_a_group_that_weighs_nothing_gives_its_plain_mean():
    merged = one_hot_tokens(B=1, H=1, W=4).merge(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[0.0, 0, 0, 1]]), 2)
    assert merged.x.tolist() == [[[0.5, 0.5, 0, 0], [0, 0, 0, 1]]]


def test_a_token_that_nobody_joins_stays_to_the_bit():
    x = torch.randn(2, 12, 5)
    tokens = VisualTokens.full(x, (3, 4))
    leader = torch.arange(12).expand(2, 12).clone()
    leader[:, 7] = 4
    merged = tokens.merge(leader, torch.rand(2, 12) + 0.1, 11)
    for b in range(2):
        alone = [n for n in range(11) if n != 4]
        assert torch.equal(merged.x[b, alone], x[b, merged.index[b, alone]])


def test_half_precision_is_averaged_in_full():
    x = torch.full((1, 64, 2), 1.0, dtype=torch.bfloat16)
    merged = VisualTokens.full(x, (8, 8)).merge(torch.zeros(1, 64, dtype=torch.long), torch.rand(1, 64), 1)
    assert merged.x.dtype == torch.bfloat16 and merged.x.tolist() == [[[1, 1]]]


def test_merged_pictures_can_be_taken_out_and_joined_again():
    tokens = merged_tokens()
    turned = VisualTokens.cat([tokens.select(torch.tensor([1])), tokens.select(torch.tensor([0]))]).to("cpu")
    assert torch.equal(turned.group, tokens.group.flip(0)) and torch.equal(turned.size, tokens.size.flip(0))


@pytest.mark.parametrize("merged_first", [True, False])
def test_merged_and_unmerged_pictures_join(merged_first):
    plain = VisualTokens.full(torch.zeros(2, 6, 4), (2, 3)).keep(torch.tensor([[0, 1, 5]] * 2))
    batches = [merged_tokens(), plain]
    joined = VisualTokens.cat(batches if merged_first else batches[::-1])
    sizes = joined.size.tolist() if merged_first else joined.size.tolist()[2:] + joined.size.tolist()[:2]
    assert sizes == [[2, 1, 2], [1, 4, 1], [1, 1, 1], [1, 1, 1]]
