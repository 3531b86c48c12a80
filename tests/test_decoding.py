"""Is fast writing the same writing? Cached search against plain, uncached search."""

import pytest
import torch
from close import assert_close
from torch.nn import functional as F

from prunecap_lib.decoder import Decoder
from prunecap_lib.decoding import NEVER_WRITTEN, beam, greedy, sample
from prunecap_lib.errors import InputError
from prunecap_lib.text import BOS, EOS, PAD

V, D, LENGTH = 23, 32, 9


@pytest.fixture(params=["learned", "sinusoidal"])
def decoder(request):
    torch.manual_seed(1)
    decoder = Decoder(V, d_model=D, layers=2, heads=4, ffn=48, max_length=LENGTH + 1, positions=request.param).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    with torch.no_grad():  # the picture decides much, so that captions differ and end at different lengths
        for layer in decoder.layers:
            layer.cross_attention.out.weight *= 8
        decoder.output.bias[EOS] += 3.0
    return decoder.double()  # words are compared, and two that are nearly as good must not change places


@pytest.fixture
def memory():
    return 3 * torch.randn(12, 5, D, generator=torch.Generator().manual_seed(2)).double()


def next_log_probs(decoder, ids, memory):
    logits = decoder(ids, memory)[:, -1].clone()
    logits[:, NEVER_WRITTEN] = float("-inf")
    return logits.log_softmax(-1)


@torch.no_grad()
def plain_greedy(decoder, picture):
    ids, total = torch.tensor([[BOS]]), 0.0
    for _ in range(LENGTH):
        log_probs = next_log_probs(decoder, ids, picture)
        word = log_probs.argmax(-1, keepdim=True)
        total += float(log_probs.max())
        ids = torch.cat([ids, word], 1)
        if word.item() == EOS:
            break
    return ids[0, 1:].tolist(), total


@torch.no_grad()
def plain_beam(decoder, picture, R, penalty):
    beams = [([BOS], 0.0)]
    for _ in range(LENGTH):
        candidates = []
        for ids, total in beams:
            if ids[-1] == EOS:
                candidates.append((ids, total))
                continue
            log_probs = next_log_probs(decoder, torch.tensor([ids]), picture)[0]
            candidates += [(ids + [word], total + float(log_probs[word])) for word in range(V)]
        beams = sorted(candidates, key=lambda c: -c[1])[:R]
    ids, total = max(beams, key=lambda c: c[1] / (len(c[0]) - 1) ** penalty)
    return ids[1:], total


def row(ids):
    return [i for i in ids.tolist() if i != PAD]


def test_greedy_equals_uncached(decoder, memory):
    written = greedy(decoder, memory, max_length=LENGTH)
    lengths = set()
    for b in range(len(memory)):
        ids, total = plain_greedy(decoder, memory[b : b + 1])
        assert row(written.ids[b]) == ids
        assert written.log_prob[b].item() == pytest.approx(total, abs=1e-4)
        lengths.add(len(ids))
    assert len(lengths) > 1, "the fixture should stop at different lengths"


@pytest.mark.parametrize("R", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_beam_equals_uncached(decoder, memory, R):
    written = beam(decoder, memory, beam_size=R, max_length=LENGTH, length_penalty=0.7)
    for b in range(len(memory)):
        ids, total = plain_beam(decoder, memory[b : b + 1], R, 0.7)
        assert row(written.ids[b]) == ids
        assert written.log_prob[b].item() == pytest.approx(total, abs=1e-4)


def test_the_best_beams_in_their_order(decoder, memory):
    best, all_four = (beam(decoder, memory, beam_size=4, n=n, max_length=LENGTH) for n in (1, 4))
    ids, log_prob = all_four.ids.unflatten(0, (12, 4)), all_four.log_prob.unflatten(0, (12, 4))
    assert torch.equal(ids[:, 0, : best.ids.shape[1]], best.ids) and torch.equal(log_prob[:, 0], best.log_prob)
    ranked = log_prob / (ids != PAD).sum(-1) ** 0.7
    assert (ranked[:, :-1] >= ranked[:, 1:]).all() and all(len(set(map(tuple, four))) == 4 for four in ids.tolist())
    with pytest.raises(InputError, match="ends with 1 to 4 captions"):
        beam(decoder, memory, beam_size=4, n=5, max_length=LENGTH)


def test_beam_of_one_equals_greedy(decoder, memory):
    one, plain = beam(decoder, memory, beam_size=1, max_length=LENGTH), greedy(decoder, memory, max_length=LENGTH)
    assert torch.equal(one.ids, plain.ids)
    assert_close(one.log_prob, plain.log_prob)


def test_a_picture_is_captioned_alike_alone_and_in_a_batch(decoder, memory):
    together = beam(decoder, memory, beam_size=3, max_length=LENGTH)
    for b in range(len(memory)):
        alone = beam(decoder, memory[b : b + 1], beam_size=3, max_length=LENGTH)
        assert row(alone.ids[0]) == row(together.ids[b])


# -- drawing words ----------------------------------------------------------------------------------------------

@torch.no_grad()
def plain_sample(decoder, picture, numbers, temperature):
    ids, total = torch.tensor([[BOS]]), 0.0
    for number in numbers.tolist():
        log_probs = next_log_probs(decoder, ids, picture)[0]
        chances = (log_probs.double() / temperature).softmax(-1)
        word = int((chances.cumsum(-1) > number).nonzero()[0])
        total += float(log_probs[word])
        ids = torch.cat([ids, torch.tensor([[word]])], 1)
        if word == EOS:
            break
    return ids[0, 1:].tolist(), total


@pytest.mark.parametrize("R, temperature", [(3, 1.0), pytest.param(3, 1.7, marks=pytest.mark.slow), (1, 0.7)])
def test_samples_equal_uncached(decoder, memory, R, temperature):
    numbers = torch.rand(len(memory), R, LENGTH, generator=torch.Generator().manual_seed(4))
    written = sample(decoder, memory, numbers, temperature=temperature)
    rows = [row(ids) for ids in written.ids]
    for i, (b, r) in enumerate((b, r) for b in range(len(memory)) for r in range(R)):
        ids, total = plain_sample(decoder, memory[b : b + 1], numbers[b, r], temperature)
        assert rows[i] == ids
        assert written.log_prob[i].item() == pytest.approx(total, abs=1e-3)
    assert R == 1 or len({tuple(ids) for ids in rows}) > len(memory), "samples of one picture should differ"
    assert len({len(ids) for ids in rows}) > 1


@pytest.mark.slow
def test_words_are_drawn_as_often_as_they_are_probable(decoder, memory):
    n = 4000
    numbers = torch.rand(1, n, 1, generator=torch.Generator().manual_seed(5))
    drawn = torch.bincount(sample(decoder, memory[:1], numbers).ids[:, 0], minlength=V) / n
    chances = next_log_probs(decoder, torch.tensor([[BOS]]), memory[:1])[0].exp()
    assert (drawn - chances).abs().max() < 4 * (0.25 / n) ** 0.5
    assert (drawn[NEVER_WRITTEN] == 0).all() and (chances > 0.02).sum() > 1


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_ends_of_the_scale_fall_to_words_too(decoder, memory, number):
    written = sample(decoder, memory, torch.full((len(memory), 2, LENGTH), number))
    assert torch.isfinite(written.log_prob).all()


def test_a_low_temperature_is_greedy(decoder, memory):
    numbers = torch.rand(len(memory), 1, LENGTH, generator=torch.Generator().manual_seed(6))
    cold, plain = sample(decoder, memory, numbers, temperature=1e-4), greedy(decoder, memory, max_length=LENGTH)
    assert torch.equal(cold.ids, plain.ids)
    assert_close(cold.log_prob, plain.log_prob)
    with pytest.raises(InputError, match="temperature 0.0"):
        sample(decoder, memory, numbers, temperature=0.0)


@pytest.mark.parametrize("size, length", [(0, 5), (V, 5), (2, 0), (2, LENGTH + 2)])
def test_impossible_settings_are_refused(decoder, memory, size, length):
    with pytest.raises(InputError, match="beam_size|max_length"):
        beam(decoder, memory, beam_size=size, max_length=length)


# -- the decoder under teacher forcing ----------------------------------------------------------------------

def test_a_later_word_changes_no_earlier_logit(decoder, memory):
    ids = torch.randint(4, V, (12, 6), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 4] = (ids[:, 4] - 3) % (V - 4) + 4
    before, after = decoder(ids, memory), decoder(changed, memory)
    assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-3


def test_padding_changes_no_logit(decoder, memory):
    ids = torch.randint(4, V, (12, 5), generator=torch.Generator().manual_seed(0))
    assert_close(decoder(F.pad(ids, (0, 3), value=PAD), memory)[:, :5], decoder(ids, memory))


def test_captions_of_one_picture_do_not_mix(decoder, memory):
    ids = torch.randint(4, V, (24, 5), generator=torch.Generator().manual_seed(0))
    apart = memory.repeat_interleave(2, 0)
    assert_close(decoder(ids, memory), decoder(ids, apart))
    weights = decoder.attention_weights(ids, memory)
    assert_close(weights, decoder.attention_weights(ids, apart))
    assert weights.shape == (2, 24, 4, 5, 5)
    assert_close(weights.sum(-1), torch.ones(2, 24, 4, 5).double())


def test_too_long_or_unshared_rows_are_refused(decoder, memory):
    with pytest.raises(InputError, match="max_length"):
        decoder(torch.full((12, LENGTH + 2), 5), memory)
    with pytest.raises(InputError, match="share out"):
        decoder(torch.full((13, 3), 5), memory)


@pytest.mark.parametrize("tie", [True, False])
def test_tied_weights_are_one_matrix(tie):
    decoder = Decoder(V, d_model=D, tie_weights=tie)
    assert (decoder.output.weight is decoder.embedding.words.weight) == tie
