"""Does a run take the precision that its device is good at, write it down, and keep it wherever it goes on?"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_training import tiny

from prunecap_lib import TrainConfig, train
from prunecap_lib.costs.forecast.memory import precision_on
from prunecap_lib.devices import autocast
from prunecap_lib.errors import CheckpointError, InputError
from prunecap_lib.training import setup
from prunecap_lib.training.setup import precision_line, settle_precision

CPU = torch.device("cpu")


@pytest.fixture
def native(monkeypatch):
    """native(True): this machine has bf16 of its own, says the test."""
    def say(answer):
        for module in ("training.setup", "costs.forecast.memory"):
            monkeypatch.setattr(f"prunecap_lib.{module}.native_bf16", lambda device: answer)
    return say


@pytest.mark.parametrize("has, expected", [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_is_good_at(tmp_path, native, has, expected):
    native(has)
    auto = TrainConfig(out=str(tmp_path))
    assert auto.precision == "auto"
    for config in (auto, TrainConfig.seed_preset(out=str(tmp_path)), TrainConfig.recommended(out=str(tmp_path))):
        assert settle_precision(config, CPU).precision == expected
    assert settle_precision(replace(auto, precision="fp16"), CPU).precision == "fp16"
    assert precision_on(auto, "cpu") == expected and precision_on(auto, "cuda") == "bf16"


@pytest.mark.slow
def test_a_run_goes_on_with_what_it_began_with(tmp_path, native, capsys):
    native(True)
    auto = tiny(tmp_path, precision="auto", limit=8, epochs=1, progress=True)
    assert train(auto).config.precision == "bf16"
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["config"]["precision"] == "bf16"
    assert "precision bf16\n" in capsys.readouterr().err
    native(False)
    assert train(auto).config.precision == "bf16"  # and without a complaint of other settings
    assert "precision bf16, as the run began; this processor has no instructions for it" in capsys.readouterr().err
    assert train(replace(auto, precision="bf16", progress=False)).config.precision == "bf16"
    assert capsys.readouterr().err == ""
    with pytest.raises(CheckpointError, match="precision 'bf16' -> 'fp32'"):
        train(replace(auto, precision="fp32"))


@pytest.mark.parametrize("asked, settled, has, said", [
    ("auto", "bf16", True, "precision bf16"),
    ("auto", "fp32", False, "precision fp32: this processor has no instructions for bf16"),
    ("bf16", "bf16", False, "precision bf16, as asked; this processor has no instructions for it, and fp32 would be "
                            "several times faster"),
    ("auto", "fp32", True, "precision fp32, as the run began; this processor has instructions for bf16, which would be "
                           "faster"),
])
def test_it_is_said_in_one_line(native, asked, settled, has, said):
    native(has)
    assert precision_line(asked, settled, CPU) == said


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_what_is_computed_beside_accelerate_follows(precision, dtype):
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_processes_on_unlike_devices_are_refused():
    found = torch.tensor([[3.0, 1.0], [3.0, 0.0]])
    two = SimpleNamespace(num_processes=2, device=CPU, gather=lambda own: found)
    with pytest.raises(InputError, match="choose one precision for all"):
        setup.check_same_start(two, 3, TrainConfig(precision="bf16"), "run")
    found = torch.tensor([[3.0, 1.0], [3.0, 1.0]])
    setup.check_same_start(two, 3, TrainConfig(precision="bf16"), "run")
