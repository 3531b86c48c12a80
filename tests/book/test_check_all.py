"""Is the suite run under other arithmetic than the chapters were written under, and does one failure fail it?"""

import ast
import re
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
        assert tested and written.items().isdisjoint(tested.items())
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
    assert not any("avx2" in step.environment.values() for step in check_all.all_steps())
    assert not any("avx2" in step.name for step in check_all.portable_steps(["avx2", "sse4"]))
    assert "left out" in capsys.readouterr().out


# What starts an interpreter, a kernel or a server of processes.
STARTS = re.compile(r"sys\.executable, '-[cm]'|NotebookClient|run_chapters\.(run|execute)\(|runpytest|"
                    r"(?<!os\.)\bfork\(|train_until_there|run_script")
QUICK = {"test_help_loads_not_even_torch"}


def slow(node: ast.AST) -> bool:
    marks = [*getattr(node, "decorator_list", []), *(part.value for part in getattr(node, "body", [])
                                                     if isinstance(part, ast.Assign)
                                                     and ast.unparse(part.targets[0]) == "pytestmark")]
    return any(ast.unparse(mark) == "pytest.mark.slow" for mark in marks)


def unmarked(source: str) -> list[str]:
    """Tests that start another process, themselves or through a function of their file, and are not marked slow."""
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    starts = {name for name, node in functions.items() if STARTS.search(ast.unparse(node))}
    while more := {name for name, node in functions.items() if name not in starts
                   and starts & {word.id for word in ast.walk(node) if isinstance(word, ast.Name)}
                   | starts & {argument.arg for argument in node.args.args}}:
        starts |= more
    return [name for name in sorted(starts) if name.startswith("test_") and not slow(functions[name])
            and not slow(tree) and name not in QUICK]


def test_quick_is_lint_and_the_tests_that_start_no_process():
    lint, tests = check_all.quick_steps()
    assert "ruff" in lint.arguments and tests.arguments[-3:] == ["-m", "not slow", "tests"]
    assert check_all.unit_tests({}).arguments[-1] == "tests" and "not slow" not in check_all.unit_tests({}).arguments
    for path in sorted((chapters.ROOT / "tests").rglob("test_*.py")):
        assert unmarked(path.read_text(encoding="utf-8")) == [], path


CALLED = "def helper():\n    Popen([sys.executable, '-c'])\n\ndef test_it():\n    helper()\n"
FIXTURE = "@pytest.fixture\ndef other():\n    Popen([sys.executable, '-c'])\n\ndef test_it(other):\n    pass\n"


@pytest.mark.parametrize("source", [CALLED, FIXTURE])
def test_a_missing_mark_is_noticed(source):
    assert unmarked(source) == ["test_it"] and unmarked(source.replace("-c", "tool.py")) == []
    assert unmarked("pytestmark = pytest.mark.slow\n" + source) == []
    assert unmarked(source.replace("def test_it", "@pytest.mark.slow\ndef test_it")) == []


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
