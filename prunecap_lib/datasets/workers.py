"""What becomes of a data loader's workers when their process is killed? They go with it.

PyTorch's own watch does not see to that: a worker that still has data to hand over waits for a reader for ever, with
its memory and whatever lock it has inherited.
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent(_worker: int = 0) -> None:
    """``DataLoader(worker_init_fn=end_with_parent)``: a thread that ends this worker when its parent has ended."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
