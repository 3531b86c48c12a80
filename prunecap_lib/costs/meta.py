"""What is a captioner without its numbers? Shapes, on torch's meta device: as large as you like, in no memory."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..captioner import Captioner, CaptionerConfig
from ..errors import InputError
from ..text import SPECIALS, Vocabulary


class MetaScalars(TorchDispatchMode):
    """Lets code that asks a tensor for its value run on meta tensors, which have none.

    A truth is answered with False (is any score NaN?), a number with 1. Tensors with numbers answer themselves.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return scalar_of(args[0])
        return func(*args, **(kwargs or {}))


def scalar_of(tensor: Tensor) -> bool | int:
    """What stands for the value of a tensor without numbers."""
    return False if tensor.dtype == torch.bool else 1


def to_meta(module: nn.Module) -> nn.Module:
    """A copy of a module's shapes, in evaluation mode; the module is left as it is."""
    def shape(tensor: Tensor) -> Tensor:
        meta = tensor.detach().to("meta")
        return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta

    numbers = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): shape(tensor) for tensor in numbers}).eval()


def meta_captioner(config: CaptionerConfig, vocabulary_size: int | None) -> Captioner:
    """A configuration's shapes, in training mode. Raises InputError where the size of the vocabulary is missing."""
    if vocabulary_size is None:
        raise InputError("vocabulary_size is missing: a configuration does not know its vocabulary; "
                         "give its number of entries (the seed preset has 2033)")
    with torch.device("meta"):
        return Captioner(config, placeholder_vocabulary(vocabulary_size))


def placeholder_vocabulary(size: int) -> Vocabulary:
    """As many entries as asked for, that mean nothing. Raises InputError where the specials do not fit."""
    if size <= len(SPECIALS):
        raise InputError(f"vocabulary_size {size} is too small; {len(SPECIALS)} entries are specials")
    return Vocabulary([*SPECIALS, *(f"word{i}" for i in range(len(SPECIALS), size))])
