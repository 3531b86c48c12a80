"""Has each chapter all its parts, has the template, and does the check notice a missing one?"""

import re

import pytest

import check_anatomy

TEMPLATE = (check_anatomy.chapters.ROOT / "tools" / "chapter_template.md").read_text(encoding="utf-8")


def test_every_chapter_has_all_parts():
    assert check_anatomy.faults() == []


def test_the_template_has_all_parts():
    assert check_anatomy.chapter_faults("99_template", TEMPLATE) == []


@pytest.mark.parametrize("pattern, instead, said", [
    (r"^# 99 · ", "# ", "no title"),
    (r":class: question", ":class: note", 'class "question"'),
    (r":class: predict", ":class: tip", 'class "predict"'),
    (r"^Memory\n: ", "Memory ", 'does not say "Memory"'),
    (r"^:class-card: chapter-card", ":class-card: other", "no card"),
    (r"^```\{admonition\} Question 2\n:class: check", "```{admonition} Question 2\n:class: note", "1 questions"),
    (r"^No\. Both cost one operation\.$", "", "explanation"),
    (r"^```\{solution\} exercise-99-3", "```{note}", "exercise-99-3 has no solution"),
    (r"^## Summary", "## In short", "the last sections"),
    (r"^## The idea", "# The idea", "more than one heading"),
])
def test_a_missing_part_is_named(pattern, instead, said):
    text, changed = re.subn(pattern, instead, TEMPLATE, flags=re.M)
    assert changed
    faults = check_anatomy.chapter_faults("99_template", text)
    assert len(faults) == 1 and said in faults[0]
