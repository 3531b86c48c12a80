"""Does the ledger count each stage once, as it is run, and leave the captioner alone?"""

from dataclasses import replace

import pytest
import torch

from prunecap_lib import Captioner, CaptionerConfig, TrainConfig
from prunecap_lib.costs import STAGES, count_flops, latency, ledger
from prunecap_lib.costs.meta import placeholder_vocabulary
from prunecap_lib.decoder import IncrementalDecoder
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule

CONFIG = CaptionerConfig(d_model=32, layers=2, heads=4, ffn=64, max_length=24)
V = 50


@pytest.fixture(scope="module")
def captioner():
    torch.manual_seed(0)
    return Captioner(CONFIG, placeholder_vocabulary(V)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("beams, words", [(1, 1), (1, 20), (5, 20)])
def test_decoding_is_the_sum_of_all_steps(captioner, beams, words):
    found = ledger(captioner, words=words, beams=beams, batch=2)

    def write():
        _, kept = captioner.encode_memory(torch.zeros(2, 3, 64, 64))
        memory_kv = captioner.decoder.project_memory(captioner.projection(kept.sequence), beams * words)
        incremental = IncrementalDecoder(captioner.decoder, memory_kv, beams=beams, max_length=words)
        for _ in range(words):
            incremental.step(torch.ones(2, beams, dtype=torch.long))
            incremental.advance()

    twice = found.flops["projection"]  # look() projects, and the test once more
    assert count_flops(write) == found.total + twice
    assert tuple(found.flops) == tuple(found.unpruned) == STAGES


def test_stages_against_formulas(captioner):
    D, C, S, h, layers = 32, 128, 33, 4, 2  # 64 tokens, half of them kept, and CLS
    found = ledger(captioner, prune_ratio=0.5, beams=5, batch=3)
    assert (found.tokens, found.kept, found.prefix, found.carried_back) == (64, 32, 1, False)
    assert found.flops["projection"] == 3 * 2 * S * C * D
    assert found.unpruned["projection"] == 3 * 2 * 65 * C * D
    assert found.flops["keys and values"] == 3 * layers * 2 * 2 * S * D * D
    pilot = 3 * 2 * 65 * C * h  # and the query's own way back, once
    assert 0 < found.flops["scoring"] - pilot < pilot and found.unpruned["scoring"] == 0
    assert found.flops["encoder"] == found.unpruned["encoder"]
    assert found.speedup == sum(found.unpruned.values()) / sum(found.flops.values()) > 1


@pytest.mark.slow
def test_few_looks_carry_queries_back():
    found = ledger(replace(CONFIG, d_model=64), vocabulary_size=V, words=10, batch=16)
    assert found.carried_back and found.flops["keys and values"] == 0
    many = ledger(replace(CONFIG, d_model=64), vocabulary_size=V, words=10, beams=9, batch=16)
    assert not many.carried_back and many.flops["keys and values"] > 0
    alone = ledger(replace(CONFIG, d_model=64), vocabulary_size=V, words=10)
    assert not alone.carried_back, "for one picture, reading the matrices again costs more than it saves"


@pytest.mark.slow
def test_a_captioner_and_its_configuration_cost_the_same(captioner):
    before = [p.clone() for p in captioner.parameters()]
    assert ledger(captioner) == ledger(CONFIG, vocabulary_size=V)
    assert captioner.device.type == "cpu"
    assert all(torch.equal(p, q) for p, q in zip(captioner.parameters(), before, strict=True))
    found = ledger(captioner)
    assert sum(found.parameters.values()) == sum(p.numel() for p in captioner.parameters())


def test_no_pruning_saves_nothing(captioner):
    found = ledger(captioner, prune_ratio=0.0)
    assert found.speedup == 1 and found.flops == found.unpruned and found.kept == found.tokens


@pytest.mark.slow
def test_pruning_inside_the_encoder_is_counted(captioner):
    found = ledger(replace(CONFIG, schedule=Schedule.parse("0.5@2,4/norm_largest")), vocabulary_size=V, prune_ratio=0.5)
    plain = ledger(CONFIG, vocabulary_size=V, prune_ratio=0.5)
    assert (found.tokens, found.kept) == (64, 8) and found.unpruned == plain.unpruned
    blocks = (found.unpruned["encoder"] - found.flops["encoder"]) / found.unpruned["encoder"]
    assert blocks == pytest.approx((2 * 32 / 65 + 2 * 48 / 65) / 6, rel=0.1)  # attention falls by more, the stem not
    assert found.flops["projection"] < plain.flops["projection"]


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["random", "grid", "norm_largest", "cls_attention", "attention_received"])
def test_every_scorer_can_be_counted(captioner, scorer):
    assert ledger(captioner, scorer=scorer).flops["scoring"] == 0  # no product, no convolution


@pytest.mark.slow
def test_the_preset_is_mostly_encoder():
    found = ledger(TrainConfig.seed_preset().captioner_config(224), vocabulary_size=2033)
    assert found.flops["encoder"] / found.total > 0.95 and 1 < found.speedup < 1.01


@pytest.mark.parametrize("settings, says", [
    (dict(prune_ratio=1.0), "prune ratio 1.0"), (dict(words=25), "outside 1..24"), (dict(words=0), "words is 0"),
    (dict(beams=0), "beams is 0"), (dict(scorer="luck"), "choose one of random")])
def test_bad_settings_are_named(captioner, settings, says):
    with pytest.raises(InputError, match=says):
        ledger(captioner, **settings)


def test_a_configuration_needs_a_vocabulary():
    with pytest.raises(InputError, match="vocabulary_size is missing"):
        ledger(CONFIG)
    with pytest.raises(InputError, match="vocabulary_size 3 is too small"):
        ledger(CONFIG, vocabulary_size=3)


@pytest.mark.slow
def test_latency_times_the_ledgers_stages(captioner):
    captioner.train()
    found = latency(captioner, torch.zeros(2, 3, 64, 64), prune_ratio=0.5, words=3, repeats=3)
    assert captioner.training
    captioner.eval()
    assert tuple(found.pruned) == tuple(found.unpruned) == (*STAGES, "total")
    for kind in (found.pruned, found.unpruned):
        assert all(0 < q.low <= q.median <= q.high for q in kind.values())
        assert kind["total"].median >= kind["encoder"].median
    assert found.theoretical == ledger(captioner, prune_ratio=0.5, words=3, batch=2).speedup
    assert found.speedup.low <= found.speedup.median <= found.speedup.high
    captioner.encoder.set_schedule(Schedule.parse("0.5@2/norm_largest"))
    inside = latency(captioner, torch.zeros(2, 3, 64, 64), prune_ratio=0.5, words=3, repeats=3)
    assert captioner.encoder.schedule and inside.theoretical > found.theoretical
    captioner.encoder.set_schedule(None)
    with pytest.raises(InputError, match="repeats is 2"):
        latency(captioner, torch.zeros(1, 3, 64, 64), repeats=2)
