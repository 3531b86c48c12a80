"""Two processes that know of each other, forked from one that has imported torch."""

import socket
from collections.abc import Callable

from fork_server import fork


def run_two(target: Callable, *arguments) -> None:
    """``target(told, *arguments)`` in each; ``told`` is what torchrun or accelerate launch would put into its
    environment, without the seconds that these take to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [fork(target, told | {"RANK": rank, "LOCAL_RANK": rank}, *arguments) for rank in ("0", "1")]
    for process in started:
        process.join(400)
        process.kill()  # one that waits for another that is gone waits for hours
    assert [process.exitcode for process in started] == [0, 0]
