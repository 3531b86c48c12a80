"""Are the trained models in data/checkpoints the files that were measured? Writes their list of checksums.

    python tools/checksums.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import chapters

CHECKPOINTS = chapters.ROOT / "data" / "checkpoints"


def sums(folder: Path = CHECKPOINTS) -> str:
    """The text of SHA256SUMS, as sha256sum writes it: every weights and config file, by path."""
    files = sorted([*folder.glob("*/model.safetensors"), *folder.glob("*/config.json")])
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
                   for file in files)


if __name__ == "__main__":
    (CHECKPOINTS / "SHA256SUMS").write_text(sums())
    print(f"wrote {CHECKPOINTS / 'SHA256SUMS'}")
