"""What must hold for every exercise's check? The solution passes, wrong answers do not, and nothing makes it crash."""

PASSED = "right"


def hold(check, *solution, wrong: dict):
    """Assert it for one check, in its chapter's kernel.

    Args:
        check: the chapter's function.
        solution: what it takes, as the chapter's solution has it: one answer, or several.
        wrong: what is wrong, in words, -> an answer (or a tuple of them) that must not pass; at least three.
    """
    def verdict(*answers):
        said = check(*answers)
        assert isinstance(said, str) and said.strip(), f"{check.__name__} says {said!r}"
        return said

    assert len(wrong) >= 3, f"{check.__name__}: {len(wrong)} wrong answers; three are asked for"
    assert verdict(*solution).startswith(PASSED), f"{check.__name__} refuses the solution: {check(*solution)}"
    for what, answers in {**wrong, **_hopeless(len(solution))}.items():
        said = verdict(*(answers if isinstance(answers, tuple) else (answers,)))
        assert not said.startswith(PASSED), f"{check.__name__} takes a wrong answer, {what}: {said}"


def _hopeless(count: int) -> dict:
    """Answers that are wrong in every exercise."""
    def stops(*_, **__):
        raise ZeroDivisionError("on purpose")

    results = {"None": None, "a text": "seven", "an empty tuple": (), "a tuple": (1, "two"), "an object": object(),
               "a function": print, "a dictionary": {"a": 1}, "-1": -1, "not a number": float("nan"),
               "numbers with a hole": [1.0, float("nan")]}
    hopeless = {f"returns {what}": lambda *_, result=result, **__: result for what, result in results.items()}
    return {what: (answer,) * count for what, answer in {**hopeless, "stops": stops}.items()}
