"""Does a forked kernel do what a fresh one does, and leave nothing behind?"""

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory
from nbclient import NotebookClient
from traitlets.config import Config

CELLS = ["import matplotlib, os, sys, tempfile\nfolder = tempfile.TemporaryDirectory()",
         "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
         "print(os.getcwd(), sys.path, sys.argv[0], __name__, matplotlib.get_backend(), os.environ['COURSE'])", "1 / 0"]


def executed(folder: Path) -> tuple[list, str, int]:
    """Outputs of all cells, a temporary folder that the kernel opened, and its process id."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.cells.append(nbformat.v4.new_code_cell("print(folder.name, os.getpid())"))
    patient = Config(KernelManager={"shutdown_wait_time": 120})  # seconds that a kernel has to leave by itself
    NotebookClient(notebook, config=patient, kernel_name="python3", record_timing=False, allow_errors=True,
                   coalesce_streams=True, resources={"metadata": {"path": str(folder)}},
                   ).execute(env=os.environ | {"COURSE": "x"})
    *outputs, told = [cell.outputs for cell in notebook.cells]
    temporary, pid = told[0].text.split()
    return outputs, temporary, int(pid)


@pytest.mark.slow
def test_a_forked_kernel_does_what_a_fresh_one_does(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")
    fresh, *_ = executed(tmp_path)
    monkeypatch.setattr(KernelProvisionerFactory.instance(), "default_provisioner_name", "forked")
    forked, temporary, pid = executed(tmp_path)
    assert forked == fresh and "image/png" in forked[1][0].data and forked[3][0].ename == "ZeroDivisionError"
    assert not Path(temporary).exists() and not Path(f"/proc/{pid}").exists()
