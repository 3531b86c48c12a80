"""What do all unit tests share? Figures that open no window, and no time limit on a slow machine."""

import pytest
from hypothesis import settings

settings.register_profile("quiet", deadline=None, print_blob=True)
settings.load_profile("quiet")


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")  # for the test alone: a notebook's kernel needs its own
