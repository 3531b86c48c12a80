"""Is every wrong option one sentence with the option as it is typed, and can shells complete them?"""

import subprocess
from dataclasses import dataclass

import pytest
import torch

from prunecap_lib.cli import COMMANDS, main
from prunecap_lib.cli.options import as_typed, call, completion_script
from prunecap_lib.devices import find_device
from prunecap_lib.errors import InputError


def refused(capsys, *arguments):
    """The one line on stderr."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.startswith("prunecap: error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("arguments, says", [
    (["capton", "a.jpg"], "did you mean caption"),
    (["caption", "a.jpg", "--batchsize", "4"], "did you mean --batch-size"),
    (["caption", "a.jpg", "--zzz"], "--zzz is no option of prunecap caption; prunecap caption --help"),
    (["caption", "a.jpg", "--beam-size", "five"], "--beam-size must be a whole number, not 'five'"),
    (["caption", "a.jpg", "--beam_size=1.5"], "--beam-size must be a whole number, not '1.5'"),
    (["caption", "a.jpg", "--prune-ratio", "half"], "--prune-ratio must be a number, not 'half'"),
    (["caption", "a.jpg", "--method", "greed"], "--method cannot be 'greed'; choose beam, greedy (did"),
    (["caption", "a.jpg", "--figure"], "--figure needs a value"), (["caption"], "no picture given"),
    (["average", "runs/a"], "--out is missing"), (["data"], "choose scenes, coco".capitalize()),
    (["data", "scene"], "did you mean scenes"), (["data", "scenes", "--sise", "64"], "did you mean --size"),
    (["cost", "--preset", "seeds"], "--preset cannot be 'seeds'; choose seed, recommended"),
    (["evaluate", "--checkpont", "x"], "did you mean --checkpoint"),
    (["train", "--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
    (["train", "--tokenizer", "bpe"], "--tokenizer 'bpe' needs a --vocabulary-size"),
    (["train", "--schedule", "0.7"], "schedule '0.7' cannot be read"),
    (["--completion", "cmd"], "one of bash, zsh, fish")])
def test_one_sentence(capsys, arguments, says):
    assert says in refused(capsys, *arguments)


@dataclass
class Command:
    batch_size: int = 1
    prune_ratio: float = 0.3
    limit: int = 1


@pytest.mark.parametrize("said, typed", [
    ("batch_size is 0; batch_size 4 fits", "--batch-size is 0; --batch-size 4 fits"),
    ("prune ratio 2 is outside", "--prune-ratio 2 is outside"), ("limit is 0", "--limit is 0"),
    ("leave batch_size.", "leave --batch-size."),
    *[(same, same) for same in ("the limit is 0", "file 'batch_size'", "runs/batch_size/x", "old_batch_size")]])
def test_settings_are_spelt_as_options(said, typed):
    assert as_typed(said, Command) == typed


def test_help_speaks_no_python(capsys):
    for command in (["caption"], ["evaluate"], ["cost"], ["train"], ["data", "info"], ["data", "features"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        out = capsys.readouterr().out
        assert "{None}" not in out and " INT " in out


def test_none_undoes_what_a_preset_gives(tmp_path):
    from prunecap_lib.cli import train
    seen = []
    call(seen.append, train.TrainCommand, ["--vocabulary-size", "None"], prog="x", description="",
         default=train.with_preset(["--preset", "seed"]))
    assert seen[0].vocabulary_size is None and seen[0].d_model == 512


@pytest.mark.slow
def test_bash_completes_commands_and_options(tmp_path):
    (tmp_path / "complete").write_text(completion_script(["bash"], COMMANDS))
    asked = """source "$1"; function_name=$(complete -p prunecap | sed -E 's/.*-F ([^ ]+) .*/\\1/')
    COMP_WORDS=(prunecap %s); COMP_CWORD=%d; COMP_LINE="prunecap %s"; COMP_POINT=${#COMP_LINE}
    $function_name prunecap "%s" ""; printf '%%s\\n' "${COMPREPLY[@]}" """
    for words, last, found in (("ca", 1, "caption"), ("caption --beam", 2, "--beam-size")):
        done = subprocess.run(["bash", "-c", asked % (words, last, words, words.split()[-1]), "bash",
                               str(tmp_path / "complete")], capture_output=True, text=True, timeout=60)
        assert found in done.stdout.split(), done


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device() == find_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "mps", "tpu", ""):
        with pytest.raises(InputError, match="is not here; here are cpu, and"):
            find_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device() == torch.device("cuda") and find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="here are cuda, cuda:0, cuda:1, cpu"):
        find_device("cuda:2")
