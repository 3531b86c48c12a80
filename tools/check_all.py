"""Is everything in order? Lint, unit tests, every chapter through nbval, strict HTML build: two at a time, one verdict.

    python tools/check_all.py               unit tests as this processor is, chapters under other arithmetic
    python tools/check_all.py --portable    unit tests and chapters under each of the conditions below
    python tools/check_all.py --quick       lint, and the unit tests that are not marked slow

Each step is a process of its own. All steps run even if one fails; what each printed comes out whole. The last lines
name the steps, their seconds, and how each closed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import chapters

AT_ONCE = 2
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
         "--nbval-cell-timeout=300", "--nbval-kernel-startup-timeout=180"]
CONDITIONS = {"sse4": chapters.SSE4, "avx2": chapters.AVX2, "two-threads": {"OMP_NUM_THREADS": "2"}}


class Step(NamedTuple):
    name: str
    arguments: list[str]  # of this Python
    environment: dict[str, str] = {}  # beside what every step has


def all_steps() -> list[Step]:
    """What `make test` does, the longest first."""
    return [unit_tests({}), *chapter_steps(chapters.tested_under()), Step("HTML build", ["tools/build_html.py"]),
            Step("lint", ["-m", "ruff", "check", "."])]


def portable_steps(conditions: list[str]) -> list[Step]:
    """What `make portable` does: the whole suite as on other machines."""
    if "avx2" in conditions and not chapters.has_avx2():
        print("avx2 is left out: this processor has none")
        conditions = [name for name in conditions if name != "avx2"]
    return [step._replace(name=f"{step.name}, {name}") for name in conditions
            for step in (unit_tests(CONDITIONS[name]), *chapter_steps(CONDITIONS[name]))]


def quick_steps() -> list[Step]:
    """What `make quick` does."""
    return [Step("lint", ["-m", "ruff", "check", "."]), Step("quick unit tests", [*PYTEST, "-m", "not slow", "tests"])]


def unit_tests(environment: dict[str, str]) -> Step:
    return Step("unit tests", [*PYTEST, "--durations=5", "tests"], environment)


def chapter_steps(environment: dict[str, str]) -> list[Step]:
    """As many steps as run at once, which share the chapters."""
    books = [str(path.relative_to(chapters.ROOT)) for path in chapters.notebooks()]
    return [Step(f"chapters {i + 1} of {AT_ONCE}", [*PYTEST, *NBVAL, *books[i::AT_ONCE]], environment)
            for i in range(AT_ONCE) if books[i::AT_ONCE]]


def run(step: Step) -> tuple[str, int, float, str]:
    """Run one step; print all it said in one piece. Returns name, exit status, seconds, its closing line."""
    started = time.perf_counter()
    environment = os.environ | chapters.ENVIRONMENT | chapters.ONE_THREAD | step.environment
    done = subprocess.run([sys.executable, *step.arguments], cwd=chapters.ROOT, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(f"\n=== {step.name}\n{done.stdout.rstrip()}", flush=True)
    if done.returncode < 0:
        print(f"{step.name}: killed by signal {-done.returncode} (9 is often the system, out of memory)", flush=True)
    closing = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    return step.name, done.returncode, time.perf_counter() - started, closing.strip("= ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portable", nargs="*", choices=CONDITIONS, metavar="CONDITION",
                        help=f"the conditions; none named: all of {', '.join(CONDITIONS)}")
    parser.add_argument("--quick", action="store_true", help="what takes at most two minutes of one core")
    options = parser.parse_args()
    os.chdir(chapters.ROOT)
    if options.quick:
        target, steps = "make quick", quick_steps()
    elif options.portable is not None:
        target, steps = "make portable", portable_steps(options.portable or list(CONDITIONS))
    else:
        target, steps = "make test", all_steps()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(run, steps))
    print(f"\n=== {target}")
    for name, status, seconds, closing in done:
        print(f"{name:29} {'ok    ' if status == 0 else 'FAILED'} {seconds:5.0f} s   {closing}")
    sys.exit(any(status for _, status, _, _ in done))


if __name__ == "__main__":
    main()
