"""Where inside an encoder do tokens go, and how many? After given blocks, each time a share of those still there.

Rao et al. 2021 (DynamicViT) keep 0.7 of the tokens after blocks 3, 6 and 9; Liang et al. 2022 (EViT) do so with
the attention of the class token and fuse the rest; Bolya et al. 2023 (ToMe) merge a few after every block.

Shapes: B pictures, N visual tokens, P prefix tokens, C channels, Dh head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from torch import Tensor, nn

from ..errors import InputError
from ..tokens import VisualTokens
from .predictor import PREDICTOR, TokenPredictor
from .reduce import fuse_rest, keep_count, keep_top_k, merge_similar, proportional_bias
from .scores import ATTENTION_SCORES, SCORES, check_scorer, score_tokens

REDUCTIONS = ("keep", "fuse", "merge")
_NEED_A_DECODER = ("pilot", "relevance")


@dataclass(frozen=True)
class Schedule:
    """Pruning inside an encoder.

    Attributes:
        after: numbers of the blocks after which tokens are reduced, ascending; the first block is 1. They merge
            before the block's MLP, as in ToMe, and are kept or fused behind it.
        keep: share in (0, 1] of the tokens present there that stay, one for each of ``after``.
        scorer: which stay (not asked where similar tokens merge); one of prunecap_lib.pruning.SCORES, or "predictor",
            which is trained together with the encoder (see ``TokenPredictor``).
        reduction: what becomes of the rest: "keep" drops them, "fuse" leaves one token in their place, "merge"
            merges the most similar instead.

    In one line, as ``str`` writes and ``parse`` reads it: "0.7@3,6,9" keeps 0.7 after each of three blocks,
    "0.7,0.5@3,6/key_norm/fuse" names a rate for each, a scorer and a reduction.

    Raises InputError for settings that cannot be.
    """

    after: tuple[int, ...]
    keep: tuple[float, ...]
    scorer: str = "attention_received"
    reduction: str = "keep"

    def __post_init__(self):
        if not self.after or len(self.after) != len(self.keep):
            raise InputError(f"schedule: {len(self.after)} blocks and {len(self.keep)} keep rates; give one rate for "
                             "each block, and at least one")
        if list(self.after) != sorted(set(self.after)) or self.after[0] < 1:
            raise InputError(f"schedule: blocks {self.after} must ascend, and the first block is 1")
        for rate in self.keep:
            if not 0 < rate <= 1:
                raise InputError(f"schedule: keep rate {rate} is outside (0, 1]: it is the share of tokens that "
                                 "stay; 1 keeps all")
        if self.reduction not in REDUCTIONS:
            raise InputError(f"schedule: reduction {self.reduction!r} is unknown; choose one of "
                             f"{', '.join(REDUCTIONS)}")
        if check_scorer(self.scorer, PREDICTOR) in _NEED_A_DECODER:
            raise InputError(f"schedule: scorer {self.scorer!r} asks the decoder, which an encoder does not know; "
                             "use 'attention_received', 'cls_attention', 'key_norm', 'grid' or another")

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule that ``text`` writes down. Raises InputError where it is none."""
        places, *names = text.split("/")
        rates, at, blocks = places.partition("@")
        try:
            after = tuple(int(block) for block in blocks.split(","))
            keep = tuple(float(rate) for rate in rates.split(","))
        except ValueError:
            at = ""
        if not at:
            raise InputError(f"schedule {text!r} cannot be read; write keep rates @ blocks, like 0.7@3,6,9 or "
                             "0.7,0.5@4,8, and after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse")
        kinds = {"reduction" if name in REDUCTIONS else "scorer": name for name in names}
        if len(kinds) < len(names):
            raise InputError(f"schedule {text!r} names two scorers or two reductions; scorers are "
                             f"{', '.join(SCORES)}; reductions {', '.join(REDUCTIONS)}")
        return cls(after, keep * len(after) if len(keep) == 1 else keep, **kinds)

    def __str__(self) -> str:
        rates = self.keep[:1] if len(set(self.keep)) == 1 else self.keep
        places = ",".join(map(str, rates)) + "@" + ",".join(map(str, self.after))
        return "/".join([places, *(value for name in ("scorer", "reduction")
                                   if (value := getattr(self, name)) != getattr(Schedule, name))])

    @classmethod
    def tome(cls, r: int, *, tokens: int, depth: int) -> Schedule:
        """ToMe's: in every block but the last, r of N ``tokens`` merge into others, as long as there are enough."""
        after, keep = [], []
        for block in range(1, depth):
            merged = min(r, tokens // 2)
            after.append(block)
            keep.append((tokens - merged) / tokens)
            tokens -= merged
        return cls(tuple(after), tuple(keep), reduction="merge")

    @property
    def needs_attention(self) -> bool:
        """Must the blocks tell of their attention, weights or keys?"""
        return self.reduction != "merge" and self.scorer in ATTENTION_SCORES

    @property
    def needs_weights(self) -> bool:
        """Must the blocks show their attention weights? Those then leave the fused kernel."""
        return self.needs_attention and self.scorer != "key_norm"

    @property
    def needs_keys(self) -> bool:
        """Are keys compared, or measured?"""
        return self.reduction == "merge" or self.scorer == "key_norm"

    @property
    def within_block(self) -> bool:
        """Are tokens reduced between a block's attention and its MLP, which then has less to do?"""
        return self.reduction == "merge"

    @property
    def learned(self) -> bool:
        """Is there a predictor, which must be trained?"""
        return self.scorer == PREDICTOR and self.reduction != "merge" and min(self.keep) < 1

    @property
    def shares(self) -> tuple[float, ...]:
        """What share of an encoder's tokens should be left after each reduction whose keep rate is below 1."""
        return tuple(accumulate((rate for rate in self.keep if rate < 1), mul))

    def modules(self, block_channels: tuple[int, ...]) -> dict[str, nn.Module]:
        """What the scorer must have learned, for an encoder whose blocks are so wide: a predictor for each reduction.

        None where the keep rate is 1.
        """
        return {f"predictor_{block}": TokenPredictor(block_channels[block - 1], rate)
                for block, rate in zip(self.after, self.keep, strict=True) if self.learned and rate < 1}

    def rate_after(self, block: int) -> float | None:
        """The keep rate after this block, or None where all tokens stay: nothing must be asked of them there."""
        rate = self.keep[self.after.index(block)] if block in self.after else 1
        return rate if rate < 1 else None

    def counts(self, n: int) -> tuple[int, ...]:
        """How many of n tokens there are after each reduction."""
        left = []
        for rate in self.keep:
            k = keep_count(n, 1 - rate)
            n = k + (self.reduction == "fuse" and k < n)
            left.append(n)
        return tuple(left)

    def reduce(self, tokens: VisualTokens, rate: float, keys: Tensor | None = None,
               predictor: TokenPredictor | None = None) -> VisualTokens:
        """Tokens in the middle of an encoder -> fewer.

        Args: keys [B, h, P+N, Dh], what "merge" compares; predictor: who scores, where the scorer is "predictor".
        """
        N = tokens.x.shape[1]
        k = keep_count(N, 1 - rate)
        if k == N:
            return tokens
        if self.reduction == "merge":
            metric = None if keys is None else keys.mean(dim=1)[:, tokens.prefix_count :]
            while (left := tokens.x.shape[1]) > k:  # at most half of the tokens can merge at once
                tokens = merge_similar(tokens, min(left - k, left // 2), metric)
                metric = None
            return tokens
        return (fuse_rest if self.reduction == "fuse" else keep_top_k)(tokens, self.scores(tokens, k, predictor), k)

    def scores(self, tokens: VisualTokens, k: int, predictor: TokenPredictor | None = None) -> Tensor:
        """By what k of these tokens are chosen, [B, N]."""
        return predictor.score(tokens.x) if self.learned else score_tokens(self.scorer, tokens, k=k)

    def attention_bias(self, tokens: VisualTokens) -> Tensor | None:
        """What is added to the attention scores from now on: merged tokens count as many as they are.

        [B, 1, 1, P+N] in the tokens' dtype; None where every token counts as one.
        """
        return proportional_bias(tokens).to(tokens.x.dtype) if self.reduction == "merge" else None
