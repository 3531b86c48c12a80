"""Does a share of the operations find its keep rate, to one token?"""

import pytest
import torch
from small_encoders import tiny

from prunecap_lib import build_encoder
from prunecap_lib.costs import count_flops, schedule_for_flops
from prunecap_lib.errors import InputError


def flops(encoder, schedule=None):
    with torch.device("meta"):
        encoder.set_schedule(schedule)
    return count_flops(encoder, torch.empty(1, 3, encoder.image_size, encoder.image_size, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("family, settings, wanted", [
    ("vit", dict(after=(1, 3)), 0.8), ("vit", dict(after=(1, 3)), 0.9),
    ("vit", dict(after=(1,), reduction="fuse"), 0.8), ("vit", dict(after=(1, 2, 3), reduction="merge"), 0.9),
    ("convnext", dict(after=(1, 3), scorer="grid"), 0.8), ("swin", dict(after=(1, 2)), 0.9),
    ("convnextv2", dict(after=(1, 2), scorer="norm_largest"), 0.9),
    ("poolformer", dict(after=(1, 3), scorer="grid"), 0.8)])
def test_one_token_more_would_be_too_many(family, settings, wanted):
    encoder = tiny(family)
    schedule = schedule_for_flops(encoder, wanted, **settings)
    assert encoder.schedule is None and len(set(schedule.keep)) == 1
    N = encoder.block_tokens[settings["after"][0] - 1]
    k = round(schedule.keep[0] * N)
    assert k / N == schedule.keep[0] and k < N
    more = type(schedule)(schedule.after, ((k + 1) / N,) * len(schedule.after), schedule.scorer, schedule.reduction)
    encoder.to("meta")
    assert flops(encoder, schedule) <= wanted * flops(encoder) < flops(encoder, more)


def test_all_of_it_keeps_all():
    assert schedule_for_flops(build_encoder("vit"), 1.0, after=(2, 4), scorer="grid").keep == (1.0, 1.0)


@pytest.mark.parametrize("wanted, says", [
    (0.05, r"with one token left after blocks \(2, 4\) it still takes 36\.\d% of its FLOPs, more than 5.0%"),
    (0.0, "share 0.0"), (1.1, "share 1.1"), (float("nan"), "share nan")])
def test_what_cannot_be_reached(wanted, says):
    with pytest.raises(InputError, match=says):
        schedule_for_flops(build_encoder("vit"), wanted, after=(2, 4))


def test_blocks_and_scorers_are_checked_first():
    with pytest.raises(InputError, match="after block 9 of 6"):
        schedule_for_flops(build_encoder("vit"), 0.5, after=(9,))
    with pytest.raises(InputError, match="cannot give"):
        schedule_for_flops(build_encoder("convnext"), 0.5, after=(2,))
