"""Is the work saved on a map where the schedule says, and are gathering and masking the same arithmetic?"""

import pytest
import torch
from close import assert_close
from small_encoders import randomize, tiny
from zero_draws import zero_draws

from prunecap_lib import Captioner, CaptionerConfig, build_encoder
from prunecap_lib.costs import count_flops
from prunecap_lib.costs.meta import placeholder_vocabulary
from prunecap_lib.encoders import MetaFormerConfig
from prunecap_lib.encoders.weights import load_weights
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.pruning.predictor import TokenPredictor
from prunecap_lib.pruning.spatial import KeptCells, MaskedCells, pool, ranks

FAMILIES = ("convnext", "convnextv2", "swin", "poolformer", "caformer")
SCHEDULE = "0.5,0.5@1,3/norm_largest"


@pytest.fixture
def images():
    return torch.randn(3, 3, 36, 36, generator=torch.Generator().manual_seed(1))


def decisions(cells):
    """What KeptCells keep, as a map of ones and zeros [B, H, W]."""
    return torch.zeros(cells.order.shape).scatter(1, cells.index, 1.0).unflatten(1, cells.grid)


def walk(encoder, images, cells):
    """The encoder's map, with these cells kept from its second block on."""
    stem, stages, _ = encoder.parts()
    x, number = stem(images.permute(0, 2, 3, 1)), 0
    for stage in stages:
        x = stage.downsample(x)
        cells = cells.resample_to(x.shape[1:3])
        for block in stage.blocks:
            number += 1
            sparse = (cells, encoder.added[f"cheap_{number}"]) if number > 1 else ()
            x, _ = encoder.run_block(block, x, False, *sparse)
    return x, cells


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 40, 80])
def test_gathered_equals_masked(family, images, count):
    """Through both stages, and so through the choice that the second one takes over from the first."""
    encoder = tiny(family, "0.5@1/grid")
    randomize(encoder.added)
    order = torch.rand(3, 81, generator=torch.Generator().manual_seed(2)).argsort(dim=1)
    kept = KeptCells(order, count, (9, 9))
    masked = MaskedCells(decisions(kept), ranks(order).unflatten(1, (9, 9)))
    with torch.no_grad():
        (gathered, kept), (through_mask, masked) = walk(encoder, images, kept), walk(encoder, images, masked)
    assert torch.equal(masked.mask, decisions(kept)) and kept.grid in ((4, 4), (5, 5))
    assert_close(gathered, through_mask)
    with torch.no_grad():
        other, _ = walk(encoder, images, KeptCells(order.flip(1), count, (9, 9)))
    assert (other - gathered).abs().max() > 1e-3  # the choice matters


@pytest.mark.parametrize("family", FAMILIES)
def test_the_schedule_chooses_what_it_says(family, images):
    """The encoder with a schedule is the walk with its choices made by hand."""
    encoder, images = tiny(family, "0.5@1/norm_largest").double(), images.double()
    randomize(encoder.added)
    stem, stages, norm = encoder.parts()
    with torch.no_grad():
        x, _ = encoder.run_block(stages[0].blocks[0], stem(images.permute(0, 2, 3, 1)), False)
        order = x.flatten(1, 2).norm(dim=-1).sort(dim=1, descending=True).indices
        expected, _ = walk(encoder, images, KeptCells(order, 41, (9, 9)))
        tokens = encoder(images)
    assert_close(tokens.x, norm(expected).flatten(1, 2))
    assert torch.equal(tokens.index, torch.arange(tokens.x.shape[1]).expand(3, -1)) and tokens.grid == encoder.grid


@pytest.mark.parametrize("family", FAMILIES)
def test_keep_all_equals_no_schedule(family, images):
    encoder = tiny(family)
    keys = encoder.state_dict().keys()
    with torch.no_grad():
        plain = encoder(images)
        encoder.set_schedule(Schedule.parse("1@1,2,3/norm_largest"))
        assert torch.equal(encoder(images).x, plain.x) and encoder.state_dict().keys() == keys
        encoder.set_schedule(Schedule.parse("1,0.9@1,2/norm_largest"))
        assert not torch.equal(encoder(images).x, plain.x)
        assert len(encoder.added) == 2  # nothing is cheap before something may go
        with encoder.unpruned():
            assert torch.equal(encoder(images).x, plain.x)


def test_a_cell_that_is_not_kept_passes_a_fresh_encoders_mlp_by():
    encoder, x = tiny("convnext", "0.5@1/grid"), torch.randn(2, 9, 9, 8)
    cells = KeptCells(torch.randperm(81).expand(2, 81), 30, (9, 9))
    with torch.no_grad():
        block = encoder.stages[0].blocks[1]
        y, dense = block(x, cells, encoder.added["cheap_2"]), block(x)
    kept = decisions(cells).bool()
    assert torch.equal(y[~kept], x[~kept])
    assert_close(y[kept], dense[kept])


def test_later_reductions_choose_among_what_is_left(images):
    """The norm decides: of the second choice every cell was in the first."""
    encoder, x = tiny("convnext"), torch.randn(2, 6, 6, 8)
    schedule = Schedule.parse("0.5,0.3@1,2/norm_largest")
    first = KeptCells.all(x).prune(x, schedule, 0.5)
    second = first.prune(-x.flip(1), schedule, 0.3)
    assert first.index.shape == (2, 18) and second.index.shape == (2, 6)  # ceil(0.3 * 18)
    for b in range(2):
        assert set(second.index[b].tolist()) <= set(first.index[b].tolist())
        norm = x.flip(1)[b].flatten(0, 1).norm(dim=-1)
        best = sorted(first.index[b].tolist(), key=lambda cell: -norm[cell])[:6]
        assert second.index[b].tolist() == sorted(best)
        assert second.order[b].sort().values.tolist() == list(range(36))
    assert encoder.depth == 4


@pytest.mark.parametrize("side, to", [(8, 4), (9, 4), (9, 5), (2, 1), (1, 1)])
@pytest.mark.parametrize("count", [1, 3, 31])
def test_the_next_map_keeps_the_same_share(side, to, count):
    N, count = side**2, min(count, side**2)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).expand(2, N)
    cells = KeptCells(order, count, (side, side)).resample_to((to, to))
    assert cells.index.shape == (2, -(-count * to**2 // N)) and cells.grid == (to, to)
    standing = {cell: N - place for place, cell in enumerate(order[0].tolist())}

    def mean(i, j):
        squares = [standing[a * side + b] for a in (2 * i, 2 * i + 1) for b in (2 * j, 2 * j + 1)
                   if a < side and b < side]
        return sum(squares) / len(squares)

    if side != to:
        best = sorted(range(to**2), key=lambda cell: -mean(cell // to, cell % to))
        assert cells.order[0].tolist() == best


def test_ties_go_to_the_lowest_index():
    x = torch.ones(1, 4, 4, 8)
    cells = KeptCells.all(x).prune(x, Schedule.parse("0.5@1/norm_largest"), 0.5)
    assert cells.index.tolist() == [list(range(8))]
    assert cells.resample_to((2, 2)).index.tolist() == [[0, 1]]


def test_a_decision_gets_a_gradient_on_its_own_map_and_from_the_next(images):
    encoder = tiny("convnextv2", "0.5@1/grid")
    randomize(encoder.added)
    chosen = decisions(KeptCells(torch.randperm(81).expand(3, 81), 40, (9, 9))).requires_grad_()
    x, cells = walk(encoder, images, MaskedCells(chosen, torch.rand(3, 9, 9)))
    x.square().sum().backward()
    assert (chosen.grad[:, :8, :8] != 0).float().mean() > 0.95  # the last row and column have no cell in a 4x4 map
    soft = pool(chosen.detach().flatten(1), (9, 9), (4, 4)).requires_grad_()
    assert set(cells.mask.detach().unique().tolist()) <= {0.0, 1.0} and cells.mask.grad_fn is not None
    assert soft.shape == (3, 16)


def test_straight_through_is_the_gradient_of_a_mean():
    chosen = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]], requires_grad=True)
    cells = MaskedCells(chosen, torch.rand(1, 4, 4)).resample_to((2, 2))
    assert cells.mask.tolist() == [[[1.0, 1.0], [0.0, 0.0]]]  # 5 of 16, so 2 of 4: the best places
    (cells.mask * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert torch.equal(chosen.grad[0], torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0)
                       .repeat_interleave(2, 1) / 4)


def test_channels_compete_on_kept_cells_alone():
    """What other cells hold is nothing to GRN, and a smaller number of cells makes no share smaller."""
    grn = tiny("convnextv2").stages[0].blocks[0].mlp.grn
    x, seen = torch.randn(2, 5, 5, 32), torch.zeros(2, 5, 5)
    seen[:, :2] = 1
    with torch.no_grad():
        masked, gathered = grn(x, seen)[:, :2], grn(x[:, :2].flatten(1, 2))
        assert_close(masked.flatten(1, 2), gathered)
        assert (grn(x)[:, :2] - masked).abs().max() > 1e-3
        twice = grn(torch.cat([x, x], dim=1))[:, :5]
        assert_close(twice, grn(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto", "swin_tiny_patch4_window7_224", "poolformer_s12",
                                  "caformer_s18"])
def test_timms_weights_load_strictly_with_a_schedule(name):
    import timm
    with zero_draws():
        weights = timm.create_model(name, **({"img_size": 64} if "swin" in name else {})).state_dict()
    weights = {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in weights.items()}
    schedule = Schedule.parse("0.5@3/norm_largest")
    encoder = build_encoder(name, image_size=64, state_dict=weights, schedule=schedule)
    plain = build_encoder(name, image_size=64, state_dict=weights)
    own, added = plain.state_dict(), encoder.state_dict()
    assert all(torch.equal(added.pop(key), value) for key, value in own.items())
    assert len(added) == 2 * (encoder.depth - 3) and all(key.startswith("added.cheap_") for key in added)
    load_weights(encoder, {key: value + 1 if value.is_floating_point() else value for key, value in weights.items()})
    assert not any(torch.equal(encoder.state_dict()[key], value) for key, value in own.items()
                   if value.is_floating_point())


@pytest.mark.parametrize("family, schedule, says", [
    ("convnext", "0.5@1/fuse/grid", "'fuse' would leave holes in the maps of encoder convnext; use 'keep'"),
    ("swin", "0.5@1/merge", "'merge' would leave holes"),
    ("convnext", "0.5@1", "block 1 of encoder convnext cannot give the scorer 'attention_received'"),
    ("poolformer", "0.5@1/attention_received", "cannot give"), ("swin", "0.5@1/cls_attention", "cannot give"),
    ("swin", "0.5@1/key_norm", "cannot give"), ("caformer", "0.5@4", "after block 4 of 4 nothing is left"),
])
def test_what_a_map_cannot_do(family, schedule, says):
    with pytest.raises(InputError, match=says):
        tiny(family, schedule)


def test_attention_where_only_some_stages_have_it(images):
    encoder = tiny("caformer")
    encoder.config = MetaFormerConfig(depths=(2, 2), channels=(8, 16), mixers=("pooling", "attention"),
                                      residual_scale=(False, True))
    encoder.set_schedule(Schedule.parse("0.5@3"))
    with pytest.raises(InputError, match="block 2 of encoder caformer cannot give"):
        encoder.set_schedule(Schedule.parse("0.5@2,3"))


@pytest.mark.parametrize("family", ["swin", "caformer"])
@pytest.mark.parametrize("need_attention", [False, True])
def test_cells_that_are_looked_at_stay(family, need_attention, images):
    encoder = tiny(family, "0.3@1/attention_received")
    received = []
    run_block, fewer = encoder.run_block, []

    def listen(block, x, asked, *sparse):
        x, got = run_block(block, x, asked, *sparse)
        received.append(got)
        fewer.append(sparse[0].index if sparse else None)
        return x, got

    encoder.run_block = listen
    with torch.no_grad():
        tokens = encoder(images, need_attention=need_attention)
    best = received[0].topk(25).indices.sort().values
    assert torch.equal(fewer[1], best) and [got is not None for got in received] == [True, False, False, need_attention]
    assert (tokens.attention_received is not None) == need_attention


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scorer", ["random", "grid", "norm_largest", "norm_smallest", "diversity"])
def test_every_scorer_on_one_picture(family, scorer, images):
    with torch.no_grad():
        tokens = tiny(family, f"0.3,0.3@1,3/{scorer}")(images[:1])
    assert tokens.x.shape[1] in (16, 25) and tokens.x.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_that_is_no_number(family, images):
    with torch.no_grad(), pytest.raises(InputError, match="a pruning score is NaN"):
        tiny(family, SCHEDULE)(images * float("nan"))


def test_operations_saved_are_those_of_the_mlp():
    with torch.device("meta"):
        encoder = build_encoder("convnext", schedule=Schedule.parse("0.5@2/norm_largest"))
        images = torch.empty(2, 3, 64, 64)
    pruned = count_flops(encoder, images)
    with encoder.unpruned():
        saved = count_flops(encoder, images) - pruned
    assert saved == 2 * 8 * 32 * (16 - 2) * 128**2  # pictures, blocks, cells; an MLP has 16 C^2, the cheap path 2 C^2


def test_a_trained_cheap_path_is_saved(tmp_path):
    torch.manual_seed(0)
    config = CaptionerConfig(encoder="convnext", d_model=16, layers=1, heads=2, ffn=16,
                             schedule=Schedule.parse("0.5@4/norm_largest"))
    captioner = Captioner(config, placeholder_vocabulary(20)).eval()
    images, ids = torch.randn(2, 3, 64, 64), torch.ones(2, 4, dtype=torch.long)
    loss = captioner(images, ids).square().mean()
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in captioner.encoder.added.parameters())
    randomize(captioner.encoder.added)
    captioner.save(tmp_path / "model")
    assert torch.equal(Captioner.load(tmp_path / "model")(images, ids), captioner(images, ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_predictors_training_equals_what_it_keeps(family, images, monkeypatch):
    """Where the same cells are drawn as are the best, masked training is the gathered forward: two reductions, and
    the smaller map between them."""
    encoder = tiny(family, "0.5,0.5,0.5@1,2,3/predictor")
    randomize(encoder.added)
    with torch.no_grad():
        gathered = encoder(images)

    def sample_mask(predictor, x, kept):  # the best half, as many as the gathered forward keeps
        with torch.no_grad():
            keep, drop = predictor(x, kept).unbind(dim=-1)
            scores = keep - drop
            count = -(-int(kept[0].sum()) // 2)
            best = scores.masked_fill(kept == 0, -torch.inf).topk(count + 1)
            assert (best.values[:, -2] - best.values[:, -1]).min() > 1e-5  # no last bit decides
            best = best.indices[:, :count]
        return kept * torch.zeros_like(scores).scatter(1, best, 1.0), scores

    monkeypatch.setattr(TokenPredictor, "sample_mask", sample_mask)
    masked = encoder.train()(images)
    assert_close(masked.x, gathered.x)
    assert gathered.keep_ratios is None and masked.sequence_mask is None and torch.equal(masked.index, gathered.index)
    assert masked.keep_ratios.shape == (3, 3)
    assert_close(masked.keep_ratios[:, 0], torch.full((3,), 41 / 81))


@pytest.mark.parametrize("family", FAMILIES)
def test_predictors_learn(family, images):
    encoder = tiny(family, "0.5,0.5@1,3/predictor").train()
    randomize(encoder.added)
    torch.manual_seed(0)
    encoder(images).x.square().mean().backward()
    for name, parameter in encoder.added.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
