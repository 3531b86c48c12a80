"""Does a run with all of the recipe keep the average, know its best, stop in time, and survive being killed?"""

from dataclasses import replace

import pytest
import torch
from other_process import train_until_there
from test_training import same, timeless, tiny, weights

from prunecap_lib import Captioner, train
from prunecap_lib.evaluation import evaluate
from prunecap_lib.training import run
from prunecap_lib.training.batches import open_split
from prunecap_lib.training.build import new_captioner
from prunecap_lib.training.validation import epochs_kept, generation_settings, is_best, scores


def recipe(out, **changes):
    settings = dict(ema=0.9, encoder_lr=1e-3, label_smoothing=0.1, keep_last=2, epochs=4, save_every=2)
    return tiny(out, **{**settings, **changes})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    torch.set_num_threads(1)
    return train(recipe(tmp_path_factory.mktemp("recipe") / "unbroken"))


def folders(run):
    """Weights of every checkpoint of a run."""
    return {path.name: weights(Captioner.load(path)) for path in [run / "checkpoint", run / "best", *epochs_kept(run)]}


def equal(first, second):
    assert timeless(first.history) == timeless(second.history)
    assert same(weights(first.captioner), weights(second.captioner))
    one, other = folders(first.out), folders(second.out)
    assert one.keys() == other.keys()
    return all(same(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_average_is_kept_validated_and_returned(tmp_path, unbroken):
    plain = train(recipe(tmp_path / "plain", ema=0.0))
    assert not same(weights(plain.captioner), weights(unbroken.captioner))
    losses = [[line["loss"] for line in run.history if "loss" in line] for run in (plain, unbroken)]
    assert losses[0] == losses[1]  # it watches the training, and does not touch it
    assert plain.history[-1]["val_loss"] != unbroken.history[-1]["val_loss"]
    kept = folders(unbroken.out)
    assert list(kept) == ["checkpoint", "best", "epoch_003", "epoch_004"]
    assert same(kept["checkpoint"], weights(unbroken.captioner)) and same(kept["checkpoint"], kept["epoch_004"])


def test_the_encoder_learns_at_its_own_rate(tmp_path):
    config = recipe(tmp_path, ema=0.0, encoder_lr=1e-9, epochs=1, keep_last=0)
    torch.manual_seed(config.seed)
    before = new_captioner(config, open_split(config, "train", config.limit).captions).state_dict()
    moved = {key: (value - before[key]).abs().max() for key, value in train(config).captioner.state_dict().items()}
    assert max(value for key, value in moved.items() if key.startswith("encoder.")) < 1e-7
    assert moved["projection.linear.weight"] > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 5, 6])
def test_interrupted_and_resumed_equals_unbroken(tmp_path, monkeypatch, unbroken, stop):
    """Before the first checkpoint, right after it, and in the middle of the fourth epoch."""
    config, plain, seen = recipe(tmp_path / "broken"), run.objective, []

    def power_cut(*arguments):
        seen.append(None)
        if len(seen) == stop + 1:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(run, "objective", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    torch.rand(100)
    assert equal(train(config), unbroken)


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(tmp_path, unbroken):
    config = recipe(tmp_path / "killed")
    train_until_there(config, config.folder / "last" / "epoch_003")  # the checkpoint is that of the second epoch
    assert equal(train(config), unbroken)


@pytest.mark.slow
def test_captions_say_which_epoch_was_best_and_when_to_stop(tmp_path, monkeypatch):
    """CIDEr-D as given: the second epoch is best, and after two that are not better the run ends."""
    given = {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.9}
    config = recipe(tmp_path / "run", caption_every=1, caption_limit=4, patience=2, epochs=5, save_every=10)
    asked = []

    def score(captioner, pictures, config):
        assert len(pictures) == 4
        asked.append(weights(captioner))
        return given[len(asked)]

    monkeypatch.setattr(run, "caption_score", score)
    result = train(config)
    assert scores(result.history, config) == [0.2, 0.5, 0.4, 0.5]
    assert same(weights(Captioner.load(result.out / "best")), asked[1])
    assert same(weights(Captioner.load(result.out / "checkpoint")), asked[3])
    again = train(config)  # nothing is left to do
    assert again.history == result.history and len(asked) == 4


@pytest.mark.slow
def test_cider_in_the_log_is_what_evaluate_finds(tmp_path):
    """With real captions, Java's tokenizer included."""
    config = tiny(tmp_path / "run", epochs=1, caption_every=1, caption_limit=8, caption_beams=2, limit=64, lr=1e-2,
                  scorer="pilot")
    drawn = []
    result = train(config, after_epoch=lambda captioner, lines: drawn.append((captioner.training, lines[-1])))
    report, _ = evaluate(Captioner.load(result.out / "best"), open_split(config, "val", 8), metrics=["CIDEr"],
                         **generation_settings(config))
    assert result.history[-1]["cider"] == pytest.approx(report["scores"]["CIDEr"], abs=2e-4)
    assert drawn == [(False, result.history[-1])]


def test_best_is_that_of_the_log(unbroken):
    config = recipe(unbroken.out)
    judged = [line for line in unbroken.history if "val_loss" in line]
    best = max(n for n in range(1, 5) if is_best(judged[:n], config))
    assert judged[best - 1]["val_loss"] == min(line["val_loss"] for line in judged)
    if best >= 3:
        kept = folders(unbroken.out)
        assert same(kept["best"], kept[f"epoch_{best:03d}"])


def test_settings_that_only_keep_or_tell_may_change_on_the_way(unbroken):
    config = replace(recipe(unbroken.out), keep_last=1)
    assert train(config).history == unbroken.history
