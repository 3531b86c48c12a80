"""How much memory will training take, on a GPU that is not here? A training step without numbers tells.

Every operation runs on fake tensors, which have a shape, a type and a lifetime but no contents, and whoever
would have held memory is counted. What that cannot see is kept apart as ``RESERVE``: the GPU's context, the
libraries' workspaces, and what the allocator loses between blocks.

A step is run once and tells of every batch size: each of its numbers grows in proportion to the batch, or not at all.

Shapes: B pictures, R captions per picture, T words.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import accumulate, chain
from math import ceil

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ..attention import attend
from ..captioner import Captioner
from ..devices import native_bf16
from ..encoders import build_encoder
from ..errors import InputError
from ..text import BOS
from ..tokens import VisualTokens
from ..training import TrainConfig
from ..training.build import parameter_groups
from ..training.setup import apply_compute_options
from .operations import Operation, Operations
from .outline import MetaScalars, Watch, placeholder_vocabulary

RESERVE = 3 * 2**29
"""Bytes of a GPU, 1.5 GiB, that training must leave to everything but tensors."""

WIDE = 2**34
"""Pictures of the batch that stands for all: so many that a number a + b B can be taken apart again, a being below."""


class LiveBytes(Watch):
    """Counts the bytes of all tensors alive that were made inside, views once, and the most there ever were.

    Attributes: changes: bytes that a tensor took (above 0) or gave back, one after another.
    """

    def __init__(self):
        super().__init__()
        self.changes: list[int] = []
        self._seen: set[int] = set()

    @property
    def now(self) -> int:
        return sum(self.changes)

    @property
    def peak(self) -> int:
        return max(accumulate(self.changes), default=0)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.changes.append(size)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.changes.append(-size)

    def see(self, func, args, kwargs):
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


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
            q, k, v = args
            mask, scale = kwargs.get("attn_mask"), kwargs.get("scale")
            return attend(q, k, v, mask, scale=scale, need_weights=True)[0]
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Step:
    """What one training step does.

    Attributes:
        changes: see ``LiveBytes``. beside: bytes that are there all the time, and in no change.
        trained: numbers that it changes.
        operations: from the first of the forward pass to the optimizer's last.
    """

    changes: tuple[int, ...]
    beside: int
    trained: int
    operations: tuple[Operation, ...] = ()

    @property
    def memory(self) -> int:
        """Most bytes that tensors hold at any moment."""
        return max(accumulate(self.changes)) + self.beside

    def of(self, batch: int) -> Step:
        """Of a step of ``WIDE`` pictures: the step of so many."""
        def narrow(number: int) -> int:
            pictures, rest = divmod(abs(number), WIDE)
            return (rest + pictures * batch) * (1 if number > 0 else -1)

        return Step(tuple(map(narrow, self.changes)), self.beside, self.trained,
                    tuple(replace(done, flops=narrow(done.flops), bytes=narrow(done.bytes))
                          for done in self.operations))


def training_step(config: TrainConfig, *, vocabulary_size: int | None = None, batch_size: int | None = None,
                  device: str = "cuda", processes: int = 1, fused: bool = True) -> Step:
    """A step of training without numbers: memory and operations. Arguments and errors: see ``training_memory``."""
    size, batch = _vocabulary_size(config, vocabulary_size), batch_size or config.batch_size
    # A CPU encodes a few pictures at a time, again and again; and of a single one some copies are only views.
    if device == "cuda" and batch > 1:
        return _cached_step(config, size, WIDE, device, processes, fused).of(batch)
    return _cached_step(config, size, batch, device, processes, fused)


def training_memory(config: TrainConfig, **settings) -> int:
    """Most bytes that tensors hold at any moment of training: weights, gradients, AdamW's state, activations.

    Args:
        vocabulary_size: entries of the vocabulary; None: the config's.
        batch_size: pictures a process; None: the config's. Every caption is taken to be ``max_words`` long.
        device: "cuda" (taken if none is given) or "cpu", whose kernels and rules are followed. It need not be here.
        processes: that share the work, each with the whole captioner (FSDP is not predicted).
        fused: attention by kernels that never hold its weights, as torch has them since 2.0.

    Raises InputError where the config names no vocabulary_size, and for an unknown device.
    """
    return training_step(config, **settings).memory


def measured_memory(config: TrainConfig, *, vocabulary_size: int | None = None, batch_size: int | None = None,
                    fused: bool = True) -> int:
    """The same count over a real training step on this CPU: what ``training_memory`` is checked against."""
    return _step(config, _vocabulary_size(config, vocabulary_size), batch_size or config.batch_size, "cpu",
                 1, fake=False, fused=fused).memory


def largest_batch(config: TrainConfig, gpu_memory: int, *, vocabulary_size: int | None = None,
                  reserve: int = RESERVE, device: str = "cuda", processes: int = 1, fused: bool = True) -> int:
    """The largest batch a process that trains on a GPU of ``gpu_memory`` bytes; 0 where not one picture does.

    Memory grows almost linearly with the batch. A line through two sizes gives a first answer, and the answer is
    moved until it fits and the next larger batch does not.
    """
    room = gpu_memory - reserve

    def memory(batch: int) -> int:
        return training_memory(config, vocabulary_size=vocabulary_size, batch_size=batch, device=device,
                               processes=processes, fused=fused)

    few, many = 128, 256  # so many that activations and not AdamW's step make the peak
    slope = max(1.0, (memory(many) - memory(few)) / (many - few))
    fits, over = 0, None
    guess = max(1, int(many + (room - memory(many)) // slope))
    while over is None or over - fits > 1:
        spare = room - memory(guess)
        if spare >= 0:
            fits, move = guess, max(1, int(spare // slope))
        else:
            over, move = guess, min(-1, -ceil(-spare / slope))
        guess = max(fits + 1, guess + move)
        if over is not None:
            guess = min(guess, over - 1)
    return fits


@lru_cache(maxsize=64)
def _cached_step(config: TrainConfig, vocabulary_size: int, batch: int, device: str, processes: int,
                 fused: bool) -> Step:
    """Remembered, because other GPUs and other batches are asked about the same step."""
    return _step(config, vocabulary_size, batch, device, processes, fake=True, fused=fused)


def _vocabulary_size(config: TrainConfig, given: int | None) -> int:
    size = given or config.vocabulary_size
    if size is None:
        raise InputError("vocabulary_size is missing: the config has no limit, and captions are not read for this; "
                         "give the number of entries (the seed preset has 2033)")
    return size


def training_outline(config: TrainConfig, vocabulary_size: int) -> Captioner:
    """The captioner that the config trains, on the meta device."""
    with torch.device("meta"):
        encoder = build_encoder(config.encoder, image_size=config.image_size)
        return Captioner(config.captioner_config(encoder.image_size), placeholder_vocabulary(vocabulary_size),
                         encoder=encoder)


def _step(config: TrainConfig, vocabulary_size: int, batch: int, device: str, processes: int, *, fake: bool,
          fused: bool) -> Step:
    """One training step, as ``training.train`` does it, with the state that AdamW has from the second step on."""
    if device not in ("cuda", "cpu"):
        raise InputError(f"device {device!r} is unknown; memory can be told for 'cuda' and 'cpu'")
    captioner = training_outline(config, vocabulary_size)
    like = encoded(captioner)
    with ExitStack() as modes:
        if fake:
            modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        live = modes.enter_context(LiveBytes())
        modes.enter_context(MetaScalars())
        captioner = captioner.to_empty(device="cpu").train()
        if config.tie_weights:  # which to_empty undoes
            captioner.decoder.output.weight = captioner.decoder.embedding.words.weight
        apply_compute_options(captioner, replace(config, compile=False))
        for tensor in (*captioner.parameters(), *captioner.buffers()):
            live.add(tensor)
            if not fake:
                torch.nn.init.normal_(tensor.detach(), std=0.02)  # memory as it comes may hold NaN
        optimizer = torch.optim.AdamW(parameter_groups(captioner, config.weight_decay), lr=config.lr,
                                      foreach=device == "cuda")
        for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
            if config.accumulate > 1:  # the gradients of a step's first part are there while the next is computed
                parameter.grad = torch.zeros_like(parameter)
            # as after a first step, which would take as long as all the rest
            optimizer.state[parameter] = {"step": torch.zeros(())} | {
                moment: torch.zeros_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
        if device == "cuda":
            captioner.encoder.cpu_chunk = batch  # a GPU encodes all pictures at once
        captions = config.samples if config.self_critical else config.captions_per_image
        ids = torch.full((batch * captions, config.max_words + 2), BOS)
        side = captioner.encoder.image_size
        images = batch_of(like, batch) if config.cache_features else torch.zeros(batch, 3, side, side)
        counted = modes.enter_context(Operations())
        with autocast(precision_on(config, device), device), nullcontext() if fused else UnfusedAttention():
            logits = captioner(images, ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(),
                               label_smoothing=config.label_smoothing)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), config.clip)
        optimizer.step()
        # There all the time, and not made here: the moving average, the teacher, and the gradients on their way to
        # other processes, of which DistributedDataParallel keeps copies of its own.
        weights = sum(tensor.nbytes for tensor in captioner.parameters())
        trained = [tensor for tensor in captioner.parameters() if tensor.requires_grad]
        copies = sum(tensor.nbytes for tensor in trained) if processes > 1 else 0
        return Step(tuple(live.changes), weights * (bool(config.ema) + config.has_teacher) + copies,
                    sum(tensor.numel() for tensor in trained), tuple(counted.done))


def precision_on(config: TrainConfig, device: str) -> str:
    """The config's; for "auto", that of a "cuda" GPU, which is not here and taken to have bf16, or of this "cpu"."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device == "cuda" or native_bf16(torch.device(device)) else "fp32"


@contextmanager
def autocast(precision: str, device: str) -> Iterator[None]:
    """The device's mixed precision, for fake tensors that say they are on a CPU.

    A GPU's bf16 is stood in for by fp16, which takes the same bytes: in bf16 a CPU's attention would leave the
    fused kernel (see ``attention.attend``) and keep weights that no GPU keeps.
    """
    half = torch.half if device == "cuda" else torch.bfloat16
    with torch.autocast("cpu", half, enabled=precision != "fp32"), ExitStack() as modes:
        if device == "cuda" and precision != "fp32":
            modes.enter_context(CudaAutocast())
        yield


@torch.no_grad()
def encoded(captioner: Captioner) -> VisualTokens:
    """The shapes of one picture's tokens, from an outline; one pruning, too, so that what it looks up is real."""
    side = captioner.encoder.image_size
    with MetaScalars():
        tokens = captioner.encode(torch.empty(1, 3, side, side, device="meta"))
        captioner.prune(tokens)
    return tokens


def batch_of(like: VisualTokens, batch: int) -> VisualTokens:
    """Cached features of ``batch`` pictures, shaped as ``like``'s."""
    values = {field.name: getattr(like, field.name) for field in fields(like)}
    return replace(like, **{name: torch.zeros(batch, *value.shape[1:], dtype=value.dtype)
                            for name, value in values.items() if isinstance(value, Tensor)})
