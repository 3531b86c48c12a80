"""Does ``prunecap cost`` print what the library counts, and refuse in one line?"""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from prunecap_lib import Captioner, CaptionerConfig
from prunecap_lib.cli import main
from prunecap_lib.cli.cost import parse_memory
from prunecap_lib.costs import ledger, schedule_for_flops
from prunecap_lib.costs.meta import placeholder_vocabulary

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shallow")]


@pytest.fixture(scope="module")
def model(tmp_path_factory, shallow):
    folder = tmp_path_factory.mktemp("cost") / "model"
    torch.manual_seed(0)
    config = CaptionerConfig(d_model=16, layers=1, heads=2, ffn=16, max_length=24)
    Captioner(config, placeholder_vocabulary(40)).save(folder)
    return folder


def run(capsys, *arguments):
    """(exit status, stdout, stderr)"""
    status = 0
    try:
        main(["cost", *(str(argument) for argument in arguments)])
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


def test_tables(capsys, model):
    status, out, _ = run(capsys, "--checkpoint", model, "--prune-ratio", 0.5, "--time", "--repeats", 3)
    assert status == 0 and "64 + 1 prefix tokens, 32 kept by pilot" in out
    found = ledger(Captioner.load(model), prune_ratio=0.5)
    assert f"{found.total / 1e9:.4f}" in out and f"at most {found.speedup:.3f} times as fast" in out
    assert "measured" in out and f"operations alone say {found.speedup:.3f}" in out


def test_json_and_figure(capsys, model, tmp_path):
    status, out, _ = run(capsys, "--checkpoint", model, "--json", "--figure", tmp_path / "new" / "cost.png",
                         "--gpu-memory", "1.6 GiB", "--freeze-encoder", "--cache-features", "--precision", "fp32")
    report = json.loads(out)
    assert status == 0 and report["ledger"]["flops"] == ledger(Captioner.load(model)).flops
    assert report["largest_batch"]["pruned"] >= report["largest_batch"]["all_tokens"] > 0
    assert "command" in report["provenance"]
    with Image.open(tmp_path / "new" / "cost.png") as figure:
        assert "Bars of billions of operations" in figure.text["Description"]


def test_a_preset_needs_no_weights(capsys):
    status, out, _ = run(capsys, "--encoder", "convnext_atto", "--prune-ratio", 0.3)
    assert status == 0 and "convnext_atto: 49 tokens, 35 kept" in out


def test_a_schedule(capsys, model):
    _, out, _ = run(capsys, "--checkpoint", model, "--schedule", "0.5@1,2", "--json", "--gpu-memory", "2GiB")
    report = json.loads(out)
    assert report["ledger"]["schedule"]["after"] == [1, 2] and report["ledger"]["kept"] == 12
    assert report["largest_batch"]["pruned"] > 1.2 * report["largest_batch"]["all_tokens"]
    assert "12 kept by pilot; 0.5@1,2 inside the encoder;" in run(
        capsys, "--checkpoint", model, "--schedule", "0.5@1,2")[1]


def test_when_it_pays_is_one_plain_sentence(capsys, model):
    _, out, _ = run(capsys, "--checkpoint", model, "--schedule", "50%@1/grid", "--time", "--repeats", 3)
    assert out.splitlines()[-1].startswith("pruning inside the encoder") and "times as fast at 1" in out
    found = Captioner.load(model)
    found.encoder.set_schedule(schedule_for_flops(found.encoder, 0.5, after=(1,), scorer="grid"))
    assert f"{ledger(found).flops['encoder'] / 1e9:.4f}" in out


def test_auto_is_counted_both_ways(capsys, model):
    assert "0.7@1,2 inside the encoder" in run(capsys, "--checkpoint", model, "--schedule", "auto")[1]


def test_gpus_that_are_not_here(capsys, model):
    asked = "--checkpoint", model, "--gpu", "h100,4090", "--batch-size", 8, "--pictures", 1000, "--price", 3
    _, out, _ = run(capsys, *asked)
    assert "predicted: 1,000 pictures an epoch" in out and "This is a prediction; no GPU was asked." in out
    assert out.count("all tokens      8") == 2 and "cost an epoch" in out
    assert "peak rates of data sheets" in out and "an assumption: that training reaches 45% to 90%" in out
    rows = json.loads(run(capsys, *asked, "--json")[1])["predicted"]["rows"]
    assert [(row["gpu"], row["tokens"]) for row in rows] == [
        (gpu, tokens) for gpu in ("h100", "rtx4090") for tokens in ("all tokens", "pruned")]
    for row in rows:
        low, high = row["pictures_a_second"]
        assert row["hours_an_epoch"] == pytest.approx([1000 / high / 3600, 1000 / low / 3600])
        assert row["cost_an_epoch"] == pytest.approx([3 * hours for hours in row["hours_an_epoch"]])
    _, out, _ = run(capsys, "--checkpoint", model, "--gpu", "a100", "--batch-size", 8, "--measured-rate", 40)
    assert "the measured rate of 40 TFLOP/s" in out and "cost an epoch" not in out


def test_a_gpu_that_is_too_small_is_said_beside_those_that_are_not(capsys, monkeypatch, model):
    from prunecap_lib.costs import forecast
    small = tuple(replace(gpu, memory=2**30) if gpu.name == "rtx3090" else gpu for gpu in forecast.GPUS[:2])
    monkeypatch.setattr(forecast, "GPUS", small)
    _, out, _ = run(capsys, "--checkpoint", model, "--gpu", "all", "--batch-size", 8)
    assert out.count("does not fit") == 2 and out.count("rtx4090") == 2


def test_amounts_of_memory():
    assert parse_memory("24GB") == parse_memory("24 GiB") == parse_memory("24g") == 24 * 2**30
    assert parse_memory("1.5GB") == parse_memory("1536MiB") == 3 * 2**29


@pytest.mark.parametrize("arguments, says", [
    (["--encoder", "vit_bse_patch16_224"], "did you mean vit_base_patch16_224"),
    (["--encoder", "vit", "--gpu-memory", "24 apples"], "24 apples"), (["--gpu-memory", "0GB"], "0GB"),
    (["--gpu-memory", "9" * 400 + "GB"], "is not an amount of memory that a GPU has; write it like 24GB"),
    (["--checkpoint", "MODEL", "--prune-ratio", "1"], "--prune-ratio is 1.0"),
    (["--checkpoint", "MODEL", "--prune-ratio=-0.1"], "--prune-ratio is -0.1"),
    (["--encoder", "vit", "--prune-ratio", "1", "--gpu-memory", "1GB"], "--prune-ratio is 1.0"),
    (["--checkpoint", "MODEL", "--encoder", "vit"], "cannot go together"),
    (["--checkpoint", "MODEL", "--schedule", "5%@1,2"], "more than 5.0%"),
    (["--checkpoint", "MODEL", "--schedule", "half%@2"], "'half%@2' cannot be read"),
    (["--checkpoint", "MODEL", "--schedule", "150%@2"], "share 1.5 of the FLOPs is outside"),
    (["--encoder", "resnet10t", "--schedule", "auto"], "encoders of our own code only"),
    (["--checkpoint", "MODEL", "--gpu", "tpu"], "known are rtx3090, rtx4090, a100, h100"),
    (["--checkpoint", "MODEL", "--gpu", "h100", "--price=-1"], "--price is -1.0"),
    (["--checkpoint", "MODEL", "--gpu", "h100", "--pictures", "0"], "pictures is 0"),
    (["--checkpoint", "MODEL", "--gpu", "h100", "--batch-size", "0"], "--batch-size is 0"),
    (["--checkpoint", "MODEL", "--gpu", "h100", "--measured-rate", "0"], "--measured-rate is 0.0"),
    (["--checkpoint", "MODEL", "--gpus", "8"], "--gpus 8 is of a training that --gpu predicts"),
    (["--checkpoint", "MODEL", "--price", "2"], "add --gpu h100"),
    (["--checkpoint", "MODEL", "--batch-size", "64"], "--batch-size 64"),
    (["--checkpoint", "no-such"], "shipped are"), (["--checkpoint", "MODEL", "--words", "40"], "outside 1..24"),
    (["--encoder", "vit", "--cache-features", "--gpu", "h100"], "needs --freeze-encoder"),
    (["--encoder", "vit", "--freeze-encoder"], "--freeze-encoder is of a training, and none is counted"),
    (["--encoder", "vit", "--repeats", "3"], "--repeats 3 is of a measurement; add --time"),
    (["--encoder", "convnext", "--scorer", "cls_attention"], "no attention weights"),
    (["--checkpoint", "MODEL", "--figure", "cost.poem"], "figure cost.poem has no ending")])
def test_errors_are_one_line(capsys, model, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *(model if argument == "MODEL" else argument for argument in arguments))
    assert status == 2 and says in err and err.startswith("prunecap: error:") and err.count("\n") == 1
