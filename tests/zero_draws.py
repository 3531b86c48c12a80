"""What need a test not wait for? For random weights that it replaces at once: they are zero instead."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch


@contextmanager
def zero_draws():
    """Within, a new model's weights are zeros where they would be random: drawing them takes longer than the rest."""
    def zero(tensor, *_, **__):
        return tensor.zero_()

    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.Tensor, normal_=zero, uniform_=zero))
        stack.enter_context(mock.patch("timm.layers.weight_init._trunc_normal_", zero))
        yield
