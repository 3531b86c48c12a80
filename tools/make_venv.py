"""How does the virtual environment come about on a machine with nothing but Python and pip?

    python3 tools/make_venv.py .venv

Run by `make setup`; it leaves a marker file when all is installed, and needs only the standard library. What was begun
and stopped is gone on with, and an environment that does not work is made again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)
APT = "on Debian or Ubuntu run `apt install python3-venv`, then `make setup` again"


def stop(message: str) -> None:
    sys.exit(f"make setup: error: {message}")


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def version_of(folder: Path) -> tuple[int, ...] | None:
    """Python's version in the environment; None where its Python or its pip does not run."""
    code = "import sys, pip; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([str(python_of(folder)), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def create(folder: Path) -> None:
    """Make the environment with venv; where Debian keeps that in a package of its own, with virtualenv."""
    if folder.is_file() or not (folder / "pyvenv.cfg").is_file() and any(path.is_file() for path in folder.rglob("*")):
        stop(f"{folder} is no virtual environment, and is left as it is; move it away, or name another place: "
             "make setup VENV=.venv2")
    if version := version_of(folder):
        if version < OLDEST:
            stop(f"{folder} is an environment of Python {version[0]}.{version[1]}, and 3.10 or newer is needed; "
                 "remove it, or name another place: make setup VENV=.venv2")
        return
    for again in ([], ["--clear"]):  # what a stop left behind may be in the way
        subprocess.run([sys.executable, "-m", "venv", *again, str(folder)], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        if version_of(folder):
            return
    print("make setup: this Python's venv makes no environment; trying virtualenv", flush=True)
    with tempfile.TemporaryDirectory() as maker:  # --target leaves the system's Python as it is
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", maker, "virtualenv"]
        if subprocess.run(install).returncode:
            stop(f"neither venv nor pip works here (pip's message is above); {APT}")
        code = ("import sys; sys.path.insert(0, sys.argv.pop(1)); from virtualenv.run import cli_run; "
                "cli_run(sys.argv[1:])")
        subprocess.run([sys.executable, "-c", code, maker, "--clear", str(folder)])
    if not version_of(folder):
        stop(f"virtualenv could not make {folder} (its message is above); {APT}")


def install(folder: Path) -> None:
    """Everything pinned in requirements.txt, then the library itself, editable; what is there already needs no network.
    """
    pip = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    print("make setup: installing requirements.txt (about 6 GB, a few minutes the first time)", flush=True)
    for arguments in (["-r", "requirements.txt"], ["--no-deps", "--no-build-isolation", "-e", "."]):
        if status := subprocess.run([*pip, *arguments], cwd=ROOT).returncode:
            stop(f"`pip install {' '.join(arguments)}` ended with status {status} (its message is above); check the "
                 "network and the free disk, then run `make setup` again: it goes on where it stopped")


def main() -> None:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        stop(f"Python {found} is too old; 3.10 or newer is needed. Name one: make setup PYTHON=python3.11")
    folder = Path(sys.argv[1]).resolve()
    try:
        create(folder)
        install(folder)
        (folder / ".installed").touch()
    except KeyboardInterrupt:
        stop("stopped; `make setup` goes on where it was")
    except OSError as error:
        stop(f"{error.filename or folder}: {error.strerror}")


if __name__ == "__main__":
    main()
