"""How does a captioner learn from a score instead of given words? It draws captions and leans to those that score well.

Self-critical sequence training (Rennie et al. 2017), the second stage after training on given words:

    loss = -mean over samples of (reward - baseline) * log p(sample)

    reward = CIDEr-D of the sample                                                          (``evaluation.cider``)
    baseline = mean reward of the picture's other samples (Luo 2020), or that of its greedy caption (Rennie et al.)

Words are those of ``text.tokenize``, where the published metric takes Penn Treebank's through Java; their weights come
from the training references. ``<eos>`` is a word of reference and sample, unless ``reward_eos`` is off: without it
nothing is lost by a caption that stops in "with a" (Hu, Cavicchioli and Capotondi 2023).

Captions are drawn in evaluation mode: no dropout, tokens pruned as they will be when the model captions. A second pass
over the finished captions, in training mode and with gradients, gives their log-probabilities.

Shapes: B pictures, R samples per picture, T words, M words written in all, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import decoding
from ..captioner import Captioner
from ..devices import autocast
from ..errors import InputError
from ..evaluation.cider import LENGTH_SIGMA, ORDERS, CiderD
from ..text import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary, tokenize
from ..tokens import VisualTokens
from .batches import Batch
from .config import TrainConfig
from .objective import ratio_loss

LEAST_KNOWN = 0.7  # share of the references' words that the captioner must know: below it, it speaks of something else


class SelfCritical:
    """The objective of a self-critical run, called as ``objective`` is; captions[i] are picture i's references. Raises
    InputError where the captioner does not know most of their words, or where ``CiderD`` cannot score them."""

    def __init__(self, captions: Sequence[Sequence[str]], vocabulary: Vocabulary, config: TrainConfig):
        ids = [i for picture in captions for caption in picture if tokenize(caption)
               for i in vocabulary.encode(caption, bos=False, eos=False)]
        known = 1 - ids.count(UNK) / max(len(ids), 1)
        if known < LEAST_KNOWN:
            raise InputError(f"start {config.start}: its vocabulary has {known:.0%} of the words in the captions of "
                             f"{config.dataset}, too few for its samples to score; start from a captioner that "
                             "learned from them")
        self.vocabulary, self.config = vocabulary, config
        self.score = CiderD([[self._words(caption, ended=True) for caption in picture] for picture in captions])
        self.rewards: list[float] = []

    def __call__(self, model, batch: Batch, config: TrainConfig, teacher=None) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of one batch (of its ``loss_scales`` the second counts), the samples' logits [M, V] and M words."""
        from accelerate.utils import extract_model_from_parallel  # late: accelerate doubles the time to import torch
        captioner = extract_model_from_parallel(model)
        images, ids, greedy = sample_captions(captioner, batch.images, sample_seeds(batch), config)
        pictures = [batch.key.pictures[row] for row in batch.source_rows]
        reward = self.reward(pictures, ids)
        self.rewards.append(reward.mean().item())
        baseline = leave_one_out_baseline(reward) if greedy is None else self.reward(pictures, greedy)
        ids = ids.flatten(0, 1)                                                                 # [B*R, T]
        real = ids != PAD
        targets = ids[real]
        logits, tokens = model(images, F.pad(ids[:, :-1], (1, 0), value=BOS), at=real, need_tokens=True)
        advantage = (reward - baseline).flatten().to(logits.device)
        loss = policy_loss(logits, targets, real, advantage, config.max_words + 1)
        if tokens.keep_ratios is not None:
            loss = loss + config.ratio_weight * ratio_loss(tokens.keep_ratios, config.schedule.shares)
        return batch.loss_scales[1] * loss, logits, targets

    def reward(self, pictures: Sequence[int], ids: Tensor) -> Tensor:
        """CIDEr-D of captions as they were drawn, ids [B, R, T] of the pictures at these positions -> [B, R]."""
        captions = [[self._words(self.vocabulary.decode(row), ended=EOS in row) for row in rows]
                    for rows in ids.tolist()]
        return torch.from_numpy(self.score(pictures, captions)).float()

    def metrics(self) -> dict[str, float]:
        """For the log: the mean reward of this process's samples since this was last asked."""
        rewards, self.rewards = self.rewards, []
        return {"reward": float(np.mean(rewards))}

    def _words(self, caption: str, *, ended: bool) -> list[str]:
        words = tokenize(caption)
        # a reference without words must stay so, for CiderD to refuse
        return words + [SPECIALS[EOS]] if words and ended and self.config.reward_eos else words


def sample_seeds(batch: Batch) -> list[int]:
    """A seed for each picture's samples, drawn for the whole step: it does not matter how that is shared out."""
    generator = torch.Generator().manual_seed(batch.key.seed)
    return torch.randint(2**62, (len(batch.key.pictures),), generator=generator)[batch.source_rows].tolist()


@torch.no_grad()
def sample_captions(captioner: Captioner, images: Tensor | VisualTokens, seeds: Iterable[int],
                    config: TrainConfig) -> tuple[Tensor | VisualTokens, Tensor, Tensor | None]:
    """Samples of each picture, which follow from its seed alone, and its greedy caption where that is the baseline.

    Returns: what the pass with gradients is to look at (the tokens of a frozen encoder, which then runs once); ids
    [B, R, T]; ids [B, 1, T] or None.
    """
    T = config.max_words + 1
    captioner.eval()
    with autocast(config.precision, captioner.device):
        tokens = images if isinstance(images, VisualTokens) else captioner.encode(images)
        memory, _ = captioner.encode_memory(tokens)
        uniforms = torch.stack([torch.rand(config.samples, T, generator=torch.Generator().manual_seed(seed))
                                for seed in seeds])
        written = [decoding.sample(captioner.decoder, memory, uniforms.to(memory.device))]
        if config.baseline == "greedy":
            written.append(decoding.greedy(captioner.decoder, memory, max_length=T))
    captioner.train()
    # copies: what was written in inference mode cannot take part in a pass with gradients
    ids, *greedy = (one.ids.clone().unflatten(0, (len(memory), -1)) for one in written)
    return tokens if captioner.config.frozen_encoder else images, ids, greedy[0] if greedy else None


def leave_one_out_baseline(reward: Tensor) -> Tensor:
    """Each sample's baseline: the mean reward of the picture's other samples, [B, R] -> [B, R]. With its own in it the
    gradient would only be smaller by (R - 1) / R; so this is what Hu et al. 2023 call "average"."""
    return (reward.sum(dim=1, keepdim=True) - reward) / (reward.shape[1] - 1)


def policy_loss(logits: Tensor, targets: Tensor, real: Tensor, advantage: Tensor, longest: int) -> Tensor:
    """-mean over captions of advantage * log p(caption), divided by the words of the ``longest`` caption there may be.

    A mean over each caption's own words would make long bad captions cheap, and one over the words of the batch would
    depend on how a step is shared out. Args: logits [M, V]; targets [M], which stand at ``real`` [B*R, T]; advantage
    [B*R].
    """
    suppressed = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    suppressed[decoding.NEVER_WRITTEN] = True  # as when they were drawn
    log_prob = -F.cross_entropy(logits.float().masked_fill(suppressed, float("-inf")), targets, reduction="none")
    weight = advantage[:, None].expand_as(real)[real]
    return -(weight * log_prob).sum() / (len(real) * longest)


def reward_signature(*, eos: bool, baseline: str, samples: int) -> str:
    """How a run's rewards were made, in the form of SacreEOS (Hu et al. 2023); by which words, in place of its version.

    >>> reward_signature(eos=True, baseline="others", samples=5)
    'STANDARD_wInit+Cider-D[n4,s6.0]+average[nspi5]+words[prunecap]'
    """
    return (f"{'STANDARD' if eos else 'NO<EOS>'}_wInit+Cider-D[n{ORDERS},s{LENGTH_SIGMA}]"
            f"+{'average' if baseline == 'others' else baseline}[nspi{samples}]+words[prunecap]")
