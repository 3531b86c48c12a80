"""Does "auto" prune where the clock says so, say it once, and keep out of training?"""

import logging

import pytest
import torch

from prunecap_lib.costs import break_even, count_flops
from prunecap_lib.datasets.feature_build import fingerprint
from prunecap_lib.encoders import ViT, ViTConfig, build_encoder
from prunecap_lib.encoders.when_it_pays import WhenItPays, time_by_turns, usual_schedule
from prunecap_lib.errors import InputError
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.pruning import Schedule


class Clockwork(ViT):
    """A ViT whose seconds are made up: choosing takes 3, and a picture 2, or 1 where tokens go."""

    def __init__(self):
        super().__init__(ViTConfig(image_size=16, patch=8, channels=8, depth=4, heads=1, hidden=8), name="clockwork",
                         preprocessing=Preprocessing(16))
        self.seconds, self.runs = 0.0, 0

    def forward(self, images, **more):
        self.seconds += 3 + len(images) if self.schedule else 2 * len(images)
        self.runs += 1
        return super().forward(images, **more)

    def clock(self):
        return self.seconds


@pytest.fixture
def encoder():
    encoder = Clockwork().eval()
    encoder.set_schedule("auto")
    encoder.pays = WhenItPays(turns=3, clock=encoder.clock)
    return encoder


def tokens_left(encoder, batch):
    return encoder(torch.zeros(batch, 3, 16, 16)).x.shape[1]


def test_each_size_is_timed_once_and_told_once(encoder, caplog):
    caplog.set_level(logging.WARNING)
    assert [tokens_left(encoder, batch) for batch in (1, 4, 1, 4, 3)] == [4, 3, 4, 3, 4]
    assert encoder.runs == 3 * 8 + 5  # three sizes, one turn and three more of each way; and the five asked for
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "schedule auto: at batch 1 encoder clockwork takes 4000 ms with 0.7@1,2,3 and 2000 ms with all tokens: "
        "pruning does not pay and is left off",
        "schedule auto: at batch 4 encoder clockwork takes 7000 ms with 0.7@1,2,3 and 8000 ms with all tokens: "
        "pruning pays",
        "schedule auto: at batch 3 encoder clockwork takes 6000 ms with 0.7@1,2,3 and 6000 ms with all tokens: "
        "pruning does not pay and is left off"]


def test_a_schedule_of_ones_own_is_obeyed(encoder):
    encoder.set_schedule("0.5@2/grid")
    assert tokens_left(encoder, 1) == 2 and encoder.pays is None and encoder.runs == 1
    encoder.set_schedule("auto")  # and may be left to the clock afterwards
    assert encoder.schedule == Schedule((2,), (0.5,), "grid") and encoder.pays is not None
    encoder.set_schedule(None)
    assert tokens_left(encoder, 8) == 4 and encoder.pays is None


def test_all_tokens_for_a_while(encoder):
    assert tokens_left(encoder, 4) == 3
    with encoder.unpruned():
        assert tokens_left(encoder, 4) == tokens_left(encoder, 5) == 4
    assert tokens_left(encoder, 4) == 3 and set(encoder.pays.faster) == {4}  # nothing was timed meanwhile


def test_training_is_refused(encoder):
    with pytest.raises(InputError, match="'auto' cannot train encoder clockwork.*encoder.eval()"):
        tokens_left(encoder.train(), 4)
    with torch.no_grad():
        assert tokens_left(encoder, 4) == 3


def test_features_are_not_stored_by_the_clock(encoder):
    with pytest.raises(InputError, match="its schedule is 'auto'"):
        fingerprint(encoder)
    encoder.set_schedule(None)
    before = fingerprint(encoder)
    encoder.set_schedule("0.5@2")
    assert fingerprint(encoder) != before


def test_operations_are_counted_without_a_clock(encoder):
    pruned = count_flops(encoder.to("meta"), torch.zeros(1, 3, 16, 16, device="meta"))
    with encoder.unpruned():
        assert pruned < count_flops(encoder, torch.zeros(1, 3, 16, 16, device="meta"))
    assert encoder.pays.faster == {}


@pytest.mark.parametrize("name, schedule", [
    ("vit", Schedule((1, 3, 4), (0.7,) * 3)), ("convnext", Schedule((2, 5, 7), (0.7,) * 3, "grid"))])
def test_the_usual_schedule(name, schedule):
    assert usual_schedule(build_encoder(name)) == build_encoder(name, schedule="auto").schedule == schedule


def test_auto_needs_an_encoder_that_can():
    with pytest.raises(InputError, match="encoders of our own code only"):
        build_encoder("resnet10t", image_size=64, schedule="auto")


def test_medians_and_a_turn_that_warms_up(encoder):
    late = iter([0.0, 50.0])  # the first run of all takes long

    def clock():
        encoder.seconds += next(late, 0.0)
        return encoder.seconds

    assert time_by_turns(encoder, torch.zeros(5, 3, 16, 16), turns=1, clock=clock) == (8.0, 10.0)


def test_break_even(encoder):
    found = break_even(encoder, clock=encoder.clock)
    assert found.batch == 4 and found.speedup == {1: 0.5, 2: 0.8, 4: 8 / 7}
    assert str(found) == ("pruning inside the encoder pays from batch 4 on here (0.50 times as fast at 1, 0.80 times "
                          "as fast at 2, 1.14 times as fast at 4)")
    never = break_even(encoder, largest=3, clock=encoder.clock)
    assert never.batch is None and "does not pay up to batch 2 here" in str(never)
    encoder.set_schedule(None)
    with pytest.raises(InputError, match="clockwork has no schedule"):
        break_even(encoder)
