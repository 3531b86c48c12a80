"""Are the shipped models the ones measured, small enough for a repository, and described?"""

import json
import re

import pytest

import checksums

FOLDERS = sorted(path.parent for path in checksums.CHECKPOINTS.glob("*/config.json"))
MOST_BYTES = 8_000_000


def test_checkpoints_are_the_files_that_were_measured():
    listed = checksums.CHECKPOINTS / "SHA256SUMS"
    if not FOLDERS:
        pytest.skip("no trained model in data/checkpoints")
    assert listed.exists() and listed.read_text() == checksums.sums(), "run: python tools/checksums.py"


def test_a_changed_byte_is_noticed(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"abc")
    before = checksums.sums(tmp_path)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"abd")
    assert before != checksums.sums(tmp_path) and before.endswith("  m/model.safetensors\n")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_model_is_small_and_has_a_card(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MOST_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Data", "Scores", "Limits"):
        assert re.search(rf"\b{word}\b", card), f"{folder.name}/README.md says nothing under {word}"


RESULTS = sorted(checksums.CHECKPOINTS.parent.glob("results/*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_results_carry_where_they_come_from(path):
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    for key in ("command", "versions", "machine", "date"):
        assert f'"{key}"' in text, f"{path.name} does not say {key}; add prunecap_lib.provenance.provenance()"
