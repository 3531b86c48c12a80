"""Are Scenes the same every time, true in every pixel and word, and readable as COCO files?"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from prunecap_lib.datasets.scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    KINDS,
    RELATIONS,
    SIZES,
    SPLITS,
    ScenesDataset,
    make_scenes,
    scene_accuracy,
    write_coco,
)
from prunecap_lib.datasets.scenes.drawing.kinds import SHAPES
from prunecap_lib.datasets.scenes.grammar import Mention, parse
from prunecap_lib.errors import InputError
from prunecap_lib.text import tokenize
from prunecap_lib.tokens import Grid


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(300)


@pytest.fixture(scope="module")
def many():
    return make_scenes(1500)


def pixels(scene):
    return np.asarray(scene.image)


def group_box(scene, group):
    """(left, top, right, bottom) in pixels of the visible part of a group."""
    things = zip(scene.things, scene.masks(), strict=True)
    masks = [mask for thing, (_, mask) in things if thing.group == group]
    rows, columns = np.nonzero(np.any(masks, axis=0))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


# ---- the same every time ------------------------------------------------------------
def test_scene_depends_on_seed_split_and_number_alone():
    few, more = make_scenes(3, seed=7), make_scenes(6, seed=7)
    for one, same in zip(few, more, strict=False):
        assert one == same and one.image.tobytes() == same.image.tobytes()
    assert make_scenes(3, seed=8)[0].image.tobytes() != few[0].image.tobytes()
    assert make_scenes(3, seed=7, split="val")[0].image.tobytes() != few[0].image.tobytes()


def test_the_first_scene_has_not_changed():
    # Shipped checkpoints were trained on exactly these scenes: a change here is a change of the data set.
    first = make_scenes(1, split="test")[0]
    assert first.id == 3_000_000
    assert first.alt == "Three small purple trees above four small yellow chairs on the beach."
    assert first.captions[0] == "four yellow chairs below three little purple trees on the beach"


@pytest.mark.parametrize("size", [64, 96, 224])
def test_one_scene_at_every_size(size):
    small, large = make_scenes(2, size=64)[1], make_scenes(2, size=size)[1]
    assert large.image.size == (size, size) and large.image.mode == "RGB"
    assert replace(small, size=large.size) == large
    back = np.asarray(large.image.resize((64, 64), 4), float)  # 4: box filter
    assert np.abs(back - pixels(small)).mean() < 8


# ---- what is shown ------------------------------------------------------------
def test_the_world_is_as_large_as_promised(many):
    groups = [group for scene in many for group in scene.groups]
    assert len(KINDS) >= 12 and set(KINDS) == set(SHAPES) == {group.kind for group in groups}
    assert len(COLOURS) == 8 and {group.colour for group in groups} == set(COLOURS)
    assert {group.size for group in groups} == set(SIZES)
    assert {group.count for group in groups} == {1, 2, 3, 4}
    assert {scene.background for scene in many} == set(BACKGROUNDS)
    assert {scene.relation for scene in many} == {None, *RELATIONS}
    for attribute in ("kind", "colour"):  # no kind or colour can be guessed
        shares = np.array(list(Counter(getattr(group, attribute) for group in groups).values())) / len(groups)
        assert shares.max() < 1.6 * shares.mean() and shares.min() > 0.6 * shares.mean()


def test_held_out_pairs_are_shown_in_heldout_alone(many):
    assert len(HELD_OUT) == len(KINDS) and {colour for _, colour in HELD_OUT} == set(COLOURS)

    def held_out(scene):
        return [group for group in scene.groups if (group.kind, group.colour) in HELD_OUT]

    for scene in [*many, *make_scenes(200, split="val"), *make_scenes(200, split="test")]:
        assert not held_out(scene)
    assert all(len(held_out(scene)) == 1 for scene in make_scenes(200, split="heldout"))


def test_splits_share_no_scene():
    splits = {split: make_scenes(100, split=split) for split in SPLITS}
    layouts = [scene.things for scenes in splits.values() for scene in scenes]
    ids = {scene.id for scenes in splits.values() for scene in scenes}
    assert len(set(layouts)) == len(ids) == 400


@pytest.mark.slow
def test_masks_show_as_many_things_as_the_groups_count(scenes):
    for scene in scenes:
        counts = {number: group.count for number, group in enumerate(scene.groups)}
        assert Counter(thing.group for thing in scene.things) == counts
        masks = [mask for _, mask in scene.masks()]
        assert [kind for kind, _ in scene.masks()] == [thing.kind for thing in scene.things]
        assert max(np.sum(masks, axis=0).max(), 1) == 1  # no pixel belongs to two things
        assert min(mask.sum() for mask in masks) > 30


def test_relations_hold_in_the_masks(scenes):
    gaps = {relation: [] for relation in RELATIONS}
    for scene in scenes:
        if scene.relation is None:
            continue
        first, second = group_box(scene, 0), group_box(scene, 1)
        axis = 1 if scene.relation == "above" else 0
        assert first[axis] + first[axis + 2] < second[axis] + second[axis + 2]  # centres
        gaps[scene.relation].append(second[axis] - first[axis + 2])
    assert min(gaps["left of"]) >= 6 > 4 >= max(gaps["next to"])  # pixels of 64: the two cannot be confused
    assert min(gaps["above"]) >= -2


def test_masks_lie_where_the_colour_is(scenes):
    scene = next(s for s in scenes if s.background == "snow" and s.groups[0].colour == "red")
    things = zip(scene.things, scene.masks(), strict=True)
    red = next(mask for thing, (_, mask) in things if thing.colour == "red")
    empty = ~np.any([mask for _, mask in scene.masks()], axis=0)
    inside, outside = pixels(scene)[red].mean(0), pixels(scene)[empty].mean(0)
    assert inside[0] - inside[1] > 60 > outside[0] - outside[1]


@pytest.mark.parametrize("grid", [(8, 8), (4, 8), (7, 7)])
def test_token_mask_keeps_the_covered_area(scenes, grid):
    covered = np.any([mask for _, mask in scenes[0].masks()], axis=0)
    share = scenes[0].token_mask(grid)
    assert share.shape == grid and share.min() >= 0 and share.max() <= 1
    assert share.mean() == pytest.approx(covered.mean(), abs=0.01)
    if grid == (8, 8):
        assert share == pytest.approx(covered.reshape(8, 8, 8, 8).mean((1, 3)))


@pytest.mark.parametrize("cells, stride", [(7, 9), (3, 20), (4, 20), (2, 40)])
def test_token_mask_lies_where_an_encoder_has_its_cells(scenes, cells, stride):
    """On 64 pixels: some are in no cell, or the last cells reach over the edge."""
    covered = np.any([mask for _, mask in scenes[0].masks()], axis=0)
    padded = np.pad(covered, (0, 80 - 64))[: cells * stride, : cells * stride]
    share = scenes[0].token_mask(Grid.of((cells, cells), stride, 64))
    assert share == pytest.approx(padded.reshape(cells, stride, cells, stride).mean((1, 3)), abs=1e-5)


# ---- what is said ------------------------------------------------------------
def test_vocabulary_and_captions(many):
    words = {word for scene in many for caption in scene.captions for word in tokenize(caption)}
    assert 100 <= len(words) <= 250
    assert all(len(scene.captions) == 5 for scene in many)
    assert np.mean([len(set(scene.captions)) for scene in many]) > 4.5


def test_references_are_true(many):
    for number in range(5):
        score = scene_accuracy(many, {scene.id: scene.captions[number] for scene in many})
        assert (score["kind"], score["colour"], score["count"]) == (1, 1, 1)
        assert score["relation"] > 0.85  # some captions leave it out
    for scene in many:
        if scene.relation:
            told = [caption for caption in scene.captions if parse(caption).relation]
            assert len(told) >= 3
            assert all(scene_accuracy([scene], {scene.id: caption})["relation"] == 1 for caption in told)
    assert set(scene_accuracy(many, {scene.id: scene.alt for scene in many}).values()) == {1}


def test_captions_of_other_scenes_and_empty_ones_score_low(many):
    others = {a.id: b.captions[0] for a, b in zip(many, many[1:] + many[:1], strict=True)}
    assert max(scene_accuracy(many, others).values()) < 0.15
    assert set(scene_accuracy(many, {scene.id: "" for scene in many}).values()) == {0}


@pytest.mark.parametrize("caption, mentions, relation", [
    ("A pair of big scarlet kittens, in the snow", [("cat", "red", 2)], None),
    ("an umbrella and four fish", [("umbrella", None, 1), ("fish", None, 4)], None),
    ("one cup below two tiny violet cars under the stars", [("mug", None, 1), ("car", "purple", 2)],
     ("car", "above", "mug")),
    ("red on the right of a couple of boats", [("boat", None, 2)], None),
    ("cats next to a golden dog", [("cat", None, None), ("dog", "yellow", 1)], ("cat", "next to", "dog")),
    ("nothing here is known", [], None),
])
def test_parse(caption, mentions, relation):
    claim = parse(caption)
    assert claim.mentions == tuple(Mention(*mention) for mention in mentions) and claim.relation == relation


def test_each_attribute_is_scored_alone(many):
    scene = next(s for s in many if s.relation == "above" and s.main == 0
                 and [g.count for g in s.groups] == [1, 1] and s.groups[0].colour != s.groups[1].colour)
    (a, b), (this, that) = (scene.groups, (g.colour for g in scene.groups))

    def score(caption):
        return list(scene_accuracy([scene], {scene.id: caption}).values())

    assert score(f"a {this} {a.kind} above a {that} {b.kind}") == [1, 1, 1, 1]
    assert score(f"a {that} {b.kind} below a {this} {a.kind}") == [1, 1, 1, 1]
    assert score(f"a {this} {a.kind} below a {that} {b.kind}") == [1, 1, 1, 0]
    assert score(f"a {this} {a.kind} next to a {that} {b.kind}") == [1, 1, 1, 0]
    assert score(f"a {that} {a.kind} above a {this} {b.kind}") == [1, 0, 1, 1]  # swapped colours
    assert score(f"two {this} {a.kind} above a {that} {b.kind}") == [1, 1, 0.5, 1]
    assert score(f"a {this} {a.kind}") == [1, 1, 1, 0]
    assert score(f"a {that} {b.kind}") == [0.5, 1, 1, 0]  # the main thing is missing
    other = next(kind for kind in KINDS if kind not in (a.kind, b.kind))
    assert score(f"a {this} {other} above a {that} {b.kind}") == [pytest.approx(1 / 3), 1, 1, 1]


def test_a_score_without_an_answer_due_is_left_out(many):
    alone = next(scene for scene in many if scene.relation is None)
    assert set(scene_accuracy([alone], {alone.id: "a cat"})) == {"kind", "colour", "count"}


def test_scores_name_an_unknown_scene(scenes):
    with pytest.raises(InputError, match="candidate 5 is none of"):
        scene_accuracy(scenes, {5: "a cat"})
    with pytest.raises(InputError, match="no candidate"):
        scene_accuracy(scenes, {})


# ---- as a data set, as COCO files ------------------------------------------------------------
def test_dataset_is_a_caption_dataset(scenes):
    data = ScenesDataset("val", 5, size=96, seed=3)
    assert (data.name, data.split, len(data)) == ("scenes", "val", 5)
    assert data.references() == dict(zip(data.image_ids, data.captions, strict=True))
    assert data.pixels().shape == (5, 3, 96, 96) and data.pixels().dtype == np.uint8
    assert np.array_equal(data.pixels()[4].transpose(1, 2, 0), np.asarray(data.image(4)))
    assert data.masks(2)[0][1].shape == (96, 96)


@pytest.mark.parametrize("call, message", [
    ({"n": 0}, "0 pictures"), ({"n": 1, "size": 4}, "size of 4"),
    ({"n": 1, "split": "dev"}, "no split 'dev'"),
])
def test_impossible_requests_are_named(call, message):
    with pytest.raises(InputError, match=message):
        make_scenes(**call)


def test_coco_files_read_back_by_pycocotools(tmp_path):
    from PIL import Image
    from pycocotools.coco import COCO

    scenes = make_scenes(12, split="test")
    paths = write_coco(scenes, tmp_path)
    captions, instances = COCO(paths["captions"]), COCO(paths["instances"])
    assert captions.getImgIds() == instances.getImgIds() == [scene.id for scene in scenes]
    for scene in scenes:
        picture = Image.open(paths["images"] / captions.imgs[scene.id]["file_name"])
        assert picture.tobytes() == scene.image.tobytes()
        assert [one["caption"] for one in captions.imgToAnns[scene.id]] == list(scene.captions)
        annotations = instances.imgToAnns[scene.id]
        assert len(annotations) == len(scene.things)
        for annotation, (kind, mask) in zip(annotations, scene.masks(), strict=True):
            assert instances.cats[annotation["category_id"]]["name"] == kind
            assert np.array_equal(instances.annToMask(annotation).astype(bool), mask)
            x, y, width, height = map(int, annotation["bbox"])
            assert annotation["area"] == mask.sum() == mask[y:y + height, x:x + width].sum()
    again = write_coco(scenes, tmp_path / "again")
    assert all(paths[name].read_bytes() == again[name].read_bytes() for name in ("captions", "instances"))


def test_coco_files_hold_one_split(tmp_path):
    with pytest.raises(InputError, match="2 splits"):
        write_coco([*make_scenes(1), *make_scenes(1, split="val")], tmp_path)
