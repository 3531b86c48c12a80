"""What happens to a long training when one picture of 100,000 cannot be read? Its neighbour in the batch stands in.

Each such picture is named in a warning and counted, in all of a data loader's workers together; above a share, it is
no accident any more, and training stops. Several training processes count each for itself: in an epoch each sees its
part of the pictures, and over epochs all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError, PictureError
from ..preprocessing import Preprocessing
from .base import CaptionDataset, ImageId

Look = Callable[[CaptionDataset, int, Preprocessing], Tensor]


class ImageLoader:
    """Pictures of a data set by position, without those that cannot be read.

    Args:
        look: (dataset, position, preprocessing) -> uint8 [3, S, S], such as ``decode.exact_pixels``.
        most: share of the data set's pictures that may be unreadable.
    """

    def __init__(self, dataset: CaptionDataset, preprocessing: Preprocessing, look: Look, *, most: float = 0.001):
        self.dataset, self.preprocessing, self.look, self.most = dataset, preprocessing, look, most
        self._bad = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # shared with workers

    def __call__(self, positions: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Pictures [B, 3, S, S], and whose each is: the place in ``positions`` of the one that is shown, [B].

        The places are 0, 1, …, B-1 unless a picture could not be read: then the next one that could, from the
        beginning again after the last, is shown twice. Raises InputError above the share, or where none is readable.
        """
        pictures = [self._read(i) for i in positions]
        good = [k for k, picture in enumerate(pictures) if picture is not None]
        if not good:
            raise InputError(f"data set {self.dataset.name}: none of {len(pictures)} pictures of a batch can be read, "
                             f"{self.dataset.image_ids[positions[0]]} for one; check the disk and the files")
        shown = [next((g for g in good if g >= k), good[0]) for k in range(len(pictures))]
        return torch.stack([pictures[k] for k in shown]), shown

    @property
    def unreadable(self) -> list[ImageId]:
        """Ids of the pictures found unreadable so far, by any worker."""
        return [self.dataset.image_ids[i] for i in self._bad.nonzero()[:, 0].tolist()]

    def _read(self, i: int) -> Tensor | None:
        try:
            return self.look(self.dataset, i, self.preprocessing)
        except PictureError as error:
            new = not self._bad[i]
            self._bad[i] = True
            count, allowed = int(self._bad.sum()), int(self.most * len(self.dataset))
            if count > allowed:
                raise InputError(f"{error}. It is unreadable picture {count} of {len(self.dataset)}, and "
                                 f"max_unreadable {self.most:g} allows {allowed}; get them again, or allow more") \
                    from error
            if new:
                warnings.warn(f"{error}. Training goes on without it (unreadable picture {count}, {allowed} allowed)",
                              stacklevel=2)
            return None
