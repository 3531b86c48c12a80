"""What is a captioner without its numbers? Shapes, on torch's meta device: as large as you like, in no memory."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..captioner import Captioner, CaptionerConfig
from ..errors import InputError
from ..text import SPECIALS, Vocabulary


class Watch(TorchDispatchMode):
    """Sees each operation that runs inside: subclasses say in ``see`` what they do there.

    Which device a fake tensor claims to be on is asked oftener than anything is computed, and answered at once.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        return self.see(func, args, kwargs or {})


class MetaScalars(Watch):
    """Lets code that asks a tensor for its value run on tensors that have none.

    A truth is answered with False (is any score NaN?), a number with 1. Tensors with numbers answer themselves.
    """

    def see(self, func, args, kwargs):
        if func is torch.ops.aten._local_scalar_dense.default:
            value = args[0]
            if value.is_meta or isinstance(value, FakeTensor):
                return False if value.dtype == torch.bool else 1
        return func(*args, **kwargs)


def outline(captioner: Captioner | CaptionerConfig, vocabulary_size: int | None = None) -> Captioner:
    """A captioner's shapes, in evaluation mode: of one that exists, which is left as it is, or of a configuration.

    Raises InputError where a configuration comes without the size of its vocabulary.
    """
    if isinstance(captioner, Captioner):
        return without_numbers(captioner)
    if vocabulary_size is None:
        raise InputError("vocabulary_size is missing: a configuration does not know its vocabulary; "
                         "give its number of entries (the seed preset has 2033)")
    with torch.device("meta"):
        return Captioner(captioner, placeholder_vocabulary(vocabulary_size)).eval()


def without_numbers(module: nn.Module) -> nn.Module:
    """A copy of a module's shapes, in evaluation mode; the module is left as it is."""
    numbers = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): _shape(tensor) for tensor in numbers}).eval()


def _shape(tensor: Tensor) -> Tensor:
    shape = tensor.detach().to("meta")
    return nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape


def placeholder_vocabulary(size: int) -> Vocabulary:
    """As many entries as asked for, that mean nothing. Raises InputError where the specials do not fit."""
    if size <= len(SPECIALS):
        raise InputError(f"vocabulary_size {size} is too small; {len(SPECIALS)} entries are specials")
    return Vocabulary([*SPECIALS, *(f"word{i}" for i in range(len(SPECIALS), size))])
