"""How much faster is our cached search than Hugging Face's ``generate``, for a captioner of the same size?

    python benchmarks/decoding.py --json data/results/decoding.json

Both sides hold a ViT-Ti/16 at 224 px (197 tokens of 192 channels), a projection to the decoder's width, and
the seed preset's decoder (width 512, 2 pre-norm layers, 4 heads, FFN 2048, 2,033 words, output tied to the
embedding). The peer is ``VisionEncoderDecoderModel`` of ``ViTModel`` and ``GPT2LMHeadModel`` with
``use_cache=True``, fused attention and inference mode. Weights are random, the decoder's and projection's the
same on both sides, so that both must write the same captions; that is checked before anything is timed, and
so is ours against a search without any cache. Every caption has exactly ``--words`` words: our ``<eos>`` gets
a bias that forbids it, the peer is told of no ``<eos>`` at all and so also skips its tests for one.

Three scopes, because the encoder is the same work on both sides and hides the search behind it:

    picture   pixels to ids. What a user waits for.
    features  the encoder's output to ids. The peer repeats its projection at every step and for every beam.
    search    projected tokens to ids. The peer's repeated projection is taken out: the closest comparison.

``prune_ratio`` is what our side drops; the peer cannot prune and always sees all tokens.

Each repeat times ours and the peer's, one after the other, so that a noisy machine disturbs both alike.
``ratio`` is the median over repeats of the peer's time, divided by ours; above 1 ours is faster.
``ratio_low`` and ``ratio_high`` are the quartiles of the ratios of single repeats. ``cpu_ratio`` compares the
CPU time that the process was given: waiting for other programs does not count there, sharing caches and
memory with them does. It means something with one thread only, because a waiting thread spins.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.decoding import NEVER_WRITTEN, beam, greedy
from prunecap_lib.reports import provenance, write_json
from prunecap_lib.text import BOS, EOS, PAD, SPECIALS
from prunecap_lib.tokens import VisualTokens

ENCODER = dict(image_size=224, patch_size=16, hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
               intermediate_size=768)
WIDTH, LAYERS, HEADS, FFN, WORDS, POSITIONS, BEAMS = 512, 2, 4, 2048, 2033, 40, 5
SCOPES = ("picture", "features", "search")
HEADER = "\n   scope  method batch pruned   ours ms   peer ms   ratio  quartiles  CPU ratio"
LINE = ("{scope:>8} {method:>7} {batch:>5} {prune_ratio:>6.0%} {ours_ms:>9.1f} {peer_ms:>9.1f} "
        "{ratio:>6.2f}x  {ratio_low:.2f}-{ratio_high:.2f} {cpu_ratio:>9.2f}x")


# -- the two captioners -------------------------------------------------------------------------------------

def build_ours() -> Captioner:
    """Our captioner with random weights that let the picture decide the words, and no ``<eos>``."""
    config = CaptionerConfig("vit_tiny_patch16_224", 224, prune_ratio=0.0, d_model=WIDTH, layers=LAYERS,
                             heads=HEADS, ffn=FFN, max_length=POSITIONS)
    captioner = Captioner(config, Vocabulary([*SPECIALS, *(f"word{i}" for i in range(4, WORDS))])).eval()
    with torch.no_grad():
        for layer in captioner.decoder.layers:
            for matrix in (layer.cross_attention.out, layer.self_attention.out, layer.ffn[-1]):
                matrix.weight *= 8
        captioner.decoder.output.bias[EOS] = -1e9
    return captioner


def build_peer(ours: Captioner, attention: str) -> nn.Module:
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
    encoder = ViTModel(ViTConfig(**ENCODER, attn_implementation=attention), add_pooling_layer=False)
    decoder = GPT2LMHeadModel(GPT2Config(
        vocab_size=WORDS, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=FFN,
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


def size(model: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


# -- what each side does, by scope --------------------------------------------------------------------------

class Contest:
    """The same pictures, features and projected tokens for both sides."""

    def __init__(self, ours: Captioner, peer: nn.Module, batch: int, words: int):
        self.ours, self.peer, self.words = ours, peer, words
        self.images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch))
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
        given = {"picture": lambda: {"pixel_values": self.images},
                 "features": lambda: {"encoder_outputs": BaseModelOutput(self.features)},
                 "search": lambda: {"encoder_outputs": BaseModelOutput(self.memory)}}[scope]()
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
        parents, word = flat // WORDS, flat % WORDS
        ids = torch.cat([ids.gather(1, parents[..., None].expand_as(ids)), word[..., None]], dim=2)
    return ids[:, 0, 1:]


def check_same_captions(contest: Contest, method: str) -> None:
    """Ours, ours without any cache, and the peer's must be the same words. Raises RuntimeError."""
    ours = contest.our_search(method)
    others = {"our uncached search": uncached(contest.ours.decoder, contest.memory,
                                              1 if method == "greedy" else BEAMS, contest.words),
              "the peer": contest.peer_generate("features", method, suppress_tokens=[*NEVER_WRITTEN, EOS])}
    for name, ids in others.items():
        if not torch.equal(ours, ids):
            same = int((ours == ids).all(dim=1).sum())
            raise RuntimeError(f"{method}: {name} wrote other captions ({same} of {len(ours)} alike)")
    captions, distinct = {tuple(row) for row in ours.tolist()}, ours.unique().numel()
    print(f"{method:>7}: ours = uncached = peer on {len(ours)} pictures "
          f"({len(captions)} different captions, {distinct} different words)")


# -- timing -------------------------------------------------------------------------------------------------

def time_pair(ours: Callable, peer: Callable, repeats: int) -> dict:
    """Both interleaved: wall-clock milliseconds, and the CPU time that this process was given for them."""
    clocks = {"ms": time.perf_counter, "cpu_ms": time.process_time}
    taken = {f"{name}_{clock}": [] for name in ("ours", "peer") for clock in clocks}
    for turn in (ours, peer):  # warm up
        turn()
    for _ in range(repeats):
        for name, turn in (("ours", ours), ("peer", peer)):
            starts = {clock: read() for clock, read in clocks.items()}
            turn()
            for clock, read in clocks.items():
                taken[f"{name}_{clock}"].append(1e3 * (read() - starts[clock]))
    middle = {name: median(times) for name, times in taken.items()}
    low, _, high = quantiles([p / o for o, p in zip(taken["ours_ms"], taken["peer_ms"], strict=True)], n=4)
    row = {"ratio": middle["peer_ms"] / middle["ours_ms"], "ratio_low": low, "ratio_high": high,
           "cpu_ratio": middle["peer_cpu_ms"] / middle["ours_cpu_ms"], **middle}
    for name in ("ours_ms", "peer_ms"):
        row[f"{name}_low"], _, row[f"{name}_high"] = quantiles(taken[name], n=4)
    return {name: round(value, 2) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write rows, settings and provenance here")
    parser.add_argument("--repeats", type=int, default=11, help="timings a row, at least 7 (default 11)")
    parser.add_argument("--words", type=int, default=20, help="words in every caption (default 20)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=SCOPES)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--prune-ratio", type=float, default=0.3, help="of the pruned rows (default 0.3)")
    parser.add_argument("--peer-attention", choices=("sdpa", "eager"), default="sdpa")
    args = parser.parse_args()
    if args.repeats < 7:
        parser.error("--repeats must be at least 7: fewer make no stable median")

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    ours = build_ours()
    peer = build_peer(ours, args.peer_attention)
    sizes = {"ours": size(ours), "peer": size(peer)}
    difference = sizes["peer"] / sizes["ours"] - 1
    print(f"parameters: ours {sizes['ours']:,}, peer {sizes['peer']:,} ({difference:+.2%})")
    if abs(difference) > 0.05:
        raise RuntimeError("the two models differ by more than 5% in size: the comparison would not be fair")
    checked = Contest(ours, peer, batch=4, words=args.words)
    for method in ("greedy", "beam"):
        check_same_captions(checked, method)

    rows = []
    print(HEADER)
    for scope, batch in product(args.scopes, args.batches):
        contest = Contest(ours, peer, batch, args.words)
        for method in ("greedy", "beam"):
            for prune_ratio in (0.0,) if scope == "search" else (0.0, args.prune_ratio):
                turns = contest.our_turn(scope, method, prune_ratio), contest.peer_turn(scope, method)
                rows.append({"method": method if method == "greedy" else f"beam {BEAMS}", "batch": batch,
                             "peer": "VisionEncoderDecoderModel.generate", "scope": scope,
                             "prune_ratio": prune_ratio, **time_pair(*turns, args.repeats)})
                print(LINE.format_map(rows[-1]), flush=True)
    if args.json:
        from transformers import __version__ as transformers_version
        source = provenance()
        source["versions"]["transformers"] = transformers_version
        settings = {"encoder": "vit_tiny_patch16_224", "d_model": WIDTH, "layers": LAYERS, "heads": HEADS,
                    "ffn": FFN, "vocabulary": WORDS, **vars(args)}
        del settings["json"]
        write_json(args.json, {"rows": rows, "parameters": sizes, "settings": settings, "provenance": source})


if __name__ == "__main__":
    main()
