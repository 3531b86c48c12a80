"""How does the virtual environment come about on a machine with nothing but Python and pip?

    python3 tools/make_venv.py .venv

Run by `make setup`; it leaves a marker file when all is installed, and needs only the standard library.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)


def stop(message: str) -> None:
    sys.exit(f"make setup: error: {message}")


def create(folder: Path) -> None:
    """Make the environment with venv; where Debian keeps that in a package of its own, with virtualenv."""
    if shutil.which("python", path=str(folder / "bin")) and (folder / "bin" / "pip").exists():
        return
    if subprocess.run([sys.executable, "-m", "venv", str(folder)], stdout=subprocess.DEVNULL).returncode == 0:
        return
    print("make setup: this Python has no venv; trying virtualenv", flush=True)
    maker = folder.with_name(folder.name + "-maker")  # --target leaves the system's Python as it is
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(maker), "virtualenv"]
    if subprocess.run(install).returncode:
        stop("neither venv nor pip works; on Debian or Ubuntu run `apt install python3-venv`, then `make setup` again")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from virtualenv.run import cli_run; cli_run(sys.argv[1:])"
    made = subprocess.run([sys.executable, "-c", code, str(maker), "--clear", str(folder)])
    shutil.rmtree(maker, ignore_errors=True)
    if made.returncode:
        stop(f"virtualenv could not make {folder}; on Debian or Ubuntu run `apt install python3-venv`")


def install(folder: Path) -> None:
    """Everything pinned in requirements.txt, then the library itself, editable."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    print("make setup: installing requirements.txt (about 6 GB, a few minutes the first time)", flush=True)
    for arguments in (["-r", "requirements.txt"], ["--no-deps", "-e", "."]):
        if status := subprocess.run([*pip, *arguments], cwd=ROOT).returncode:
            stop(f"`pip install {' '.join(arguments)}` ended with status {status} (its message is above); check the "
                 "network and the free disk, then run `make setup` again: it goes on where it stopped")


def main() -> None:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        stop(f"Python {found} is too old; 3.10 or newer is needed. Name one: make setup PYTHON=python3.11")
    folder = Path(sys.argv[1]).resolve()
    create(folder)
    install(folder)
    (folder / ".installed").touch()


if __name__ == "__main__":
    main()
