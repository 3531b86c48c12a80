"""How many words do real captions use, and what does a smaller vocabulary cost, of words or of pieces of words?

    PRUNECAP_PHOTOS=photos python experiments/vocabularies.py --coco captions_val2017.json \\
        --out data/results/tokenizers.json

For Flickr8k (vocabularies of the training split, measured on the dev split) and for a COCO caption file (vocabularies
of all its pictures but the last 1,000, measured on these). For each vocabulary: what it lacks, how long captions
are, and what people would score without the words that it lacks. Reads captions alone, no picture.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

import numpy as np

from prunecap_lib import BytePairs, Vocabulary
from prunecap_lib.datasets.base import photos_root
from prunecap_lib.datasets.coco import read_coco_files
from prunecap_lib.datasets.flickr8k import read_flickr8k
from prunecap_lib.evaluation import vocabulary_ceilings
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.text import tokenize

MIN_COUNTS = (1, 2, 3, 5, 7, 10, 20, 50)
PRESET = 2033  # entries of the seed preset's vocabulary
PIECES = (500, 1000, PRESET, 4000, 8000)
HELD_OUT = 1000
LONGEST = 20  # TrainConfig.max_words


def lengths(tokenizer, captions: list[str]) -> dict:
    """How many ids a caption takes, <bos> and <eos> not counted."""
    found = np.array([len(tokenizer.encode(caption, bos=False, eos=False)) for caption in captions])
    return {"entries": len(tokenizer), "mean_length": round(float(found.mean()), 3),
            "longer_than_20": round(float((found > LONGEST).mean()), 5)}


def of_words(vocabularies: list[Vocabulary], counts: Counter, held_out: dict[int | str, list[str]]) -> list[dict]:
    captions, rows = [caption for row in held_out.values() for caption in row], []
    for vocabulary, found in zip(vocabularies, vocabulary_ceilings(held_out, vocabularies), strict=True):
        found = asdict(found)
        rows.append({**lengths(vocabulary, captions), "rarest_seen": counts[vocabulary.words[-1]],
                     **{name: round(found[name], 5) for name in ("unknown_words", "captions_touched")},
                     **{name: {"CIDEr": round(found[name]["CIDEr"], 4)} for name in ("intact", "struck", "replaced")},
                     "CIDEr_intervals": {name: [round(bound, 4) for bound in bounds]
                                         for name, bounds in found["CIDEr_intervals"].items()}})
    return rows


def measure(train: list[list[str]], held_out: dict[int | str, list[str]]) -> dict:
    captions = [caption for row in train for caption in row]
    others = [caption for row in held_out.values() for caption in row]
    counts = Counter(word for caption in captions for word in tokenize(caption))
    *by_min_count, preset = of_words([*(Vocabulary.build(captions, min_count=n) for n in MIN_COUNTS),
                                      Vocabulary.build(captions, max_size=PRESET)], counts, held_out)
    return {"pictures": {"train": len(train), "held_out": len(held_out)}, "captions": len(captions),
            "words": counts.total(), "different_words": len(counts),
            # [count, how many words have it], so that the whole frequency curve takes a few lines
            "counts": sorted(Counter(counts.values()).items(), reverse=True),
            "by_min_count": [{"min_count": n, **row} for n, row in zip(MIN_COUNTS, by_min_count, strict=True)],
            "preset": preset,
            "byte_pairs": [lengths(BytePairs.build(captions, max_size=size), others) for size in PIECES]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of Flickr8k; default: $PRUNECAP_PHOTOS/flickr8k")
    parser.add_argument("--coco", required=True,
                        help="a captions_*.json of COCO, or a part of one, in $PRUNECAP_PHOTOS/coco/annotations")
    parser.add_argument("--out", type=report_path, required=True)
    options = parser.parse_args()
    root = photos_root("flickr8k", options.root)
    train, dev = (read_flickr8k(root, split, check_images=False) for split in ("train", "dev"))
    coco = read_coco_files(photos_root("coco", None) / "annotations" / options.coco, root, check_images=False)
    references = coco.references()
    write_json(options.out, {
        "flickr8k": measure(train.captions, dev.references()),
        "coco_slice": measure(coco.captions[:-HELD_OUT], {id: references[id] for id in coco.image_ids[-HELD_OUT:]}),
        "provenance": provenance()})


if __name__ == "__main__":
    main()
