"""How do many processes start in the time of one? Each is forked from a process that has imported what all of them use.

``fork`` is for unit tests that need another process. As a plugin of pytest this lets nbval's kernels start so, too.
Authors' runs (tools/run_chapters.py) do not: there every kernel imports everything afresh, as a reader's does.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

SERVER = multiprocessing.get_context("forkserver")
# Not pyplot: when it is imported, it looks for the kernel that it draws in.
SERVER.set_forkserver_preload(["ipykernel.kernelapp", "matplotlib.figure", "matplotlib.backends.backend_agg",
                               "torch._dynamo", "timm", "accelerate", "pycocotools.coco"])


def fork(target: Callable, *arguments) -> multiprocessing.process.BaseProcess:
    """Start ``target(*arguments)`` in another process, with the environment of this one."""
    process = SERVER.Process(target=_run, args=(target, arguments, dict(os.environ)))
    process.start()
    return process


def _run(target, arguments, environment):
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def pytest_configure(config):
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["forked"] = EntryPoint("forked", f"{__name__}:ForkProvisioner", factory.GROUP_NAME)
    if config.getoption("nbval", False):
        factory.default_provisioner_name = "forked"


class ForkProvisioner(LocalProvisioner):
    """Jupyter's way to start, watch and end a kernel, with a fork in the place of a new interpreter."""

    async def launch_kernel(self, cmd: list[str], *, env: dict[str, str], cwd: str | None = None, **_):
        path = subprocess.check_output([sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"], env=env)
        arguments = [*cmd[3:], f"--IPKernelApp.parent_handle={os.getpid()}"]  # a kernel without one greets a terminal
        process = fork(run_kernel, arguments, str(cwd or "."), env, json.loads(path))
        self.process, self.pid, self.cwd = Popen(process), process.pid, cwd
        return self.connection_info


class Popen:
    """The part of subprocess.Popen that a provisioner asks for."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self.process, self.pid = process, process.pid
        self.terminate, self.kill = process.terminate, process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def run_kernel(arguments: list[str], cwd: str, env: dict[str, str], path: list[str]) -> None:
    """In the fork: what ``python -m ipykernel_launcher`` does in a new interpreter."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.path[:] = path
    sys.argv[1:] = arguments
    import matplotlib
    matplotlib.rcParams["backend"] = env.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    threading.Thread(target=end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    try:
        runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a fork ends without them, and temporary folders would stay


def end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Whoever asked for the kernel; the server, its parent in the system's eyes, lives as long as any kernel does."""
    parent.join()
    os._exit(1)
