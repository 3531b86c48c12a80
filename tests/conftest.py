"""What do all unit tests share? Figures that open no window, threads as asked for, no time limit on a slow machine,
and the same examples each time."""

import pytest
import torch
from hypothesis import settings

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.datasets import open_dataset

settings.register_profile("quiet", deadline=None, derandomize=True)
settings.load_profile("quiet")


@pytest.fixture(autouse=True, scope="module")
def threads_as_before():
    """A module that sums in one order, to compare runs to the last bit, decides so for itself alone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")  # for the test alone: a notebook's kernel needs its own


@pytest.fixture(scope="session")
def dataset():
    """A few scenes."""
    return open_dataset("scenes", split="test", limit=13)


@pytest.fixture(scope="session")
def captioner(dataset):
    """A small captioner that has learned nothing."""
    torch.manual_seed(0)
    config = CaptionerConfig(encoder="vit", d_model=16, layers=1, heads=2, ffn=16, max_length=24, scorer="random",
                             schedule="0.5@2/random")
    return Captioner(config, Vocabulary.build(caption for row in dataset.captions for caption in row)).eval()
