"""How many words do real captions use, and what does a smaller vocabulary cost?

    PRUNECAP_PHOTOS=photos python tools/measure_words.py --out data/results/flickr8k_words.json

Counts the words of Flickr8k's training captions. For each vocabulary: the share of the dev split's words that it
lacks, and what the first human caption scores against the other four once the words that it lacks are taken out.
Reads captions alone, no picture.
"""

from __future__ import annotations

import argparse
from collections import Counter

from prunecap_lib import Vocabulary
from prunecap_lib.datasets.base import photos_root
from prunecap_lib.datasets.flickr8k import read_flickr8k
from prunecap_lib.evaluation import bootstrap_interval, per_image_cider
from prunecap_lib.reports import provenance, write_json
from prunecap_lib.text import tokenize

MIN_COUNTS = (1, 2, 3, 5, 7, 10, 20, 50)
PRESET = 2033  # entries of the seed preset's vocabulary


def cost(vocabulary: Vocabulary, dev) -> dict:
    """What a vocabulary misses in the dev captions, and the score that is left."""
    known = set(vocabulary.words)
    words = [word for captions in dev.captions for caption in captions for word in tokenize(caption)]
    candidates = {key: " ".join(word for word in tokenize(captions[0]) if word in known)
                  for key, captions in zip(dev.image_ids, dev.captions, strict=True)}
    others = {key: captions[1:] for key, captions in dev.references().items()}
    values = list(per_image_cider(others, candidates).values())
    low, high = bootstrap_interval(values, seed=0)
    return {"entries": len(vocabulary), "out_of_vocabulary": round(sum(w not in known for w in words) / len(words), 5),
            "CIDEr": round(sum(values) / len(values), 4), "CIDEr_interval": [round(low, 4), round(high, 4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of Flickr8k; default: $PRUNECAP_PHOTOS/flickr8k")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    root = photos_root("flickr8k", options.root)
    train, dev = (read_flickr8k(root, split, check_images=False) for split in ("train", "dev"))
    captions = [caption for row in train.captions for caption in row]
    counts = Counter(word for caption in captions for word in tokenize(caption))
    by_min_count = [{"min_count": n, **cost(Vocabulary.build(captions, min_count=n), dev)} for n in MIN_COUNTS]
    preset = {"max_size": PRESET, **cost(Vocabulary.build(captions, max_size=PRESET), dev)}
    write_json(options.out, {
        "dataset": "flickr8k", "pictures": {"train": len(train), "dev": len(dev)}, "captions": len(captions),
        "words": counts.total(), "different_words": len(counts),
        # [count, how many words have it], so that the whole frequency curve takes a few lines
        "counts": sorted(Counter(counts.values()).items(), reverse=True),
        "by_min_count": by_min_count, "preset": preset, "provenance": provenance()})


if __name__ == "__main__":
    main()
