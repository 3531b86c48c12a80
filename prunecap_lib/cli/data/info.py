"""``prunecap data info``: what is in a data set, and what a vocabulary of its words would miss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from ...errors import InputError, printable
from ...ranges import Count, VocabularySize


@dataclass(frozen=True)
class InfoCommand:
    """Count pictures, captions and words of a split, and show a few. With a vocabulary's size or least count: how many
    words a vocabulary of the training captions lacks here, and what people would score without them."""

    dataset: Literal["scenes", "flickr8k", "coco", "shards"] = "scenes"
    split: str = "val"
    root: str | None = None
    """Folder of the photographs; default: PRUNECAP_PHOTOS."""
    limit: Count | None = None
    vocabulary_size: VocabularySize | None = None
    """Entries of the vocabulary, specials included (the seed preset has 2033)."""
    min_count: Count | None = None
    """Leave words out that the training captions have fewer times."""

    def run(self) -> None:
        from ...datasets import open_dataset
        from ...text import tokenize
        measured = self.vocabulary_size is not None or self.min_count is not None
        if measured and self.split == "train":
            raise InputError("a vocabulary is built from the training captions and lacks few of their words; choose "
                             "another --split to see what it misses")
        dataset = open_dataset(self.dataset, split=self.split, root=self.root, limit=self.limit)
        captions = [caption for row in dataset.captions for caption in row]
        words = Counter(word for caption in captions for word in tokenize(caption))
        print(f"{dataset.name} {dataset.split}: {len(dataset)} pictures, {len(captions)} captions, "
              f"{len(words)} different words, {sum(words.values()) / len(captions):.1f} words a caption")
        for i in range(min(3, len(dataset))):
            print(printable(f"  {dataset.image_ids[i]}: {dataset.captions[i][0]}"))
        if measured:
            self.show_ceiling(open_dataset(self.dataset, split="train", root=self.root), dataset)

    def show_ceiling(self, train, dataset) -> None:
        from ...evaluation import vocabulary_ceilings
        from ...text import Vocabulary, tokenize
        captions = [caption for row in train.captions for caption in row]
        vocabulary = Vocabulary.build(captions, min_count=self.min_count or 1, max_size=self.vocabulary_size)
        counts = Counter(word for caption in captions for word in tokenize(caption))
        ceiling, = vocabulary_ceilings(dataset.references(), [vocabulary], metrics=("BLEU", "ROUGE_L", "CIDEr"))
        print(f"vocabulary of the train split ({len(train)} pictures, {len(captions)} captions, {len(counts)} different"
              f" words): {len(vocabulary)} entries, the rarest word seen {counts[vocabulary.words[-1]]} times")
        print(f"unknown in {dataset.split}: {ceiling.unknown_words:.2%} of the words, in "
              f"{ceiling.captions_touched:.1%} of the captions")
        print("human captions against the others of their picture: intact, unknown words left out, <unk> for them:")
        for name, before in ceiling.intact.items():
            print(f"  {name:8} {before:.3f}  {ceiling.struck[name]:.3f}  {ceiling.replaced[name]:.3f}")
        print("  of CIDEr-D lost: {:.3f} to {:.3f} where they are left out, {:.3f} to {:.3f} with <unk> (95% intervals "
              "over pictures)".format(*ceiling.CIDEr_intervals["struck_lost"],
                                      *ceiling.CIDEr_intervals["replaced_lost"]))
