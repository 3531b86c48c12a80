"""Under what conditions do tests and chapters run? The same ones the chapters were executed under."""

import os

import chapters  # tools/chapters.py; pyproject.toml puts tools/ on the path

os.environ.update(chapters.ENVIRONMENT)  # before torch is imported; nbval's kernels inherit it
