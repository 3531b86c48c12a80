"""What does a processor have to do, operation by operation? Numbers multiplied, and bytes moved to and from memory.

Counted while a function runs, on real tensors or on fake ones. Each operation is taken to read every tensor that it
is given once and to write what it returns once, as kernels do that are not fused with their neighbours; views move
nothing. FLOPs are counted as in ``flops``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .outline import Watch

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


@dataclass(frozen=True)
class Operation:
    """One kernel.

    Attributes:
        flops: of matrix products and convolutions; 0 for others.
        bytes: read and written.
        unit: what multiplies: "half" (16-bit operands), "tf32" (convolutions in 32 bits, which cuDNN computes with
            shorter factors unless told otherwise) or "fp32".
    """

    name: str
    flops: int
    bytes: int
    unit: str


class Operations(Watch):
    """``with Operations() as counted:`` collects what is done inside in ``counted.done``."""

    def __init__(self):
        super().__init__()
        self.done: list[Operation] = []

    def see(self, func, args, kwargs):
        result = func(*args, **kwargs)
        read, made = _tensors((args, kwargs)), _tensors(result)
        mutates, name = func._schema.is_mutable, func._overloadpacket.__name__
        known = {_storage(tensor) for tensor in read}
        if "empty" in name or not mutates and all(_storage(tensor) in known for tensor in made):
            return result  # a view, or memory that nobody fills
        written = _tensors([value for value, argument in zip(args, func._schema.arguments, strict=False)
                            if argument.alias_info is not None and argument.alias_info.is_write]) if mutates else made
        formula = _FLOPS.get(func._overloadpacket)
        self.done.append(Operation(
            name, formula(*args, **kwargs, out_val=result) if formula else 0, _bytes(read) + _bytes(written),
            "half" if any(tensor.dtype in _HALF for tensor in read) else "tf32" if "conv" in name else "fp32"))
        return result


def total_flops(operations: Iterable[Operation]) -> int:
    return sum(operation.flops for operation in operations)


def _tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: list[Tensor]) -> int:
    """Of all of them; one that repeats what it holds (an expanded view) has no more than its storage."""
    return sum(min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()) for tensor in tensors)
