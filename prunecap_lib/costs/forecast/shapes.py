"""Tensors without numbers that act as on a device that is not here, and a count of the bytes that they would take."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ...attention import attend
from ..flops import tensors_in
from ..meta import scalar_of

_aten = torch.ops.aten
_META = torch.device("meta")


class ShapeTensor(Tensor):
    """A tensor of the CPU with a shape, a type and a lifetime but no numbers, made inside ``Shapes``.

    Attributes: meta: the same on the meta device, whose storages tell what shares memory.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, meta: Tensor) -> ShapeTensor:
        made = Tensor._make_wrapper_subclass(cls, meta.shape, strides=meta.stride(), dtype=meta.dtype, device="cpu",
                                             storage_offset=meta.storage_offset())
        made.meta = meta
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.meta.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with Shapes():
            return func(*args, **(kwargs or {}))


class Shapes(TorchDispatchMode):
    """Inside, every operation makes ``ShapeTensor``s; autograd, autocast and the choice of kernels are a CPU's.

    As torch's ``FakeTensorMode``, in a tenth of its time: what an operation makes is asked of the meta device once, and
    remembered by its arguments' shapes. A mask is taken to be true everywhere.
    """

    _recipes: dict[tuple, tuple] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is _aten._local_scalar_dense.default and isinstance(args[0], ShapeTensor):
            return scalar_of(args[0])
        if func is _aten.index.Tensor and args[1][0].dtype == torch.bool:
            x, (mask,) = args
            return ShapeTensor(torch.empty(mask.numel(), *x.shape[mask.dim():], dtype=x.dtype, device="meta"))
        given: list[tuple[Tensor, Tensor]] = []  # on the meta device, and as it came
        key, args = _to_meta(args, given)
        more, values = _to_meta((*kwargs.values(),), given)
        kwargs = dict(zip(kwargs, values, strict=True)) | ({"device": _META} if kwargs.get("device") else {})
        key = func, key, more, *kwargs
        if key in self._recipes:
            kind, recipes = self._recipes[key]
            made = [_make(recipe, given) for recipe in recipes]
        else:
            result = func(*args, **kwargs)
            kind = type(result)
            made = [*result] if kind in (list, tuple) else [result]
            if not all(one is None or isinstance(one, Tensor) and one.is_meta for one in made):
                return result
            self._recipes[key] = kind, [_recipe(one, given) for one in made]
        same = {id(meta): tensor for meta, tensor in given if isinstance(tensor, ShapeTensor)}
        made = [one if one is None else same[id(one)] if id(one) in same else ShapeTensor(one) for one in made]
        return kind(made) if kind in (list, tuple) else made[0]


def _to_meta(value, given: list) -> tuple:
    """What tells one call from another, and the value on the meta device; its tensors go into ``given``."""
    if isinstance(value, Tensor):
        meta = value.meta if isinstance(value, ShapeTensor) else value.to("meta")
        given.append((meta, value))
        return (meta.dtype, meta.shape, meta.stride(), meta.storage_offset()), meta
    if isinstance(value, list | tuple):
        pairs = [_to_meta(one, given) for one in value]
        return tuple(key for key, _ in pairs), [meta for _, meta in pairs]
    return (type(value), value), value


def _recipe(made: Tensor | None, given: list) -> tuple | int | None:
    """How to make it again: the number of the argument that it is, or its geometry; with an offset, a view's."""
    if made is None:
        return None
    for number, (meta, _) in enumerate(given):
        if made is meta:
            return number
    view = given and made.untyped_storage()._cdata == given[0][0].untyped_storage()._cdata
    return made.shape, made.stride(), made.dtype, made.storage_offset() if view else None


def _make(recipe: tuple | int | None, given: list) -> Tensor | None:
    if recipe is None or isinstance(recipe, int):
        return recipe if recipe is None else given[recipe][0]
    shape, stride, dtype, offset = recipe
    if offset is None:
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    return given[0][0].as_strided(shape, stride, offset)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors alive that were made inside, views once, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.changes: list[int] = []  # bytes that a tensor took (above 0) or gave back, one after another
        self._seen: set[int] = set()

    @property
    def peak(self) -> int:
        return max(accumulate(self.changes), default=0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tensors_in([result])):
            key, size = id(storage), storage.nbytes()
            if key not in self._seen:
                self._seen.add(key)
                self.changes.append(size)
                weakref.finalize(storage, self._remove, key, size)
        return result

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.changes.append(-size)


class CudaAutocast(TorchFunctionMode):
    """What autocast does on a GPU and not on a CPU: norms and softmax are computed, and kept, in 32 bits."""

    WIDE = {F.layer_norm, F.group_norm, torch.norm, Tensor.norm, torch.softmax, Tensor.softmax, F.softmax}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.WIDE:
            args = tree_map_only(Tensor, lambda x: x.float() if x.dtype == torch.half else x, args)
        return func(*args, **(kwargs or {}))


class UnfusedAttention(TorchFunctionMode):
    """Attention as it was computed before fused kernels: its weights are there, and kept for the backward pass."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            mask, scale = kwargs.get("attn_mask"), kwargs.get("scale")
            return attend(*args, mask, scale=scale, need_weights=True)[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def autocast(precision: str, device: str) -> Iterator[None]:
    """The device's mixed precision, for tensors that say they are on a CPU.

    A GPU's bf16 is stood in for by fp16, which takes the same bytes: in bf16 a CPU's attention would leave the
    fused kernel (see ``attention.attend``) and keep weights that no GPU keeps.
    """
    half = torch.half if device == "cuda" else torch.bfloat16
    with torch.autocast("cpu", half, enabled=precision != "fp32"), ExitStack() as modes:
        if device == "cuda" and precision != "fp32":
            modes.enter_context(CudaAutocast())
        yield
