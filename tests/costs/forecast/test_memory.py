"""Is the memory of a step without numbers the memory of a real one?"""

from dataclasses import replace

import pytest
import torch

from prunecap_lib import TrainConfig, VisualTokens
from prunecap_lib.costs.forecast import largest_batch, training_memory
from prunecap_lib.costs.forecast.memory import (
    RESERVE,
    WIDE,
    _step,
    measured_memory,
    training_captioner,
)
from prunecap_lib.costs.forecast.shapes import LiveBytes
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.pruning.scores import _spread_order, grid_score

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shallow")]

TINY = TrainConfig(d_model=32, layers=1, heads=2, ffn=64, batch_size=4, captions_per_image=2, max_words=8,
                   vocabulary_size=60, precision="fp32")


def test_live_bytes_forget_what_is_gone():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        assert sum(live.changes) == 8000
        del a
        assert sum(live.changes) == 4000
        b = b * 2 + b
        del b
    assert sum(live.changes) == 0 and live.peak == 12000


@pytest.mark.parametrize("changes", [
    dict(), dict(precision="bf16"), dict(encoder="convnext"), dict(freeze_encoder=True, precision="bf16"),
    dict(freeze_encoder=True, cache_features=True), dict(schedule=Schedule.parse("0.5@2/norm_largest")),
    dict(schedule=Schedule.parse("0.5@2/fuse")),
    dict(encoder="convnext", schedule=Schedule.parse("0.5@2/norm_largest")),
    dict(schedule=Schedule.parse("0.5@2/predictor"), prune_ratio=0.0)], ids=str)
def test_as_much_as_a_real_step(changes):
    config = replace(TINY, **changes)
    assert training_memory(config, device="cpu") == pytest.approx(measured_memory(config), rel=0.05)


@pytest.mark.parametrize("changes", [
    dict(schedule=Schedule((1, 2), (0.5, 0.5), "norm_smallest")),
    dict(schedule=Schedule((2,), (0.5,), reduction="merge"))], ids=["keep", "merge"])
@pytest.mark.parametrize("fused", [True, False])
def test_as_much_as_a_real_step_that_prunes_inside_the_encoder(changes, fused):
    config = replace(TINY, image_size=128, **changes)
    told = training_memory(config, device="cpu", fused=fused)
    assert told == pytest.approx(measured_memory(config, fused=fused), rel=0.05)
    assert told < training_memory(replace(config, schedule=None), device="cpu", fused=fused)


@pytest.mark.parametrize("precision, kept", [("fp32", 4), ("bf16", 6)])
def test_unfused_attention_keeps_its_weights(precision, kept, shallow):
    """Once for the softmax, in 32 bits, and in bf16 once more as the factor of the values."""
    config = replace(TINY, image_size=128, precision=precision)
    weights = 4 * 4 * 257 * 257 * kept  # of one block: 4 pictures, 4 heads, 257 tokens
    more = training_memory(config, fused=False) - training_memory(config)
    assert more == pytest.approx(shallow * weights, rel=0.25)


def test_a_step_holds_weights_gradients_and_two_moments_at_least():
    parameters = sum(p.numel() for p in training_captioner(TINY, 60).parameters())
    assert training_memory(TINY) > 4 * 4 * parameters
    assert training_memory(replace(TINY, freeze_encoder=True)) < 4 * 4 * parameters


def test_a_moving_average_is_one_more_copy():
    weights = sum(4 * p.numel() for p in training_captioner(TINY, TINY.vocabulary_size).parameters())
    assert training_memory(replace(TINY, ema=0.99)) - training_memory(TINY) == pytest.approx(weights, rel=0.01)


def test_a_gpu_keeps_no_attention_weights(shallow):
    config = replace(TINY, image_size=128, precision="bf16")
    weights = 4 * 4 * 257 * 257 * 2  # of one block: 4 pictures, 4 heads, 257 tokens, 2 bytes
    told = {device: training_memory(config, device=device) for device in ("cpu", "cuda")}
    assert told["cpu"] - told["cuda"] > (shallow - 1) * weights  # of all blocks, but that at the peak


def test_a_gpu_normalizes_in_32_bits():
    config = replace(TINY, encoder="convnext", precision="bf16", image_size=128)
    assert training_memory(config, device="cuda") > 1.05 * training_memory(config, device="cpu")


def test_the_grid_score_is_none_the_wiser():
    _spread_order.cache_clear()
    training_memory(replace(TINY, scorer="grid"))
    tokens = VisualTokens.full(torch.zeros(1, 64, 1), (8, 8))
    score = grid_score(tokens)
    _spread_order.cache_clear()
    assert torch.equal(score, grid_score(tokens))


@pytest.mark.parametrize("changes, fused", [
    (dict(precision="bf16", schedule=Schedule.parse("0.5@2/merge"), accumulate=2), True),
    (dict(encoder="convnext", freeze_encoder=True, scorer="random"), False)], ids=["merge", "frozen"])
def test_one_step_tells_of_every_batch_size(changes, fused):
    config = replace(TINY, **changes)
    wide, direct = (_step(config, 60, batch, "cuda", 1, fused) for batch in (WIDE, 7))
    found = wide.of(7)  # in what order tensors go that go together is not told
    assert (sorted(found.changes), found.operations) == (sorted(direct.changes), direct.operations)
    assert found.memory == direct.memory == training_memory(config, batch_size=7, fused=fused)
    assert wide.of(8).memory > direct.memory and max(done.flops for done in direct.operations) < WIDE


def test_the_largest_batch_fits_and_the_next_does_not():
    config, room = replace(TINY, freeze_encoder=True, cache_features=True), 100 * 2**20
    batch = largest_batch(config, RESERVE + room)
    assert training_memory(config, batch_size=batch) <= room < training_memory(config, batch_size=batch + 1)
    assert largest_batch(config, RESERVE + 2**20) == 0
    assert largest_batch(config, room, reserve=0) == batch


def test_bad_input_is_named():
    with pytest.raises(InputError, match="vocabulary_size is missing"):
        training_memory(TrainConfig())
    with pytest.raises(InputError, match="device 'tpu' is unknown"):
        training_memory(TINY, device="tpu")
