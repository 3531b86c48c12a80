"""Is an average the mean it says it is, over steps and over checkpoints?"""

from dataclasses import replace

import pytest
import torch
from close import assert_close

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.cli import main
from prunecap_lib.errors import InputError
from prunecap_lib.training.validation import average_checkpoints, moving_average

SMALL = CaptionerConfig(encoder="vit", d_model=8, layers=1, heads=2, ffn=8, max_length=8)


def captioner(seed, words=("a cat",), **changes):
    torch.manual_seed(seed)
    return Captioner(replace(SMALL, **changes), Vocabulary.build(words))


def test_moving_average_is_the_recursion(monkeypatch):
    """Step by step against the formula, with an output layer that shares the words' embedding."""
    model = captioner(0)
    average = moving_average(model, decay=0.4)
    watched = ["projection.linear.weight", "decoder.embedding.words.weight"]
    expected = None
    for step in range(1, 6):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update(model, step)
        now = {key: model.state_dict()[key].clone() for key in watched}
        decay = min(0.4, 1 - step**-0.75)
        expected = now if expected is None else {key: decay * expected[key] + (1 - decay) * now[key] for key in now}
    for key in watched:
        assert_close(average.module.state_dict()[key], expected[key])
    assert not any(p.requires_grad for p in average.module.parameters()) and not average.module.training


def test_average_of_checkpoints_is_the_mean(tmp_path):
    for seed in range(3):
        captioner(seed).save(tmp_path / str(seed))
    folders = [tmp_path / str(seed) for seed in range(3)]
    mean, states = average_checkpoints(folders).state_dict(), [Captioner.load(path).state_dict() for path in folders]
    for key, value in mean.items():
        assert_close(value, torch.stack([state[key] for state in states]).mean(dim=0))
    one = average_checkpoints(folders[:1]).state_dict()
    assert all(torch.equal(one[key], states[0][key]) for key in one)


@pytest.mark.parametrize("other, says", [
    (dict(d_model=16), "d_model .8 and 16."), (dict(words=["a dog"]), "vocabulary"),
    (dict(encoder="convnext"), "encoder"),
])
def test_unlike_checkpoints_are_refused(tmp_path, other, says):
    captioner(0).save(tmp_path / "one")
    captioner(1, **other).save(tmp_path / "two")
    with pytest.raises(InputError, match=f"one and .*two cannot be averaged.*{says}"):
        average_checkpoints([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(InputError, match="at least one"):
        average_checkpoints([])


def test_the_command_averages_a_runs_last_epochs(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(SystemExit):
        main(["average", str(run), "--out", str(tmp_path / "mean")])
    assert "--keep-last" in capsys.readouterr().err
    for seed in range(2):
        captioner(seed).save(run / "last" / f"epoch_{seed:03d}")
    main(["average", str(run), "--out", str(tmp_path / "mean")])
    assert "mean of 2 checkpoints, epoch_000, epoch_001" in capsys.readouterr().out
    expected = average_checkpoints([run / "last" / "epoch_000", run / "last" / "epoch_001"]).state_dict()
    found = Captioner.load(tmp_path / "mean").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
