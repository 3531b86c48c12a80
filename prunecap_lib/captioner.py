"""What is an image captioner? An encoder, a pruning step, a projection and a decoder.

    picture -> encoder -> tokens -> keep K of N -> projection -> decoder -> words

Shapes: B pictures, R captions per picture, N visual tokens, K kept, P prefix tokens, C encoder channels, D width,
T words, V vocabulary, (H, W) grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from . import checkpoint, decoding
from .checkpoint import CHECKPOINT
from .decoder import Decoder
from .encoders import build_encoder
from .encoders.weights import check_numbers
from .errors import CheckpointError, InputError
from .files import replace_folder
from .preprocessing import LARGEST_SIDE, Preprocessing, load_image
from .pruning import ATTENTION_SCORES, Schedule, check_ratio, check_scorer, pilot_score, prune_tokens, relevance_score
from .ranges import Count, Share
from .text import BOS, EOS, PAD, Tokenizer
from .tokens import VisualTokens


@dataclass(frozen=True)
class CaptionerConfig:
    """Everything that fixes a captioner's shape and its default behaviour."""

    encoder: str = "vit"  #: 'vit' and 'convnext' are the small Scenes encoders; any other name is timm's.
    image_size: Annotated[int, Meta(ge=1, le=LARGEST_SIDE)] = 64
    """Side of the square picture the encoder sees, in pixels."""
    prune_ratio: Share = 0.3  #: Share of the visual tokens removed before cross-attention.
    scorer: str = "pilot"  #: Which tokens stay: see prunecap_lib.pruning.SCORES.
    d_model: Count = 192
    layers: Annotated[int, Meta(ge=1, le=100)] = 2
    heads: Count = 4
    ffn: Count = 768
    dropout: Share = 0.1
    max_length: Annotated[int, Meta(ge=2, le=10_000)] = 40  #: Longest row of ids the decoder can hold, <bos> included.
    positions: str = "learned"  #: Word positions: 'learned' or 'sinusoidal'.
    tie_weights: bool = True  #: Output layer shares the word embedding.
    frozen_encoder: bool = False  #: The encoder is not trained (and stays in evaluation mode).
    encoder_package: str | None = None
    """Python package that brings the encoder's weights; they are then left out of the checkpoint."""
    schedule: Schedule | str | None = None
    """Tokens that go inside the encoder (see its ``set_schedule``); ``prune_ratio`` is of those that come out."""


@dataclass(frozen=True)
class Caption:
    """One generated caption and what it was written from."""

    text: str
    ids: list[int]  #: Word ids without <bos>; ends with <eos> unless max_length cut it.
    words: list[str]
    """One string an id, so that words[t] belongs to attention[t]; of byte pairs, "##" goes on with a word."""
    log_prob: float  #: Sum of the log-probabilities of all ids.
    kept: Tensor  #: Cells of the grid whose tokens were kept, [K], ascending.
    grid: tuple[int, int]  #: The encoder's ``Grid``: it knows where in the picture the cells lie.
    attention: Tensor | None = None
    """Cross-attention of each word, [T, H, W], mean over layers and heads; dropped cells are 0. With prefix
    tokens a map sums to less than 1: the rest went to them."""

    @property
    def mean_log_prob(self) -> float:
        """Log-probability a word, ``<eos>`` included: how sure the model is, however long the caption."""
        return self.log_prob / max(1, len(self.ids))


class Projection(nn.Module):
    """From the encoder's channels to the decoder's width: LayerNorm, then one matrix."""

    def __init__(self, channels: int, d_model: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, C] -> [B, S, D]."""
        return self.linear(self.norm(x))


def _decoder(config: CaptionerConfig, vocabulary_size: int) -> Decoder:
    return Decoder(vocabulary_size, d_model=config.d_model, layers=config.layers, heads=config.heads, ffn=config.ffn,
                   dropout=config.dropout, max_length=config.max_length, positions=config.positions,
                   tie_weights=config.tie_weights)


class Captioner(nn.Module):
    """Encoder, pruning, projection and decoder, with the vocabulary and preprocessing they were trained with."""

    def __init__(self, config: CaptionerConfig, vocabulary: Tokenizer, *, encoder: nn.Module | None = None,
                 preprocessing: Preprocessing | None = None):
        """``encoder`` is one built already (with pretrained weights, say) and keeps its schedule where config has none;
        else a fresh one is built by config's name. ``preprocessing`` is what it is given; None: as it was pretrained.
        """
        super().__init__()
        check_ratio(config.prune_ratio)
        check_scorer(config.scorer)
        self.config, self.vocabulary = config, vocabulary
        self.encoder = encoder or build_encoder(config.encoder, image_size=config.image_size)
        if config.schedule not in (None, self.encoder.schedule):
            self.encoder.set_schedule(config.schedule)
        if preprocessing is not None:
            self.encoder.preprocessing = preprocessing
        self.projection = Projection(self.encoder.channels, config.d_model)
        self.decoder = _decoder(config, len(vocabulary))
        if config.frozen_encoder:
            self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Captioner:
        super().train(mode)
        if self.config.frozen_encoder:
            self.encoder.eval()  # batch-norm statistics and dropout stay as they were
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the encoder's input."""
        return self.encoder.preprocessing

    @property
    def device(self) -> torch.device:
        return self.projection.linear.weight.device

    # -- from a picture to the decoder's memory -----------------------------------------------------------

    def encode(self, images: Tensor, *, scorer: str | None = None) -> VisualTokens:
        """images [B, 3, S, S] -> all N tokens, with the attention signals where ``scorer`` needs them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen_encoder):
            return self.encoder.encode(images, need_attention=(scorer or self.config.scorer) in ATTENTION_SCORES)

    def pilot(self, tokens: VisualTokens) -> Tensor:
        """How much the first cross-attention layer, asked with ``<bos>``, looks at each token: [B, N].

        The query is one constant vector a head. It absorbs the key and projection matrices and meets the normalised
        features directly, so no key is projected for a token that will be dropped.
        """
        attention = self.decoder.layers[0].cross_attention
        query = self.decoder.first_query()                                              # [h, Dh]
        scale = 1 / math.sqrt(query.shape[1])
        query = attention.absorb_key(query[None])[0] @ self.projection.linear.weight    # [h, C]
        return pilot_score(self.projection.norm(tokens.sequence), query * scale, tokens.prefix_count)

    def relevance(self, tokens: VisualTokens) -> Tensor:
        """How much the words of a caption looked at each token: [B, N], mean over words, layers and heads.

        The caption is the greedy one, written with all tokens. So captioning by this score costs two captions, the
        first one unpruned: it tells what pruning could know, and saves nothing.
        """
        memory = self.projection(tokens.sequence)
        ids = decoding.greedy(self.decoder, memory, max_length=min(20, self.decoder.max_length)).ids
        return relevance_score(self._cross_attention(ids, memory), ids != PAD, tokens.prefix_count)

    def prune(self, tokens: VisualTokens, prune_ratio: float | None = None, scorer: str | None = None,
              generator: torch.Generator | None = None) -> VisualTokens:
        """Keep ceil((1 - r) N) tokens; None means the captioner's own ratio or scorer. See ``pruning.prune_tokens``."""
        return prune_tokens(tokens, self.config.prune_ratio if prune_ratio is None else prune_ratio,
                            scorer or self.config.scorer, pilot=self.pilot, relevance=self.relevance,
                            generator=generator)

    def encode_memory(self, images: Tensor | VisualTokens, prune_ratio: float | None = None, scorer: str | None = None,
                      generator: torch.Generator | None = None) -> tuple[Tensor, VisualTokens]:
        """Images or cached tokens -> memory [B, P+K, D] and the tokens that were kept."""
        tokens = images if isinstance(images, VisualTokens) else self.encode(images, scorer=scorer)
        kept = self.prune(tokens, prune_ratio, scorer, generator)
        return self.projection(kept.sequence), kept

    def forward(self, images: Tensor | VisualTokens, ids: Tensor, *, prune_ratio: float | None = None,
                scorer: str | None = None, at: Tensor | None = None, need_tokens: bool = False):
        """Teacher forcing: images [B, 3, S, S] or tokens, ids [B*R, T] -> logits [B*R, T, V].

        ``at`` (bool [B*R, T]) asks for some positions only -> [M, V]. ``need_tokens``: also return the tokens that were
        kept, before their projection.
        """
        memory, tokens = self.encode_memory(images, prune_ratio, scorer)
        logits = self.decoder(ids, memory, policy=tokens.sequence_mask, at=at)
        return (logits, tokens) if need_tokens else logits

    # -- from a picture to words --------------------------------------------------------------------------

    def preprocess(self, images) -> Tensor:
        """What ``load_image`` takes, one or several, or a preprocessed tensor -> [B, 3, S, S] like the weights.

        Raises what ``load_image`` raises; InputError for a tensor that is not preprocessed.
        """
        S = self.preprocessing.image_size
        if not isinstance(images, Tensor):
            images = images if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
            images = [self.preprocessing(load_image(image)) for image in images]
            images = torch.stack(images) if images else torch.empty(0, 3, S, S)
        if images.dim() == 3:
            images = images[None]
        if images.dim() != 4 or images.shape[1:] != (3, S, S) or not images.is_floating_point():
            raise InputError(f"a tensor of pictures must be floats [B, 3, {S}, {S}] as captioner.preprocessing makes "
                             f"them, not {images.dtype} {list(images.shape)}")
        if not images.isfinite().all():
            raise InputError("a tensor of pictures holds values that are not finite numbers; see to what made it")
        return images.to(self.projection.linear.weight)

    @torch.inference_mode()
    def generate(self, images, *, method: str = "greedy", n: int = 1, beam_size: int = 5, max_length: int = 20,
                 prune_ratio: float | None = None, scorer: str | None = None, return_attention: bool = False,
                 temperature: float = 1.0, generator: torch.Generator | None = None) -> list[Caption]:
        """Write ``n`` captions for each picture, side by side: of none, none.

        Args:
            images: paths, PIL images and what else ``load_image`` takes, one or a list; a preprocessed tensor
                [B, 3, S, S]; or VisualTokens. Of none, no captions come back.
            method: 'greedy', 'beam' or 'sample' (of this ``temperature``: see ``decoding.sample``).
            n: the best of a beam search, or so many samples; of greedy search there is one.
            max_length: most words written, ``<eos>`` included.
            prune_ratio, scorer: None means the captioner's own.
            return_attention: also fill ``Caption.attention`` (one more pass over the finished captions).
            generator: noise, drawn on the CPU, for 'sample' and for the scorer 'random'.
        """
        if n < 1 or n > 1 and method == "greedy":
            raise InputError(f"n is {n}; greedy search writes one caption, and others write 1 or more")
        if isinstance(images, list | tuple | Tensor) and not len(images):
            return []
        if was_training := self.training:
            self.eval()
        try:
            if not isinstance(images, VisualTokens):
                images = self.preprocess(images)
                if not len(images):
                    return []
            memory, kept = self.encode_memory(images, prune_ratio, scorer, generator)
            match method:
                case "greedy":
                    written = decoding.greedy(self.decoder, memory, max_length=max_length)
                case "beam":
                    written = decoding.beam(self.decoder, memory, beam_size=beam_size, n=n, max_length=max_length)
                case "sample":
                    uniforms = torch.rand(len(memory), n, max_length, generator=generator).to(memory.device)
                    written = decoding.sample(self.decoder, memory, uniforms, temperature=temperature)
                case _:
                    raise InputError(f"method {method!r} is unknown; use 'greedy', 'beam' or 'sample'")
            if n > 1:
                rows = torch.arange(len(memory), device=memory.device).repeat_interleave(n)
                memory, kept = memory[rows], kept.select(rows)
            maps = [None] * len(memory)
            if return_attention:
                weights = self._cross_attention(written.ids, memory).float().mean(dim=(0, 2))   # [B, T, P+K]
                maps = kept.scatter(weights[..., kept.prefix_count :]).cpu()                    # [B, T, H, W]
        finally:
            if was_training:
                self.train()
        captions = []
        for ids, log_prob, cells, attention in zip(written.ids.tolist(), written.log_prob.tolist(), kept.index.cpu(),
                                                   maps, strict=True):
            ids = ids[: ids.index(EOS) + 1] if EOS in ids else [i for i in ids if i != PAD]
            captions.append(Caption(self.vocabulary.decode(ids), ids, [self.vocabulary.words[i] for i in ids], log_prob,
                                    cells, self.encoder.grid, None if attention is None else attention[: len(ids)]))
        return captions

    def _cross_attention(self, ids: Tensor, memory: Tensor) -> Tensor:
        """Cross-attention of finished captions: ids [B, T] as written -> [layers, B, h, T, S]. One pass gives the same
        weights as the cached steps, so generation holds none."""
        inputs = torch.cat([torch.full_like(ids[:, :1], BOS), ids[:, :-1]], dim=1)
        inputs = inputs.masked_fill(inputs == EOS, PAD)
        return self.decoder.attention_weights(inputs, memory)

    # -- to disk and back ---------------------------------------------------------------------------------

    def save(self, folder, *, half: bool = False, signature: str = "") -> None:
        """Write ``folder`` as a whole (safetensors + JSON); ``half`` stores fp16, for sharing."""
        with replace_folder(folder, CHECKPOINT) as new:
            checkpoint.write(new, self, half=half, signature=signature)

    @classmethod
    def load(cls, name_or_path, *, device: str | torch.device = "cpu") -> Captioner:
        """A name under data/checkpoints ('scenes-vit') or a folder. Nothing is unpickled.

        One that was trained with all tokens prunes inside its encoder from ``encoder.set_schedule`` on.

        Raises CheckpointError where the folder is missing, damaged, or of another version.
        """
        parts = checkpoint.read(name_or_path, CaptionerConfig)
        config = parts.config
        with checkpoint.described(parts), torch.device("meta"):
            decoder = _decoder(config, len(parts.vocabulary))
        checkpoint.check_shapes(parts, decoder, "decoder.")
        with checkpoint.described(parts):
            captioner = cls(config, parts.vocabulary, preprocessing=parts.preprocessing,
                            encoder=checkpoint.packaged_encoder(config))
        checkpoint.check_predictors(parts, captioner)
        try:
            missing, unexpected = captioner.load_state_dict(parts.state_dict, strict=False)
        except RuntimeError as error:
            raise CheckpointError(f"checkpoint {parts.folder}: the weights do not fit config.json "
                                  f"({str(error).splitlines()[-1].strip()}); both must come from one save") from error
        missing = [key for key in missing if not checkpoint.packaged(key, config)]
        if missing or unexpected:
            raise CheckpointError(f"checkpoint {parts.folder}: missing {missing[:3]}, unexpected {unexpected[:3]}; "
                                  "it was written by other code or is damaged")
        check_numbers(parts.state_dict, captioner.state_dict(), f"checkpoint {parts.folder}, model.safetensors")
        return captioner.to(device).eval()
