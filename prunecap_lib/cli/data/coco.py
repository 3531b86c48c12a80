"""``prunecap data coco``: COCO's pictures, captions and masks, downloaded, checked and unpacked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import printable


@dataclass(frozen=True)
class CocoCommand:
    """Download COCO (20 GB; 40 GB free while it is unpacked), or take zips that you have, check and unpack them.

    What breaks off goes on with the same command; what is there is not fetched again.

    examples:
      prunecap data coco --root photos/coco --split karpathy
      prunecap data coco --root photos/coco --split karpathy --only annotations
      prunecap data coco --root photos/coco --year 2014 --from ~/Downloads
      prunecap data coco --root photos/coco --mirror https://mirror.example.org/coco
    """

    root: Path
    """Folder to put it in."""
    year: Literal[2014, 2017] | None = None
    """The same 123,287 pictures, shared out differently; default: the year that lies there, else 2017."""
    split: Literal["official", "karpathy"] = "official"
    """karpathy: also the split that papers report on (113,287/5,000/5,000 pictures, of either year)."""
    only: Literal["annotations", "pictures"] | None = None
    """annotations: the text alone (Karpathy's split too), 0.3 GB."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR")] = None
    """Folder with the zips, as they are called at COCO's; they are checked and left there."""
    mirror: Annotated[tuple[str, ...], tyro.conf.arg(metavar="URL"), tyro.conf.UseAppendAction] = ()
    """Address to ask before COCO's own, again for more of them; default: those in PRUNECAP_MIRRORS, by commas."""
    check: bool = False
    """Compare the bytes of every file that was unpacked here with its checksum, at once or any time later."""

    def run(self) -> None:
        from ...datasets.download import COCO, FOLDER, get_coco
        from ...files import check_output_folder

        if not os.path.isdir(self.root):
            check_output_folder(self.root, FOLDER)
        lie_there = [year for year in (2017, 2014) if (self.root / f"train{year}").is_dir()]
        coco = COCO[self.year or (lie_there or [2017])[0]]
        mirrors = self.mirror or tuple(filter(None, os.environ.get("PRUNECAP_MIRRORS", "").split(",")))
        new = get_coco(self.root, coco, karpathy=self.split == "karpathy", pictures=self.only != "annotations",
                       text=self.only != "pictures", source=self.source, mirrors=mirrors, thorough=self.check)
        print(f"{printable(self.root)}: "
              + (f"unpacked {', '.join(new)}" if new else "all of it is there, nothing to do"))
        print(closing(self.root, coco))


def closing(root: Path, coco) -> str:
    """What ``open_dataset`` now finds in the folder, and the command that comes next."""
    annotations = root / "annotations"
    if any((place / "dataset_coco.json").is_file() for place in (root, annotations)):
        what, counts = "Karpathy's split", dict(zip(("train", "val", "test"), coco.karpathy_counts, strict=True))
    elif (annotations / f"captions_val{coco.year}.json").is_file():
        what, counts = f"official split of {coco.year}", {"train": coco.train.pictures, "val": coco.val.pictures}
    else:
        return "next: the same command without --only, for the captions"
    found = f"COCO, {what}: " + ", ".join(f"{split} {count:,}" for split, count in counts.items()) + " pictures\n"
    if not (root / coco.train.folder).is_dir():
        return found + "next: the same command without --only, for the pictures"
    if "test" not in counts and coco.year == 2014 and (annotations / "captions_val2017.json").is_file():
        return found + "2017 lies there too, and is what will be read; give each year a folder of its own"
    return found + f"next: prunecap data info --dataset coco --root {root} --split val"
