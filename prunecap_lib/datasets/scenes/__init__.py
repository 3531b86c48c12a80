"""What can be learned without a download? Scenes: pictures drawn from a seed, with captions and exact masks.

A scene shows one or two groups of coloured things on one of six backgrounds. It is a function of (seed, split, i)
alone: scene i is the same however many are asked for, and at every size. ``world`` chooses what is in it, ``drawing``
draws it, ``grammar`` words it and judges captions, ``coco_files`` writes COCO's format.
"""

from .coco_files import SCENES, write_coco
from .dataset import ATTRIBUTES, Scene, ScenesDataset, make_scenes, scene_accuracy
from .world import BACKGROUNDS, COLOURS, HELD_OUT, KINDS, RELATIONS, SIZES, SPLITS, Group, Thing

__all__ = ["ATTRIBUTES", "BACKGROUNDS", "COLOURS", "HELD_OUT", "KINDS", "RELATIONS", "SCENES", "SIZES", "SPLITS",
           "Group", "Scene", "ScenesDataset", "Thing", "make_scenes", "scene_accuracy", "write_coco"]
