"""Does `make setup` mend what a stop left, leave alone what is not its own, and say in one sentence what is missing?"""

import subprocess
import sys

import pytest

import make_venv

VENV = [sys.executable, "-m", "venv"]


def environment(folder, python=None):
    """What a virtual environment looks like; ``python``: a shell script in its Python's place."""
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("version = 3.11.7\n")
    if python:
        make_venv.python_of(folder).write_text(f"#!/bin/sh\n{python}\n")
        make_venv.python_of(folder).chmod(0o755)
    return folder


@pytest.fixture
def commands(monkeypatch):
    """What would be run beside the environment's own Python; "--clear" mends it."""
    run, asked = subprocess.run, []

    def watched(command, **settings):
        if command[0] != sys.executable:
            return run(command, **settings)
        asked.append(command)
        if "--clear" in command and "venv" in command:
            make_venv.python_of(make_venv.Path(command[-1])).unlink(missing_ok=True)
            make_venv.python_of(make_venv.Path(command[-1])).symlink_to(sys.executable)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", watched)
    return asked


def test_an_environment_that_works_is_left_alone(tmp_path, commands):
    make_venv.create(environment(tmp_path / "v", "echo 3 11"))
    assert commands == []


@pytest.mark.parametrize("python", [None, "exit 1"], ids=["no python", "no pip"])
def test_a_broken_one_is_made_again(tmp_path, commands, python):
    folder = environment(tmp_path / "v", python)
    make_venv.create(folder)
    assert commands == [[*VENV, str(folder)], [*VENV, "--clear", str(folder)]]


def test_neither_venv_nor_pip_is_one_sentence(tmp_path, commands, monkeypatch):
    monkeypatch.setattr(make_venv, "version_of", lambda folder: None)
    with pytest.raises(SystemExit, match="neither venv nor pip works.*apt install python3-venv"):
        make_venv.create(environment(tmp_path / "v"))
    assert [command[2] for command in commands] == ["venv", "venv", "pip"]


def test_what_is_no_environment_is_left_as_it_is(tmp_path, commands):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for path in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(SystemExit, match="is no virtual environment, and is left as it is"):
            make_venv.create(path)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine" and commands == []


def test_an_old_python_is_named(tmp_path, commands, monkeypatch):
    with pytest.raises(SystemExit, match="an environment of Python 3.9, and 3.10"):
        make_venv.create(environment(tmp_path / "v", "echo 3 9"))
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit, match="Python 3.9.18 is too old.*PYTHON=python3.11"):
        make_venv.main()
    assert commands == []


def test_a_stop_is_one_sentence(tmp_path, monkeypatch):
    def stopped(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(make_venv, "create", stopped)
    monkeypatch.setattr(sys, "argv", ["make_venv.py", str(tmp_path / "v")])
    with pytest.raises(SystemExit, match="stopped; `make setup` goes on"):
        make_venv.main()
