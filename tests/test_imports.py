"""Does a quick command stay quick? What ``import prunecap_lib`` and ``prunecap --help`` may not load."""

import json
import subprocess
import sys

import pytest

HEAVY = {"timm", "torchvision", "transformers", "matplotlib", "accelerate", "pycocotools", "pycocoevalcap",
         "tyro"}
PUBLIC = "import prunecap_lib; [getattr(prunecap_lib, name) for name in prunecap_lib.__all__]"


def loaded_by(code: str) -> set[str]:
    """Top-level packages in ``sys.modules`` of a fresh interpreter after ``code``."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import prunecap_lib", PUBLIC])
def test_importing_the_library_loads_nothing_heavy(code):
    loaded = loaded_by(code)
    assert "prunecap_lib" in loaded
    assert not HEAVY & loaded


def test_help_loads_not_even_torch():
    loaded = loaded_by("from prunecap_lib.cli import main; main(['--help'])")
    assert "prunecap_lib" in loaded
    assert not (HEAVY | {"torch", "numpy", "PIL"}) & loaded
