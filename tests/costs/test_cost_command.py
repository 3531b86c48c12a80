"""Does ``prunecap cost`` print what the library counts, and refuse in one line?"""

import json

import pytest
import torch
from PIL import Image

from prunecap_lib import Captioner, CaptionerConfig
from prunecap_lib.cli import main
from prunecap_lib.cli.cost import parse_memory
from prunecap_lib.costs import ledger, schedule_for_flops
from prunecap_lib.costs.outline import placeholder_vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory):
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
    _, out, _ = run(capsys, "--checkpoint", model, "--schedule", "0.5@2,4", "--json", "--gpu-memory", "2GiB")
    report = json.loads(out)
    assert report["ledger"]["schedule"]["after"] == [2, 4] and report["ledger"]["kept"] == 12
    assert report["largest_batch"]["pruned"] > 1.2 * report["largest_batch"]["all_tokens"]
    assert "12 kept by pilot; 0.5@2,4 inside the encoder;" in run(
        capsys, "--checkpoint", model, "--schedule", "0.5@2,4")[1]


def test_when_it_pays_is_one_plain_sentence(capsys, model):
    _, out, _ = run(capsys, "--checkpoint", model, "--schedule", "50%@2/grid", "--time", "--repeats", 3)
    assert out.splitlines()[-1].startswith("pruning inside the encoder") and "times as fast at 1" in out
    found = Captioner.load(model)
    found.encoder.set_schedule(schedule_for_flops(found.encoder, 0.5, after=(2,), scorer="grid"))
    assert f"{ledger(found).flops['encoder'] / 1e9:.4f}" in out


def test_auto_is_counted_both_ways(capsys, model):
    assert "0.7@1,3,4 inside the encoder" in run(capsys, "--checkpoint", model, "--schedule", "auto")[1]


def test_amounts_of_memory():
    assert parse_memory("24GB") == parse_memory("24 GiB") == parse_memory("24g") == 24 * 2**30
    assert parse_memory("1.5GB") == parse_memory("1536MiB") == 3 * 2**29


@pytest.mark.parametrize("arguments, says", [
    (["--encoder", "vit_bse_patch16_224"], "did you mean vit_base_patch16_224"),
    (["--encoder", "vit", "--gpu-memory", "24 apples"], "24 apples"), (["--gpu-memory", "0GB"], "0GB"),
    (["--checkpoint", "MODEL", "--prune-ratio", "1"], "prune ratio 1"),
    (["--checkpoint", "MODEL", "--prune-ratio=-0.1"], "prune ratio -0.1"),
    (["--encoder", "vit", "--prune-ratio", "1", "--gpu-memory", "1GB"], "prune ratio 1"),
    (["--checkpoint", "MODEL", "--encoder", "vit"], "cannot go together"),
    (["--checkpoint", "MODEL", "--schedule", "5%@2,4"], "more than 5.0%"),
    (["--checkpoint", "MODEL", "--schedule", "half%@2"], "'half%@2' cannot be read"),
    (["--checkpoint", "MODEL", "--schedule", "150%@2"], "share 1.5 of the FLOPs is outside"),
    (["--encoder", "resnet10t", "--schedule", "auto"], "encoders of our own code only"),
    (["--checkpoint", "no-such"], "shipped are"), (["--checkpoint", "MODEL", "--words", "40"], "outside 1..24"),
    (["--encoder", "vit", "--cache-features"], "freeze_encoder"),
    (["--encoder", "convnext", "--scorer", "cls_attention"], "no attention weights"),
    (["--checkpoint", "MODEL", "--figure", "cost.poem"], "cost.poem cannot be written")])
def test_errors_are_one_line(capsys, model, monkeypatch, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *(model if argument == "MODEL" else argument for argument in arguments))
    assert status == 2 and says in err and err.startswith("prunecap: error:") and err.count("\n") == 1
