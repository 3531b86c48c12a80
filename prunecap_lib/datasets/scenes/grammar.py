"""How does a person describe a scene, and what does such a sentence claim?

`write_captions` and `parse` share one lexicon: whatever the first can say, the second understands. The five captions of
a scene word the same facts differently; all they state can be seen in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ...text import tokenize
from .world import Group, Layout

# (singular, plural), the commonest first
NOUNS = {
    "cat": (("cat", "cats"), ("kitten", "kittens")),
    "dog": (("dog", "dogs"), ("puppy", "puppies")),
    "bird": (("bird", "birds"),),
    "fish": (("fish", "fish"),),
    "butterfly": (("butterfly", "butterflies"),),
    "house": (("house", "houses"), ("cottage", "cottages")),
    "tree": (("tree", "trees"),),
    "flower": (("flower", "flowers"), ("blossom", "blossoms")),
    "car": (("car", "cars"), ("automobile", "automobiles")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "balloon": (("balloon", "balloons"),),
    "mug": (("mug", "mugs"), ("cup", "cups")),
    "chair": (("chair", "chairs"),),
}
VERBS = {"cat": "sitting", "dog": "standing", "bird": "perching", "fish": "swimming",
         "butterfly": "fluttering", "house": "standing", "tree": "growing", "flower": "blooming",
         "car": "parked", "boat": "resting", "umbrella": "standing", "balloon": "floating", "mug": "standing",
         "chair": "standing"}
COLOUR_WORDS = {"red": ("red", "scarlet"), "orange": ("orange",), "yellow": ("yellow", "golden"),
                "green": ("green",), "blue": ("blue",), "purple": ("purple", "violet"), "pink": ("pink",),
                "brown": ("brown",)}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium sized",), "large": ("large", "big", "huge")}
COUNT_WORDS = {1: ("a", "one", "a single"), 2: ("two", "a pair of", "a couple of"),
               3: ("three", "a group of three"), 4: ("four", "a group of four")}
# how the first group stands to the second, and the second to the first
RELATION_WORDS = {
    "left of": (("to the left of", "left of", "on the left of"), ("to the right of", "right of", "on the right of")),
    "above": (("above", "over"), ("below", "under", "beneath")),
    "next to": (("next to", "beside", "alongside"),) * 2,
}
PLACES = {  # (after a thing: "a cat …", before it: "… with a cat")
    "meadow": (("in a meadow", "in the meadow", "on the grass", "in a grassy field"), ("a meadow", "a sunny meadow")),
    "beach": (("on the beach", "on a beach", "on the sand", "on a sandy beach"), ("a beach", "a sandy beach")),
    "night": (("at night", "in the dark", "under the stars", "in the moonlight"), ("a starry night", "a dark night")),
    "snow": (("in the snow", "on the snow", "on a snowy day", "in winter"), ("a snowy day", "a winter day")),
    "room": (("in a room", "in the room", "indoors", "on the floor"), ("a room", "a cozy room")),
    "sea": (("on the sea", "on the water", "at sea", "on the waves"), ("the sea", "the open sea")),
}

# Sentence patterns with their weights: of one group, of two with and without their relation.
_ONE = (("{a} {place}", 30), ("there {is} {a} {place}", 18), ("{a} {verb} {place}", 14), ("{a} {is} {verb} {place}", 8),
        ("{scene} with {a}", 15), ("a picture of {a}", 7), ("{a}", 8))
_RELATED = (("{a} {relation} {b}", 34), ("{a} {relation} {b} {place}", 22), ("there {is} {a} {relation} {b}", 14),
            ("{a} {is} {relation} {b}", 14), ("{scene} with {a} {relation} {b}", 10),
            ("a picture of {a} {relation} {b}", 6))
_UNRELATED = (("{a} and {b} {place}", 45), ("{scene} with {a} and {b}", 15), ("{a} {place}", 25),
              ("{a} {verb} {place}", 15))


def write_captions(layout: Layout, rng: Random) -> tuple[str, ...]:
    """Five captions. Of two groups at least three state the relation; one that names a single group, the main one."""
    main = layout.groups[layout.main]
    if layout.relation is None:
        return tuple(_fill(rng, _pick(rng, _ONE), layout, main, None) for _ in range(5))
    other = layout.groups[1 - layout.main]
    stated = [True] * 3 + [rng.random() < 0.75 for _ in range(2)]
    rng.shuffle(stated)
    captions = []
    for state in stated:
        first, second = (main, other) if not state or rng.random() < 0.75 else (other, main)
        captions.append(_fill(rng, _pick(rng, _RELATED if state else _UNRELATED), layout, first, second))
    return tuple(captions)


def describe(layout: Layout) -> str:
    """One full plain sentence, the picture's alternative text: everything a caption may say, without synonyms."""

    def plain(group):
        size = "" if group.size == "medium" else SIZE_WORDS[group.size][0]
        return _noun_phrase(group, COUNT_WORDS[group.count][0], size, group.colour, NOUNS[group.kind][0])

    things = plain(layout.groups[0])
    if layout.relation is not None:
        things += f" {RELATION_WORDS[layout.relation][0][0]} {plain(layout.groups[1])}"
    return f"{things} {PLACES[layout.background][0][0]}".capitalize() + "."


def _fill(rng: Random, pattern: str, layout: Layout, first: Group, second: Group | None) -> str:
    related = ""
    if second is not None and layout.relation is not None:
        related = _favour(rng, RELATION_WORDS[layout.relation][first is not layout.groups[0]])
    after, before = PLACES[layout.background]
    return pattern.format(
        a=_phrase(rng, first), b=_phrase(rng, second) if second and "{b}" in pattern else "", relation=related,
        verb=VERBS[first.kind], place=_favour(rng, after), scene=_favour(rng, before),
        **{"is": "are" if first.count > 1 else "is"})


def _phrase(rng: Random, group: Group) -> str:
    size = ""
    if rng.random() < (0.1 if group.size == "medium" else 0.55):
        size = _favour(rng, SIZE_WORDS[group.size], 0.5)
    return _noun_phrase(group, _favour(rng, COUNT_WORDS[group.count], 0.8), size,
                        _favour(rng, COLOUR_WORDS[group.colour], 0.9), _favour(rng, NOUNS[group.kind], 0.8))


def _noun_phrase(group: Group, count: str, size: str, colour: str, noun: tuple[str, str]) -> str:
    look = " ".join(word for word in (size, colour, noun[group.count > 1]) if word)
    return f"{'an' if count == 'a' and look[0] in 'aeiou' else count} {look}"


def _favour(rng: Random, words: tuple[str, ...], share: float = 0.6) -> str:
    """The first, commonest word with probability `share`, else one of the others."""
    return words[0] if len(words) == 1 or rng.random() < share else rng.choice(words[1:])


def _pick(rng: Random, weighted) -> str:
    return rng.choices([pattern for pattern, _ in weighted], [weight for _, weight in weighted])[0]


# ---- reading ------------------------------------------------------------
@dataclass(frozen=True)
class Mention:
    """A thing a caption names; colour or count is None where the caption does not say."""

    kind: str
    colour: str | None
    count: int | None


@dataclass(frozen=True)
class Claim:
    """`mentions` in the order they are named, and at most one (first, relation, second) with kinds for both ends."""

    mentions: tuple[Mention, ...]
    relation: tuple[str, str, str] | None


_KIND_OF = {word: (kind, plural and forms[0] != forms[1])
            for kind, nouns in NOUNS.items() for forms in nouns for plural, word in enumerate(forms)}
_COLOUR_OF = {word: colour for colour, words in COLOUR_WORDS.items() for word in words}
_COUNT_OF = {"a": 1, "an": 1, "one": 1, "single": 1, "two": 2, "pair": 2, "couple": 2, "three": 3, "four": 4}
_INSIDE = {word for words in SIZE_WORDS.values() for phrase in words for word in phrase.split()} | {"of", "group"}
# by a phrase's last two words: the relation, and whether it is told the other way round
_RELATION_OF = {tuple(phrase.split()[-2:]): (relation, inverse and sides[0] != sides[1])
                for relation, sides in RELATION_WORDS.items() for inverse, phrases in enumerate(sides)
                for phrase in phrases}


def parse(caption: str) -> Claim:
    """What a caption says of things. Colours and counts belong to the noun they stand directly before; a relation
    holds between the nouns around it. Unknown words are passed over."""
    words = tokenize(caption)
    mentions: list[Mention] = []
    colour = count = pending = relation = None
    for at, word in enumerate(words):
        found = _RELATION_OF.get((word,)) or _RELATION_OF.get(tuple(words[at : at + 2]))
        if word in _KIND_OF:
            kind, plural = _KIND_OF[word]
            mentions.append(Mention(kind, colour, count if count is not None or plural else 1))
            if pending and relation is None:
                (name, inverse), first = pending
                relation = (kind, name, first) if inverse else (first, name, kind)
            colour = count = pending = None
        elif found:
            pending = (found, mentions[-1].kind) if mentions else None
            colour = count = None
        elif word in _COLOUR_OF:
            colour = _COLOUR_OF[word]
        elif word in _COUNT_OF:
            count = _COUNT_OF[word]
        elif word not in _INSIDE:
            colour = count = None
    return Claim(tuple(mentions), relation)


def judge(layout: Layout, caption: str) -> dict[str, tuple[int, int]]:
    """(right answers, answers due) of each attribute for one caption; see `scene_accuracy`."""
    claim = parse(caption)
    groups = {group.kind: group for group in layout.groups}
    named = {}
    for mention in claim.mentions:  # named twice: the first mention counts
        named.setdefault(mention.kind, mention)
    true = [named[kind] for kind in named if kind in groups]
    due = max(1, len(true))
    return {
        "kind": (len(true), len(named.keys() | {layout.groups[layout.main].kind})),
        "colour": (sum(mention.colour == groups[mention.kind].colour for mention in true), due),
        "count": (sum(mention.count == groups[mention.kind].count for mention in true), due),
        "relation": (int(_relates(layout, claim)), int(layout.relation is not None)),
    }


def _relates(layout: Layout, claim: Claim) -> bool:
    if layout.relation is None or claim.relation is None or claim.relation[1] != layout.relation:
        return False
    first, _, second = claim.relation
    own, other = (group.kind for group in layout.groups)
    same, crossed = (first == own) + (second == other), (first == other) + (second == own)
    if layout.relation == "next to":  # says the same both ways round
        return max(same, crossed) > 0
    return same > 0 and crossed == 0
