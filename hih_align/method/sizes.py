"""The sizes of networks: `Size`, which a checkpoint's config stores, and the sizes that have a name."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """The dimensions of a network except the number of landmarks: ``HIHNet(landmarks, *size)``.

    Attributes:
        stacks: number of stacked hourglasses.
        decimal_size: side n of the decimal heatmaps: 4, 8 (the paper's networks) or 16 (Tab. IX).
        width: factor of all channel counts; 1 for the paper's networks.
        head_channels: channels of the decimal head at width 1.
        input_size: side of the crops in pixels, 64 times a power of 2. The decimal head is built for this size.
    """

    stacks: int
    decimal_size: int = 8
    width: float = 1.0
    head_channels: int = 384
    input_size: int = 256


#: The named networks: HIH_N for small processors, and the paper's three (Sec. III-D).
SIZES = {
    "HIH_N": Size(1, width=0.5, head_channels=256, input_size=128),
    "HIH_T": Size(1),
    "HIH_S": Size(2),
    "HIH_B": Size(4),
}
