"""Under what conditions do tests and chapters run, and how are a chapter's printed numbers compared?"""

import os

import chapters  # tools/chapters.py; pyproject.toml puts tools/ on the path

# Before torch is imported; nbval's kernels inherit it. A caller may ask for more threads than one.
os.environ.update(chapters.ENVIRONMENT | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
pytest_plugins = ["fork_server", "nbval_decimals", "nbval_answers", "pytester"]
