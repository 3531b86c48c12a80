"""Are predictions what one would work out by hand from a step's operations?"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunecap_lib import TrainConfig
from prunecap_lib.costs.flops import Operation, total_flops
from prunecap_lib.costs.forecast import GPUS, Device, find_gpu, predict, this_machine, training_memory
from prunecap_lib.costs.forecast.memory import RESERVE, training_captioner, training_step
from prunecap_lib.costs.forecast.speed import LAUNCH, SHARE, exchange, roofline, step_seconds
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shallow")]

TINY = TrainConfig(d_model=32, layers=1, heads=2, ffn=64, batch_size=4, captions_per_image=2, max_words=8,
                   vocabulary_size=60, precision="fp32")
SLOW = Device("slow", 24 * 2**30, half=4e9, tf32=2e9, fp32=1e9, bandwidth=1e9, link=1e9, share=(0.5, 0.8))
RESULTS = Path(__file__).resolve().parents[3] / "data" / "results" / "predict.json"


def test_an_operation_takes_the_longer_of_two_times():
    operations = [Operation("mm", 4_000_000_000, 3, "fp32"), Operation("add", 0, 2_000_000_000, "fp32"),
                  Operation("mm", 4_000_000_000, 3, "half"), Operation("convolution", 4_000_000_000, 3, "tf32")]
    assert roofline(operations, SLOW) == pytest.approx(4 + 2 + 1 + 2)


def test_gradients_go_around_the_ring():
    assert exchange(1000, 1, 1e3) == 0
    assert exchange(1000, 4, 1e3) == pytest.approx(2 * 3 / 4 * 4)


def test_a_step_is_an_interval():
    assert step_seconds(1.0, 10, (0.5, 0.8)) == pytest.approx((1.25, 2.0))
    assert step_seconds(1.0, 10, (0.5, 0.8), exchanged=0.5) == pytest.approx((1.25, 2.5))  # hidden, or waited for
    assert step_seconds(1.0, 10, (0.5, 0.8), exchanged=3.0) == pytest.approx((3.0, 5.0))
    assert step_seconds(1e-9, 1000, (0.5, 0.8)) == pytest.approx((1000 * LAUNCH[0], 1000 * LAUNCH[1]))  # the host


def test_a_prediction_by_hand():
    found = predict(TINY, SLOW, batch_size=4)
    step = training_step(TINY, batch_size=4)
    operations, memory = step.operations, step.memory
    assert found.memory == memory == training_memory(TINY, batch_size=4)
    assert found.flops == total_flops(operations) and found.limit == pytest.approx(roofline(operations, SLOW))
    fast, slow = found.seconds
    assert (fast, slow) == pytest.approx((found.limit / 0.8, found.limit / 0.5))
    assert found.pictures_a_second == pytest.approx((4 / slow, 4 / fast))
    assert found.hours(7200) == pytest.approx((fast / 2, slow / 2))  # 1,800 steps
    assert found.cost(7200, 3.0) == pytest.approx((1.5 * fast, 1.5 * slow))
    assert found.rate == pytest.approx((found.flops / slow, found.flops / fast))


def test_a_measured_rate_takes_the_place_of_the_assumption():
    found = predict(TINY, SLOW, batch_size=4, rate=2e9)
    assert found.seconds == pytest.approx((found.flops / 2e9,) * 2) and found.rate == pytest.approx((2e9, 2e9))


def test_two_gpus_see_twice_the_pictures_and_cost_the_same():
    one, two = (predict(TINY, replace(SLOW, link=1e15), batch_size=4, gpus=gpus) for gpus in (1, 2))
    assert two.pictures_a_second == pytest.approx(tuple(2 * rate for rate in one.pictures_a_second))
    assert two.cost(1000, 2.0) == pytest.approx(one.cost(1000, 2.0))
    behind = predict(TINY, replace(SLOW, link=1e6), batch_size=4, gpus=2)
    assert behind.seconds[1] - one.seconds[1] == pytest.approx(4 * training_step(TINY).trained / 1e6)


def test_the_largest_batch_fits_by_the_rules_of_the_device():
    """A CPU keeps attention's weights in bf16, and several GPUs copies of their gradients."""
    config = replace(TINY, image_size=128, precision="bf16")
    room = training_memory(config, batch_size=20)
    small = replace(SLOW, memory=RESERVE + room)
    one, two = (predict(config, small, gpus=gpus) for gpus in (1, 2))
    cpu = predict(config, replace(small, kernels="cpu"))
    assert one.batch == 20 > max(two.batch, cpu.batch) and max(two.memory, cpu.memory) <= room
    assert predict(TINY, SLOW, gpus=2, batch_size=4).memory - predict(TINY, SLOW, batch_size=4).memory == (
        4 * training_step(TINY).trained)


def test_backward_takes_about_twice_the_forward_pass():
    captioner = training_captioner(TINY, 60)
    encoder = 2 * 64 * sum(p.numel() for name, p in captioner.encoder.named_parameters() if p.dim() > 1
                           and "pos" not in name)  # 64 patches meet every matrix
    ways = dict(), dict(freeze_encoder=True), dict(freeze_encoder=True, cache_features=True)
    trained, frozen, stored = (total_flops(training_step(replace(TINY, **way)).operations) / TINY.batch_size
                               for way in ways)
    assert frozen - stored == pytest.approx(encoder, rel=0.2)  # and some attention
    # no gradient reaches the pictures, and none the projection's input where the encoder is frozen
    assert trained - stored == pytest.approx(3 * (frozen - stored), rel=0.1)


def test_pruning_inside_the_encoder_changes_the_prediction():
    whole = predict(replace(TINY, prune_ratio=0.0), SLOW, batch_size=4)
    pruned = predict(replace(TINY, schedule=Schedule((1,), (0.5,), "grid")), SLOW, batch_size=4)
    assert pruned.flops < 0.8 * whole.flops and pruned.memory < whole.memory
    assert pruned.pictures_a_second > whole.pictures_a_second


def test_a_gpu_encodes_all_pictures_at_once():
    config = replace(TINY, freeze_encoder=True)
    assert len(training_step(config, batch_size=64).operations) == len(training_step(config, batch_size=4).operations)


@pytest.mark.parametrize("name, found", [("h100", "h100"), ("RTX 4090", "rtx4090"), ("4090", "rtx4090"),
                                         ("A100", "a100")])
def test_gpus_by_name(name, found):
    assert find_gpu(name).name == found


def test_sixteen_bits_are_never_the_slowest():
    for gpu in GPUS:
        assert gpu.half >= 2 * gpu.tf32 >= 2 * gpu.fp32 > gpu.bandwidth > gpu.link


def test_this_machine_has_rates():
    here = this_machine(side=64, numbers=4096, turns=1)
    assert min(here.half, here.fp32, here.bandwidth, here.memory) > 1e6 and here.fp32 == here.tf32


@pytest.mark.parametrize("call, says", [
    (lambda: find_gpu("tpu"), "known are rtx3090, rtx4090, a100, h100"),
    (lambda: predict(TINY, SLOW, batch_size=4, gpus=0), "gpus is 0"),
    (lambda: predict(TINY, SLOW, batch_size=4, rate=-1.0), "rate of -1.0"),
    (lambda: predict(TINY, SLOW, batch_size=4).cost(10, -1.0), "price -1.0 is negative"),
    (lambda: predict(TINY, replace(SLOW, memory=2**30), batch_size=2), "a batch of 2 takes 0.0 GiB.* take fewer"),
    (lambda: predict(TINY, replace(SLOW, memory=2**30)), "a batch of 1 takes .* freeze the encoder")])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_published_rates_lie_in_the_interval():
    """What ``SHARE`` says of itself."""
    rows = [row for row in json.loads(RESULTS.read_text())["rows"] if row["kind"] == "published"]
    shares = {gpu: sorted(row["share"] for row in rows if row["device"] == gpu) for gpu in ("rtx3090", "a100", "h100")}
    assert all(SHARE[0] <= share <= SHARE[1] + 0.005 for each in shares.values() for share in each)
    assert len(shares["rtx3090"]) == 24
    assert (round(shares["rtx3090"][0], 2), round(shares["rtx3090"][-1], 2)) == (0.64, 0.9)
    peak = [round(row["share_of_peak"] + 1e-4, 2) for row in rows if row["device"] == "rtx3090"]
    assert (min(peak), max(peak)) == (0.2, 0.68)
    assert round(shares["a100"][0], 2) == 0.58 and round(shares["h100"][0], 2) == 0.47
