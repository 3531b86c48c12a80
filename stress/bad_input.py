"""What does the command line do with input that nobody should give it? Hundreds of cases, each in a process of its own.

    python stress/bad_input.py                                all of them: the fields take longest, see --every
    python stress/bad_input.py --only pictures outputs        these families
    python stress/bad_input.py --find "config.json encoder"   cases whose names hold these words, with what they print

Fields x wrong values, files x damage, outputs x obstacles, options x wild numbers, and pairs of files that disagree
(damage.py has the kinds, cases.py the cases). A case fails where there is a traceback, no end within ten seconds of
processor time, much memory, a file of the user's that is gone or has changed, a refusal that is no single sentence,
or a success that should have been none. Exit status 1 if one fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from cases import BINARIES, FAMILIES, READERS, Case
from workspace import build

SECONDS = 10  # of processor time, or six times as many by the clock
MEMORY = 2.5e9  # bytes that one case may take at most, torch included
DAMAGED = "model/config.json", "model/model.safetensors"


@dataclass
class Outcome:
    status: int
    seconds: float
    killed: bool
    memory: int
    out: str
    err: str
    faults: list[str] = field(default_factory=list)


def snapshot(place: Path) -> dict[str, str]:
    """Every file's checksum, by path; links and folders too."""
    found = {}
    for folder, folders, names in os.walk(place):
        for name in [*folders, *names]:
            path = Path(folder, name)
            if path.is_symlink():
                told = f"link to {os.readlink(path)}"
            elif path.is_file():
                told = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                told = "folder" if path.is_dir() else "special"
            found[str(path.relative_to(place))] = told
    return found


def attempt(argv: list[str], place: Path, file_limit: int | None = None) -> Outcome:
    """Run the command in a child of this process, which has torch loaded already."""
    logs = [place.with_name(place.name + end) for end in (".out", ".err")]
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        _become(argv, place, logs, file_limit)
    status, usage, killed = None, None, False
    while status is None:
        done, raw, usage = os.wait4(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.perf_counter() - started > 6 * SECONDS or _processor_seconds(child) > SECONDS:
            os.killpg(child, signal.SIGKILL)
            killed = True
            _, raw, usage = os.wait4(child, 0)
            status = os.waitstatus_to_exitcode(raw)
        else:
            time.sleep(0.005)
    out, err = (log.read_text(encoding="utf-8", errors="replace") for log in logs)
    return Outcome(status, usage.ru_utime + usage.ru_stime, killed, usage.ru_maxrss * 1024, out, err)


def _processor_seconds(process: int) -> float:
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no Linux: the clock alone
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _become(argv: list[str], place: Path, logs: list[Path], file_limit: int | None) -> None:
    """The child: only the command, its output in files."""
    os.setsid()
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(place)
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(file_limit, 0), resource.RLIM_INFINITY))
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, encoding="utf-8", errors="strict", closefd=False)
                              for number in (1, 2))
    status = 70
    try:
        from prunecap_lib.cli import main
        main(argv)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(status)


def try_case(case: Case, template: Path, scratch: Path, normal: dict[tuple, str]) -> Outcome:
    place = scratch / "place"
    shutil.rmtree(place, ignore_errors=True)
    for log in scratch.glob("place.*"):
        log.unlink()
    shutil.copytree(template, place, symlinks=True)
    before_spoiling = case.argv
    case.spoil(place)
    before = snapshot(place)
    outcome = attempt(case.argv, place, case.file_limit)
    after = snapshot(place)
    lost = [path for path, told in before.items() if after.get(path) != told and not path.startswith(case.ours or "\0")]
    faults = outcome.faults
    if "Traceback" in outcome.err or outcome.status not in (0, 1, 2, 130) and not outcome.killed:
        faults.append("traceback")
    elif outcome.status == 1:
        faults.append("exit status 1")
    if outcome.killed:
        faults.append("hangs")
    if outcome.memory > MEMORY:
        faults.append(f"{outcome.memory / 1e9:.1f} GB")
    if lost:
        faults.append(f"lost: {', '.join(lost[:3])}")
    said = [line for line in outcome.err.splitlines() if "warning" not in line.lower()]
    if outcome.status == 2 and sum("error" in line for line in said) != 1:
        faults.append("no single sentence")
    silent = (case.expect == "refused" or case.expect == "as before"
              and outcome.out != normal.get(tuple(before_spoiling), outcome.out))
    if outcome.status == 0 and silent:
        faults.append("silent success")
    if case.expect == "fine" and outcome.status != 0:
        faults.append("refused, and is good")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--find", help="only cases whose names hold all these words; prints what they say")
    parser.add_argument("--every", type=int, default=1, help="take every so many cases of the fields family")
    parser.add_argument("--json", type=Path, help="write counts and faults here")
    told = parser.parse_args()
    os.environ["PRUNECAP_CACHE"] = tempfile.mkdtemp()
    import torch

    from prunecap_lib.cli import COMMANDS
    for command in COMMANDS:  # loaded once, in the parent
        import_module(f"prunecap_lib.cli.{command}")
    torch.set_num_threads(1)
    scratch = Path(tempfile.mkdtemp())
    template = scratch / "template"
    template.mkdir()
    stdout = os.dup(1)
    child = os.fork()
    if child == 0:  # built in a child, so that this process starts no thread
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            build(template)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("bad_input: error: the workspace could not be built (above)")
    os.close(stdout)
    normal = {}
    for argv in [*(argv for argv, _ in {**READERS, **BINARIES}.values())]:
        place = scratch / "normal"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        outcome = attempt(argv, place)
        if outcome.status:
            sys.exit(f"bad_input: error: {' '.join(argv)} fails on good input:\n{outcome.err}")
        normal[tuple(argv)] = outcome.out
    counts, faults, started = Counter(), {}, time.perf_counter()
    for family in told.only:
        for number, case in enumerate(FAMILIES[family](template)):
            if told.find and not all(word in case.name for word in told.find.split()):
                continue
            if family == "fields" and number % told.every and not told.find:
                continue
            outcome = try_case(case, template, scratch, normal)
            counts[family] += 1
            if told.find:
                print(f"--- {case.name}: exit {outcome.status}, {outcome.seconds:.1f} s\n{outcome.out}{outcome.err}")
            if outcome.faults:
                faults[case.name] = outcome.faults
                last = (outcome.err.strip().splitlines() or ["(nothing on stderr)"])[-1]
                print(f"{family}: {case.name}: {'; '.join(outcome.faults)} | {last[:200]}", flush=True)
    shutil.rmtree(scratch)
    print(f"{counts.total()} cases ({', '.join(f'{n} {name}' for name, n in counts.items())}) in "
          f"{time.perf_counter() - started:.0f} s: {len(faults)} with faults")
    kinds = Counter(fault.split(":")[0] for found in faults.values() for fault in found)
    named = {"tracebacks": "traceback", "hangs": "hangs", "files lost": "lost", "silent successes": "silent success"}
    print(", ".join(f"{name} {kinds.pop(kind, 0)}" for name, kind in named.items()), "others", kinds.total())
    if told.json:
        told.json.write_text(json.dumps({"cases": dict(counts), "faults": faults}, indent=1))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
