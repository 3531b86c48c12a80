"""How much memory will training take, on a GPU that is not here? A training step without numbers tells.

Every operation runs on ``shapes``, and whoever would have held memory is counted. What that cannot see is kept apart
as ``RESERVE``: the GPU's context, the libraries' workspaces, and what the allocator loses between blocks.

A step is run once and tells of every batch size: each of its numbers grows in proportion to the batch, or not at all.

Shapes: B pictures, R captions per picture, T words.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain
from math import ceil

import torch
from torch import Tensor

from ...captioner import Captioner
from ...devices import native_bf16
from ...encoders import Encoder, build_encoder
from ...errors import InputError
from ...text import BOS, Vocabulary
from ...tokens import VisualTokens
from ...training import TrainConfig
from ...training.batches import Batch, open_split
from ...training.build import new_optimizer
from ...training.objective import objective
from ...training.setup import apply_compute_options, device_here, settle_precision
from ..flops import Operation, Operations
from ..meta import MetaScalars, placeholder_vocabulary
from .shapes import LiveBytes, Shapes, UnfusedAttention, autocast

RESERVE = 3 * 2**29
"""Bytes of a GPU, 1.5 GiB, that training must leave to everything but tensors."""

WIDE = 2**34
"""Pictures of the batch that stands for all: so many that a number a + b B can be taken apart again, a being below."""


@dataclass(frozen=True)
class Step:
    """What one training step does."""

    changes: tuple[int, ...]  # see LiveBytes
    beside: int  # bytes that are there all the time, and in no change
    trained: int  # numbers that it changes
    operations: tuple[Operation, ...]  # from the first of the forward pass to the optimizer's last

    @property
    def memory(self) -> int:
        """Most bytes that tensors hold at any moment."""
        return max(accumulate(self.changes)) + self.beside

    def of(self, batch: int) -> Step:
        """Of a step of ``WIDE`` pictures: the step of so many."""
        def narrow(number: int) -> int:
            pictures, rest = divmod(abs(number), WIDE)
            return (rest + pictures * batch) * (1 if number > 0 else -1)

        return replace(self, changes=tuple(map(narrow, self.changes)), operations=tuple(
            replace(done, flops=narrow(done.flops), bytes=narrow(done.bytes)) for done in self.operations))


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
                 1, fused, real=True).memory


def largest_batch(config: TrainConfig, gpu_memory: int, *, reserve: int = RESERVE, **settings) -> int:
    """The largest batch a process that trains on a GPU of ``gpu_memory`` bytes; 0 where not one picture does.

    Memory grows almost linearly with the batch. A line through two sizes gives a first answer, and the answer is
    moved until it fits and the next larger batch does not. ``settings``: see ``training_memory``.
    """
    room = gpu_memory - reserve

    def memory(batch: int) -> int:
        return training_memory(config, batch_size=batch, **settings)

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


def _vocabulary_size(config: TrainConfig, given: int | None) -> int:
    size = given or config.vocabulary_size
    if size is None:
        raise InputError("vocabulary_size is missing: the config has no limit, and captions are not read for this; "
                         "give the number of entries (the seed preset has 2033)")
    return size


def training_captioner(config: TrainConfig, vocabulary_size: int) -> Captioner:
    """The captioner that the config trains, on the meta device."""
    with torch.device("meta"):
        encoder = copy.deepcopy(_meta_encoder(config.encoder, config.image_size))
        return Captioner(config.captioner_config(encoder.image_size), placeholder_vocabulary(vocabulary_size),
                         encoder=encoder)


@lru_cache(maxsize=8)
def _meta_encoder(name: str, image_size: int | None) -> Encoder:
    return build_encoder(name, image_size=image_size)


@lru_cache(maxsize=64)  # other GPUs and other batches are asked about the same step
def _cached_step(*settings) -> Step:
    return _step(*settings)


def _step(config: TrainConfig, vocabulary_size: int, batch: int, device: str, processes: int, fused: bool, *,
          real: bool = False) -> Step:
    """One training step, as ``training.Run`` does it, with the state that AdamW has from the second step on."""
    if device not in ("cuda", "cpu"):
        raise InputError(f"device {device!r} is unknown; memory can be told for 'cuda' and 'cpu'")
    captioner, teacher = training_captioner(config, vocabulary_size), None
    if config.has_teacher:
        teacher = training_captioner(replace(config, prune_ratio=0.0, schedule=None), vocabulary_size)
        teacher.requires_grad_(False).eval()
    picture = 3, captioner.encoder.image_size, captioner.encoder.image_size
    if config.cache_features:
        with MetaScalars():
            features = captioner.encode(torch.empty(1, *picture, device="meta"))

    def prepared(captioner: Captioner) -> Callable:
        """As Accelerate wraps it: what is called computes in the precision, and its logits are in 32 bits."""
        def model(*inputs, **options) -> tuple[Tensor, VisualTokens]:
            with autocast(precision_on(config, device), device), nullcontext() if fused else UnfusedAttention():
                logits, tokens = captioner(*inputs, **options)
            return logits.float(), tokens
        return model

    with ExitStack() as modes:
        if not real:
            modes.enter_context(Shapes())
        live = modes.enter_context(LiveBytes())
        for model in filter(None, (captioner, teacher)):
            model.to_empty(device="cpu")
            if config.tie_weights:  # which to_empty undoes
                model.decoder.output.weight = model.decoder.embedding.words.weight
            for tensor in (*model.parameters(), *model.buffers()) if real else ():
                torch.nn.init.normal_(tensor.detach(), std=0.02)  # memory as it comes may hold NaN
            if device == "cuda":
                model.encoder.cpu_chunk = batch  # a GPU encodes all pictures at once
        apply_compute_options(captioner.train(), replace(config, compile=False))
        optimizer = new_optimizer(captioner, config, foreach=device == "cuda")
        for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
            if config.accumulate > 1:  # the gradients of a step's first part are there while the next is computed
                parameter.grad = torch.zeros_like(parameter)
            # as after a first step, which would take as long as all the rest
            optimizer.state[parameter] = {"step": torch.zeros(())} | {
                moment: torch.zeros_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
        ids = torch.full((batch * (config.samples if config.self_critical else config.captions_per_image),
                          config.max_words + 2), BOS)
        images = torch.zeros(batch, *picture)
        if config.cache_features:
            images = replace(features, **{name: torch.zeros(batch, *value.shape[1:], dtype=value.dtype)
                                          for name, value in vars(features).items() if isinstance(value, Tensor)})
        counted = modes.enter_context(Operations())
        loss, _, _ = objective(prepared(captioner), Batch(images, ids), config, teacher and prepared(teacher))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), config.clip)
        optimizer.step()
        # There all the time, and not made here: the moving average, and the gradients on their way to other processes,
        # of which DistributedDataParallel keeps copies of its own.
        weights = sum(tensor.nbytes for tensor in captioner.parameters())
        trained = [tensor for tensor in captioner.parameters() if tensor.requires_grad]
        copies = sum(tensor.nbytes for tensor in trained) if processes > 1 else 0
        return Step(tuple(live.changes), weights * bool(config.ema) + copies,
                    sum(tensor.numel() for tensor in trained), tuple(counted.done))


def precision_on(config: TrainConfig, device: str) -> str:
    """The config's; for "auto", that of a "cuda" GPU, which is not here and taken to have bf16, or of this "cpu"."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device == "cuda" or native_bf16(torch.device(device)) else "fp32"


def out_of_memory(config: TrainConfig, memory: int | None = None) -> str:
    """What to tell who ran out of it: the largest batch that fits by estimate, and options that keep a step as it is.

    Args: memory: bytes of the GPU, or of the machine where there is none; None: of the one that is here.
    """
    memory = memory or memory_here()
    config = settle_precision(config, device_here())
    here = dict(vocabulary_size=vocabulary_size(config), device=device_here().type,
                processes=torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1)
    # A step in parts holds gradients while it computes others, so what is told to fit must fit so.
    parts = replace(config, accumulate=max(config.accumulate, 2))
    fits, lean = (largest_batch(replace(parts, checkpoint_activations=on), memory, **here)
                  for on in (config.checkpoint_activations, True))
    told = f"out of memory: {config.batch_size} pictures together, on {memory / 1e9:.1f} GB; by estimate "
    told += f"{fits} fit" if fits else "not even one fits"
    remedies = []
    if 0 < fits < config.batch_size:
        part = max(n for n in range(1, fits + 1) if config.batch_size % n == 0)
        remedies.append(f"--batch-size {part} --accumulate {config.accumulate * config.batch_size // part}, which sees "
                        "as many in a step")
    if lean > fits:
        remedies.append(f"--checkpoint-activations, with which {lean} fit")
    if fits >= config.batch_size:
        remedies.append("a smaller --batch-size and a larger --accumulate (does something else use this memory?)")
    return f"{told}. Train with {', or '.join(remedies) or 'a smaller encoder or image_size, or a larger GPU'}"


def vocabulary_size(config: TrainConfig) -> int:
    """How many entries the run's vocabulary has; of byte pairs, how many it may have."""
    if config.start is not None:
        return len(Captioner.load(config.start).vocabulary)
    if config.tokenizer == "bpe":
        return config.vocabulary_size
    captions = open_split(config, "train", config.limit).captions
    return len(Vocabulary.build((caption for row in captions for caption in row), min_count=config.min_count,
                                max_size=config.vocabulary_size))


def memory_here() -> int:
    """Bytes of this process's GPU, or of the machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
