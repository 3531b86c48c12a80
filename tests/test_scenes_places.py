"""Do the ways of pruning that experiments/scenes_places.py compares leave the decoder equally many tokens?"""

import pytest
import torch

from prunecap_lib import Captioner
from scenes_places import PLACES, cases, look


@pytest.fixture(scope="module")
def vit():
    return Captioner.load("scenes-vit")


@pytest.mark.parametrize("left", [0.5, 0.3])
def test_every_case_leaves_the_same_number(vit, left):
    images, counts = torch.rand(2, 3, 64, 64), {}
    for case in cases(left):
        vit.encoder.set_schedule(case.inside(64))
        with torch.inference_mode():
            counts[case] = look(vit, images, case, torch.Generator().manual_seed(0)).x.shape[1]
    assert set(counts.values()) == {round(64 * left)}
    assert {case.place for case in counts} == set(PLACES)


def test_an_unpruned_look_sees_all(vit):
    vit.encoder.set_schedule(None)
    with torch.inference_mode():
        assert look(vit, torch.rand(1, 3, 64, 64), None, torch.Generator()).x.shape[1] == 64
