"""What does a processor have to do, operation by operation? Numbers multiplied, and bytes moved to and from memory.

Counted while a function runs; shapes alone are enough. A FLOP is one multiplication or one addition, so a product of
[m, k] and [k, n] takes 2 m k n. As everywhere in the field only matrix products and convolutions are counted, not
norms, activations or softmax. (Many papers count a multiplication and its addition as one: their "FLOPs" are half of
these.)

Each operation is taken to read every tensor that it is given once and to write what it returns once, as kernels do that
are not fused with their neighbours; views move nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .meta import MetaScalars

_aten = torch.ops.aten


def _convolution_backward(grad: Tensor, images: Tensor, weight: Tensor, *_, out_val) -> int:
    """Each gradient takes what the forward pass took. Torch's own formula (2.14) multiplies by the number of groups."""
    return 2 * grad.numel() * weight[0].numel() * sum(made is not None for made in out_val[:2])


# The fused attention of a CPU stands in for a GPU's, and torch's registry does not know it.
_FLOPS = flop_registry | {
    _aten.convolution_backward: _convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward:
        flop_registry[_aten._scaled_dot_product_flash_attention_backward]}
_HALF = (torch.half, torch.bfloat16)


def count_flops(function: Callable, *inputs) -> int:
    """FLOPs of ``function(*inputs)``, without gradients. Modules and tensors may be on the meta device."""
    return flops_and_result(function, *inputs)[0]


def flops_and_result(function: Callable, *inputs) -> tuple[int, Any]:
    # inference mode would hand over whole operations instead of their parts
    with torch.inference_mode(False), torch.no_grad(), Operations() as operations, MetaScalars():
        result = function(*inputs)
    return total_flops(operations.done), result


@dataclass(frozen=True)
class Operation:
    """One kernel. ``unit`` is what multiplies: "half" (16-bit operands), "tf32" (convolutions in 32 bits, which cuDNN
    computes with shorter factors unless told otherwise) or "fp32"."""

    name: str
    flops: int  # of matrix products and convolutions; 0 for others
    bytes: int  # read and written
    unit: str


class Operations(TorchDispatchMode):
    """``with Operations() as operations:`` collects what is done inside in ``operations.done``."""

    def __init__(self):
        super().__init__()
        self.done: list[Operation] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read, made = [*tensors_in(args), *tensors_in(kwargs.values())], [*tensors_in([result])]
        mutates, name = func._schema.is_mutable, func._overloadpacket.__name__
        known = {_storage(tensor) for tensor in read}
        if "empty" in name or not mutates and all(_storage(tensor) in known for tensor in made):
            return result  # a view, or memory that nobody fills
        written = made if not mutates else [*tensors_in(
            value for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write)]
        formula = _FLOPS.get(func._overloadpacket)
        self.done.append(Operation(
            name, formula(*args, **kwargs, out_val=result) if formula else 0, sum(map(_bytes, read + written)),
            "half" if any(tensor.dtype in _HALF for tensor in read) else "tf32" if "conv" in name else "fp32"))
        return result


def total_flops(operations: Iterable[Operation]) -> int:
    return sum(operation.flops for operation in operations)


def tensors_in(values: Iterable) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or results, and in the lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    """What repeats itself (an expanded view) has no more than its storage."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
