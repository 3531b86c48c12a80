"""Does "auto" prune where the clock says so, say so, and leave the encoder as it was?"""

import logging

import pytest
import torch

from prunecap_lib.costs import break_even, fastest_schedule, usual_schedule
from prunecap_lib.costs.budget import time_by_turns
from prunecap_lib.encoders import ViT, ViTConfig, build_encoder
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
    return Clockwork().eval()


def fastest(encoder, batch):
    return fastest_schedule(encoder, batch, turns=3, clock=encoder.clock)


def test_the_faster_way_is_taken_and_told(encoder, caplog):
    caplog.set_level(logging.WARNING)
    usual = Schedule.parse("0.7@1,2,3")
    assert [fastest(encoder, batch) for batch in (1, 4, 3)] == [None, usual, None]
    assert encoder.runs == 3 * 8 and encoder.schedule is None  # one turn and three more of each way
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "schedule auto: at batch 1 encoder clockwork takes 4000 ms with 0.7@1,2,3 and 2000 ms with all tokens: "
        "pruning does not pay and is left off",
        "schedule auto: at batch 4 encoder clockwork takes 7000 ms with 0.7@1,2,3 and 8000 ms with all tokens: "
        "pruning pays",
        "schedule auto: at batch 3 encoder clockwork takes 6000 ms with 0.7@1,2,3 and 6000 ms with all tokens: "
        "pruning does not pay and is left off"]


def test_a_schedule_of_ones_own_is_the_one_that_is_timed(encoder):
    own = Schedule((2,), (0.5,), "grid")
    encoder.set_schedule(own)
    assert fastest(encoder, 4) == own and fastest(encoder, 1) is None and encoder.schedule == own


def test_all_tokens_for_a_while(encoder):
    encoder.set_schedule("0.7@1,2,3")
    with encoder.unpruned():
        assert encoder(torch.zeros(4, 3, 16, 16)).x.shape[1] == 4
    assert encoder(torch.zeros(4, 3, 16, 16)).x.shape[1] == 3


@pytest.mark.parametrize("name, schedule", [
    ("vit", Schedule((1, 3, 4), (0.7,) * 3)), ("convnext", Schedule((2, 5, 7), (0.7,) * 3, "grid"))])
def test_the_usual_schedule(name, schedule):
    assert usual_schedule(build_encoder(name)) == schedule


def test_auto_needs_an_encoder_that_can():
    with pytest.raises(InputError, match="encoders of our own code only"):
        fastest_schedule(build_encoder("resnet10t", image_size=64), 1)


def test_medians_and_a_turn_that_warms_up(encoder):
    late = iter([0.0, 50.0])  # the first run of all takes long

    def clock():
        encoder.seconds += next(late, 0.0)
        return encoder.seconds

    encoder.set_schedule("0.7@1,2,3")
    assert time_by_turns(encoder, 5, turns=1, clock=clock) == (8.0, 10.0)


def test_break_even(encoder):
    encoder.set_schedule("0.7@1,2,3")
    found = break_even(encoder, clock=encoder.clock)
    assert found.batch == 4 and found.speedup == {1: 0.5, 2: 0.8, 4: 8 / 7}
    assert str(found) == ("pruning inside the encoder pays from batch 4 on here (0.50 times as fast at 1, 0.80 times "
                          "as fast at 2, 1.14 times as fast at 4)")
    never = break_even(encoder, largest=3, clock=encoder.clock)
    assert never.batch is None and "does not pay up to batch 2 here" in str(never)
    encoder.set_schedule(None)
    with pytest.raises(InputError, match="clockwork has no schedule"):
        break_even(encoder)
