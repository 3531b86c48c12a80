"""Does a schedule drop what it says, where it says, and nothing else?"""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from close import assert_close
from zero_draws import zero_draws

from prunecap_lib import VisualTokens
from prunecap_lib.costs import count_flops
from prunecap_lib.encoders import build_encoder
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule, merge_similar, proportional_bias

INSIDE = ("random", "grid", "norm_largest", "norm_smallest", "cls_attention", "attention_received", "key_norm",
          "diversity")


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()


@cache
def plain_vit():
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", image_size=64).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder.double()


def vit(schedule=None):
    """16 tokens, a class token, 12 blocks; larger weights than a fresh ViT's, so that attention is not flat.

    In float64: two ways to compute a score then choose the same tokens.
    """
    encoder = copy.deepcopy(plain_vit())
    encoder.set_schedule(schedule)
    return encoder


@pytest.mark.parametrize("reduction", ["keep", "fuse", "merge"])
def test_keep_all_equals_unpruned(images, reduction):
    with torch.no_grad():
        plain, all_kept = vit()(images), vit(Schedule((3, 6), (1.0, 1.0), reduction=reduction))(images)
    assert_close(all_kept.x, plain.x)
    assert torch.equal(all_kept.index, plain.index)


@pytest.mark.slow
@pytest.mark.parametrize("scorer", INSIDE)
@pytest.mark.parametrize("reduction", ["keep", "fuse", "merge"])
def test_as_many_tokens_come_out_as_were_counted(images, scorer, reduction):
    schedule = Schedule((3, 6, 9), (0.7, 0.5, 0.3), scorer, reduction)
    with torch.no_grad():
        tokens = vit(schedule)(images, need_attention=True)
    assert schedule.counts(16) == {"keep": (12, 6, 2), "fuse": (13, 8, 4), "merge": (12, 6, 2)}[reduction]
    assert tokens.x.shape[1] == tokens.index.shape[1] == tokens.attention_received.shape[1] == schedule.counts(16)[-1]
    assert tokens.prefix_count == 1
    assert (tokens.index.diff(dim=1) > 0).all()
    # what is fused or merged still carries every cell of the picture
    assert tokens.size.sum(dim=1).tolist() == [float(tokens.x.shape[1] if reduction == "keep" else 16)] * 2


def test_gathered_equals_masked(images):
    """Dropping tokens gives the others what hiding them as keys would."""
    encoder = vit(Schedule((4,), (0.5,)))
    with torch.no_grad():
        tokens = encoder(images)
        x = encoder.embed(images)
        for block in encoder.blocks[:4]:
            x, _ = block(x)
        seen = torch.zeros(2, 16, dtype=torch.bool).scatter(1, tokens.index, True)
        seen = torch.cat([torch.ones(2, 1, dtype=torch.bool), seen], dim=1)[:, None, None]
        for block in encoder.blocks[4:]:
            x, _ = block(x, mask=seen)
        x = encoder.norm(x)
    assert tokens.x.shape[1] == 8
    assert_close(tokens.prefix, x[:, :1])
    assert_close(tokens.x, x[:, 1:].gather(1, tokens.index[..., None].expand_as(tokens.x)))


@pytest.mark.slow
def test_twins_may_merge_unnoticed(images):
    """Two equal tokens, merged and counted as two, tell the others what both would: proportional attention."""
    patches = images.unfold(3, 16, 16)[:, :, :, ::2]                       # every second column of patches ...
    twins = patches.repeat_interleave(2, dim=3).flatten(3, 4)              # ... twice
    plain, merging = vit(), vit(Schedule((1,), (0.5,), reduction="merge"))
    with torch.no_grad():
        for encoder in (plain, merging):
            encoder.pos_embed[:, 1:] = 0
        expected, tokens = plain(twins), merging(twins)
    assert tokens.size.tolist() == [[2.0] * 8] * 2
    assert_close(tokens.x, expected.x[:, 1::2])


def test_merging_a_few_after_every_block(images):
    schedule = Schedule.tome(2, tokens=16, depth=12)
    assert schedule.counts(16) == (14, 12, 10, 8, 6, 4, 2, 1, 1, 1, 1)
    with torch.no_grad():
        assert vit(schedule)(images).size.tolist() == [[16.0], [16.0]]


def test_merging_stands_where_the_paper_has_it(images):
    """Between a block's attention and its MLP, by that attention's keys (Bolya et al. 2023, section 3)."""
    encoder = vit(Schedule.tome(2, tokens=16, depth=12))
    with torch.no_grad():
        found, x, mask = encoder(images), encoder.embed(images), None
        tokens = VisualTokens.full(x[:, 1:], encoder.grid, x[:, :1])
        for number, block in enumerate(encoder.blocks, 1):
            keys = block.attn.project(block.norm1(x))[1]
            x = x + block.attn(block.norm1(x), mask=mask)[0]
            if number < 12:
                tokens = replace(tokens, x=x[:, 1:], prefix=x[:, :1])
                tokens = merge_similar(tokens, min(2, (x.shape[1] - 1) // 2), keys.mean(dim=1)[:, 1:])
                x, mask = tokens.sequence, proportional_bias(tokens)
            x = x + block.mlp(block.norm2(x))
    assert torch.equal(found.index, tokens.index)
    assert_close(found.x, encoder.norm(x)[:, 1:])


@pytest.mark.slow
def test_a_score_from_attention_costs_no_matrix_product():
    flops = {scorer: count_flops(vit(Schedule((3, 6), (0.5, 0.5), scorer)), torch.zeros(1, 3, 64, 64).double())
             for scorer in ("grid", "cls_attention", "attention_received", "key_norm")}
    assert set(flops.values()) == {flops["grid"]}


@pytest.mark.parametrize("settings, says", [
    (dict(after=(3,), keep=(0.0,)), "keep rate 0.0"), (dict(after=(3,), keep=(1.1,)), "keep rate 1.1"),
    (dict(after=(3,), keep=(float("nan"),)), "keep rate nan"), (dict(after=(), keep=()), "0 blocks"),
    (dict(after=(3, 6), keep=(0.5,)), "2 blocks and 1 keep rates"), (dict(after=(6, 3), keep=(0.5, 0.5)), "ascend"),
    (dict(after=(0,), keep=(0.5,)), "first block is 1"), (dict(after=(3,), keep=(0.5,), reduction="melt"), "'melt'"),
    (dict(after=(3,), keep=(0.5,), scorer="pilot"), "asks the decoder"),
    (dict(after=(3,), keep=(0.5,), scorer="luck"), "scorer 'luck'"),
])
def test_impossible_schedules(settings, says):
    with pytest.raises(InputError, match=says):
        Schedule(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("name, schedule, says", [
    ("vit_tiny_patch16_224", "0.5@12", "after block 12 of 12 nothing is left to save; name blocks from 1 to 11"),
    ("vit_base_patch16_rpn_224", "0.5@3", "encoders of our own code only"),
    ("resnet10t", "0.5@1", "encoder resnet10t: tokens can go on the way inside encoders of our own code only"),
    ("vit_base_patch16_siglip_224", "0.5@3/cls_attention", "block 3 .* cannot give the scorer 'cls_attention'"),
])
def test_a_schedule_must_fit_its_encoder(name, schedule, says):
    with torch.device("meta" if "base" in name and "rpn" not in name else "cpu"), \
            zero_draws(), pytest.raises(InputError, match=says):
        build_encoder(name, image_size=64, schedule=Schedule.parse(schedule))


def test_a_schedule_that_does_not_fit_changes_nothing():
    encoder = vit(Schedule((3,), (0.5,)))
    with pytest.raises(InputError, match="block 12"):
        encoder.set_schedule(Schedule((12,), (0.5,)))
    assert encoder.schedule == Schedule((3,), (0.5,))


def test_set_taken_off_and_left_out_for_a_while(images):
    encoder = vit()
    with torch.no_grad():
        plain = encoder(images)
        encoder.set_schedule(Schedule((3,), (0.5,)))
        assert encoder(images).x.shape[1] == 8
        with encoder.unpruned():
            assert torch.equal(encoder(images).x, plain.x)
        assert encoder(images).x.shape[1] == 8
        encoder.set_schedule(None)
        assert torch.equal(encoder(images).x, plain.x)


@pytest.mark.parametrize("text, schedule", [
    ("0.7@3,6,9", Schedule((3, 6, 9), (0.7,) * 3)), ("0.7,0.5@3,6", Schedule((3, 6), (0.7, 0.5))),
    ("1.0@2/grid", Schedule((2,), (1.0,), "grid")), ("0.5@2/fuse", Schedule((2,), (0.5,), reduction="fuse")),
    ("0.5@2/key_norm/merge", Schedule((2,), (0.5,), "key_norm", "merge")),
])
def test_written_in_one_word(text, schedule):
    assert Schedule.parse(text) == schedule and str(schedule) == text


def test_any_rate_can_be_written_and_read():
    schedule = Schedule.tome(3, tokens=64, depth=6)
    assert Schedule.parse(str(schedule)) == schedule
    assert Schedule.parse("0.5@2/fuse/grid") == Schedule((2,), (0.5,), "grid", "fuse")  # in any order


@pytest.mark.parametrize("text, says", [
    ("", "cannot be read; write keep rates @ blocks, like 0.7@3,6,9"), ("0.7", "cannot be read"),
    ("a@3", "'a@3' cannot be read"), ("0.7@3;6", "cannot be read"), ("0.7@", "cannot be read"),
    ("nan@3", "keep rate nan"), ("0@3", "keep rate 0.0"), ("1.2@3", "keep rate 1.2"), ("0.7,0.5@3", "1 blocks and 2"),
    ("0.7@3/luck", "scorer 'luck'"), ("0.7@3/grid/random", "names two scorers or two reductions"),
    ("0.7@6,3", "must ascend"),
])
def test_what_cannot_be_read_is_named(text, says):
    with pytest.raises(InputError, match=says):
        Schedule.parse(text)


def test_where_all_stay_nothing_is_asked_of_the_attention(images, monkeypatch):
    from prunecap_lib.encoders import layers
    asked, attend = [], layers.attend

    def listen(*tensors, need_weights=False, **more):
        asked.append(need_weights)
        return attend(*tensors, need_weights=need_weights, **more)

    monkeypatch.setattr(layers, "attend", listen)
    with torch.no_grad():
        vit(Schedule((3, 6), (1.0, 0.5)))(images)
    assert [number for number, wanted in enumerate(asked, 1) if wanted] == [6]
