"""Is everything in order? Lint, unit tests, every chapter through nbval, strict HTML build: two at a time, one verdict.

    python tools/check_all.py

Each step is a process of its own with one thread. All steps run even if one fails; what each printed comes out whole.
The last lines name the steps, their seconds, and how each closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import chapters

AT_ONCE = 2
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
         "--nbval-cell-timeout=300", "--nbval-kernel-startup-timeout=180"]


def steps() -> dict[str, list[str]]:
    """Name -> arguments of this Python, the longest first."""
    books = [str(path.relative_to(chapters.ROOT)) for path in chapters.notebooks()]
    halves = {f"chapters {i + 1} of {AT_ONCE}": [*PYTEST, *NBVAL, *books[i::AT_ONCE]]
              for i in range(AT_ONCE) if books[i::AT_ONCE]}
    return halves | {"unit tests": [*PYTEST, "--durations=5", "tests"],
                     "HTML build": ["tools/build_html.py"],
                     "lint": ["-m", "ruff", "check", "."]}


def run(name: str, arguments: list[str]) -> tuple[str, int, float, str]:
    """Run one step; print all it said in one piece. Returns name, exit status, seconds, its closing line."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=chapters.ROOT, env={**os.environ, **chapters.ENVIRONMENT},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(f"\n=== {name}\n{done.stdout.rstrip()}", flush=True)
    if done.returncode < 0:
        print(f"{name}: killed by signal {-done.returncode} (9 is often the system, out of memory)", flush=True)
    closing = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    return name, done.returncode, time.perf_counter() - started, closing.strip("= ")


def main() -> None:
    os.chdir(chapters.ROOT)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(run, *zip(*steps().items(), strict=True)))
    print("\n=== make test")
    for name, status, seconds, closing in done:
        print(f"{name:16} {'ok    ' if status == 0 else 'FAILED'} {seconds:5.0f} s   {closing}")
    sys.exit(any(status for _, status, _, _ in done))


if __name__ == "__main__":
    main()
