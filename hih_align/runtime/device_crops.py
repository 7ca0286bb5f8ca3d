"""`crops.warp` on the device of the network: photographs are sent to the device, and faces are cut out there.

The pixels differ from those of `crops.warp` by at most 1 or 2 grey levels, also for rotated crops. The CPU never waits
for the device: it computes coordinates, sends them through pinned memory, and reads nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..crops import REDUCE_ABOVE, Crop
from .backend import Photograph
from .transfer import send, staging, upload

#: Largest number of faces that are cut out together. Each needs 2 MB of temporary memory.
TOGETHER = 64

#: Side in pixels of the window of a photograph that is sent for one face, see `packed`. It is large enough for a face
#: that is not reduced, upright or rotated by 10 degrees.
WINDOW = 448


def sent(photograph: Photograph, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 on ``device``. A photograph that `stays` keeps this tensor."""
    if photograph.sent is not None and photograph.sent.device == device:
        return photograph.sent
    tensor = upload(photograph.pixels, device)
    if photograph.stays:
        photograph.sent = tensor
    return tensor


def warp(photographs: Sequence[Photograph], transforms: Sequence[Crop], device: torch.device) -> Tensor:
    """Crops of B faces. They are black outside their photographs.

    Args:
        photographs: the photograph of each face. Consecutive faces of the same photograph are cut out together.
        transforms: the crop of each face. All have the same ``size``.
        device: the device that cuts out the crops.

    Returns:
        (B, size, size, 3) uint8 on ``device``.
    """
    size = transforms[0].size
    plan = _Plan(photographs, transforms)
    crops = torch.empty(len(transforms), size, size, 3, dtype=torch.uint8, device=device)
    grids = upload(plan.grids, device)
    whole: Tensor | None = None  # on the device there is one whole photograph at a time
    for first, last in plan.groups():
        photograph = photographs[first]
        if first and photographs[first - 1] is not photograph:
            whole = None
        low, high = plan.low[first], plan.high[first]
        if (high <= low).any():
            crops[first:last] = 0
            continue
        more = last < len(photographs) and photographs[last] is photograph
        if whole is None and (photograph.stays or more):
            whole = sent(photograph, device)
        window = slice(low[1], high[1]), slice(low[0], high[0])
        part = upload(photograph.pixels[window], device) if whole is None else whole[window]
        _cut(part, plan.small[first].tolist() if plan.reduced[first] else None, grids[first:last], crops[first:last])
        del part
    return crops


def packed(photograph: Photograph, transform: Crop, device: torch.device) -> Tensor | None:
    """All data for the crop of one face, in one row of bytes. Its length depends only on the size of the crop.

    Therefore a face needs only one transfer, and the operations after it are always the same, so that a graph can hold
    them.

    Returns:
        (1, N) uint8 on ``device``, for `unpacked`. It holds the sampling coordinates, and then a window of `WINDOW` x
        `WINDOW` pixels, which is filled as far as the face needs. None if the face must be reduced first, or reaches
        beyond the photograph or the window.
    """
    plan = _Plan([photograph], [transform], WINDOW)
    low, high = plan.low[0], plan.high[0]
    if plan.reduced[0] or not plan.inside[0] or (high - low).max() > WINDOW:
        return None
    places = plan.grids.view(np.uint8).reshape(-1)
    staged = staging((1, len(places) + 3 * WINDOW**2), torch.uint8, device)
    row = staged.numpy()[0]
    row[: len(places)] = places
    width, height = high - low
    window = row[len(places) :].reshape(WINDOW, WINDOW, 3)
    window[:height, :width] = photograph.pixels[low[1] : high[1], low[0] : high[0]]
    return send(staged, device)


def unpacked(rows: Tensor, size: int) -> Tensor:
    """(B, N) uint8 rows of `packed` -> (B, size, size, 3) uint8 crops, with the same pixels as those of `warp`."""
    split = rows.shape[1] - 3 * WINDOW**2
    grids = rows[:, :split].contiguous().view(torch.float32).view(-1, 2, size, 2)
    source = rows[:, split:].view(-1, WINDOW, WINDOW, 3).permute(0, 3, 1, 2).float()
    return _sampled(source, grids).to(torch.uint8)


def _cut(part: Tensor, small: list[int] | None, grids: Tensor, crops: Tensor) -> None:
    """Cut faces out of a part of a photograph, and write them to ``crops``. The part is first reduced to ``small``."""
    source = part.permute(2, 0, 1).float() if small is None else _reduce(part, *small)
    crops.copy_(_sampled(source.expand(len(grids), -1, -1, -1), grids))


def _sampled(sources: Tensor, grids: Tensor) -> Tensor:
    """Sample pixels (B, 3, h, w) at coordinates (B, 2, size, 2) -> (B, size, size, 3) float32, whole numbers."""
    along, across = grids.unbind(1)
    grid = along[:, None] + across[:, :, None]
    # align_corners=False: -1 and 1 are the outer edges of the first and the last pixel
    return F.grid_sample(sources, grid, align_corners=False).round_().permute(0, 2, 3, 1)


class _Plan:
    """The places of the pixels of B faces in their photographs. `crops.warp` computes the same for one face.

    Args:
        photographs, transforms: as in `warp`.
        room: side of the square window that holds a part of a photograph in its first rows and columns. None: there is
            no window, and coordinates are relative to the part.

    Attributes:
        reduced: (B,) bool, whether the part of the photograph is first reduced by area averaging.
        inside: (B,) bool, whether the part lies inside the photograph.
        low, high: (B, 2) x, y, the part of the photograph that is read. Faces of a group share it.
        small: (B, 2) width and height of the part after it is reduced.
        grids: (B, 2, size, 2) float32. The crop pixel (row, column) is sampled at ``grids[:, 0, column] + grids[:, 1,
            row]``, x and y from -1 to 1 over the part or window.
    """

    def __init__(self, photographs: Sequence[Photograph], transforms: Sequence[Crop], room: int | None = None) -> None:
        self._photographs = photographs
        centre = np.array([(t.x, t.y) for t in transforms])
        pitch = np.array([t.side / t.size for t in transforms])[:, None]  # image pixels per crop pixel
        extent = np.array([photograph.pixels.shape[1::-1] for photograph in photographs])
        size = transforms[0].size
        steps = (np.arange(size) - (size - 1) / 2) * pitch
        turns = np.array([t.turn for t in transforms])  # rows: the directions of the crop's axes in the image
        along = steps[:, :, None] * turns[:, None, 0] + centre[:, None]
        across = steps[:, :, None] * turns[:, None, 1]
        ends = [0, size - 1]
        reach = along[:, ends, None] + across[:, None, ends]
        shrink = np.where(pitch > REDUCE_ABOVE, pitch, 1.0)
        margin = 2 * shrink + 1
        self.reduced = shrink[:, 0] > 1
        low, high = np.floor(reach.min((1, 2)) - margin), np.ceil(reach.max((1, 2)) + margin) + 1
        self.inside = ((low >= 0) & (high <= extent)).all(1)
        self.low = np.clip(low, 0, extent).astype(np.int64)
        self.high = np.clip(high, 0, extent).astype(np.int64)
        for first, last in self.groups():
            seen = (self.high[first:last] > self.low[first:last]).all(1)
            if last - first > 1 and seen.any():
                self.low[first:last] = self.low[first:last][seen].min(0)
                self.high[first:last] = self.high[first:last][seen].max(0)
        count = np.maximum(self.high - self.low, 1)
        self.small = np.maximum(np.round(count / shrink), 1).astype(np.int64)
        # relative coordinates are the same for the part and for the reduced part, because their outer edges coincide
        per_pixel = 2 / (count[:, None] if room is None else np.full((1, 1, 1), room))
        edges = (along - self.low[:, None] + 0.5) * per_pixel - 1
        self.grids = np.stack((edges, across * per_pixel), 1).astype(np.float32)

    def groups(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last + 1 index of each group of faces that are cut out together."""
        first, count = 0, len(self._photographs)
        for last in range(1, count + 1):
            if (
                last == count
                or last - first == TOGETHER
                or self.reduced[first]
                or self.reduced[last]
                or self._photographs[last] is not self._photographs[first]
            ):
                yield first, last
                first = last


def _reduce(part: Tensor, width: int, height: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, height, width) float32, whole numbers. It computes what ``cv2.INTER_AREA`` does."""
    rows = _shares(part.shape[0], height, part.device) @ part.float().flatten(1)
    columns = rows.view(height, -1, 3).transpose(1, 2) @ _shares(part.shape[1], width, part.device).T
    return columns.round_().transpose(0, 1)


def _shares(count: int, fewer: int, device: torch.device) -> Tensor:
    """(fewer, count) weights of ``count`` pixels in the means of ``fewer`` pixels (area averaging)."""
    edges = torch.arange(fewer + 1, device=device, dtype=torch.float32) * (count / fewer)
    covered = (edges[:, None] - torch.arange(count, device=device)).clamp_(0, 1)  # share of each pixel before an edge
    return covered.diff(dim=0).mul_(fewer / count)
