"""Does the tests' own measure of closeness see what is wrong, and nothing else?"""

import pytest
import torch
from close import TOLERANCE, assert_close


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_scale_is_the_largest_value_expected(dtype):
    expected = torch.tensor([1000.0, 1e-3, -2.0], dtype=dtype)
    error = 1000 * TOLERANCE[dtype]
    assert_close(expected + 0.9 * error, expected)
    assert_close(-expected - 0.9 * error, -expected)
    with pytest.raises(AssertionError):
        assert_close(expected + torch.tensor([0, 1.1 * error, 0], dtype=dtype), expected)
    with pytest.raises(AssertionError):
        assert_close(expected / 1000 + 0.9 * error, expected / 1000)


def test_what_must_be_equal():
    ids = torch.tensor([1000, 2])
    assert_close(ids, ids.clone())
    for found, expected in ((ids + 1, ids), (torch.zeros(2), torch.zeros(3)), (torch.zeros(2).double(), torch.zeros(2)),
                            (torch.tensor([float("nan"), 1]), torch.ones(2)), (torch.full((2,), 1e-9), torch.zeros(2)),
                            (torch.tensor([5.0, 1]), torch.tensor([-torch.inf, 1]))):
        with pytest.raises(AssertionError):
            assert_close(found, expected)
    masked = torch.tensor([-torch.inf, 1])
    assert_close(masked, masked.clone())
