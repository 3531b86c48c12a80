"""Where a figure came from (command, versions, machine, one-line signature), and reports that carry it, as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch

from . import __version__
from .errors import InputError
from .files import Kind, check_output_file, write_text
from .reading import read_bytes, read_json


def is_report(path: Path) -> bool:
    """Does a file hold what this module writes?"""
    content = json.loads(read_bytes(path))
    return "prunecap" in (content["provenance"] if "provenance" in content else content["runs"][0])["versions"]


REPORT = Kind("report with provenance", is_report)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"python": platform.python_version(), "prunecap": __version__,
            **{name: version(name) for name in ("torch", "timm")}}


def provenance() -> dict:
    """Command, versions, date and machine type: what a measured figure must carry."""
    program = Path(sys.argv[0])
    # a script of the project is named with its folder, a module run by -m and an installed command by their names alone
    start = (["python", "-m", program.parent.name] if program.name == "__main__.py"
             else ["python", f"{program.parent.name}/{program.name}"] if program.suffix == ".py" else [program.name])
    return {"command": shlex.join([*start, *sys.argv[1:]]), "versions": versions(), "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
                       + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")}


def write_json(path: str | Path, report: dict) -> None:
    """Write a report as JSON, as a whole, and over nothing but a report. Raises InputError, CheckpointError."""
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n", REPORT)


def report_path(text: str) -> Path:
    """For argparse's ``type``: a file to write a report to, refused before any work where it cannot be written."""
    try:
        check_output_file(text, REPORT)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


class _Rows(msgspec.Struct):
    rows: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def __post_init__(self):
        if any(row.get("run") not in range(len(self.runs)) for row in self.rows):
            raise ValueError("a row names no run of this file")


def write_rows(path: str | Path, rows: list[dict], *, same: Sequence[str], add: bool = False) -> None:
    """Write measured rows with their provenance, one for each run that they came from; with ``add``, beside the file's
    rows that are about something else, as the keys in ``same`` say."""
    def about(row: dict) -> tuple:
        return tuple(str(row.get(key)) for key in same)

    path, run, new = Path(path), provenance(), {about(row) for row in rows}
    old = read_json(path, _Rows, "results file", "move it away") if add and path.exists() else _Rows([], [])
    found = [(row, old.runs[row["run"]]) for row in old.rows if about(row) not in new]
    found += [(row, run) for row in rows]
    runs = [run for i, (_, run) in enumerate(found) if run not in [earlier for _, earlier in found[:i]]]
    write_json(path, {"rows": [row | {"run": runs.index(run)} for row, run in found], "runs": runs})


def run_signature(**fields) -> str:
    """``name:value`` parts joined by "|": the given fields, then tokenizer, CIDEr variant and versions.

    >>> run_signature(method="beam5", max_length=20)
    'method:beam5|max_length:20|tok:ptb-3.4.1|cider:D|prunecap:0.1.0|pycocoevalcap:1.2|torch:2.14.1'

    Raises InputError for a name or a value that holds "|" or ":".
    """
    parts = {**fields, "tok": "ptb-3.4.1", "cider": "D", "prunecap": __version__,
             "pycocoevalcap": _version("pycocoevalcap"), "torch": _version("torch").partition("+")[0]}
    for name, value in parts.items():
        if set("|:") & set(f"{name}{value}"):
            raise InputError(f"signature: {name}={value!r} holds a separator, | or :; leave it out")
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
