"""Is what we tell of a run's memory what torch's own record of a whole run says, and does it help one who ran out?"""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from prunecap_lib import TrainConfig, Vocabulary, train
from prunecap_lib.costs.forecast import memory, training_memory
from prunecap_lib.costs.forecast.memory import RESERVE, out_of_memory, training_step, vocabulary_size
from prunecap_lib.datasets import open_dataset

pytestmark = pytest.mark.usefixtures("shallow")

# captions are longer than max_words, so that all are cut to the length that is told for
RUN = TrainConfig(d_model=32, layers=1, heads=2, ffn=64, batch_size=8, captions_per_image=2, max_words=6, limit=16,
                  val_limit=2, epochs=2, precision="fp32", progress=False)


@pytest.fixture(scope="module")
def start(tmp_path_factory, shallow):
    return str(train(replace(RUN, epochs=1, out=str(tmp_path_factory.mktemp("room") / "start"))).out / "checkpoint")


def recorded_peak(config):
    """The most bytes that torch's allocator had given out while ``train`` ran, by the profiler's events."""
    torch.set_num_threads(1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        train(config)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    dict(precision="bf16", ema=0.9), dict(batch_size=2, accumulate=2, limit=8, checkpoint_activations=True),
    dict(start="START")], ids=str)
def test_a_whole_run_takes_what_is_told(changes, start, tmp_path):
    if "start" in changes:
        changes = changes | {"start": start}
    config = replace(RUN, out=str(tmp_path / "run"), **changes)
    told = training_memory(config, vocabulary_size=vocabulary_size(config), device="cpu")
    assert told == pytest.approx(recorded_peak(config), rel=0.05)


@pytest.mark.slow
def test_drawn_captions_take_the_place_of_given_ones():
    drawn = replace(RUN, start="START", objective="self_critical", samples=4)
    assert training_memory(drawn, vocabulary_size=100) == training_memory(replace(RUN, captions_per_image=4),
                                                                         vocabulary_size=100)


@pytest.mark.slow
def test_processes_keep_copies_of_their_gradients():
    alone, many = (training_memory(RUN, vocabulary_size=100, processes=n) for n in (1, 8))
    assert many - alone == 4 * training_step(RUN, vocabulary_size=100).trained  # tied weights counted once


@pytest.mark.slow
def test_the_batch_that_is_told_to_fit_fits_in_parts(monkeypatch):
    """The remedy is a step in parts, which hold the gradients of those before them. On a GPU, of which one step tells
    every batch."""
    monkeypatch.setattr(memory, "device_here", lambda: torch.device("cuda"))
    size, left = vocabulary_size(RUN), 60 * 2**20
    told = out_of_memory(replace(RUN, batch_size=1000), RESERVE + left)
    fits = int(told.split("by estimate ")[1].split()[0])
    parts = [training_memory(replace(RUN, accumulate=2), vocabulary_size=size, batch_size=n)
             for n in (fits, fits + 1)]
    assert parts[0] <= left < parts[1]


def test_entries_of_the_vocabulary(start):
    captions = [caption for row in open_dataset("scenes", split="train", limit=16).captions for caption in row]
    assert vocabulary_size(RUN) == vocabulary_size(replace(RUN, start=start)) == len(Vocabulary.build(captions))
    few = vocabulary_size(replace(RUN, min_count=9))
    assert few == len(Vocabulary.build(captions, min_count=9)) < vocabulary_size(RUN)
    assert vocabulary_size(replace(RUN, tokenizer="bpe", vocabulary_size=400)) == 400
