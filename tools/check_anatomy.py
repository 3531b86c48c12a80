"""Has each chapter what a reader may count on? A question, a card, a prediction, questions to check oneself, exercises.

    python tools/check_anatomy.py

Prints each thing missing, with its chapter; exit status 1 if there is one. CONTRIBUTING.md shows how each is written.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import chapters

CARD = ("You will be able to", "You need first", "Time", "Memory", "Downloads")
LAST_SECTIONS = ["Check yourself", "Exercises", "Summary", "References", "What comes next"]
EXERCISES, QUESTIONS = 3, 2


def faults(root: Path = chapters.ROOT) -> list[str]:
    return [f"{path.stem}: {fault}" for path in chapters.texts(root)
            for fault in chapter_faults(path.stem, path.read_text(encoding="utf-8"))]


def chapter_faults(name: str, text: str) -> list[str]:
    """What a chapter's text lacks, one sentence each."""
    prose = re.sub(r"^```\{code-cell\}.*?^```$", "", text, flags=re.M | re.S)  # a comment in code is no heading
    headings = re.findall(r"^## (.+?)\s*$", prose, flags=re.M)
    found = []
    if not re.search(rf"^# {name[:2]} · \S", prose, flags=re.M):
        found.append(f'no title "# {name[:2]} · …"')
    if len(re.findall(r"^# ", prose, flags=re.M)) > 1:
        found.append("more than one heading of the first level; a page has one title")
    found += [f'no admonition of class "{kind}"' for kind in ("question", "predict") if not admonitions(prose, kind)]
    found += card_faults(prose)
    if headings[-len(LAST_SECTIONS):] != LAST_SECTIONS:
        found.append(f"the last sections are {headings[-len(LAST_SECTIONS):]}; they should be {LAST_SECTIONS}")
    checks = admonitions(prose, "check")
    if len(checks) != QUESTIONS:
        found.append(f"{len(checks)} questions to check oneself; there should be {QUESTIONS}")
    for i, body in enumerate(checks, 1):
        answers = re.findall(r"^:::\{dropdown\} .+?\n(.*?)^:::$", body, flags=re.M | re.S)
        if len(answers) < 2 or not all(answer.strip() for answer in answers):
            found.append(f"question {i} to check oneself: each answer is a dropdown with its explanation")
    return found + exercise_faults(prose)


def admonitions(text: str, kind: str) -> list[str]:
    """Bodies of the admonitions of one class."""
    pattern = rf"^(`{{3,}}|:{{3,}})\{{admonition\}}[^\n]*\n:class: {kind}\b[^\n]*\n(.*?)^\1$"
    return [body for _, body in re.findall(pattern, text, flags=re.M | re.S)]


def card_faults(text: str) -> list[str]:
    card = re.search(r"^:::\{card\}\n:class-card: chapter-card\n(.*?)^:::$", text, flags=re.M | re.S)
    if not card:
        return ['no card of class "chapter-card"']
    return [f'the card does not say "{line}"' for line in CARD
            if not re.search(rf"^{line}\n: \S", card.group(1), flags=re.M)]


def exercise_faults(text: str) -> list[str]:
    given = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*?:label: (\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)", text)
    found = [f"exercise {label} has no solution" for label in given if label not in solved]
    if len(given) < EXERCISES:
        found.append(f"{len(given)} exercises; there should be {EXERCISES}, easy to hard")
    return found


def main() -> None:
    found = faults()
    print(*(found or [f"{len(chapters.texts())} chapters have all their parts"]), sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
