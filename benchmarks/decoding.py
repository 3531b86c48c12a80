"""How much faster is our cached search than Hugging Face's ``generate``, for a captioner of the same size?

    python benchmarks/decoding.py --json data/results/decoding.json

The peer is ``VisionEncoderDecoderModel`` of ``ViTModel`` and ``GPT2LMHeadModel`` with ``use_cache=True``, fused
attention and inference mode. Two sizes, each the same on both sides:

    course  TrainConfig's own: a ViT of 64 tokens at 64 px, decoder 192 wide, the 133 words of Scenes
    seed    the presentation's decoder (512 wide, 2,033 words) behind a ViT-Ti/16 of 197 tokens at 224 px

Both have two pre-norm decoder layers with four heads and an output tied to the embedding. Weights are random, the
decoder's and projection's the same on both sides, so that both must write the same captions; that is checked
before anything is timed, and so is ours against a search without any cache. Every caption has exactly ``--words``
words: our ``<eos>`` gets a bias that forbids it, the peer is told of no ``<eos>`` at all and so also skips its
tests for one.

Three scopes, because the encoder is the same work on both sides and hides the search behind it:

    picture   pixels to ids: what a user waits for. The peer repeats its projection at every step and for every beam.
    features  the encoder's output to ids: what evaluation behind a frozen encoder with stored features waits for.
    search    projected tokens to ids. The peer's repeated projection is taken out: the closest comparison.

``prune_ratio`` is what our side drops; the peer cannot prune and always sees all tokens.

Each repeat times ours, the peer's and the floor, one after the other, so that a noisy machine disturbs all alike.
``ratio`` is the median over repeats of the peer's time, divided by ours; above 1 ours is faster. ``ratio_low`` and
``ratio_high`` are the quartiles of the ratios of single repeats. The floor is what no search can do without: the
decoder's matrices, and nothing else, applied once a step (and the encoder, in scope picture). ``limit`` is the
peer's time divided by the floor's: the ratio of a search to which all the rest costs no time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.decoding import NEVER_WRITTEN, beam, greedy
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.text import BOS, EOS, PAD, SPECIALS
from prunecap_lib.tokens import VisualTokens

POSITIONS, BEAMS = 40, 5
SCOPES = ("picture", "features", "search")
HEADER = "\n  size    scope  method batch pruned   ours ms   peer ms   ratio  quartiles   limit"
LINE = ("{size:>6} {scope:>8} {method:>7} {batch:>5} {prune_ratio:>6.0%} {ours_ms:>9.1f} {peer_ms:>9.1f} "
        "{ratio:>6.2f}x  {ratio_low:.2f}-{ratio_high:.2f} {limit:>6.2f}x")


@dataclass(frozen=True)
class Size:
    """One captioner: its ViT, under our name and in Hugging Face's terms, and its decoder."""

    encoder: str
    vit: dict[str, int]
    decoder: dict[str, int]
    vocabulary: int


SIZES = {
    "course": Size("vit", dict(image_size=64, patch_size=8, hidden_size=128, num_hidden_layers=6,
                               num_attention_heads=4, intermediate_size=512),
                   dict(d_model=192, layers=2, heads=4, ffn=768), vocabulary=133),
    "seed": Size("vit_tiny_patch16_224", dict(image_size=224, patch_size=16, hidden_size=192, num_hidden_layers=12,
                                              num_attention_heads=3, intermediate_size=768),
                 dict(d_model=512, layers=2, heads=4, ffn=2048), vocabulary=2033),
}


# -- the two captioners -------------------------------------------------------------------------------------

def build_ours(size: Size) -> Captioner:
    """Our captioner with random weights that let the picture decide the words, and no ``<eos>``."""
    config = CaptionerConfig(size.encoder, size.vit["image_size"], prune_ratio=0.0, max_length=POSITIONS,
                             **size.decoder)
    captioner = Captioner(config, Vocabulary([*SPECIALS, *(f"word{i}" for i in range(4, size.vocabulary))])).eval()
    with torch.no_grad():
        for layer in captioner.decoder.layers:
            for matrix in (layer.cross_attention.out, layer.self_attention.out, layer.ffn[-1]):
                matrix.weight *= 8
        captioner.decoder.output.bias[EOS] = -1e9
    return captioner


def build_peer(ours: Captioner, size: Size, attention: str) -> nn.Module:
    """Hugging Face's model of the same size, with our projection's and decoder's weights."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTModel,
        logging,
    )
    logging.set_verbosity_error()
    encoder = ViTModel(ViTConfig(**size.vit, attn_implementation=attention), add_pooling_layer=False)
    decoder = GPT2LMHeadModel(GPT2Config(
        vocab_size=size.vocabulary, n_positions=POSITIONS, n_embd=size.decoder["d_model"],
        n_layer=size.decoder["layers"], n_head=size.decoder["heads"], n_inner=size.decoder["ffn"],
        activation_function="gelu", add_cross_attention=True, is_decoder=True, tie_word_embeddings=True,
        bos_token_id=BOS, eos_token_id=None, pad_token_id=PAD, attn_implementation=attention))
    peer = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    peer.config.decoder_start_token_id = peer.generation_config.decoder_start_token_id = BOS
    peer.config.pad_token_id = peer.generation_config.pad_token_id = PAD
    peer.config.eos_token_id = peer.generation_config.eos_token_id = None
    copy_weights(ours, peer)
    return peer


@torch.no_grad()
def copy_weights(ours: Captioner, peer: nn.Module) -> None:
    """Our projection matrix and decoder, in the peer's layout (GPT-2 stores its matrices transposed)."""
    def copy(module: nn.Module, *sources: nn.Linear) -> None:
        module.weight.copy_(torch.cat([source.weight for source in sources]).T)
        module.bias.copy_(torch.cat([source.bias for source in sources]))

    peer.enc_to_dec_proj.load_state_dict(ours.projection.linear.state_dict())
    gpt = peer.decoder.transformer
    gpt.wte.weight.copy_(ours.decoder.embedding.words.weight)
    gpt.wpe.weight.copy_(ours.decoder.embedding.positions)
    gpt.ln_f.load_state_dict(ours.decoder.norm.state_dict())
    for layer, block in zip(ours.decoder.layers, gpt.h, strict=True):
        words, picture = layer.self_attention, layer.cross_attention
        copy(block.attn.c_attn, words.qkv)
        copy(block.attn.c_proj, words.out)
        copy(block.crossattention.q_attn, picture.query)
        copy(block.crossattention.c_attn, picture.key, picture.value)
        copy(block.crossattention.c_proj, picture.out)
        copy(block.mlp.c_fc, layer.ffn[0])
        copy(block.mlp.c_proj, layer.ffn[-1])
        block.ln_1.load_state_dict(layer.norm1.state_dict())
        block.ln_cross_attn.load_state_dict(layer.norm2.state_dict())
        block.ln_2.load_state_dict(layer.norm3.state_dict())


def compare_parameters(name: str, ours: nn.Module, peer: nn.Module) -> dict[str, int]:
    """Count both; tied ones count once. Raises RuntimeError where they differ by more than 5%."""
    count = {side: sum(parameter.numel() for parameter in model.parameters())
             for side, model in (("ours", ours), ("peer", peer))}
    difference = count["peer"] / count["ours"] - 1
    print(f"\n{name}: parameters: ours {count['ours']:,}, peer {count['peer']:,} ({difference:+.2%})")
    if abs(difference) > 0.05:
        raise RuntimeError("the two models differ by more than 5% in size: the comparison would not be fair")
    return count


# -- what each side does, by scope --------------------------------------------------------------------------

class Contest:
    """The same pictures, features and projected tokens for both sides."""

    def __init__(self, ours: Captioner, peer: nn.Module, batch: int, words: int):
        self.ours, self.peer, self.words = ours, peer, words
        side = ours.config.image_size
        self.images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            tokens = ours.encode(self.images)
            # random encoders give all pictures nearly the same tokens: some noise tells them apart
            noise = torch.randn(tokens.x.shape, generator=torch.Generator().manual_seed(batch + 1))
            self.tokens = VisualTokens.full(tokens.x + noise, tokens.grid, tokens.prefix)
            self.features = ours.projection.norm(self.tokens.sequence)
            self.memory = ours.projection.linear(self.features)

    def our_search(self, method: str):
        """Projected tokens to ids [B, T]."""
        if method == "greedy":
            return greedy(self.ours.decoder, self.memory, max_length=self.words).ids
        return beam(self.ours.decoder, self.memory, beam_size=BEAMS, max_length=self.words).ids

    def our_turn(self, scope: str, method: str, prune_ratio: float) -> Callable:
        if scope == "search":
            return lambda: self.our_search(method)
        look_at = self.images if scope == "picture" else self.tokens
        return lambda: self.ours.generate(look_at, method=method, beam_size=BEAMS, max_length=self.words,
                                          prune_ratio=prune_ratio)

    @torch.inference_mode()
    def peer_generate(self, scope: str, method: str, **more) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput
        given = {"picture": {"pixel_values": self.images},
                 "features": {"encoder_outputs": BaseModelOutput(self.features)},
                 "search": {"encoder_outputs": BaseModelOutput(self.memory)}}[scope]
        return self.peer.generate(**given, num_beams=1 if method == "greedy" else BEAMS, do_sample=False,
                                  max_new_tokens=self.words, use_cache=True, **more)[:, 1:]

    def peer_turn(self, scope: str, method: str) -> Callable:
        def turn():
            projection = self.peer.enc_to_dec_proj
            if scope == "search":
                self.peer.enc_to_dec_proj = nn.Identity()
            try:
                return self.peer_generate(scope, method)
            finally:
                self.peer.enc_to_dec_proj = projection
        return turn

    def floor_turn(self, scope: str, method: str) -> Callable:
        rows = len(self.images) * (1 if method == "greedy" else BEAMS)
        layers = [self.ours.decoder.output]
        for layer in self.ours.decoder.layers:
            words, picture = layer.self_attention, layer.cross_attention
            layers += words.qkv, words.out, picture.query, picture.out, layer.ffn[0], layer.ffn[-1]
        inputs = [torch.randn(rows, layer.in_features) for layer in layers]

        @torch.inference_mode()
        def turn():
            if scope == "picture":
                self.ours.encode(self.images)
            for _ in range(self.words):
                for layer, x in zip(layers, inputs, strict=True):
                    layer(x)
        return turn


# -- checks -------------------------------------------------------------------------------------------------

@torch.inference_mode()
def uncached(decoder: nn.Module, memory: Tensor, beams: int, words: int) -> Tensor:
    """Search that runs the whole decoder over every caption at every step: [B, S, D] -> ids [B, T]."""
    B = len(memory)
    ids = torch.full((B, beams, 1), BOS)
    total = torch.full((B, beams), float("-inf"))
    total[:, 0] = 0.0
    for _ in range(words):
        logits = decoder(ids.flatten(0, 1), memory)[:, -1]
        logits[:, NEVER_WRITTEN] = float("-inf")
        scores = total[..., None] + logits.log_softmax(-1).unflatten(0, (B, beams))
        total, flat = scores.flatten(1).topk(beams)
        parents, word = flat // scores.shape[-1], flat % scores.shape[-1]
        ids = torch.cat([ids.gather(1, parents[..., None].expand_as(ids)), word[..., None]], dim=2)
    return ids[:, 0, 1:]


def check_same_captions(contest: Contest, method: str) -> None:
    """Ours, ours without any cache, and the peer's must be the same words. Raises RuntimeError."""
    ours = contest.our_search(method)
    others = {"our uncached search": uncached(contest.ours.decoder, contest.memory,
                                              1 if method == "greedy" else BEAMS, contest.words),
              "the peer": contest.peer_generate("features", method, suppress_tokens=[*NEVER_WRITTEN, EOS],
                                                renormalize_logits=True)}
    for name, ids in others.items():
        if not torch.equal(ours, ids):
            same = int((ours == ids).all(dim=1).sum())
            raise RuntimeError(f"{method}: {name} wrote other captions ({same} of {len(ours)} alike)")
    captions, distinct = {tuple(row) for row in ours.tolist()}, ours.unique().numel()
    print(f"{method:>7}: ours = uncached = peer on {len(ours)} pictures "
          f"({len(captions)} different captions, {distinct} different words)")


# -- timing -------------------------------------------------------------------------------------------------

def time_interleaved(turns: dict[str, Callable], repeats: int) -> dict:
    """Medians of ours, the peer and the floor in milliseconds, and how they compare."""
    taken = {name: [] for name in turns}
    for turn in turns.values():  # warm up
        turn()
    for _ in range(repeats):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            taken[name].append(1e3 * (time.perf_counter() - start))
    middle = {f"{name}_ms": median(times) for name, times in taken.items()}
    low, _, high = quantiles([p / o for o, p in zip(taken["ours"], taken["peer"], strict=True)], n=4)
    row = {"ratio": middle["peer_ms"] / middle["ours_ms"], "ratio_low": low, "ratio_high": high,
           "limit": middle["peer_ms"] / middle["floor_ms"], **middle}
    return {name: round(value, 2) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=report_path, help="write rows, settings and provenance here")
    parser.add_argument("--repeats", type=int, default=11, help="timings a row, at least 7 (default 11)")
    parser.add_argument("--words", type=int, default=20, help="words in every caption (default 20)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=SCOPES)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--prune-ratio", type=float, default=0.3, help="of the pruned rows (default 0.3)")
    parser.add_argument("--peer-attention", choices=("sdpa", "eager"), default="sdpa")
    args = parser.parse_args()
    if args.repeats < 7:
        parser.error("--repeats must be at least 7: fewer make no stable median")

    torch.set_num_threads(args.threads)
    rows, parameters = [], {}
    for name in args.sizes:
        torch.manual_seed(0)
        ours = build_ours(SIZES[name])
        peer = build_peer(ours, SIZES[name], args.peer_attention)
        parameters[name] = compare_parameters(name, ours, peer)
        checked = Contest(ours, peer, batch=4, words=args.words)
        for method in ("greedy", "beam"):
            check_same_captions(checked, method)
        print(HEADER)
        for scope, batch, method in product(args.scopes, args.batches, ("greedy", "beam")):
            contest = Contest(ours, peer, batch, args.words)
            for prune_ratio in (0.0,) if scope == "search" else (0.0, args.prune_ratio):
                turns = {"ours": contest.our_turn(scope, method, prune_ratio),
                         "peer": contest.peer_turn(scope, method), "floor": contest.floor_turn(scope, method)}
                rows.append({"size": name, "scope": scope, "method": method if method == "greedy" else f"beam {BEAMS}",
                             "batch": batch, "prune_ratio": prune_ratio,
                             "peer": "VisionEncoderDecoderModel.generate", **time_interleaved(turns, args.repeats)})
                print(LINE.format_map(rows[-1]), flush=True)
    if args.json:
        from transformers import __version__ as transformers_version
        source = provenance()
        source["versions"]["transformers"] = transformers_version
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        sizes = {name: asdict(SIZES[name]) | {"parameters": parameters[name]} for name in args.sizes}
        write_json(args.json, {"rows": rows, "sizes": sizes, "settings": settings, "provenance": source})


if __name__ == "__main__":
    main()
