"""What does a run tell? metrics.jsonl: one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..errors import CheckpointError
from ..files import write_text
from ..reading import read_text


class Log:
    """metrics.jsonl. A resumed run forgets the lines after its checkpoint; only the main process writes.

    Attributes: lines: all that were written, the last one last.
    """

    def __init__(self, path: Path, step: int, *, validated: bool = True, writes: bool = True,
                 tell: Callable[[dict], None] | None = None):
        """``validated``: the validation after ``step`` belongs to the checkpoint, too. ``tell``: who else hears of each
        new line."""
        self.path, self.writes, self.tell, self.started = path, writes, tell, time.perf_counter()
        old = read_text(path, "log", error=CheckpointError).splitlines() if step and path.exists() else []
        self.lines = [line for line in whole(old) if line["step"] < step or line["step"] == step
                      and (validated or "val_loss" not in line)]
        self.before = self.lines[-1]["seconds"] if self.lines else 0.0
        if writes:
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, **values: float) -> None:
        """Add a line. Raises CheckpointError where the file system refuses."""
        line = {key: round(value, 6) for key, value in values.items()}
        line["seconds"] = round(self.before + time.perf_counter() - self.started, 2)
        self.lines.append(line)
        if self.writes:
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise CheckpointError(f"could not write {self.path}: {error.strerror or error}; free some space, then "
                                      "run the same command: it goes on from the last checkpoint") from error
        if self.tell:
            self.tell(line)


def whole(lines: list[str]) -> list[dict]:
    """The lines that are whole: a run that was killed while it wrote leaves half of its last one."""
    found = []
    for line in lines:
        try:
            numbers = msgspec.convert(json.loads(line), dict[str, int | float])  # json knows NaN, msgspec does not
        except (ValueError, RecursionError):
            break
        if not {"step", "seconds"} <= set(numbers):
            break
        found.append(numbers)
    return found
