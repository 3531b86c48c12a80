"""What tests of costs share: encoders of few blocks, for every operation of a step takes its time."""

from dataclasses import replace
from unittest import mock

import pytest

from prunecap_lib import encoders
from prunecap_lib.costs.forecast.memory import _cached_step, _meta_encoder


def fewer(build, **blocks):
    def built(image_size=64):
        whole = build(image_size)
        return type(whole)(replace(whole.config, **blocks), name=whole.name, preprocessing=whole.preprocessing)
    return built


def clear():
    """Of what is remembered encoders are told apart by their names."""
    for remembered in (_cached_step, _meta_encoder):
        remembered.cache_clear()


@pytest.fixture(scope="module")
def shallow():
    """Here "vit" has as many blocks as this says, and "convnext" one more."""
    blocks = 3
    clear()
    with mock.patch.multiple(encoders, scenes_vit=fewer(encoders.scenes_vit, depth=blocks),
                             scenes_convnext=fewer(encoders.scenes_convnext, depths=(1, blocks))):
        yield blocks
    clear()
