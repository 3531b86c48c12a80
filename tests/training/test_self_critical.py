"""Does the second stage raise the reward of what it draws, forget nothing on the way, and go on exactly?"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from close import assert_close
from doubles import in_double, trained_in_double

from prunecap_lib import Captioner, TrainConfig, VisualTokens, train
from prunecap_lib.cli import main
from prunecap_lib.decoding import NEVER_WRITTEN
from prunecap_lib.errors import InputError
from prunecap_lib.pruning import Schedule
from prunecap_lib.text import EOS, Vocabulary
from prunecap_lib.training import run
from prunecap_lib.training.batches import Batch, Batches, MicroBatchKey, open_split
from prunecap_lib.training.build import initial_captioner, new_captioner
from prunecap_lib.training.self_critical import (
    SelfCritical,
    leave_one_out_baseline,
    policy_loss,
    reward_signature,
    sample_captions,
    sample_seeds,
)

CAPTIONS = [["a red dog runs", "a dog runs on the grass"], ["two cats sleep", "the cats sleep on a mat"],
            ["a bird sings", "a small bird sings on the roof"], ["the boat is blue", "a blue boat on the sea"]]


def tiny(out="unused", **changes):
    settings = dict(objective="self_critical", limit=16, batch_size=8, epochs=2, d_model=16, layers=1, heads=2, ffn=32,
                    val_limit=4, caption_limit=4, log_every=1, lr=3e-3, precision="fp32", progress=False, samples=3,
                    max_words=12, scorer="random", encoder="convnext", image_size=32, out=str(out))
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A captioner that has seen a few words of Scenes, by given words."""
    folder = tmp_path_factory.mktemp("first")
    train(tiny(folder, objective="cross_entropy", epochs=4))
    return str(folder / "checkpoint")


def weights(captioner):
    return {key: value.clone() for key, value in captioner.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# -- the loss ------------------------------------------------------------------------------------------------------

def test_the_baseline_is_the_mean_of_the_others():
    reward = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    assert leave_one_out_baseline(reward).tolist() == [[4.0, 3.5, 1.5], [3.0, 3.0, 3.0]]


def test_the_loss_is_the_samples_log_probability_times_its_advantage():
    torch.manual_seed(0)
    full, ids = torch.randn(3, 4, 9), torch.tensor([[4, 5, 2, 0], [6, 2, 0, 0], [7, 8, 4, 5]])
    advantage, real = torch.tensor([0.5, -2.0, 1.0]), ids != 0
    allowed = full.clone()
    allowed[..., NEVER_WRITTEN] = float("-inf")
    log_prob = allowed.log_softmax(-1).gather(-1, ids[..., None])[..., 0].masked_fill(~real, 0)
    expected = -(advantage * log_prob.sum(1)).mean() / 7
    logits = full[real].requires_grad_()
    loss = policy_loss(logits, ids[real], real, advantage, 7)
    assert_close(loss, expected)
    loss.backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, NEVER_WRITTEN] == 0).all()
    assert logits.grad[0, 4] < 0 < logits.grad[3, 6]  # the good sample's word rises, the bad one's falls


def batch_of(images, pictures, seed=0):
    """A batch of these pictures, whose captions do not count."""
    key = MicroBatchKey(seed, list(pictures), 0)
    return Batch(images, torch.empty(0), key, list(range(len(key.pictures))))


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_steps_raise_the_reward(baseline):
    """Four pictures, and nothing but rewards: samples must come to be like the references."""
    torch.manual_seed(0)
    config = tiny(start="unused", baseline=baseline, dropout=0.0, samples=8)
    captioner = new_captioner(config, CAPTIONS).train()
    critic = SelfCritical(CAPTIONS, captioner.vocabulary, config)
    optimizer = torch.optim.Adam(captioner.parameters(), lr=5e-3)  # at 1e-2 a last bit decides whether it collapses
    tokens, rewards = VisualTokens.full(torch.randn(4, 16, captioner.encoder.channels), (4, 4)), []
    for step in range(80):
        loss, logits, targets = critic(captioner, batch_of(tokens, range(4), seed=step), config)
        assert logits.shape == (len(targets), len(captioner.vocabulary))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(critic.metrics()["reward"])
    assert sum(rewards[-10:]) > 2.5 * sum(rewards[:10]) > 0


# -- drawing -------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_pictures_samples_follow_from_its_seed_alone(start):
    config = tiny(start=start, scorer="pilot", prune_ratio=0.5, dropout=0.5)
    captioner = in_double(initial_captioner(config, CAPTIONS).train())
    images, seeds, modes = torch.randn(4, 3, 32, 32), [3, 1, 4, 1], []
    encode = captioner.encoder.encode
    captioner.encoder.encode = lambda *a, **k: modes.append(captioner.encoder.training) or encode(*a, **k)
    _, together, greedy = sample_captions(captioner, images, seeds, config)
    assert together.shape[:2] == (4, 3) and together.shape[2] <= config.max_words + 1 and greedy is None
    _, alone, _ = sample_captions(captioner, images[2:3], seeds[2:3], config)
    assert torch.equal(together[2, :, : alone.shape[2]], alone[0])
    assert modes and not any(modes), "captions are drawn in evaluation mode"
    _, other, _ = sample_captions(captioner, images[2:3], [5], config)
    assert other.shape != alone.shape or not torch.equal(other, alone)
    assert captioner.training and captioner.decoder.training


def test_a_part_of_a_step_counts_by_its_pictures(start):
    config = tiny(start=start, scorer="pilot", dropout=0.0)
    captioner = initial_captioner(config, CAPTIONS).train()
    critic = SelfCritical(open_split(config, "train", 16).captions, captioner.vocabulary, config)
    batch = batch_of(torch.randn(2, 3, 32, 32), [0, 5])
    whole, half = (critic(captioner, replace(batch, loss_scales=scales), config)[0] for scales in ((1, 1), (3, 0.5)))
    assert whole != 0
    assert_close(half, whole / 2)


def test_a_frozen_encoder_runs_once(start, monkeypatch):
    config = tiny(start=start, freeze_encoder=True)
    captioner, calls = initial_captioner(config, CAPTIONS).train(), []
    encode = captioner.encoder.encode
    monkeypatch.setattr(captioner.encoder, "encode", lambda *a, **k: calls.append(None) or encode(*a, **k))
    critic = SelfCritical(open_split(config, "train", 16).captions, captioner.vocabulary, config)
    loss, *_ = critic(captioner, batch_of(torch.randn(2, 3, 32, 32), [0, 5]), config)
    loss.backward()
    assert len(calls) == 1
    assert all(p.grad is None for p in captioner.encoder.parameters())
    assert captioner.projection.linear.weight.grad.abs().sum() > 0


def pictures_and_seeds(batch):
    """Each picture's position, and the seed of its samples."""
    return list(zip([batch.key.pictures[row] for row in batch.source_rows], sample_seeds(batch), strict=True))


def test_samples_are_new_in_every_epoch(start):
    config = tiny(start=start)
    dataset = open_split(config, "train", config.limit)
    batches = Batches(dataset, captioner := initial_captioner(config, CAPTIONS), config)
    first, second = (list(batches.epoch(epoch)) for epoch in (0, 1))
    for batch in first:
        expected = torch.stack([captioner.preprocessing(dataset.image(i)) for i, _ in pictures_and_seeds(batch)])
        assert_close(batch.images, expected)
    found = [pair for batch in first + second for pair in pictures_and_seeds(batch)]
    assert sorted(picture for picture, _ in found[:16]) == list(range(16))
    assert len({seed for _, seed in found}) == 32, "a picture's samples must be new in every epoch"


@pytest.mark.parametrize("processes, accumulate", [(2, 1), (1, 2), (2, 2)])
def test_a_step_draws_the_same_however_it_is_shared_out(start, processes, accumulate):
    config = tiny(start=start, batch_size=8 // processes // accumulate, accumulate=accumulate, limit=15)
    dataset, captioner = open_split(config, "train", config.limit), initial_captioner(config, CAPTIONS)
    whole = [pictures_and_seeds(batch) for batch in Batches(dataset, captioner, replace(
        config, batch_size=8, accumulate=1)).epoch(0, drop_last=False)]
    shares = [list(Batches(dataset, captioner, config, process=i, processes=processes).epoch(0, drop_last=False))
              for i in range(processes)]
    for step, expected in enumerate(whole):
        parts = [share[step * accumulate + i] for i in range(accumulate) for share in shares]
        assert [pair for part in parts for pair in pictures_and_seeds(part) if part.loss_scales[1]] == expected


@pytest.mark.slow
def test_accumulated_parts_push_as_one_batch(start, tmp_path):
    config = tiny(tmp_path / "one", start=start, scorer="pilot", dropout=0.0, epochs=1)
    with trained_in_double():
        one = train(config).captioner.state_dict()
        two = train(replace(config, batch_size=4, accumulate=2, out=str(tmp_path / "two"))).captioner.state_dict()
    before = Captioner.load(start).state_dict()
    for key in ("projection.linear.weight", "decoder.output.bias"):
        assert_close(two[key].float(), one[key].float())
        assert (one[key] - before[key]).abs().max() > 2e-3


# -- the reward ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("eos", [True, False])
def test_a_caption_that_stops_in_the_middle_scores_less_only_where_the_end_counts(eos):
    vocabulary = Vocabulary.build(caption for picture in CAPTIONS for caption in picture)
    critic = SelfCritical(CAPTIONS, vocabulary, tiny(start="unused", reward_eos=eos))
    ended = vocabulary.encode("a dog runs on the grass", bos=False)
    cut = ended[:-1] + [0]
    assert ended[-1] == EOS
    whole, stopped = critic.reward([0], torch.tensor([[ended, cut]]))[0].tolist()
    assert (whole > stopped + 0.3) if eos else (whole == pytest.approx(stopped))


@pytest.mark.parametrize("changes, says", [
    (dict(), "self_critical' has no start.*cross_entropy.*first"),
    (dict(start="x", samples=1), "samples is 1; baseline 'others' needs at least 2"),
    (dict(start="x", samples=0, baseline="greedy"), "samples is 0"),
])
def test_impossible_settings_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        tiny(**changes)


@pytest.mark.parametrize("captions, says", [
    ([["un chien court"], ["deux chats dorment"]], "start x: its vocabulary has 0% of the words in the captions of sc"),
    ([["a dog", "..."], ["the cats sleep"]], r"picture 0: .*\[\].*a word"),
    ([["a dog"], []], "picture 1: .*at least one"),
])
def test_references_that_cannot_be_scored_are_refused(captions, says):
    vocabulary = Vocabulary.build(caption for picture in CAPTIONS for caption in picture)
    with pytest.raises(InputError, match=says):
        SelfCritical(captions, vocabulary, tiny(start="x"))


# -- whole runs ------------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    dict(), dict(baseline="greedy", augment=True), dict(freeze_encoder=True, cache_features=True, scorer="pilot"),
    dict(schedule=Schedule((2,), (0.5,), "predictor"), prune_ratio=0.0),
], ids=["plain", "greedy", "cached", "predictor"])
def test_interrupted_and_resumed_equals_unbroken(start, tmp_path, monkeypatch, changes):
    monkeypatch.setenv("PRUNECAP_DATA", str(tmp_path / "data"))
    config = tiny(tmp_path / "broken", start=start, **changes)
    whole = train(replace(config, out=str(tmp_path / "whole")))
    plain, seen = SelfCritical.__call__, []

    def stop_at_the_last_step(*arguments):
        seen.append(None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(SelfCritical, "__call__", stop_at_the_last_step)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(SelfCritical, "__call__", plain)
    torch.rand(100)  # the resumed process has another random state
    resumed = train(config)
    assert same(weights(resumed.captioner), weights(whole.captioner))
    assert not same(weights(resumed.captioner), weights(Captioner.load(start)))
    told = ("step", "loss", "accuracy", "reward", "val_loss", "cider")
    lines, expected = ([{key: line[key] for key in told if key in line} for line in run.history]
                       for run in (resumed, whole))
    assert lines == expected
    assert all("reward" in line if "loss" in line else "cider" in line for line in lines)


@pytest.mark.slow
def test_the_checkpoint_says_how_rewards_were_made(start, tmp_path):
    config = tiny(tmp_path, start=start, reward_eos=False, epochs=1)
    train(config)
    said = json.loads(json.loads((tmp_path / "checkpoint" / "config.json").read_text())["signature"])
    assert said["reward"] == "NO<EOS>_wInit+Cider-D[n4,s6.0]+average[nspi3]+words[prunecap]"
    assert said["objective"] == "self_critical" and said["start"] == start
    assert reward_signature(eos=True, baseline="greedy", samples=5).startswith(
        "STANDARD_wInit+Cider-D[n4,s6.0]+greedy[nspi5]")


@pytest.mark.slow
def test_the_command_tells_the_best_by_its_captions(tmp_path, monkeypatch, capsys):
    history = [{"step": step, "val_loss": 1.5, "val_accuracy": 0.5, "cider": cider, "seconds": 1.0}
               for step, cider in ((1, 0.75), (2, 0.25))]
    (tmp_path / "best").mkdir()
    monkeypatch.setattr("prunecap_lib.cli.train.train",
                        lambda config, **more: SimpleNamespace(out=tmp_path, history=history))
    main(["train", "--objective", "self_critical", "--start", "x", "--out", str(tmp_path)])
    assert "best: CIDEr-D 0.750" in capsys.readouterr().out


@pytest.mark.slow
def test_there_is_no_teacher(start, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "load_teacher", lambda config: pytest.fail("a second stage has none"))
    train(tiny(tmp_path, start=start, epochs=1))
