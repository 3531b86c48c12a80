"""What do all unit tests share? Figures that open no window, threads as asked for, no time limit on a slow machine,
and the same examples each time."""

import pytest
import torch
from hypothesis import settings

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
