"""A run has used up its memory: what would fit?"""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ..captioner import Captioner
from ..text import Vocabulary
from ..training import TrainConfig
from ..training.batches import open_split
from ..training.setup import device_here, settle_precision
from .memory import largest_batch


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
