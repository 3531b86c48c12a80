"""Do measured rows keep their provenance when a part is measured again?"""

import json

from prunecap_lib.provenance import write_rows


def test_rows_measured_again_replace_their_like_and_bring_their_run(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"
    for number, rows in enumerate([
        [{"name": "a", "batch": 1, "time": 1.0}, {"name": "b", "batch": 1, "time": 2.0}],
        [{"name": "a", "batch": 1, "time": 3.0}, {"name": "a", "batch": 8, "time": 4.0}],
        [{"name": "b", "batch": 1, "time": 5.0}],
    ]):
        monkeypatch.setattr("prunecap_lib.provenance.provenance", lambda number=number: {
            "command": f"run {number}", "versions": {"prunecap": "1"}})
        write_rows(path, rows, same=("name", "batch"), add=True)
    report = json.loads(path.read_text())
    found = {(row["name"], row["batch"]): (row["time"], report["runs"][row["run"]]["command"])
             for row in report["rows"]}
    assert found == {("a", 1): (3.0, "run 1"), ("a", 8): (4.0, "run 1"), ("b", 1): (5.0, "run 2")}
    assert [run["command"] for run in report["runs"]] == ["run 1", "run 2"]  # nothing is left of run 0

    write_rows(path, [{"name": "c", "batch": 1}], same=("name", "batch"))
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["c"]
