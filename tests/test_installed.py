"""Does a library that is installed away from the project caption, with what an installation without extras brings?"""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from prunecap_lib import checkpoint
from prunecap_lib.errors import install_hint

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "LICENSE-text.md", "prunecap_lib",
         "data/checkpoints")
BUILD = "from setuptools import build_meta; build_meta.build_{0}('..')"
# everything that only an extra brings is hidden, as where it was never installed
USE = """
import sys
from importlib.metadata import requires
from re import match
for line in requires("prunecap"):
    if "extra ==" in line and not line.startswith("prunecap["):
        sys.modules[match(r"[\\w-]+", line)[0].replace("-", "_")] = None
from prunecap_lib import checkpoint
print(checkpoint.find("scenes-vit"), checkpoint.data_folder(), *checkpoint.shipped(), sep="\\n")
from prunecap_lib.cli import main
main(["caption", "photo.png"])
for command in ("train --limit 4", "evaluate --checkpoint scenes-vit --limit 2"):
    try:
        main(command.split())
    except SystemExit as stop:
        print(stop.code)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a source distribution, as package managers do: what that lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    subprocess.run([sys.executable, "-c", BUILD.format("sdist")], cwd=source, check=True, capture_output=True)
    archive = next(folder.glob("*.tar.gz"))
    shutil.unpack_archive(archive, folder)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", BUILD.format("wheel")], cwd=unpacked, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """(where packages lie, another folder, what a process said that worked in the other)"""
    site, away = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("away")
    zipfile.ZipFile(wheel).extractall(site)
    Image.linear_gradient("L").convert("RGB").save(away / "photo.png")
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(away), "XDG_CACHE_HOME": str(away / "cache")}
    environment.pop("PRUNECAP_DATA", None)
    return site, away, subprocess.run([sys.executable, "-c", USE], cwd=away, env=environment, capture_output=True,
                                      text=True)


@pytest.mark.slow
def test_a_wheel_has_all_code_the_models_and_their_cards(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = archive.read(next(name for name in held if name.endswith("METADATA"))).decode()
        entry = archive.read(next(name for name in held if name.endswith("entry_points.txt"))).decode()
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "prunecap_lib").rglob("*")
            if path.suffix in (".py", ".html")}
    models = {f"prunecap_lib/checkpoints/{path.relative_to(ROOT / 'data' / 'checkpoints')}"
              for path in (ROOT / "data" / "checkpoints").rglob("*") if path.is_file()}
    assert code <= held and models <= held
    assert {name.split("/")[0] for name in held} == {"prunecap_lib", wheel.name.split("-py3")[0] + ".dist-info"}
    assert "prunecap = prunecap_lib.cli:main" in entry and "License-File: LICENSE\n" in metadata
    assert re.search(r"^Requires-Python: >=3.10$", metadata, re.M) and "# Prune & Tell" in metadata


@pytest.mark.slow
def test_an_installed_library_captions_without_extras(installed):
    site, away, done = installed
    found, data, *rest = done.stdout.splitlines()
    assert Path(found) == site / "prunecap_lib" / "checkpoints" / "scenes-vit"
    assert Path(data) == away / "cache" / "prunecap"  # and never where packages lie
    assert rest[:3] == ["photos-lite0", "scenes-convnext", "scenes-vit"] and re.match(r"photo.png\t\w+ ", rest[3])


@pytest.mark.slow
def test_a_missing_extra_is_named_in_one_line(installed):
    _, _, done = installed
    assert done.stdout.splitlines()[-2:] == ["2", "2"]
    assert re.fullmatch(r"prunecap: error: .*tensorboard is not installed; pip install 'prunecap\[train\]'.*\n"
                        r"prunecap: error: pycocoevalcap is not installed.* pip install 'prunecap\[metrics\]'\n",
                        done.stderr)


def test_a_hint_names_the_extra_or_the_package(monkeypatch):
    listed = ['torch>=2.4', 'pillow-heif; extra == "heic"', 'prunecap[metrics]; extra == "train"',
              'webdataset>=0.2; extra == "train"', 'jupyter-book<2,>=1.0; extra == "book"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: listed)
    assert install_hint("pillow_heif") == "pip install 'prunecap[heic]'"
    assert install_hint("webdataset") == "pip install 'prunecap[train]'"
    assert install_hint("web") == "pip install web" and install_hint("torch") == "pip install torch"
    monkeypatch.setattr("importlib.metadata.requires", lambda name: None)
    assert install_hint("pillow_heif") == "pip install pillow-heif"


def test_everything_an_extra_brings_is_pinned_and_the_extras_are_in_the_readme():
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^\[project.optional-dependencies\]\n(.*?)\n\n", project, re.M | re.S)[1]
    extras = re.findall(r"^(\w+) = \[(.*?)\](?: +#[^\n]*)?$", re.sub(r'\[\w+\]"', '"', listed), re.M | re.S)
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), flags=re.M)
    assert {extra for extra, _ in extras} >= {"heic", "metrics", "train", "book"}
    for extra, packages in extras:
        assert f"`{extra}`" in (ROOT / "README.md").read_text(encoding="utf-8")
        assert set(re.findall(r'"([\w.-]+)', packages)) - {"prunecap"} <= set(pinned), extra


@pytest.mark.slow
def test_every_package_that_is_imported_is_declared():
    """At a file's head what every installation has; an extra's only where it is needed."""
    project = (ROOT / "pyproject.toml").read_text()
    base = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)[1]
    extras = re.search(r"^\[project.optional-dependencies\]\n(.*?)\n\n", project, re.M | re.S)[1]
    base, extras = (set(re.findall(r'"([\w-]+)', text)) for text in (base, extras))
    # trackers are the user's choice; the others come with timm, requests and matplotlib
    late = {"wandb", "mlflow", "huggingface-hub", "urllib3", "cycler", *extras, *base}
    for path in (ROOT / "prunecap_lib").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in named} - {"__future__"} - sys.stdlib_module_names:
                package = {"PIL": "pillow"}.get(name, name.replace("_", "-"))
                assert package in (base if node in tree.body else late), f"{path.name} imports {name}"


def test_shipped_models_are_found_wherever_data_is_kept(tmp_path, monkeypatch):
    assert checkpoint.data_folder() == ROOT / "data"
    monkeypatch.setenv("PRUNECAP_DATA", str(tmp_path))
    assert checkpoint.data_folder() == tmp_path and "scenes-vit" in checkpoint.shipped()
    own = tmp_path / "checkpoints" / "scenes-vit"
    shutil.copytree(checkpoint.find("scenes-vit"), own)
    assert checkpoint.find("scenes-vit") == own  # one's own comes first
