"""`aligner.FaceAligner`: the central class of the library.

Tests use real weights and a real photograph where the weights matter. Other tests use two small networks. One of them
finds coloured dots, so that the exact result is known. The other one is untrained, and its result depends on every
pixel.
"""

from __future__ import annotations

import inspect
import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from hih_align import SCHEMES, Config, Decoder, FaceAligner, HIHNet, Landmarks, Scheme
from hih_align.crops import tight_box
from hih_align.method.decoder import Rounding
from hih_align.method.network import MEAN, STD, DecimalHead, Residual, StackedHourglass, Unit
from hih_align.passes import off as off_box
from hih_align.passes import weight_before

#: The astronaut's face, from the eyebrows to the chin and from jaw to jaw.
BOX = np.array((177.0, 80.0, 275.0, 200.0))
#: Eyes, nose tip and mouth corners of the astronaut, read by eye from an enlarged image.
FIVE = np.array([(203.2, 101.3), (246.8, 103.1), (225.4, 127.6), (202.2, 140.0), (244.0, 141.2)])

Array = NDArray[Any]


COLOURS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)]
#: Positions of the dots in a face, as fractions of the face's box.
DOTS = np.array([(0, 0.1), (1, 0), (0.4, 0.5), (0.1, 1), (0.9, 0.8), (0.5, 0.2)])
DOT_SCHEME = Scheme(
    id="dots", names=tuple("abcdef"), mirror=(), contours=((0, 1, 2),), five=((0,), (1,), (2,), (3,), (4,))
)


class DotTrunk(nn.Module):
    """A network whose result is known: its integer heatmaps show coloured dots."""

    def __init__(self) -> None:
        super().__init__()
        self.stacks = nn.ModuleList([nn.Identity()])
        self.register_buffer("colours", torch.tensor(COLOURS, dtype=torch.float32)[..., None, None])

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        pixels = F.avg_pool2d(images * std + mean, 4)
        distance = (pixels[:, None] - self.get_buffer("colours")).square().sum(2)
        return [(1 - 3 * distance).clamp(min=0)], pixels


class NoDecimals(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.new_zeros(len(features), len(COLOURS), 8, 8)


def dot_aligner() -> FaceAligner:
    network = HIHNet(len(COLOURS), 1)
    network.trunk, network.decimal_head = DotTrunk(), NoDecimals()  # type: ignore[assignment]
    # A heatmap pixel is the mean of 4 x 4 crop pixels, whose centre is at 1.5. This is cell 3 of the 8 cells in 4
    # pixels
    decoder = Decoder("expectation", radius=8, power=2, bin_offset=3 - 3.5)
    return FaceAligner(network, Config(DOT_SCHEME, stacks=1, name="dots", decoder=decoder), device="cpu")


def dots_of(box: Any) -> Array:
    box = np.asarray(box, np.float64)
    return box[:2] + DOTS * (box[2:] - box[:2])


def paint(height: int, width: int, boxes: Any) -> Array:
    """A black image with faces of dots."""
    image = np.zeros((height, width, 3))
    for box in np.reshape(boxes, (-1, 4)):
        sigma = 0.05 * (box[2:] - box[:2]).max()
        x, y = (  # (6, width) and (6, height): a dot is a column times a row
            np.exp(-((np.arange(side) - at[:, None]) ** 2) / (2 * sigma**2))
            for side, at in zip((width, height), dots_of(box).T, strict=True)
        )
        for channel, strength in enumerate(np.transpose(COLOURS)):
            image[..., channel] += (y.T * strength) @ x
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def small_aligner(scheme: Scheme, **config: Any) -> FaceAligner:
    """The parts of HIHNet, narrow and untrained: the network is fast, and its result depends on every pixel."""
    torch.manual_seed(0)
    network = HIHNet(len(scheme), 1)
    network.trunk = StackedHourglass(len(scheme), 1, channels=16)
    network.trunk.stem = nn.Sequential(Unit(3, 16, 7, stride=4), Residual(16, 16))
    network.decimal_head = DecimalHead(len(scheme), 8, channels=16, width=16)
    return FaceAligner(network, Config(scheme, stacks=1, name="small", **config), device="cpu")


@pytest.fixture(scope="module")
def dots() -> FaceAligner:
    return dot_aligner()


@pytest.fixture(scope="module")
def small() -> FaceAligner:
    return small_aligner(replace(DOT_SCHEME, mirror=((0, 1), (3, 4))), refine=1)


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture(scope="module")
def wflw() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/wflw", device="cpu")


@pytest.fixture(scope="module")
def noise() -> Array:
    """An image of noise, used by the small network in place of a photograph."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    return cv2.resize(image, (320, 240), interpolation=cv2.INTER_CUBIC)


def equal(a: Landmarks, b: Landmarks, atol: float = 1e-3) -> None:
    """Check that the faces are the same.

    Another batch size changes the order of float32 sums, and so the last digits.
    """
    assert (a.scheme, a.model, a.several) == (b.scheme, b.model, b.several)
    assert a.points.shape == b.points.shape
    np.testing.assert_allclose(a.points, b.points, atol=atol, rtol=0)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(a.bbox, b.bbox)


def off(a: Array, b: Array) -> Array:
    """Distances between points."""
    return np.linalg.norm(np.asarray(a, np.float64) - b, axis=-1)


# the signatures: other programs depend on them


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            FaceAligner.from_pretrained,
            "scheme=None device=None dtype=None backend='torch' decode=None cache_dir=None revision=None token=None "
            "local_files_only=False",
        ),
        (FaceAligner.align, "image bbox refine=None mirror=False"),
        (FaceAligner.align_batch, "images bboxes batch_size=None"),
        (FaceAligner.heatmaps, "image bbox"),
        (FaceAligner.save_pretrained, "folder"),
        (FaceAligner.push_to_hub, "repo_id"),
        (Landmarks.draw, "image"),
        (Landmarks.crop, "image size=112"),
        (Landmarks.to, "scheme"),
    ],
)
def test_signatures(method: Callable[..., Any], expected: str) -> None:
    # without self; from_pretrained has the model first, under a name that may change
    parameters = list(inspect.signature(method).parameters.values())[1:]
    if parameters and parameters[0].name == "model":
        parameters = parameters[1:]
    words = [word.partition("=") for word in expected.split()]
    assert [p.name for p in parameters[: len(words)]] == [name for name, _, _ in words]
    for parameter, (name, _, default) in zip(parameters, words, strict=False):
        assert parameter.kind is not parameter.KEYWORD_ONLY
        if default:
            assert repr(parameter.default) == default, name
    assert all(p.default is not p.empty for p in parameters[len(words) :])


def test_from_pretrained_takes_the_model_first(w300: FaceAligner) -> None:
    first = next(iter(inspect.signature(FaceAligner.from_pretrained).parameters.values()))
    assert first.kind is not first.KEYWORD_ONLY
    assert isinstance(w300.network, HIHNet)
    assert not w300.network.training
    assert w300.network.stacks == 1
    assert w300.scheme is SCHEMES["300w"]


# results


@pytest.fixture(scope="module")
def photograph() -> Array:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def face68(w300: FaceAligner, photograph: Array) -> Landmarks:
    return w300.align(photograph, BOX)


@pytest.fixture(scope="module")
def face98(wflw: FaceAligner, photograph: Array) -> Landmarks:
    return wflw.align(photograph, BOX)


def test_finds_the_astronauts_face(w300: FaceAligner, wflw: FaceAligner, face68: Landmarks, face98: Landmarks) -> None:
    for aligner, face, points in ((w300, face68, 68), (wflw, face98, 98)):
        assert (face.points.shape, face.points.dtype) == ((points, 2), np.float32)
        assert (face.scores.shape, face.scores.dtype) == ((points,), np.float32)
        assert face.scheme is aligner.scheme
        assert (face.bbox.shape, face.bbox.dtype) == ((4,), np.float32)
        np.testing.assert_array_equal(face.bbox, BOX)
        assert off(face.five_points(), FIVE).max() < 2.5  # pixels; the face has 98 x 120 px
        assert face.model == aligner.config.name
        assert json.loads(json.dumps(face.to_dict()))["scheme"] == aligner.scheme.id
        np.testing.assert_allclose(tight_box(face.points), (178, 88, 272, 178), atol=4)


def test_both_schemes_agree(face68: Landmarks, face98: Landmarks) -> None:
    assert off(face98.to("300w").points, face68.points).mean() < 2.5


@pytest.mark.parametrize(
    "boxes",
    [
        BOX,
        BOX.astype(np.float32),
        BOX.astype(np.int64),
        [177, 80, 275, 200],
        (177, 80, 275, 200),
        (np.float32(177), 80.0, 275, np.int16(200)),
        torch.tensor([177, 80, 275, 200]),
        torch.tensor([177.0, 80.0, 275.0, 200.0], dtype=torch.bfloat16),
        torch.tensor([177.0, 80.0, 275.0, 200.0], requires_grad=True),
        np.array([0, 200, 275, 80, 177.0])[:0:-1],
    ],
    ids=lambda b: f"{type(b).__name__}-{getattr(b, 'dtype', '')}",
)
def test_one_box_of_any_kind(small: FaceAligner, astronaut: Array, boxes: Any) -> None:
    values = boxes.tolist() if isinstance(boxes, torch.Tensor) else [float(value) for value in boxes]
    face = small.align(astronaut, boxes)
    assert face.points.shape == (6, 2)
    equal(face, small.align(astronaut, np.array(values)), atol=0)


@pytest.mark.parametrize("kind", [np.array, list, torch.tensor, tuple])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_several_boxes_of_any_kind(small: FaceAligner, astronaut: Array, kind: Any, count: int) -> None:
    boxes = [(BOX + 5 * n).tolist() for n in range(count)]
    faces = small.align(astronaut, kind(boxes) if count else kind(np.zeros((0, 4))), refine=0)
    assert faces.points.shape == (count, 6, 2)
    assert faces.scores.shape == (count, 6)
    assert faces.bbox.shape == (count, 4)
    assert faces.points.dtype == faces.scores.dtype == faces.bbox.dtype == np.float32
    assert len(faces) == count
    for face, box in zip(faces, boxes, strict=True):
        equal(face, small.align(astronaut, box, refine=0))


def test_no_box_at_all(small: FaceAligner, astronaut: Array) -> None:
    for none in ([], (), np.zeros((0, 4)), np.zeros(0), torch.zeros(0, 4)):  # type: ignore[var-annotated]
        faces = small.align(astronaut, none)
        assert faces.points.shape == (0, 6, 2)
        assert not faces


def test_more_boxes_than_a_batch(dots: FaceAligner) -> None:
    boxes = np.array([(x, y, x + 34, y + 40) for x in range(10, 400, 50) for y in range(10, 300, 55)], float)
    assert len(boxes) > 40
    faces = dots.align(paint(360, 420, boxes), boxes)
    np.testing.assert_allclose(faces.points, [dots_of(box) for box in boxes], atol=0.1)


def test_arguments_are_not_changed(small: FaceAligner, noise: Array) -> None:
    image, box = noise.copy(), np.array((10.0, 20, 100, 120))
    face = small.align(image, box)
    np.testing.assert_array_equal(image, noise)
    np.testing.assert_array_equal(box, (10, 20, 100, 120))
    box[:] = 0
    np.testing.assert_array_equal(face.bbox, (10, 20, 100, 120))
    image.flags.writeable = False
    equal(small.align(image, (10, 20, 100, 120)), face, atol=0)


def saved(image: PIL.Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


IMAGES: dict[str, Callable[[Array, Path], Any]] = {
    "str": lambda a, d: str(saved(PIL.Image.fromarray(a), d / "a.png")),
    "Path": lambda a, d: saved(PIL.Image.fromarray(a), d / "a.bmp"),
    "PIL": lambda a, _: PIL.Image.fromarray(a),
    "PIL RGBA": lambda a, _: PIL.Image.fromarray(a).convert("RGBA"),
    "uint16": lambda a, _: a.astype(np.uint16) * 257,
    "float32": lambda a, _: a.astype(np.float32) / 255,
    "float64": lambda a, _: a / 255,
    "RGBA": lambda a, _: np.dstack((a, np.full(a.shape[:2], 7, np.uint8))),
    "view": lambda a, _: np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "Fortran": lambda a, _: np.asfortranarray(a),
    "tensor": lambda a, _: torch.from_numpy(a).permute(2, 0, 1),
    "float tensor": lambda a, _: torch.from_numpy(a).permute(2, 0, 1).contiguous().float() / 255,
    "EXIF": lambda a, d: saved(
        PIL.Image.fromarray(np.ascontiguousarray(np.rot90(a))),
        d / "r.png",
        exif=b"Exif\0\0" + EXIF_6,  # type: ignore[has-type]
    ),
}
#: Big-endian TIFF with one entry: tag 0x0112 (orientation), type short, value 6 (rotate by 90 degrees clockwise to
#: view).
EXIF_6 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

GREYS: dict[str, Callable[[Array, Path], Any]] = {
    "array": lambda a, _: a,
    "float": lambda a, _: a / 255,
    "PIL L": lambda a, _: PIL.Image.fromarray(a),
    "PIL LA": lambda a, _: PIL.Image.fromarray(a).convert("LA"),
    "PIL P": lambda a, _: PIL.Image.fromarray(a).convert("P"),
    "PIL 16 bit": lambda a, _: PIL.Image.fromarray(a.astype(np.uint16) * 257),
    "16-bit file": lambda a, d: saved(PIL.Image.fromarray(a.astype(np.uint16) * 257), d / "g.png"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_gives_the_same_points(small: FaceAligner, noise: Array, tmp_path: Path, kind: str) -> None:
    box = (40, 50, 140, 150)
    expected = small.align(noise, box)
    equal(small.align(IMAGES[kind](noise, tmp_path), box), expected, atol=0)
    # another image gives other points; otherwise the check above would prove nothing
    assert off(small.align(255 - noise, box).points, expected.points).mean() > 1


@pytest.mark.parametrize("kind", GREYS)
def test_every_kind_of_grey_image_gives_the_same_points(
    small: FaceAligner, noise: Array, tmp_path: Path, kind: str
) -> None:
    grey = np.ascontiguousarray(noise[..., 0])
    expected = small.align(noise[..., :1].repeat(3, 2), (40, 50, 140, 150))
    equal(small.align(GREYS[kind](grey, tmp_path), (40, 50, 140, 150)), expected, atol=0)


def test_heatmaps(w300: FaceAligner, astronaut: Array) -> None:
    maps = w300.heatmaps(astronaut, BOX)
    assert (maps.integer.shape, maps.integer.dtype) == ((68, 32, 32), np.float32)
    assert (maps.decimal.shape, maps.decimal.dtype) == ((68, 8, 8), np.float32)
    assert (maps.crop.shape, maps.crop.dtype) == ((128, 128, 3), np.uint8)
    # the paper's decoder (Eq. 4), written out: integer argmax + decimal argmax / 8, in crop pixels / 4
    pixel, cell = (
        np.stack(np.unravel_index(m.reshape(68, -1).argmax(1), m.shape[1:])[::-1], -1)
        for m in (maps.integer, maps.decimal)
    )
    by_hand = maps.transform.to_image(4 * (pixel + cell / 8))
    argmax = FaceAligner(w300.network, w300.config, device="cpu", decode="argmax")
    np.testing.assert_allclose(argmax.align(astronaut, BOX, refine=0).points, by_hand, atol=1e-3)
    side = w300.config.crop_ratio * 120
    assert (maps.transform.x, maps.transform.y, maps.transform.side) == (226, 140, pytest.approx(side))


# refining and mirroring


def test_refine_runs_on_the_box_of_the_points(w300: FaceAligner, astronaut: Array) -> None:
    """The result is a weighted mean of both passes."""
    rough = BOX + np.array((-12, -30, 20, 8))
    points = [w300.align(astronaut, rough, refine=passes).points for passes in (0, 1, 2)]
    boxes = (rough, tight_box(points[0]))
    for box, (before, after) in zip(boxes, pairwise(points), strict=True):
        again = w300.align(astronaut, tight_box(before), refine=0).points
        weight = weight_before(off_box(before, box, 0.0, astronaut))
        by_hand = weight * before + (1 - weight) * again
        np.testing.assert_allclose(after, by_hand, atol=0.02)
        assert off(after, before).max() > 0.05
    # the purpose of refining: the result depends less on the box
    apart = [off(points[n], w300.align(astronaut, BOX, refine=n).points).mean() for n in (0, 1)]
    assert apart[1] < 0.6 * apart[0]


@pytest.mark.parametrize("default", [0, 1, 2])
def test_refine_none_uses_the_checkpoints_default(noise: Array, default: int) -> None:
    aligner = small_aligner(DOT_SCHEME, refine=default)
    box = (40, 50, 140, 150)
    found = [aligner.align(noise, box, refine=passes) for passes in (0, 1, 2)]
    for passes, face in enumerate(found):
        same = passes == default
        assert (np.abs(aligner.align(noise, box).points - face.points).max() < 1e-3) == same
        assert (np.abs(aligner.align_batch([noise], [box])[0].points - face.points).max() < 1e-3) == same


@pytest.mark.parametrize("scheme", ["300w", "wflw"])
def test_mirrored_average_of_a_mirrored_face_is_mirrored(scheme: str, noise: Array) -> None:
    aligner = small_aligner(SCHEMES[scheme])
    order = aligner.scheme.permutation
    assert order is not None
    assert (order != np.arange(len(order))).any()
    face = aligner.align(noise, (40, 50, 140, 150), mirror=True)
    there = aligner.align(noise[:, ::-1], (319 - 140, 50, 319 - 40, 150), mirror=True)
    np.testing.assert_allclose(there.points[order] * (-1, 1) + (319, 0), face.points, atol=1e-3)
    np.testing.assert_allclose(there.scores[order], face.scores, atol=1e-5)


def test_mirror_averages_both_views(small: FaceAligner, noise: Array) -> None:
    order = small.scheme.permutation
    assert order is not None
    face = small.align(noise, (40, 50, 140, 150), refine=0)
    there = small.align(noise[:, ::-1], (319 - 140, 50, 319 - 40, 150), refine=0)
    mean = small.align(noise, (40, 50, 140, 150), refine=0, mirror=True)
    np.testing.assert_allclose(mean.points, (face.points + there.points[order] * (-1, 1) + (319, 0)) / 2, atol=1e-3)
    np.testing.assert_allclose(mean.scores, (face.scores + there.scores[order]) / 2, atol=1e-5)
    assert np.abs(mean.points - face.points).max() > 0.1


@pytest.mark.parametrize("mirror", [False, True])
def test_a_decoders_shift_has_the_same_direction_in_mirrored_views(
    small: FaceAligner, noise: Array, mirror: bool
) -> None:
    shifted = FaceAligner(small.network, small.config, device="cpu", decode=replace(small.decoder, shift=(0.5, -0.25)))
    expected, got = (a.align(noise, (40, 50, 140, 150), refine=0, mirror=mirror).points for a in (small, shifted))
    pixel = 1.25 * 100 / 64  # image pixels per heatmap pixel
    np.testing.assert_allclose(got - expected, np.broadcast_to((0.5 * pixel, -0.25 * pixel), got.shape), atol=1e-3)


def test_the_bias_of_a_decoder_moves_only_mirrored_views(small: FaceAligner, noise: Array) -> None:
    biased = FaceAligner(small.network, small.config, device="cpu", decode=replace(small.decoder, bias=0.25))
    box, pixel = (40, 50, 140, 150), 1.25 * 100 / 64
    for mirror, by in (
        (False, 0.0),
        (True, 0.25),
    ):  # the mirrored view moves by twice as much, their mean by half of it
        expected, got = (a.align(noise, box, refine=0, mirror=mirror).points for a in (small, biased))
        np.testing.assert_allclose(got - expected, np.broadcast_to((by * pixel, 0.0), got.shape), atol=1e-3)
    with pytest.raises(ValueError, match="bias is nan, expected a finite number"):
        replace(small.decoder, bias=float("nan"))


def test_mirror_keeps_the_positions(dots: FaceAligner, w300: FaceAligner, astronaut: Array) -> None:
    # the points are exact in both views; for dots, no left point is exchanged with a right one, because colours
    # identify them
    for box in ((40, 50, 140, 150), (40.3, 50.6, 101.1, 150.2), (30, 60, 91, 120)):
        points = dots.align(paint(200, 190, box), box, mirror=True).points
        np.testing.assert_allclose(points, dots_of(box), atol=0.1)
    once, twice = (w300.align(astronaut, BOX, refine=0, mirror=mirror).points for mirror in (False, True))
    assert 0.05 < off(twice, once).mean() < 1


def test_a_mirrored_face_has_mirrored_points(w300: FaceAligner, face68: Landmarks, astronaut: Array) -> None:
    order = w300.scheme.permutation
    assert order is not None
    there = w300.align(np.ascontiguousarray(astronaut[:, ::-1]), (511 - 275, 80, 511 - 177, 200))
    shift = w300.decoder.shift[0] * 1.25 * 120 / 64  # the shift corrects the labels, to the right in both views
    # pixels; the face has 98 x 120 px
    assert off(there.points[order] * (-1, 1) + (511 + 2 * shift, 0), face68.points).mean() < 1.2
    assert off(there.points * (-1, 1) + (511, 0), face68.points).mean() > 20  # left and right are exchanged


def test_mirror_needs_pairs(noise: Array) -> None:
    aligner = small_aligner(Scheme(id="mine", names=("a", "b", "c")))
    assert aligner.align(noise, (40, 50, 140, 150), refine=0).points.shape == (3, 2)
    with pytest.raises(ValueError, match="mirror is True, but scheme 'mine' has no mirror pairs"):
        aligner.align(noise, (40, 50, 140, 150), mirror=True)


# position and size of the face


@pytest.mark.parametrize(
    "box",
    [
        (60, 70, 160, 170),
        (60.5, 70.25, 121.75, 170.125),
        (60, 60, 180, 150),
        (40, 30, 190, 200),
        (60, 70, 360, 370),  # larger than the crop
        (90, 100, 690, 600),  # reduced before it is warped
        (9, 8, 21, 20),  # 12 px
    ],
)
@pytest.mark.parametrize("refine", [0, 1])
def test_points_are_pixels_of_the_image(dots: FaceAligner, box: tuple[float, ...], refine: int) -> None:
    image = paint(round(box[3] * 1.2), round(box[2] * 1.3), box)
    face = dots.align(image, box, refine=refine)
    # an error between pixel centres and pixel edges, in the image, the crop or the heatmap, would be half a pixel
    side = max(box[2] - box[0], box[3] - box[1])
    np.testing.assert_allclose(face.points, dots_of(box), atol=0.3 if side < 20 else max(0.08, 6e-4 * side))


@pytest.mark.parametrize("box", [(-30, 20, 90, 140), (20, -60, 120, 90), (140, 60, 230, 150), (40, 150, 160, 240)])
def test_points_of_boxes_partly_outside(dots: FaceAligner, box: tuple[float, ...]) -> None:
    side = max(box[2] - box[0], box[3] - box[1])
    expected = dots_of(box)
    seen = ((expected > 0.16 * side) & (expected < 199 - 0.16 * side)).all(1)  # at least 3 sigma from the border
    assert 2 <= seen.sum() < 6
    face = dots.align(paint(200, 200, box), box, refine=0)
    np.testing.assert_allclose(face.points[seen], expected[seen], atol=0.1)
    np.testing.assert_array_equal(face.bbox, box)


def test_shifted_photograph_and_box(w300: FaceAligner, face68: Landmarks, astronaut: Array) -> None:
    padded = cv2.copyMakeBorder(astronaut, 30, 5, 17, 9, cv2.BORDER_CONSTANT)
    there = w300.align(padded, BOX + np.array((17, 30, 17, 30)))
    np.testing.assert_allclose(there.points - (17, 30), face68.points, atol=1e-3)


@pytest.mark.parametrize(("factor", "most"), [(3, 0.6), (0.5, 2.5)])
def test_scaled_photograph_and_box(
    w300: FaceAligner, face68: Landmarks, astronaut: Array, factor: float, most: float
) -> None:
    side = round(512 * factor)
    scaled = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)
    there = w300.align(scaled, (BOX + 0.5) * factor - 0.5)
    distance = off((there.points + 0.5) / factor - 0.5, face68.points)
    assert distance.mean() < most / 3
    assert distance.max() < most


def test_huge_face(w300: FaceAligner, astronaut: Array) -> None:
    part, box = astronaut[60:230, 150:310], BOX - (150, 60, 150, 60)
    factor = 4000 / 120
    huge = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    factor = huge.shape[1] / part.shape[1]
    there = w300.align(huge, (box + 0.5) * factor - 0.5)
    assert there.points.max() > 3000
    assert off((there.points + 0.5) / factor - 0.5, w300.align(part, box).points).max() < 0.5


def test_tiny_face(wflw: FaceAligner, face98: Landmarks, astronaut: Array) -> None:
    face = wflw.align(cv2.resize(astronaut, (64, 64), interpolation=cv2.INTER_AREA), (BOX + 0.5) / 8 - 0.5)
    assert face.bbox[2] - face.bbox[0] == pytest.approx(12.25)
    distance = off((face.points + 0.5) * 8 - 0.5, face98.points)
    assert distance.mean() < 10  # pixels, 1.2 of the tiny face's own


def test_faces_partly_outside(w300: FaceAligner, face68: Landmarks, astronaut: Array) -> None:
    whole = face68.points
    for cut, seen in (
        (astronaut[110:], whole[:, 1] > 110),  # the eyebrows are cut off
        (astronaut[:, :235], whole[:, 0] < 235),  # the right eye is cut off
    ):
        shift = np.array((0, 512 - cut.shape[0]))
        points = w300.align(np.ascontiguousarray(cut), BOX - np.tile(shift, 2)).points + shift
        assert seen.sum() >= 40
        assert off(points, whole)[seen].mean() < 2.5


@pytest.mark.parametrize(
    "box", [(-60, -60, 30, 30), (290, 210, 400, 300), (-500, -400, 900, 800), (-90, 50, -0.4, 130), (0, 0, 319, 239)]
)
def test_boxes_at_and_over_every_border(small: FaceAligner, noise: Array, box: tuple[float, ...]) -> None:
    face = small.align(noise, box)
    assert np.isfinite(face.points).all()
    assert face.bbox.tolist() == pytest.approx(box)


def test_scores_separate_a_face_from_background(w300: FaceAligner, wflw: FaceAligner, astronaut: Array) -> None:
    boxes = np.array([BOX, (350, 300, 450, 420), (0, 0, 120, 140), (20, 300, 140, 440)])
    for aligner in (w300, wflw):
        faces = aligner.align(astronaut, boxes, refine=0)
        assert (faces.scores >= 0).all()
        assert (faces.scores <= 1).all()
        assert faces[0].score > 0.8
        assert (faces[1:].score < faces[0].score - 0.3).all()
        assert faces[1:].score.mean() < 0.4


# many images


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """Images of many sizes and kinds, and boxes of each number and kind."""
    folder = tmp_path_factory.mktemp("mixed")
    three = [(20.0, 30, 90, 100), (120.5, 40, 180, 110.25), (50, 140, 140, 220)]
    two = [(60.0, 80, 460, 560), (400, 600, 520, 700)]
    one = (4.0, 5, 34, 38)
    PIL.Image.fromarray(paint(240, 200, three)).save(folder / "three.png")
    large, tiny = paint(750, 600, two), paint(44, 40, one)
    images: list[Any] = [
        large,
        str(folder / "three.png"),
        tiny,
        large,
        torch.from_numpy(tiny).permute(2, 0, 1),
        large / 255,
    ]
    boxes = [two[0], np.array(three), np.zeros((0, 4)), torch.tensor(two), [one], two[1]]
    return images, boxes


@pytest.mark.parametrize(
    ("batch_size", "refine", "mirror"),
    [(1, None, False), (2, 0, True), (3, 2, False), (4, 1, True), (5, 0, False), (32, 1, False)],
)
def test_align_batch_gives_the_same_as_align(
    dots: FaceAligner, mixed: tuple[list[Any], list[Any]], batch_size: int, refine: int | None, mirror: bool
) -> None:
    results = dots.align_batch(*mixed, batch_size=batch_size, refine=refine, mirror=mirror)
    assert isinstance(results, list)
    assert [r.points.shape[:-2] for r in results] == [(), (3,), (0,), (2,), (1,), ()]
    for image, box, result in zip(*mixed, results, strict=True):
        equal(result, dots.align(image, box, refine=refine, mirror=mirror))
        for face, one in zip(result if result.several else [result], np.reshape(np.asarray(box), (-1, 4)), strict=True):
            equal(face, dots.align(image, one, refine=refine, mirror=mirror))
            np.testing.assert_allclose(face.points, dots_of(one), atol=0.3)


def test_align_batch_of_real_faces(w300: FaceAligner, astronaut: Array) -> None:
    half = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    boxes = [(BOX + 0.5) / 2 - 0.5, np.stack((BOX, BOX - (20, 20, -20, -20)))]
    batched = w300.align_batch([half, astronaut], boxes, batch_size=2, refine=0)
    for image, box, result in zip((half, astronaut), boxes, batched, strict=True):
        equal(result, w300.align(image, box, refine=0))


def test_align_batch_takes_generators(dots: FaceAligner, mixed: tuple[list[Any], list[Any]]) -> None:
    images, boxes = mixed
    expected = dots.align_batch(images, boxes)
    for got, one in zip(dots.align_batch((i for i in images), iter(boxes), 3), expected, strict=True):
        equal(got, one)
    assert dots.align_batch([], []) == []
    assert dots.align_batch(iter(()), iter(())) == []
    assert [len(r) for r in dots.align_batch(images[:3], [np.zeros((0, 4))] * 3)] == [0, 0, 0]


@pytest.mark.parametrize(("device", "most"), [("cpu", 32), ("cuda", 512)])
def test_align_and_align_batch_have_the_same_batch_limits(
    small: FaceAligner, noise: Array, monkeypatch: pytest.MonkeyPatch, device: str, most: int
) -> None:
    """The batch sizes are recorded without running a network, so the test needs no GPU."""
    batches: list[int] = []

    def run(faces: Any, rules: Any, mirror: bool) -> None:
        batches.append(len(faces))
        for face in faces:
            face.points, face.scores = np.zeros((6, 2)), np.zeros(6, np.float32)

    monkeypatch.setattr(small, "_device", device)
    monkeypatch.setattr(small, "_run", run)
    boxes = np.tile(np.array((40.0, 50, 140, 150)), (600, 1))
    expected = [most] * (600 // most) + [600 % most]
    small.align(noise, boxes)
    assert batches == expected
    batches.clear()
    small.align_batch([noise], [boxes])
    assert [n for n in batches if n] == expected
    batches.clear()
    assert sum(1 for _ in small.stream([noise] * 70, [boxes[0]] * 70)) == 70
    assert batches == [32, 32, 6]  # a stream holds at most 32 photographs, also on a GPU
    batches.clear()
    small.align_batch([noise] * 70, [boxes[:2]] * 70, batch_size=40)
    assert batches == [40, 40, 40, 20]


@pytest.mark.parametrize("read_ahead", [0, 3])
def test_stream_leaves_out_what_cannot_be_read(
    dots: FaceAligner, noise: Array, tmp_path: Path, read_ahead: int
) -> None:
    bad: list[tuple[int, str]] = []
    images = [noise, b"text", noise, tmp_path / "gone.png"]
    boxes = [[10, 10, 60, 60]] * 4
    options = {"batch_size": 2, "read_ahead": read_ahead}
    found = list(dots.stream(images, boxes, **options, unreadable=lambda index, error: bad.append((index, str(error)))))
    assert [face.points.shape[:-2] for face in found] == [(), (0,), (), (0,)]
    assert [index for index, _ in bad] == [1, 3]
    assert "cannot be read" in bad[0][1]
    assert "does not exist" in bad[1][1]
    with pytest.raises(ValueError, match="bbox"):  # a bad box is the caller's mistake
        list(dots.stream(images, [[10, 10, 10, 60]] * 4, **options, unreadable=lambda index, error: None))


def test_stream_holds_only_the_images_of_a_batch(dots: FaceAligner, noise: Array) -> None:
    given_out = 0

    def images() -> Iterator[Array]:
        nonlocal given_out
        for _ in range(100):
            given_out += 1
            yield noise

    for count, face in enumerate(dots.stream(images(), [(40, 50, 140, 150)] * 100, batch_size=4), 1):
        assert face.points.shape == (6, 2)
        assert given_out <= count + 4
    assert (count, given_out) == (100, 100)


def test_files_are_read_ahead_by_a_limited_number(small: FaceAligner, noise: Array, tmp_path: Path) -> None:
    """Reading ahead changes neither the results nor their order. An error names the bad file."""
    files = [saved(PIL.Image.fromarray(np.roll(noise, n, 1)), tmp_path / f"{n}.png") for n in range(12)]
    box = (40, 50, 140, 150)
    expected = [small.align(file, box) for file in files]
    given_out = 0

    def paths() -> Iterator[Path]:
        nonlocal given_out
        for file in files:
            given_out += 1
            yield file

    for count, face in enumerate(small.stream(paths(), [box] * 12, batch_size=2, read_ahead=3), 1):
        equal(face, expected[count - 1], atol=0)
        assert given_out <= count + 2 + 3
    assert (count, given_out) == (12, 12)
    several = [files[0], np.roll(noise, 1, 1), str(files[2]), PIL.Image.open(files[3])]
    for got, one in zip(small.align_batch(several, [box] * 4), expected[:4], strict=True):
        equal(got, one, atol=0)
    files[5].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"5\.png"):
        small.align_batch(files, [box] * 12)
    threads = threading.active_count()
    stream = small.stream(files, [box] * 12, batch_size=1, read_ahead=3)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= threads


def test_eight_threads(w300: FaceAligner, dots: FaceAligner, astronaut: Array) -> None:
    def run(aligner: FaceAligner, image: Array, boxes: Array, times: int) -> None:
        expected = [aligner.align(image, box, refine=0, mirror=times > 1) for box in boxes] * (8 // len(boxes))
        start = threading.Barrier(8)
        results: list[list[Landmarks]] = [[] for _ in range(8)]

        def work(number: int) -> None:
            start.wait()
            for _ in range(times):
                box = boxes[number % len(boxes)]
                results[number].append(aligner.align(image, box, refine=0, mirror=times > 1))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for got, one in zip(results, expected, strict=True):
            assert len(got) == times
            for face in got:
                equal(face, one)

    boxes = np.array([(20.0 + 60 * n, 20, 60 + 60 * n, 70 + 5 * n) for n in range(8)])
    run(dots, paint(150, 520, boxes), boxes, 8)
    run(w300, astronaut, np.stack((BOX, BOX + 7)), 1)


# which model, and which scheme


def test_a_size_without_a_scheme_is_300w(w300: FaceAligner, wflw: FaceAligner) -> None:
    assert (w300.scheme.id, w300.config.scheme.id, w300.config.name) == ("300w", "300w", "HIH_N/300w")
    assert (wflw.scheme.id, wflw.config.name) == ("wflw", "HIH_N/wflw")
    assert FaceAligner.from_pretrained().config == FaceAligner.from_pretrained("HIH_T/300w").config
    for scheme in ("wflw", SCHEMES["wflw"]):
        assert FaceAligner.from_pretrained("HIH_N", scheme).config == wflw.config
        assert FaceAligner.from_pretrained("HIH_N/wflw", scheme).config == wflw.config


def test_cofw_is_wflw_converted(face98: Landmarks, astronaut: Array, tmp_path: Path) -> None:
    for model in ("HIH_N", "HIH_N/wflw"):
        cofw = FaceAligner.from_pretrained(model, scheme="cofw", device="cpu")
        assert cofw.scheme is SCHEMES["cofw"]
        assert cofw.network.landmarks == 98
    face = cofw.align(astronaut, BOX)
    assert face.points.shape == (29, 2)
    equal(face, face98.to("cofw"))
    assert cofw.align(astronaut, np.zeros((0, 4))).points.shape == (0, 29, 2)
    # the folder's scheme is cofw again; the scheme that the network was trained for can be chosen, too
    cofw.save_pretrained(tmp_path)
    assert FaceAligner.from_pretrained(tmp_path).scheme.id == "cofw"
    assert FaceAligner.from_pretrained(tmp_path, scheme="cofw").scheme.id == "cofw"
    assert FaceAligner.from_pretrained(tmp_path, scheme="wflw").scheme.id == "wflw"
    with pytest.raises(ValueError, match="scheme is '300w'"):
        FaceAligner.from_pretrained(tmp_path, scheme="300w")


@pytest.mark.parametrize(
    ("model", "scheme"),
    [("HIH_N/300w", "wflw"), ("HIH_N/300w", "cofw"), ("HIH_N/wflw", "300w"), ("HIH_B/wflw", "300w")],
)
def test_a_scheme_that_does_not_fit_the_model(model: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=f"scheme is {scheme!r}, but {model} was trained for"):
        FaceAligner.from_pretrained(model, scheme=scheme)


def test_a_scheme_that_does_not_fit_the_folder(w300: FaceAligner, tmp_path: Path) -> None:
    w300.save_pretrained(tmp_path)
    assert FaceAligner.from_pretrained(tmp_path).scheme.id == "300w"
    assert FaceAligner.from_pretrained(str(tmp_path), scheme="300w").scheme.id == "300w"
    for scheme in ("wflw", "cofw", Scheme(id="mine", names=("a",))):
        with pytest.raises(ValueError, match=r"scheme is '.*was trained for '300w'"):
            FaceAligner.from_pretrained(tmp_path, scheme=scheme)


# precision, device, decoder


def test_precisions(w300: FaceAligner, astronaut: Array) -> None:
    expected = w300.align(astronaut, BOX, refine=0).points
    assert w300.dtype is torch.float32
    assert next(w300.network.parameters()).dtype is torch.float32
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, torch.bfloat16: torch.bfloat16}
    for asked, dtype in names.items():
        aligner = FaceAligner.from_pretrained("HIH_N", dtype=asked, device="cpu")
        assert aligner.dtype is dtype
        face = aligner.align(astronaut, BOX, refine=0)
        assert face.points.dtype == face.scores.dtype == np.float32
        assert off(face.points, expected).max() < (1e-3 if dtype is torch.float32 else 1)
        assert off(face.points, expected).mean() < 0.2
    auto = FaceAligner.from_pretrained("HIH_N", dtype="auto", device="cpu").dtype
    has_bfloat16 = any("avx512_bf16" in line for line in _cpu_flags())
    if _cpu_flags():
        assert auto is (torch.bfloat16 if has_bfloat16 else torch.float32)


def _cpu_flags() -> list[str]:
    path = Path("/proc/cpuinfo")
    return [line for line in path.read_text().splitlines() if line.startswith("flags")] if path.exists() else []


def test_devices(w300: FaceAligner) -> None:
    assert w300.device == torch.device("cpu")
    chosen = FaceAligner.from_pretrained("HIH_N").device
    assert chosen.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert FaceAligner.from_pretrained("HIH_N", device=torch.device("cpu")).device.type == "cpu"


@pytest.mark.cuda
def test_cuda_gives_the_same_points(w300: FaceAligner, astronaut: Array) -> None:
    boxes = np.stack((BOX, BOX + 4, BOX - 4))
    expected = w300.align(astronaut, boxes)
    for dtype, most in (("float32", 0.05), ("auto", 1.0)):
        cuda = FaceAligner.from_pretrained("HIH_N", device="cuda", dtype=dtype)
        assert off(cuda.align(astronaut, boxes).points, expected.points).max() < most
        tensor = torch.from_numpy(astronaut).permute(2, 0, 1).cuda()
        assert off(cuda.align(tensor, torch.from_numpy(boxes).cuda()).points, expected.points).max() < most


def test_decoders(w300: FaceAligner, astronaut: Array) -> None:
    assert w300.decoder == w300.config.decoder
    assert w300.decoder.method == "expectation"
    argmax = FaceAligner.from_pretrained("HIH_N", decode="argmax", device="cpu")
    assert argmax.decoder.method == "argmax"
    assert FaceAligner.from_pretrained("HIH_N", decode="expectation").decoder == w300.decoder
    own = FaceAligner.from_pretrained("HIH_N", decode=Decoder("expectation", radius=1, power=1.0))
    assert own.decoder.radius == 1
    found = [a.align(astronaut, BOX, refine=0).points for a in (w300, argmax, own)]
    assert 0.05 < off(found[1], found[0]).mean() < 3
    assert 0.001 < off(found[2], found[0]).mean() < 2.5
    # argmax returns points on a grid of 1/8 heatmap pixels
    maps = w300.heatmaps(astronaut, BOX)
    on_grid = maps.transform.to_crop(found[1]) / 4 * 8
    np.testing.assert_allclose(on_grid, on_grid.round(), atol=1e-3)


def test_a_bare_decoder_warns_about_the_settings_that_it_drops() -> None:
    def load(decode: Any) -> FaceAligner:
        return FaceAligner.from_pretrained("HIH_N", decode=decode, device="cpu")

    with pytest.warns(UserWarning, match=r"without the other settings .*shift=.*pass decode='expectation'") as told:
        bare = load(Decoder("expectation"))
    assert told[0].filename == __file__
    # the decoder is used as it was given, all the same
    assert bare.decoder == Decoder("expectation") != bare.config.decoder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = load("expectation").decoder
        assert own == bare.config.decoder
        for meant in (replace(own, power=2.0), Decoder("expectation", radius=1), Decoder("argmax"), own):
            assert load(meant).decoder == meant


# saved and loaded


def test_saved_and_loaded_is_the_same(w300: FaceAligner, astronaut: Array, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    w300.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = FaceAligner.from_pretrained(folder, device="cpu")
    assert again.config == w300.config
    assert (again.decoder, again.scheme) == (w300.decoder, w300.scheme)
    equal(again.align(astronaut, BOX, refine=0), w300.align(astronaut, BOX, refine=0), atol=0)
    kept = w300.network.state_dict()
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, kept[name]), name
    before = (folder / "model.safetensors").read_bytes()
    again.save_pretrained(folder)  # into the folder that it was loaded from
    assert (folder / "model.safetensors").read_bytes() == before


def test_the_decoder_chosen_is_saved(w300: FaceAligner, tmp_path: Path) -> None:
    for decoder in (
        Decoder("argmax"),
        Decoder("expectation", radius=2, power=1.5, temperature=0.5, bin_offset=0.25, shift=(0.25, -0.5)),
    ):
        replaced = FaceAligner(w300.network, w300.config, device="cpu", decode=decoder)
        replaced.save_pretrained(tmp_path)
        assert FaceAligner.from_pretrained(tmp_path).decoder == decoder


def test_a_users_own_scheme_is_saved(noise: Array, tmp_path: Path) -> None:
    scheme = Scheme(
        id="mine",
        names=("left", "right", "tip", "chin"),
        parts={"eyes": (0, 1)},
        mirror=((0, 1),),
        contours=((0, 1, 2, 0), (2, 3)),
        normalizers={"inter-ocular": ((0,), (1,))},
        five=((0,), (1,), (2,), (3,), (3,)),
    )
    torch.manual_seed(0)
    size = {"stacks": 1, "decimal_size": 4, "width": 0.25}
    config = Config(scheme, **size, name="mine/1", crop_ratio=1.5, rounding="floor", refine=2)
    aligner = FaceAligner(HIHNet(4, **size), config, device="cpu", decode="argmax")
    aligner.save_pretrained(tmp_path)
    again = FaceAligner.from_pretrained(tmp_path, device="cpu")
    assert again.scheme == scheme
    assert again.config == replace(config, decoder=aligner.decoder)
    face, expected = (a.align(noise, (40, 50, 140, 150), refine=0, mirror=True) for a in (again, aligner))
    equal(face, expected, atol=0)
    np.testing.assert_array_equal(face["eyes"], face.points[:2])
    # the scheme in config.json has the same form as a scheme file
    (tmp_path / "mine.json").write_text(json.dumps(json.loads((tmp_path / "config.json").read_text())["scheme"]))
    assert FaceAligner.from_pretrained(tmp_path, scheme=str(tmp_path / "mine.json")).scheme == scheme


def test_floored_labels_are_decoded_at_the_centre_of_the_cell(noise: Array) -> None:
    scheme = Scheme(id="mine", names=("a", "b"))
    network = small_aligner(scheme).network
    rounded, floored = (
        FaceAligner(network, Config(scheme, 1, rounding=rounding), device="cpu", decode="argmax")
        for rounding in get_args(Rounding)
    )
    assert floored.config.rounding == "floor"
    box = (40, 50, 140, 150)
    apart = floored.align(noise, box).points - rounded.align(noise, box).points
    # half a cell, in pixels of the image
    np.testing.assert_allclose(apart, 0.5 / 8 * 4 * (1.25 * 100 / 256), atol=1e-4)


# bad input

SHAPE = "expected an RGB array|expected an RGB tensor"
U8 = np.uint8


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("nowhere.jpg", FileNotFoundError, "image 'nowhere.jpg' does not exist"),
        (Path("no/such/folder/a.png"), FileNotFoundError, "image 'no/such/folder/a.png' does not exist"),
        ("https://example.org/a.jpg", FileNotFoundError, "image 'https.*URLs are not supported"),
        (".", ValueError, "image '.' cannot be read"),
        ("{tmp}/empty.jpg", ValueError, "image '.*empty.jpg' cannot be read"),
        ("{tmp}/text.png", ValueError, "image '.*text.png' cannot be read"),
        ("{tmp}/cut.jpg", ValueError, "image '.*cut.jpg' cannot be read"),
        (np.zeros((0, 0, 3), U8), ValueError, "image is empty"),
        (np.zeros((0, 10), U8), ValueError, "image is empty"),
        (torch.zeros(3, 0, 5), ValueError, "image is empty"),
        (np.zeros(100, U8), ValueError, rf"image has shape \(100,\), {SHAPE}"),
        (np.zeros((2, 9, 9, 3), U8), ValueError, rf"image has shape \(2, 9, 9, 3\), {SHAPE}"),
        (np.zeros((3, 9, 9), U8), ValueError, r"image has shape \(3, 9, 9\).*transpose"),
        (np.zeros((9, 9, 2), U8), ValueError, rf"image has shape \(9, 9, 2\), {SHAPE}"),
        (np.zeros((9, 9, 5), U8), ValueError, rf"image has shape \(9, 9, 5\), {SHAPE}"),
        (torch.zeros(9, 9), ValueError, rf"image has shape \(9, 9\), {SHAPE}"),
        (torch.zeros(9, 9, 3), ValueError, r"image has shape \(9, 9, 3\).*permute"),
        (torch.zeros(1, 3, 9, 9), ValueError, rf"image has shape \(1, 3, 9, 9\), {SHAPE}"),
        (np.zeros((9, 9, 3), np.int64), TypeError, "image has dtype int64"),
        (np.zeros((9, 9, 3), bool), TypeError, "image has dtype bool"),
        (np.zeros((9, 9, 3), complex), TypeError, "image has dtype complex128"),
        (np.zeros((9, 9, 3), object), TypeError, "image has dtype object"),
        (torch.zeros(3, 9, 9, dtype=torch.int32), TypeError, "image has dtype int32"),
        (np.full((9, 9, 3), np.nan), ValueError, "image holds NaN"),
        (torch.full((3, 9, 9), torch.nan), ValueError, "image holds NaN"),
        (np.full((9, 9, 3), np.inf), ValueError, "image holds inf"),
        (np.full((9, 9, 3), 200.0), ValueError, r"image holds 200 to 200, expected floats in \[0, 1\].*255"),
        (np.full((9, 9, 3), -0.1), ValueError, r"image holds -0.1 to -0.1, expected floats in \[0, 1\]"),
        (None, TypeError, "image is NoneType"),
        (b"\xff\xd8", ValueError, r"image \(an encoded picture\) cannot be read: Pillow does not know its format"),
        ([[1, 2], [3, 4]], TypeError, "image is list"),
    ],
)
def test_bad_images(
    small: FaceAligner, noise: Array, tmp_path: Path, image: Any, error: type[Exception], message: str
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not an image")
    PIL.Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    image = image.format(tmp=tmp_path) if isinstance(image, str) else image
    with pytest.raises(error, match=message):
        small.align(image, (1, 1, 8, 8))
    with pytest.raises(error, match=message):
        small.align_batch([noise, image], [(1, 1, 8, 8)] * 2)
    with pytest.raises(error, match=message):
        small.heatmaps(image, (1, 1, 8, 8))


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("bbox", "error", "message"),
    [
        ((NAN, 1, 8, 8), ValueError, r"bbox is \(nan, 1, 8, 8\), expected finite"),
        ((1, 1, 8, INF), ValueError, r"bbox is \(1, 1, 8, inf\), expected finite"),
        (torch.tensor([1, NAN, 8, 8]), ValueError, "bbox is .* expected finite"),
        ((8, 1, 1, 8), ValueError, r"bbox is \(8, 1, 1, 8\), expected x1 < x2 and y1 < y2"),
        ((1, 8, 8, 1), ValueError, r"bbox is \(1, 8, 8, 1\), expected x1 < x2 and y1 < y2"),
        ((100, 80, 50, 60), ValueError, r"expected x1 < x2 and y1 < y2 \(not x, y, width, height\)"),
        ((5, 1, 5, 8), ValueError, "bbox is .* expected x1 < x2"),
        ((1, 5, 8, 5), ValueError, "bbox is .* expected x1 < x2 and y1 < y2"),
        ((0.2, 0.3, 0.4, 0.6), ValueError, r"bbox is \(0.2, 0.3, 0.4, 0.6\).*pixels"),
        ((1e-300, 0, 2e-300, 1e-300), ValueError, "bbox is .*pixels"),
        ((-1e308, -1e308, 1e308, 1e308), ValueError, "bbox is .*pixels"),
        ((-90, 1, -1, 8), ValueError, "bbox is .* which lies outside the image of 320 x 240 pixels"),
        ((1, -90, 8, -1), ValueError, "bbox is .* lies outside"),
        ((320, 1, 380, 8), ValueError, "bbox is .* lies outside"),
        ((1, 240, 8, 280), ValueError, "bbox is .* lies outside"),
        ((1, 2, 3), ValueError, r"bbox has shape \(3,\), expected \(4,\) or \(N, 4\)"),
        ((1, 2, 3, 4, 0.9), ValueError, r"bbox has shape \(5,\), .* then pass boxes\[:4\]"),
        (np.ones((2, 5)), ValueError, r"bbox has shape \(2, 5\), expected .* then pass boxes\[:, :4\]"),
        (np.ma.array((1, 1, 8, 8), mask=(0, 1, 0, 0)), ValueError, "^bbox is a masked array"),
        (torch.ones(4, device="meta"), TypeError, "bbox is a tensor on the meta device"),
        (7, ValueError, r"bbox has shape \(\)"),
        (np.ones((2, 3)), ValueError, r"bbox has shape \(2, 3\)"),
        (np.ones((0, 5)), ValueError, r"bbox has shape \(0, 5\)"),
        (np.ones((1, 1, 4)), ValueError, r"bbox has shape \(1, 1, 4\)"),
        ([(1, 1, 8, 8), (1, 1, 8)], ValueError, "bbox is ragged"),
        ("1 1 8 8", TypeError, "bbox has dtype"),
        (["1", "1", "8", "8"], TypeError, "bbox has dtype"),
        ((1, 1, None, 8), TypeError, "bbox has dtype object"),
        ((True, True, True, True), TypeError, "bbox has dtype bool"),
        ({"x1": 1}, TypeError, "bbox has dtype object"),
        (np.ones(4, complex), TypeError, "bbox has dtype complex128"),
        ([(1, 1, 8, 8), (1, 1, 8, 8), (9, 1, 1, 8)], ValueError, r"bbox 2 is \(9, 1, 1, 8\)"),
        ([(1, 1, 8, 8), (1, NAN, 8, 8)], ValueError, r"bbox 1 is \(1, nan, 8, 8\)"),
    ],
)
def test_bad_boxes(small: FaceAligner, noise: Array, bbox: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small.align(noise, bbox)
    with pytest.raises(error, match=message):
        small.align_batch([noise, noise], [(1, 1, 8, 8), bbox])
    with pytest.raises(error, match=message):
        small.heatmaps(noise, bbox)


@pytest.mark.parametrize(
    ("roll", "error", "message"),
    [
        (np.ma.array(3.0, mask=True), ValueError, "roll is a masked array"),
        (torch.ones((), device="meta"), TypeError, "roll is a tensor on the meta device"),
        ("left", TypeError, "roll is 'left', expected degrees"),
        ([1.0, 2.0], ValueError, r"roll has shape \(2,\)"),
    ],
)
def test_bad_rolls(small: FaceAligner, noise: Array, roll: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small.align(noise, (10, 10, 90, 90), roll=roll)


def test_boxes_of_tensors_that_need_gradients(small: FaceAligner, noise: Array) -> None:
    turned = small.align(noise, (10, 10, 90, 90), roll=torch.tensor(20.0, requires_grad=True))
    np.testing.assert_array_equal(turned.points, small.align(noise, (10, 10, 90, 90), roll=20).points)
    box = [torch.tensor(value, requires_grad=True) for value in (10.0, 10.0, 90.0, 90.0)]
    np.testing.assert_array_equal(small.align(noise, box).bbox, (10, 10, 90, 90))
    np.testing.assert_array_equal(small.align(noise, [box, tuple(box)]).bbox, [(10, 10, 90, 90)] * 2)


def test_encoded_images_are_read_ahead_too(small: FaceAligner, noise: Array) -> None:
    encoded = cv2.imencode(".png", noise[..., ::-1])[1].tobytes()
    expected = small.align(noise, (10, 10, 90, 90)).points
    images = [encoded, io.BytesIO(encoded), noise, encoded]
    for face in small.align_batch(images, [(10, 10, 90, 90)] * 4):
        np.testing.assert_allclose(face.points, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bboxes": [(1, 1, 8, 8)]}, ValueError, "bboxes has 1 entries"),
        ({"bboxes": [(1, 1, 8, 8)] * 3}, ValueError, "images has 2 entries"),
        ({"bboxes": []}, ValueError, "bboxes has 0 entries"),
        ({"images": []}, ValueError, "images has 0 entries"),
        ({"images": None}, TypeError, "images"),
        ({"images": "a.png"}, TypeError, "images"),
        ({"images": Path("a.png")}, TypeError, "images"),
        ({"images": b"png"}, TypeError, "images is bytes"),
        ({"images": io.BytesIO(b"png")}, TypeError, "images is BytesIO"),
        (
            {"images": np.zeros((9, 8, 3), np.uint8), "bboxes": None},
            TypeError,
            r"shape \(9, 8, 3\), which is one image",
        ),
        ({"bboxes": 5}, TypeError, "bboxes"),
        ({"bboxes": (1, 1, 8, 8)}, ValueError, r"bbox has shape \(\)"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": -3}, ValueError, "batch_size is -3"),
        ({"batch_size": 2.5}, (TypeError, ValueError), "batch_size"),
        ({"refine": -1}, ValueError, "refine is -1"),
        ({"refine": 1.5}, (TypeError, ValueError), "refine is 1.5"),
    ],
)
def test_bad_batches(
    small: FaceAligner, noise: Array, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"images": [noise, noise], "bboxes": [(1, 1, 8, 8)] * 2} | change
    with pytest.raises(error, match=message):
        small.align_batch(**arguments)


@pytest.mark.parametrize("refine", [-1, 9, 1.5, "1", True])
def test_bad_refine(small: FaceAligner, noise: Array, refine: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="refine is "):
        small.align(noise, (1, 1, 8, 8), refine=refine)


def test_heatmaps_take_one_face(small: FaceAligner, noise: Array) -> None:
    for boxes in (np.zeros((0, 4)), [(1, 1, 8, 8)], [(1, 1, 8, 8)] * 2):
        with pytest.raises(ValueError, match=r"bbox has shape \(\d, 4\), expected \(4,\)"):
            small.heatmaps(noise, boxes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "HIH_X"}, ValueError, "model is 'HIH_X', expected one of.*HIH_T.*HIH_B/wflw"),
        ({"model": "hih_t"}, ValueError, "model is 'hih_t', expected one of"),
        ({"model": ""}, ValueError, "model is ''"),
        ({"model": "./nowhere"}, FileNotFoundError, "model: no such folder: ./nowhere"),
        ({"model": Path("/no/such/folder")}, FileNotFoundError, "model: no such folder: /no/such/folder"),
        ({"model": __file__}, ValueError, "model is the file .*expected a folder"),
        ({"model": None}, TypeError, "model is NoneType"),
        ({"scheme": "68"}, ValueError, "scheme is '68', expected one of"),
        ({"scheme": "300W"}, ValueError, "scheme is '300W', expected one of"),
        ({"scheme": "nowhere.json"}, FileNotFoundError, "scheme: no such file: nowhere.json"),
        ({"scheme": Scheme(id="mine", names=("a",))}, ValueError, "scheme is 'mine', expected one of .* for HIH_T"),
        ({"device": "gpu"}, ValueError, "device is 'gpu', which this PyTorch cannot use"),
        ({"device": "cuda:99"}, ValueError, "device is 'cuda:99', which this PyTorch cannot use"),
        ({"device": "cpu:x"}, ValueError, "device is 'cpu:x', which this PyTorch cannot use"),
        ({"device": 1.5}, ValueError, "device is 1.5, which this PyTorch cannot use"),
        ({"dtype": "half-ish"}, ValueError, "dtype is 'half-ish', expected 'auto'"),
        ({"dtype": torch.int8}, ValueError, "dtype is torch.int8, expected 'auto'"),
        ({"dtype": "float64"}, ValueError, "dtype is 'float64', expected 'auto'"),
        ({"backend": "tensorflow"}, ValueError, "backend is 'tensorflow', expected"),
        ({"decode": "mean"}, ValueError, "decode is 'mean', expected 'argmax' or 'expectation'"),
        ({"decode": 3}, (TypeError, ValueError), "decode is 3"),
    ],
)
def test_bad_models(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FaceAligner.from_pretrained(**options)


# any input gives a valid result, or an error that names the argument

SIDES = st.integers(1, 120)
NUMBERS = st.one_of(
    st.floats(-50, 170, width=32),
    st.integers(-50, 170).map(float),
    st.floats(-1e4, 1e4),
    st.floats(allow_nan=True, allow_infinity=True),
)


@settings(max_examples=120, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    channels=st.sampled_from([None, 3, 4]),
    kind=st.sampled_from([np.uint8, np.uint16, np.float32]),
    corners=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=2),
    ordered=st.booleans(),
    refine=st.integers(0, 2),
    mirror=st.booleans(),
    seed=st.integers(0, 3),
)
def test_any_box_on_any_image(
    small: FaceAligner,
    height: int,
    width: int,
    channels: int | None,
    kind: Any,
    corners: list[tuple[float, ...]],
    ordered: bool,
    refine: int,
    mirror: bool,
    seed: int,
) -> None:
    values = np.random.default_rng(seed).random((height, width) if channels is None else (height, width, channels))
    image = values.astype(kind) if kind is np.float32 else (values * np.iinfo(kind).max).astype(kind)
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    if ordered:
        boxes = np.concatenate((np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])), 1)
    try:
        faces = small.align(image, boxes, refine=refine, mirror=mirror)
    except ValueError as caught:
        if not str(caught).startswith("bbox ") or all(_sensible(box, width, height) for box in boxes):
            raise
        return
    assert all(box[0] < box[2] and box[1] < box[3] and np.isfinite(box).all() for box in boxes)
    assert faces.points.shape == (len(boxes), 6, 2)
    assert np.isfinite(faces.points).all()
    assert (faces.scores >= 0).all()
    assert (faces.scores <= 1).all()
    for face, box in zip(faces, boxes, strict=True):
        if refine == 0:  # the points are inside the crop, up to half a decimal cell
            centre, half = (box[:2] + box[2:]) / 2, 0.55 * 1.25 * (box[2:] - box[:2]).max()
            assert (np.abs(face.points - centre) <= half + 1e-4 * np.abs(box).max()).all()
        assert face.draw(image).shape == (height, width, 3)
        assert face.crop(image).shape == (112, 112, 3)
        json.dumps(face.to_dict(), allow_nan=False)


def _sensible(box: Array, width: int, height: int) -> bool:
    """Whether a box must work: at least one pixel, at most 100,000 pixels, and it touches the image."""
    size = box[2:] - box[:2]
    touches = box[2] > -0.5 and box[3] > -0.5 and box[0] < width - 0.5 and box[1] < height - 0.5
    return bool(np.isfinite(box).all() and size.min() > 0 and 1 <= size.max() <= 1e5 and touches)


# batches with the real network


def test_a_batch_gives_exactly_the_results_of_its_faces(astronaut: Array) -> None:
    """With HIH_T and its default settings, other faces in the batch do not change the result."""
    w300 = FaceAligner.from_pretrained("HIH_T", device="cpu")
    boxes = np.array([BOX, (150, 60, 300, 230)])
    together = w300.align_batch([astronaut, astronaut], [boxes[:1], boxes[1:]], batch_size=3)
    alone = [w300.align(astronaut, box) for box in boxes]
    np.testing.assert_array_equal(
        np.concatenate([np.asarray(f) for f in together]), np.stack([f.points for f in alone])
    )
