"""A wheel takes the shipped models along; everything else stands in pyproject.toml."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class WithModels(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:  # an editable library finds them in the checkout
            copytree("data/checkpoints", Path(self.build_lib, "prunecap_lib", "checkpoints"), dirs_exist_ok=True)


setup(cmdclass={"build_py": WithModels})
