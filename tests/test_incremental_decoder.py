"""Does writing word by word give what the whole caption gives? The step against teacher forcing."""

import pytest
import torch
from close import assert_close

from prunecap_lib.decoder import Decoder, IncrementalDecoder
from prunecap_lib.errors import InputError

B, R, S, T, D, V = 3, 4, 7, 6, 24, 19


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def decoder(request):
    torch.manual_seed(0)
    decoder = Decoder(V, d_model=D, layers=2, heads=3, ffn=40, max_length=T, tie_weights=request.param).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("drop", [False, True])
@torch.no_grad()
def test_beams_that_change_parents_see_their_own_words(decoder, carried, drop):
    """All beams begin as one; then each continues some beam. Compared with the decoder over copied captions."""
    generator = torch.Generator().manual_seed(1)
    memory = torch.randn(B, S, D, generator=generator)
    kv = [(memory, memory)] * 2 if carried else decoder.project_memory(memory)
    incremental = IncrementalDecoder(decoder, kv, beams=R, max_length=T)
    captions = torch.empty(B, 1, 0, dtype=torch.long)
    for t in range(T):
        captions = torch.cat([captions, torch.randint(4, V, (*captions.shape[:2], 1), generator=generator)], dim=2)
        logits = incremental.step(captions[..., -1])
        expected = decoder(captions.flatten(0, 1), memory)[:, -1].view_as(logits)
        assert_close(logits, expected)
        parents = torch.randint(captions.shape[1], (len(captions), R), generator=generator)
        incremental.advance(parents)
        captions = captions.gather(1, parents[..., None].expand(-1, -1, t + 1))
        if drop and t == 2:
            stay = torch.tensor([0, 2])
            incremental.keep_pictures(stay)
            captions, memory = captions[stay], memory[stay]


@torch.no_grad()
def test_beams_that_stay_themselves_need_no_parents(decoder):
    memory = torch.randn(B, S, D)
    incremental = IncrementalDecoder(decoder, decoder.project_memory(memory), beams=R, max_length=T)
    captions = torch.randint(4, V, (B, R, T))
    for t in range(T):
        logits = incremental.step(captions[..., t])
        expected = decoder(captions[..., : t + 1].flatten(0, 1), memory)[:, -1].view_as(logits)
        assert_close(logits, expected)
        incremental.advance()


@pytest.mark.parametrize("length", [0, T + 1])
def test_a_length_without_positions_is_refused(decoder, length):
    with pytest.raises(InputError, match=f"outside 1..{T}"):
        IncrementalDecoder(decoder, decoder.project_memory(torch.randn(B, S, D)), beams=1, max_length=length)
