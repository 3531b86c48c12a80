"""Is what a caption says of a scene true, attribute by attribute?

CIDEr-D rewards wording; these scores ask only about facts, exactly, because the scene's description is
known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...errors import InputError
from .grammar import Claim, parse

if TYPE_CHECKING:
    from .dataset import Scene

ATTRIBUTES = ("kind", "colour", "count", "relation")


def scene_accuracy(
    scenes: Mapping[int, Scene] | Iterable[Scene], candidates: Mapping[int, str]
) -> dict[str, float]:
    """Share (0..1) of right kinds, colours, counts and relations in `candidates` {scene id: caption}.

    Each score is (right answers) / (answers due), both summed over the candidates' scenes:

    - kind: due is every distinct kind that the caption names, and the main thing's if it does not name it;
      right are those that are in the scene. So a caption may leave out the lesser group, but never the main
      one.
    - colour: due is every group whose kind the caption names, or the main group if it names none; right are
      those named in their own colour, the colour standing before that very noun.
    - count: as colour; right are those named in their own number ("a", "two", "a pair of"; a bare plural is
      wrong).
    - relation: due is every scene of two groups; right if the caption relates two things in the scene's way
      (either way round: "below" is "above" reversed) with at least one of the two named, on its own side,
      and none on the other's. Left of, above and next to exclude each other: only the scene's own is right.

    A caption that names nothing scores 0 everywhere; a score with no answer due (no scene of two groups) is
    left out. Raises: InputError for a candidate of an unknown scene, or none at all.
    """
    known = scenes if isinstance(scenes, Mapping) else {scene.id: scene for scene in scenes}
    if not candidates:
        raise InputError("scene accuracy: no candidate captions were given; caption at least one scene")
    right, due = dict.fromkeys(ATTRIBUTES, 0), dict.fromkeys(ATTRIBUTES, 0)
    for id, caption in candidates.items():
        if id not in known:
            raise InputError(
                f"scene accuracy: candidate {id!r} is none of the {len(known)} scenes given; "
                "check that scenes and captions are of the same split"
            )
        for attribute, (hits, asked) in judge(known[id], caption).items():
            right[attribute] += hits
            due[attribute] += asked
    return {attribute: right[attribute] / due[attribute] for attribute in ATTRIBUTES if due[attribute]}


def judge(scene: Scene, caption: str) -> dict[str, tuple[int, int]]:
    """(right, due) of each attribute for one caption; see `scene_accuracy`."""
    claim = parse(caption)
    groups = {group.kind: group for group in scene.groups}
    main = scene.groups[scene.main]
    named = {}
    for mention in claim.mentions:  # named twice: the first mention counts
        named.setdefault(mention.kind, mention)
    true = [named[kind] for kind in named if kind in groups]
    asked = max(1, len(true))
    return {
        "kind": (len(true), len(named.keys() | {main.kind})),
        "colour": (sum(mention.colour == groups[mention.kind].colour for mention in true), asked),
        "count": (sum(mention.count == groups[mention.kind].count for mention in true), asked),
        "relation": (int(_relates(scene, claim)), int(scene.relation is not None)),
    }


def _relates(scene: Scene, claim: Claim) -> bool:
    if scene.relation is None or claim.relation is None or claim.relation[1] != scene.relation:
        return False
    first, _, second = claim.relation
    own = (scene.groups[0].kind, scene.groups[1].kind)
    same = (first == own[0]) + (second == own[1])
    crossed = (first == own[1]) + (second == own[0])
    if scene.relation == "next to":  # says the same both ways round
        return max(same, crossed) > 0
    return same > 0 and crossed == 0
