"""Where should tokens go, by which score, and what becomes of the rest? Quality against time for all combinations.

    python experiments/scenes_places.py quality --out data/results/scenes_places.json
    python experiments/scenes_places.py time --out data/results/scenes_places.json

A shipped Scenes captioner prunes without having been trained again for it. The places are compared at equal numbers of
tokens: in every case the decoder reads the same share of the N that a picture has. "before" reduces them after the
encoder; "inside" after three of its blocks, by equal factors; "both" does half of it (the root of the share) inside
and the other half before the decoder. A time is that of a whole caption of 20 words, taken by turns with the unpruned
captioner's. Rows of the file that a run does not measure again stay, so that ``--left`` can take them in slices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from prunecap_lib import Captioner, VisualTokens
from prunecap_lib.costs.ledger import Quartiles, write
from prunecap_lib.datasets import open_dataset
from prunecap_lib.evaluation import bootstrap_interval, mean, per_image_cider
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule, fuse_rest, keep_top_k, merge_similar, score_tokens
from prunecap_lib.text import BOS

AFTER = (1, 2, 3)
LEFT = (0.5, 0.3)
SCORERS = ("random", "grid", "norm_smallest", "diversity", "cls_attention", "attention_received", "pilot")
WEIGHTS = ("random", "cls_attention", "attention_received")
"""Scores that are above zero, so that they can weigh what is fused; ``random`` asks whether the weights matter."""
PLACES = ("before", "inside", "both")
RANDOM_SEEDS = (0, 1, 2)
WORDS = 20


@dataclass(frozen=True)
class Case:
    """One way of pruning; ``left`` is the share of the tokens that the decoder reads."""

    left: float
    place: str
    reduction: str
    scorer: str | None
    """None where similar tokens merge: no one is asked which matter."""

    def inside(self, N: int) -> Schedule | None:
        """Which tokens go inside the encoder."""
        if self.place == "before":
            return None
        end = self.left ** (1 if self.place == "inside" else 0.5)
        counts = [N, *(round(N * end ** (step / len(AFTER))) for step in range(1, len(AFTER) + 1))]
        fused = self.reduction == "fuse"  # one of those left is then what the others were fused to
        rates = tuple((after - fused) / before for before, after in zip(counts, counts[1:], strict=False))
        return Schedule(AFTER, rates, *([self.scorer] if self.scorer else []), reduction=self.reduction)

    def before(self, captioner: Captioner, tokens: VisualTokens, generator: torch.Generator) -> VisualTokens:
        """Fewer tokens before the decoder, where that is their place."""
        if self.place == "inside":
            return tokens
        k = round(self.left * tokens.grid[0] * tokens.grid[1])
        if self.reduction == "merge":
            while (n := tokens.x.shape[1]) > k:
                tokens = merge_similar(tokens, min(n - k, n // 2))
            return tokens
        scores = score_tokens(self.scorer, tokens, pilot=captioner.pilot, k=k, generator=generator)
        return fuse_rest(tokens, scores, k - 1) if self.reduction == "fuse" else keep_top_k(tokens, scores, k)


def cases(left: float) -> Iterator[Case]:
    """All that make sense: only a decoder has the pilot score, and merging asks no score."""
    for place in PLACES:
        for scorer in SCORERS:
            if scorer != "pilot" or place == "before":
                yield Case(left, place, "keep", scorer)
            if scorer in WEIGHTS:
                yield Case(left, place, "fuse", scorer)
        yield Case(left, place, "merge", None)


def look(captioner: Captioner, images: Tensor, case: Case | None, generator: torch.Generator) -> VisualTokens:
    """What the decoder is given; None: every token."""
    if case is None or case.place == "inside":
        return captioner.encode(images, scorer="grid")
    return case.before(captioner, captioner.encode(images, scorer=case.scorer or "grid"), generator)


@torch.inference_mode()
def ciders(captioner: Captioner, images: Tensor, dataset, case: Case | None) -> list[float]:
    """CIDEr-D of each picture's greedy caption; ``random``: mean over its seeds."""
    captioner.encoder.set_schedule(case and case.inside(captioner.encoder.block_tokens[0]))
    seeds, sums = RANDOM_SEEDS if case and case.scorer == "random" else RANDOM_SEEDS[:1], 0
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # inside an encoder the random scorer draws torch's own numbers
        found = [caption.text for part in images.split(100)
                 for caption in captioner.generate(look(captioner, part, case, generator), prune_ratio=0.0)]
        texts = dict(zip(dataset.image_ids, found, strict=True))
        sums = sums + torch.tensor([*per_image_cider(dataset.references(), texts).values()], dtype=torch.double)
    return (sums / len(seeds)).tolist()


def with_interval(values: list[float]) -> dict:
    low, high = bootstrap_interval(values, seed=0)
    return {"value": round(mean(values), 4), "interval": [round(low, 4), round(high, 4)]}


def quality(captioner: Captioner, chosen: list[Case], limit: int) -> list[dict]:
    """CIDEr-D of each case, and its lead, picture by picture, over the unpruned captioner and both baselines."""
    dataset = open_dataset("scenes", split="test", limit=limit)
    images = captioner.preprocess([dataset.image(i) for i in range(len(dataset))])
    whole = ciders(captioner, images, dataset, None)
    found = {case: ciders(captioner, images, dataset, case) for case in tqdm(chosen, desc="quality")}
    rows = [{"part": "unpruned", "pictures": limit, "CIDEr": with_interval(whole)}]
    for case, values in found.items():
        rivals = {"unpruned": whole} | {name: found.get(Case(case.left, case.place, "keep", name))
                                        for name in ("random", "grid") if name != case.scorer}
        against = {name: with_interval([a - b for a, b in zip(values, other, strict=True)])
                   for name, other in rivals.items() if other}
        rows.append({"part": "quality", **asdict(case), "pictures": limit, "CIDEr": with_interval(values),
                     "against": against})
    return rows


@torch.inference_mode()
def seconds(captioner: Captioner, images: Tensor, case: Case | None) -> float:
    """From pictures to captions of ``WORDS`` words each: a caption that ends early is not to count as faster."""
    captioner.encoder.set_schedule(case and case.inside(captioner.encoder.block_tokens[0]))
    generator, first = torch.Generator().manual_seed(0), torch.full((len(images), 1), BOS)
    start = time.perf_counter()
    memory = captioner.projection(look(captioner, images, case, generator).sequence)
    write(captioner.decoder, first, captioner.decoder.project_memory(memory, WORDS), WORDS)
    return time.perf_counter() - start


def timed(captioner: Captioner, chosen: list[Case], batch: int, repeats: int) -> list[dict]:
    """How long each case takes as a share of the unpruned captioner's time beside it, with quartiles."""
    dataset = open_dataset("scenes", split="test", limit=batch)
    images = captioner.preprocess([dataset.image(i) for i in range(batch)])
    rows = []
    for case in tqdm(chosen, desc="time"):
        turns = [(seconds(captioner, images, case), seconds(captioner, images, None)) for _ in range(repeats + 2)][2:]
        share = Quartiles.of([pruned / whole for pruned, whole in turns])
        rows.append({"part": "time", **asdict(case), "batch": batch, "repeats": repeats,
                     "time": {name: round(value, 4) for name, value in asdict(share).items()},
                     "unpruned_ms": round(1e3 * Quartiles.of([whole for _, whole in turns]).median, 2)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("quality", "time"))
    parser.add_argument("--out", type=report_path, required=True)
    parser.add_argument("--model", default="scenes-vit")
    parser.add_argument("--left", type=float, nargs="+", default=LEFT, help="shares of the tokens left to the decoder")
    parser.add_argument("--limit", type=int, default=500, help="test pictures (default 500)")
    parser.add_argument("--batch", type=int, default=32, help="pictures captioned at once, for the time")
    parser.add_argument("--repeats", type=int, default=15, help="turns of pruned and unpruned, for the time")
    options = parser.parse_args()
    captioner = Captioner.load(options.model)
    chosen = [case for left in options.left for case in cases(left)]
    rows = quality(captioner, chosen, options.limit) if options.part == "quality" else \
        timed(captioner, chosen, options.batch, options.repeats)
    write_rows(options.out, [{"model": options.model, **row} for row in rows], add=True,
               same=("part", "model", "left", "place", "reduction", "scorer"))


if __name__ == "__main__":
    main()
