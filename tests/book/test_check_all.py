"""Is the suite run under other arithmetic than the chapters were written under, and does one failure fail it?"""

import sys

import pytest
import yaml

import chapters
import check_all
import run_chapters


def test_chapters_are_tested_under_other_arithmetic_than_they_were_written_under(monkeypatch):
    monkeypatch.setattr(chapters, "has_avx2", lambda: True)
    written = run_chapters.environment()
    steps = {step.name: step for step in check_all.all_steps()}
    for i in (1, 2):
        tested = steps[f"chapters {i} of 2"].environment
        assert all(written[name] != value for name, value in tested.items()) and tested.keys() == chapters.AVX2.keys()
    assert steps["unit tests"].environment == {} and {"HTML build", "lint"} < steps.keys()


def test_portable_is_the_whole_suite_under_each_condition(monkeypatch):
    monkeypatch.setattr(chapters, "has_avx2", lambda: True)
    steps = check_all.portable_steps(list(check_all.CONDITIONS))
    tested = {str(path.relative_to(chapters.ROOT)) for path in chapters.notebooks()} | {"tests"}
    for name, environment in check_all.CONDITIONS.items():
        own = [step for step in steps if step.name.endswith(f", {name}")]
        assert tested <= {argument for step in own for argument in step.arguments}
        assert all(step.environment == environment for step in own)
    ci = yaml.safe_load((chapters.ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert ci["jobs"]["portable"]["strategy"]["matrix"]["condition"] == list(check_all.CONDITIONS)


def test_without_avx2_nothing_asks_for_it(monkeypatch, tmp_path, capsys):
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse4_1 avx\n")
    assert not chapters.has_avx2(tmp_path / "cpuinfo") and not chapters.has_avx2(tmp_path / "missing")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse4_1 avx avx2 bmi2\n")
    assert chapters.has_avx2(tmp_path / "cpuinfo")
    monkeypatch.setattr(chapters, "has_avx2", lambda: False)
    assert run_chapters.environment().get("ATEN_CPU_CAPABILITY") != "avx2"
    assert not any("avx2" in step.name for step in check_all.portable_steps(["avx2", "sse4"]))
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize("statuses, verdict", [((0, 0), 0), ((0, 1), 1)])
def test_one_failure_is_a_failure(monkeypatch, capsys, statuses, verdict):
    steps = [check_all.Step(f"step {i}", ["-c", f"print('said {i}'); exit({status})"])
             for i, status in enumerate(statuses)]
    monkeypatch.setattr(check_all, "portable_steps", lambda conditions: steps)
    monkeypatch.setattr(sys, "argv", ["check_all.py", "--portable"])
    monkeypatch.chdir(chapters.ROOT)
    with pytest.raises(SystemExit) as end:
        check_all.main()
    assert bool(end.value.code) == verdict
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:-2] == ["=== make portable"] and ("FAILED" in lines[-1]) == bool(verdict) and "said 1" in lines[-1]
