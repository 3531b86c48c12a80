"""How does a run end early and lose nothing? A signal is noted, the step is finished, and the state saved."""

from __future__ import annotations

import signal
import threading
import time

TOGETHER = 1.0
"""Seconds within which signals count as one: a terminal and a launcher may both pass on the same Ctrl-C."""


class StopSignals:
    """``with StopSignals() as stop:``: SIGTERM and SIGINT set ``stop.asked`` to their number. A second acts at once.

    Outside of the main thread, where Python allows no handlers, and where a signal is ignored (``nohup``), nothing
    changes.
    """

    def __init__(self):
        self.asked = 0
        self._since = 0.0
        self._before = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = number, now
        elif now - self._since > TOGETHER:
            self.__exit__()
            signal.raise_signal(number)
