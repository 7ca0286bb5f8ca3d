"""A trained network with heads for other landmarks beside its own, of which the new ones alone learn from few faces.

Measured with 48 faces, a network that is trained whole, or but for its stem, comes out no better than one of which the
last layers alone are trained, and these cost a hundredth. So everything but the last layers of the new landmarks stays
as it is. What these layers see is then a function of the picture: it is computed once for each and kept, and the
pictures of the first epochs are shown again and again.

A new landmark is read as a mean of two guesses: the point of its own head, and what `matching` reads from the old
heads. They err in different ways, so the mean is better than either.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..method.decoder import Decoder
from ..method.heatmaps import STRIDE
from ..method.network import HIHNet, Stack
from ..method.readout import Readout, from_weights
from ..schemes import Scheme
from .augmentation import Batch
from .batches import Batches
from .few import Few
from .learner import Output
from .matched_start import Untrained
from .recipe import Stage
from .sampling import Indices
from .warmstart import Start, WarmStart, warm_start


class Grown(Untrained):
    """A trained network of H landmarks with heads for K others, which alone learn.

    Args:
        start: the network, of H landmarks.
        readout: of the K landmarks from the H. Each new head starts as its landmark's source.
        decoder: of the network.
        share: (K,) of the own head's point in each landmark; the rest is what the readout reads.

    Attributes:
        network: of all H + K landmarks. The new ones take no part in what the next stack or the decimal head sees.
        integer, decimal: the new heads, which learn; `settled` puts them into ``network``.
        readout: of the K landmarks from all H + K heads.
        warm_start: what became of the start's tensors.
    """

    def __init__(self, start: HIHNet, readout: Readout, decoder: Decoder, share: Sequence[float]) -> None:
        both = mixed(readout, share)
        network = HIHNet(both.heads, *start.size)
        heads = np.concatenate((np.arange(start.landmarks), readout.sources))
        names = tuple(f"head {i}" for i in range(both.heads))
        old, new = Scheme("old", names[: start.landmarks]), Scheme("grown", names)
        kept = warm_start(network, Start(start, old, "the start network"), new, heads)
        with torch.no_grad():
            for stack in _stacks(network):
                stack.merge_heatmaps.conv.weight[:, start.landmarks :] = 0
        super().__init__(network.requires_grad_(False), both, decoder)
        self.integer, self.decimal = (_rows(layer, start.landmarks) for layer in self._last_layers)
        self.readout: Readout = both
        self.warm_start: WarmStart = kept
        self.train()

    @property
    def _last_layers(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return _stacks(self.network)[-1].predict, self.network.decimal_head.predict

    def train(self, mode: bool = True) -> Grown:
        """Batch norms run as in inference in any mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def settled(self) -> HIHNet:
        """``network``, with the new heads as they are now."""
        for layer, new in zip(self._last_layers, (self.integer, self.decimal), strict=True):
            layer.weight[-new.out_channels :] = new.weight
            cast("Tensor", layer.bias)[-new.out_channels :] = cast("Tensor", new.bias)
        return self.network

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised crops of the network's own size -> (B, F) float16: all that heads see of them."""
        return torch.cat([seen.flatten(1) for seen in self._seen(images)], 1).half()

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        """Crops -> maps of all H + K heads; crops' `features` -> maps of the K new ones."""
        if images.ndim == 4:
            self.settled()
            return super().forward(images, subpixel)
        side, cells = self.network.input_size // STRIDE, self.network.decimal_size
        count = self.integer.in_channels * side**2
        features = images.to(self.integer.weight.dtype)
        maps, points = features[:, :count], features[:, count:]
        integer = self.integer(maps.reshape(len(maps), -1, side, side))
        return Output(integer[:, None], self.decimal(points.reshape(len(points), -1, cells, cells)))

    @torch.no_grad()
    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What integer heads see, (B, C, S / 4, S / 4), and decimal ones, (B, C', n, n)."""
        network = self.network
        x = network.trunk.stem(images)
        *before, last = _stacks(network)
        for stack in before:
            _, x = stack(x)
        maps = last.features(x)
        return maps, network.decimal_head.features(last.fused(x, maps, last.predict(maps)))


class Kept:
    """Batches as new heads see them, those of the first epochs again and again.

    Args:
        batches: where pictures come from.
        learner: whose `Grown.features` are kept.
        epochs: so many are different, see `repeats`.
    """

    def __init__(self, batches: Batches, learner: Grown, epochs: int) -> None:
        self._batches, self._learner, self.epochs = batches, learner, epochs
        self._kept: dict[tuple[int, int], Batch] = {}

    def steps(self, epoch: int, rows: Indices, stage: Stage, start: int) -> Generator[Batch]:
        """As `Batches.steps`, of epochs below `epochs`, with features in the place of images."""
        pieces = self._batches.pieces
        numbers = range(start * pieces, (start + len(rows)) * pieces)
        new = next((number for number in numbers if (epoch, number) not in self._kept), numbers.stop)
        first = new // pieces  # whole steps are kept, or made
        for number in range(numbers.start, first * pieces):
            yield self._kept[epoch, number]
        if first < start + len(rows):
            made = self._batches.steps(epoch, rows[first - start :], stage, first)
            for number, batch in zip(range(first * pieces, numbers.stop), made, strict=True):
                self._kept[epoch, number] = batch._replace(images=self._learner.features(batch.images))
                yield self._kept[epoch, number]


def repeats(settings: Few, faces: int) -> int:
    """After how many epochs pictures repeat: as many as ``settings.views`` has, at least one."""
    return max(1, settings.views // faces)


def mixed(readout: Readout, share: Sequence[float]) -> Readout:
    """K landmarks from H old heads by a readout, and from K heads after them by ``share`` (K,)."""
    own = np.diag(np.asarray(share, np.float64))
    return from_weights(np.concatenate(((np.eye(len(own)) - own) @ readout.weights, own), 1))


def _stacks(network: HIHNet) -> list[Stack]:
    return cast("list[Stack]", list(network.trunk.stacks))


def _rows(layer: nn.Conv2d, first: int) -> nn.Conv2d:
    """The rows of a 1x1 convolution from one on, as one of their own, which learns."""
    with torch.random.fork_rng(devices=[]):  # a random start, which is replaced
        some = nn.Conv2d(layer.in_channels, layer.out_channels - first, 1)
    some.load_state_dict({name: value[first:] for name, value in layer.state_dict().items()})
    return some
