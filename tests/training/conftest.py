"""What every test of training needs."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order: runs can then be compared to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
