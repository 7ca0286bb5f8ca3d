"""Training from few faces: a trained network gets new heads for the new landmarks, and only these heads are trained.

With 48 faces, training the whole network, or all of it except the stem, was measured to be no better than training only
the last layers, which costs a hundredth. Therefore only the last layers of the new landmarks are trained. Their inputs
depend only on the picture. They are computed once per picture and kept, and the pictures of the first epochs are used
again in later epochs.

A new landmark is the weighted mean of two estimates: the point of its own head, and the point that `matching` computes
from the old heads. The errors of the two are different, so the mean is better than each of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..method.decoder import Decoder
from ..method.heatmaps import STRIDE
from ..method.losses import Loss, LossSettings
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
    """A trained network of H landmarks with new heads for K other landmarks. Only the new heads are trained.

    Args:
        start: the network of H landmarks.
        readout: computes the K landmarks from the H heads.
        sources: (K,) each new head starts as a copy of this head.
        decoder: the decoder of the network.
        share: (K,) weight of the point of the new head in each landmark, in [0, 1]. The point of the readout has the
            remaining weight.

    Attributes:
        network: the network of all H + K landmarks. The heatmaps of the new landmarks are no input of the next stack or
            of the decimal head.
        integer, decimal: the new heads, which are trained. `settled` copies them into ``network``.
        readout: computes the K landmarks from all H + K heads.
        learns: whether a landmark depends on its new head.
        warm_start: the tensors that were copied from the start network.
    """

    def __init__(
        self, start: HIHNet, readout: Readout, sources: NDArray[np.intp], decoder: Decoder, share: Sequence[float]
    ) -> None:
        both = mixed(readout, share)
        network = HIHNet(both.heads, *start.size)
        heads = np.concatenate((np.arange(start.landmarks), sources))
        names = tuple(f"head {i}" for i in range(both.heads))
        old, new = Scheme("old", names[: start.landmarks]), Scheme("grown", names)
        kept = warm_start(network, Start(start, old, "the start network"), new, heads)
        with torch.no_grad():
            for stack in _stacks(network):
                stack.merge_heatmaps.conv.weight[:, start.landmarks :] = 0
        super().__init__(network.requires_grad_(False), both, decoder, both.sources)
        self.integer, self.decimal = (_rows(layer, start.landmarks) for layer in self._last_layers)
        self.readout: Readout = both
        self.learns: bool = any(share)
        self.warm_start: WarmStart = kept
        self.train()

    @property
    def _last_layers(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        return _stacks(self.network)[-1].predict, self.network.decimal_head.predict

    def train(self, mode: bool = True) -> Grown:
        """Set the mode. Batch normalisation always runs in inference mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def settled(self) -> HIHNet:
        """``network`` with the current weights of the new heads."""
        for layer, new in zip(self._last_layers, (self.integer, self.decimal), strict=True):
            layer.weight[-new.out_channels :] = new.weight
            cast("Tensor", layer.bias)[-new.out_channels :] = cast("Tensor", new.bias)
        return self.network

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        """As `HIH.loss`. The decoder adds its shift to all points, so the new heads learn points without it."""
        return super().loss(output, points - points.new_tensor(self._decoder.shift), weights, settings, count)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised crops -> (B, F) float16, the inputs of the heads. S is the network's input size."""
        return torch.cat([seen.flatten(1) for seen in self._seen(images)], 1).half()

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        """Map crops to heatmaps of all H + K heads, or `features` of crops to heatmaps of the K new heads."""
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
        """The inputs of the integer heads (B, C, S / 4, S / 4) and of the decimal heads (B, C', n, n)."""
        network = self.network
        x = network.trunk.stem(images)
        *before, last = _stacks(network)
        for stack in before:
            _, x = stack(x)
        maps = last.features(x)
        return maps, network.decimal_head.features(last.fused(x, maps, last.predict(maps)))


class Kept:
    """Batches of features for the new heads. The features of the first epochs are kept and repeated.

    Args:
        batches: the source of the pictures.
        learner: computes the features (`Grown.features`).
        epochs: number of epochs before the pictures repeat, see `repeats`.
        limit: largest number of bytes of features that are kept. The others are computed again in each epoch.
    """

    def __init__(self, batches: Batches, learner: Grown, epochs: int, limit: int) -> None:
        self._batches, self._learner, self.epochs, self._free = batches, learner, epochs, limit
        self._kept: dict[tuple[int, int], Batch] = {}

    def steps(self, epoch: int, rows: Indices, stage: Stage, start: int) -> Generator[Batch]:
        """As `Batches.steps`, with features in place of images. ``epoch`` must be less than `epochs`."""
        pieces = self._batches.pieces
        numbers = range(start * pieces, (start + len(rows)) * pieces)
        new = next((number for number in numbers if (epoch, number) not in self._kept), numbers.stop)
        first = new // pieces  # each step is either kept as a whole, or computed as a whole
        for number in range(numbers.start, first * pieces):
            yield self._kept[epoch, number]
        if first < start + len(rows):
            made = self._batches.steps(epoch, rows[first - start :], stage, first)
            for number, batch in zip(range(first * pieces, numbers.stop), made, strict=True):
                seen = batch._replace(images=self._learner.features(batch.images))
                if (epoch, number) not in self._kept:
                    self._free -= seen.images.nbytes
                    if self._free >= 0:  # if one does not fit, none after it is kept
                        self._kept[epoch, number] = seen
                yield seen


def repeats(settings: Few, faces: int) -> int:
    """Number of epochs before the pictures repeat, so that there are about ``settings.views`` pictures. At least 1."""
    return max(1, settings.views // faces)


def mixed(readout: Readout, share: Sequence[float]) -> Readout:
    """A readout of K landmarks from H old heads and K new heads. ``share`` (K,) is the weight of the new heads."""
    own = np.diag(np.asarray(share, np.float64))
    rest, none = np.eye(len(own)) - own, np.zeros_like(own)
    mirrored = np.concatenate((rest @ readout.mirrored_weights, none), 1) if readout.mirrored else None
    upright = np.concatenate((readout.upright_weights, none[0]))
    return from_weights(np.concatenate((rest @ readout.weights, own), 1), mirrored, upright)


def _stacks(network: HIHNet) -> list[Stack]:
    return cast("list[Stack]", list(network.trunk.stacks))


def _rows(layer: nn.Conv2d, first: int) -> nn.Conv2d:
    """A trainable 1x1 convolution with the output channels of ``layer`` from ``first`` on."""
    with torch.random.fork_rng(devices=[]):  # the random initial weights are replaced
        some = nn.Conv2d(layer.in_channels, layer.out_channels - first, 1)
    some.load_state_dict({name: value[first:] for name, value in layer.state_dict().items()})
    return some
