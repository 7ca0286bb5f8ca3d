from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hih_align.crops import square_crop, tight_box, warp
from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.data.faces import FaceStore
from hih_align.images import read_image, write_image
from hih_align.method.network import MEAN, STD
from hih_align.schemes import W300, WFLW
from hih_align.training.augmentation import PRESETS, PROBABILITIES, Augmentation, Batch, augment, sample_seeds
from hih_align.training.augmentation.augment import _render
from hih_align.training.augmentation.camera import draw_camera
from hih_align.training.augmentation.dice import Dice
from hih_align.training.augmentation.geometry import draw_geometry, matrices
from hih_align.training.augmentation.occluders import draw_occluders
from hih_align.training.preview import draw_points, pixels, preview

NONE = Augmentation.none()
# a mirror exchanges landmarks 0 and 1
SWAP = np.array([1, 0, 2])
EFFECTS = ("rectangle", "piece", "light", "colour", "gamma", "grey", "blur", "motion", "low_resolution", "noise")


def certain(*names: str, **changes: Any) -> Augmentation:
    """Settings under which the named effects are always applied, and no others."""
    return replace(NONE, **dict.fromkeys(names, 1.0), **changes)


def rgb(batch: Batch) -> Tensor:
    """The images of a batch as RGB in [0, 1], (B, 3, H, W)."""
    return batch.images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def textured(count: int, side: int = 160) -> Tensor:
    """Random images with coarse details."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 40, 40, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()


def run(images: Tensor, settings: Augmentation, seeds: Tensor | None = None, **options: Any) -> Batch:
    generator = torch.Generator().manual_seed(1)
    side = images.shape[1]
    points = torch.rand(len(images), 3, 2, generator=generator) * side / 2 + side / 4
    given: dict[str, Any] = {"permutation": SWAP, "size": 128} | options
    seeds = sample_seeds(0, 0, np.arange(len(images))) if seeds is None else seeds
    return augment(images, points, torch.rand(len(images), 3), settings=settings, seeds=seeds, **given)


@pytest.fixture
def astronaut_store(tmp_path: Path, astronaut: NDArray[np.uint8]) -> tuple[FaceStore, NDArray[np.float64]]:
    points = np.array([[207.0, 119.0], [247.5, 112.25], [229.0, 139.0], [195.0, 95.0], [262.0, 190.0]])
    path = tmp_path / "astronaut.png"
    write_image(path, astronaut)
    scheme = replace(
        W300, id="five", names=tuple("abcde"), parts={}, mirror=None, contours=(), normalizers={}, five=None
    )
    record = Record(path, Labels(points, np.ones(5)), {"landmarks": tight_box(points)})
    return FaceStore.build(Dataset("one", scheme, (record,), path), progress=False), points


# --- none


@pytest.mark.parametrize(("size", "ratio"), [(256, 1.25), (128, 1.25), (64, 1.4)])
def test_no_augmentation_gives_the_plain_crop(
    astronaut_store: tuple[FaceStore, NDArray[np.float64]], astronaut: NDArray[np.uint8], size: int, ratio: float
) -> None:
    store, points = astronaut_store
    batch = augment(
        *store.gather(torch.tensor([0])),
        settings=NONE,
        seeds=torch.tensor([7]),
        permutation=None,
        crop_ratio=ratio,
        margin=store.margin,
        size=size,
    )
    crop = square_crop(tight_box(points), ratio, size)
    np.testing.assert_allclose(batch.points[0].numpy(), crop.to_crop(points), atol=1e-3)
    expected = warp(astronaut, crop.matrix, size)
    difference = np.abs(pixels(batch.images)[0].astype(int) - expected)
    assert difference.mean() < 2
    # the check would notice a shift of a fifth of a pixel
    shifted = crop.matrix + np.array([[0, 0, 0.2], [0, 0, 0.0]])
    assert difference.mean() < np.abs(pixels(batch.images)[0].astype(int) - warp(astronaut, shifted, size)).mean()


def test_no_augmentation_gives_the_plain_crops_of_real_faces(shared: Path) -> None:
    data = read_dataset(shared / "data/300w_val", "300w")
    data = replace(data, records=data.records[:8])
    store = FaceStore.build(data, progress=False)
    batch = augment(
        store.images, store.points, store.weights, settings=NONE, seeds=torch.arange(8), permutation=W300.permutation
    )
    for n, record in enumerate(data.records):
        crop = square_crop(record.box)
        assert record.labels is not None
        np.testing.assert_allclose(batch.points[n].numpy(), crop.to_crop(record.labels.points), atol=1e-3)
        plain = warp(read_image(record.image), crop.matrix, 256)
        assert np.abs(pixels(batch.images[n : n + 1])[0].astype(int) - plain).mean() < 3


def test_reduction_does_not_alias() -> None:
    # columns of black and white, one pixel wide: at a quarter of the size the image must be grey, without stripes
    stripes = torch.zeros(1, 320, 320, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    inside = rgb(run(stripes, NONE, size=50))[0, :, 5:-5, 5:-5]
    assert (inside - 0.5).abs().max() < 0.02


def test_outside_the_store_is_black() -> None:
    white = torch.full((1, 100, 100, 3), 255, dtype=torch.uint8)
    crop = rgb(run(white, certain("foreign", foreign_zoom=(1.6, 1.6), foreign_shift_x=(0, 0), foreign_shift_y=(0, 0))))[
        0
    ]
    # the crop shows an area of 2 boxes, which is all that the store holds
    assert (crop[:, 1:-1, 1:-1] > 0.99).all()
    crop = rgb(run(white, certain("foreign", foreign_zoom=(1.6, 1.6), foreign_shift_x=(1, 1), foreign_shift_y=(0, 0))))[
        0
    ]
    assert (crop[:, 1:-1, 1:63] > 0.99).all()
    assert (crop[:, :, 65:] == crop[:, :, 65:].clamp(-1e-6, 1e-6)).all()


# --- geometry


def dots(count: int, side: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Dark images with one bright dot each, and the positions of the dots."""
    generator = torch.Generator().manual_seed(seed)
    places = (torch.rand(count, 1, 2, generator=generator, dtype=torch.float64) - 0.5) * side / 3 + side / 2
    axis = torch.arange(side, dtype=torch.float64)
    away = [(axis - places[:, :, n]).square() for n in (0, 1)]
    value = torch.exp(-(away[0][:, None, :] + away[1][:, :, None]) / (2 * 2.5**2))
    return (value * 255).round().byte()[..., None].expand(-1, -1, -1, 3).contiguous(), places.float()


def centroid(picture: Tensor) -> Tensor:
    value = picture.double().mean(0) - 0.02
    value = value.clamp(min=0)
    x, y = (torch.arange(n, dtype=torch.float64) for n in (value.shape[1], value.shape[0]))
    return torch.stack(((value.sum(0) * x).sum(), (value.sum(1) * y).sum())) / value.sum()


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize(
    "settings",
    [
        replace(NONE, rotate=1.0, rotate_degrees=60.0, zoom=(0.8, 1.4), shift=0.1, mirror=0.5),
        certain("roll", "mirror", roll_degrees=180.0),
        certain("foreign"),
        certain("blur", "motion", "low_resolution", blur_sigma=(0.001, 0.01), low_resolution_share=(0.3, 0.6)),
    ],
    ids=["all", "roll and mirror", "foreign", "blurred"],
)
def test_points_move_with_the_image(settings: Augmentation, size: int) -> None:
    images, places = dots(24)
    batch = augment(
        images,
        places,
        torch.ones(24, 1),
        settings=settings,
        seeds=sample_seeds(5, 0, np.arange(24)),
        permutation=[0],
        size=size,
    )
    seen = 0
    for picture, point in zip(rgb(batch), batch.points[:, 0], strict=True):
        if (point > 0.1 * size).all() and (point < 0.9 * size).all():
            assert (centroid(picture) - point).norm() < 0.5 * size / 256 + 0.1
            seen += 1
    assert seen > 12


def test_mirror_exchanges_left_and_right_points_and_weights() -> None:
    images, seeds = textured(2), sample_seeds(1, 0, [0, 1])
    points = torch.tensor([[[40.0, 60.0], [100.0, 50.0], [80.0, 100.0]]]).expand(2, -1, -1)
    weights = torch.tensor([[0.25, 1.0, 0.0], [1.0, 0.5, 0.75]])
    plain, mirrored, unpaired = (
        augment(images, points, weights, settings=settings, seeds=seeds, permutation=permutation, size=96)
        for settings, permutation in ((NONE, SWAP), (certain("mirror"), SWAP), (certain("mirror"), None))
    )
    torch.testing.assert_close(mirrored.images, plain.images.flip(-1), atol=1e-4, rtol=0)
    expected = plain.points * torch.tensor([-1.0, 1.0]) + torch.tensor([95.0, 0.0])
    torch.testing.assert_close(mirrored.points, expected[:, SWAP], atol=1e-3, rtol=0)
    assert torch.equal(mirrored.weights, weights[:, SWAP])
    assert torch.equal(plain.weights, weights)
    # without a mirror table no face is mirrored
    assert torch.equal(unpaired.images, plain.images)
    assert torch.equal(unpaired.points, plain.points)


def test_mirrored_landmarks_of_a_real_scheme_keep_left_and_right(shared: Path) -> None:
    data = read_dataset(shared / "data/300w_val/annotations_wflw98.json", "wflw")
    store = FaceStore.build(replace(data, records=data.records[:8]), side=64, progress=False)
    batch = augment(*store.gather(torch.arange(8)), settings=certain("mirror"), seeds=torch.arange(8),
                    permutation=WFLW.permutation)  # fmt: skip
    assert (batch.points[:, 60, 0] < batch.points[:, 72, 0]).all()  # outer corners of the left and the right eye
    assert (batch.points[:, 0, 0] < batch.points[:, 32, 0]).all()


def angles(batch: Batch) -> NDArray[np.float64]:
    """The rotation in degrees of the first two landmarks of `many`."""
    side = (batch.points[:, 1] - batch.points[:, 0]).numpy()
    return np.degrees(np.arctan2(side[:, 1], side[:, 0]))


def many(settings: Augmentation, count: int = 600) -> Batch:
    """The geometry of many samples. One landmark is in the centre, one to the right of it and one below it.

    The distances are one side of the box.
    """
    images = torch.zeros(count, 32, 32, 3, dtype=torch.uint8)
    points = torch.tensor([[15.5, 15.5], [31.5, 15.5], [15.5, 31.5]]).expand(count, -1, -1)
    seeds = sample_seeds(2, 0, np.arange(count))
    return augment(images, points, torch.ones(count, 3), settings=settings, seeds=seeds, permutation=range(3), size=16)


def test_augmentation_of_the_paper() -> None:
    settings = Augmentation.paper()
    assert [getattr(settings, name) for name in ("mirror", "rotate", "rectangle", "blur")] == [0.5, 0.5, 0.5, 0.3]
    assert settings.rotate_degrees == 30
    batch = many(replace(settings, mirror=0.0))
    turned = angles(batch)
    assert 0.42 < (np.abs(turned) > 0.01).mean() < 0.58
    assert 28 < turned.max() <= 30.001
    assert -30.001 <= turned.min() < -28
    torch.testing.assert_close(batch.points[:, 0], torch.full((600, 2), 7.5))
    down = (batch.points[:, 2] - batch.points[:, 0]).numpy()
    mirrored = many(settings).points
    right, below = (mirrored[:, n] - mirrored[:, 0] for n in (1, 2))
    handed = (right[:, 0] * below[:, 1] - right[:, 1] * below[:, 0]).numpy()
    assert 0.42 < (handed < 0).mean() < 0.58
    assert (down[:, 1] > 0).all()


def test_boxes_move_within_their_ranges() -> None:
    box = 16 / 1.25  # side of the box in the plain crop, in crop pixels
    batch = many(replace(NONE, zoom=(0.8, 1.3), shift=0.1))
    zoom = box / (batch.points[:, 1] - batch.points[:, 0]).norm(dim=-1)
    shift = -(batch.points[:, 0] - 7.5) / box * zoom[:, None]
    for value, low, high in ((zoom, 0.8, 1.3), (shift[:, 0], -0.1, 0.1), (shift[:, 1], -0.1, 0.1)):
        reach = (high - low) / 20
        assert low - 1e-4 <= value.min() < low + reach
        assert high - reach < value.max() <= high + 1e-4
    batch = many(certain("foreign", foreign_zoom=(1.1, 1.5), foreign_shift_x=(0, 0.1), foreign_shift_y=(-0.3, -0.2)))
    zoom = box / (batch.points[:, 1] - batch.points[:, 0]).norm(dim=-1)
    shift = -(batch.points[:, 0] - 7.5) / box * zoom[:, None]
    assert (zoom > 1.0999).all()
    assert (zoom < 1.5001).all()
    assert (shift[:, 0] >= -1e-4).all()
    assert (shift[:, 0] <= 0.1001).all()
    assert (shift[:, 1] <= -0.1999).all()  # upwards, because detectors' boxes include the forehead
    assert (shift[:, 1] >= -0.3001).all()


# --- seeds


@pytest.mark.parametrize("with_donors", [True, False])
def test_a_sample_does_not_depend_on_its_batch(with_donors: bool) -> None:
    images, seeds = textured(12), sample_seeds(9, 4, np.arange(12))
    options: dict[str, Any] = {"donors": textured(5, 70) if with_donors else None}
    points, weights = torch.rand(12, 3, 2) * 160, torch.rand(12, 3)

    def part(rows: list[int]) -> Batch:
        return augment(images[rows], points[rows], weights[rows], settings=Augmentation.wild(), seeds=seeds[rows],
                       permutation=SWAP, size=128, **options)  # fmt: skip

    whole = part(list(range(12)))
    for rows in ([0], [7], [3, 11, 5], [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]):
        for got, want in zip(part(rows), whole, strict=True):
            assert torch.equal(got, want[rows])
    # the batched code of accelerators, run here on the CPU
    dice = Dice(seeds.numpy())
    geometry = draw_geometry(dice, Augmentation.wild(), True)
    occluders, camera = draw_occluders(dice, Augmentation.wild()), draw_camera(dice, Augmentation.wild())
    affine = matrices(geometry, 160, 1.25, 2.0, 128)
    batched = _render(images, affine, occluders, camera, 128, options["donors"])
    torch.testing.assert_close(batched, rgb(whole), atol=2e-4, rtol=0)


def test_each_seed_gives_another_result() -> None:
    images = textured(1).expand(40, -1, -1, -1)
    batch = run(images, Augmentation.modern(), sample_seeds(0, 0, np.arange(40)), size=32)
    flat = batch.images.flatten(1)
    assert len(torch.unique(flat, dim=0)) == 40
    again = run(images, Augmentation.modern(), sample_seeds(0, 1, np.arange(40)), size=32)
    assert not (again.images.flatten(1) == flat).all(1).any()


def test_sample_seeds() -> None:
    grid = torch.cat([sample_seeds(s, e, np.arange(500)) for s in (0, 1, -1, 2**40) for e in range(20)])
    assert grid.dtype == torch.int64
    assert len(grid.unique()) == len(grid)
    assert torch.equal(sample_seeds(3, 4, [9, 2]), sample_seeds(3, 4, torch.arange(10))[[9, 2]])
    # the values must be the same on every machine and in every version, because a resumed run needs them
    assert sample_seeds(1, 2, [0, 3]).tolist() == [3248506767648729816, -7297955527709719101]


def test_a_changed_setting_does_not_change_the_other_effects() -> None:
    images = textured(6)
    before = run(images, replace(NONE, rotate=0.5, shift=0.2, mirror=0.5))
    after = run(images, replace(NONE, rotate=0.5, shift=0.2, mirror=0.5, blur=1.0, foreign_zoom=(0.5, 0.6), noise=0.5))
    assert torch.equal(before.points, after.points)
    assert not torch.equal(before.images, after.images)


# --- pixels


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_changes_only_pixels(name: str) -> None:
    images = textured(8)
    plain, changed = run(images, NONE, donors=textured(3, 50)), run(images, certain(name), donors=textured(3, 50))
    assert changed.images.shape == (8, 3, 128, 128)
    assert changed.images.dtype == torch.float32
    assert torch.equal(changed.points, plain.points)
    value = rgb(changed)
    assert value.min() > -1e-5
    assert value.max() < 1 + 1e-5
    assert (value - rgb(plain)).abs().flatten(1).amax(1).min() > 0.01  # in each sample
    assert torch.isfinite(value).all()


def test_everything_at_once_stays_in_range() -> None:
    everything = replace(Augmentation.wild(), **dict.fromkeys(PROBABILITIES, 1.0))
    for images in (textured(4), torch.zeros(4, 60, 60, 3, dtype=torch.uint8), torch.full((4, 60, 60, 3), 255).byte()):
        value = rgb(run(images, everything))
        assert torch.isfinite(value).all()
        assert value.min() > -1e-5
        assert value.max() < 1 + 1e-5


def test_rectangles_have_the_size_that_is_set() -> None:
    images = torch.full((300, 40, 40, 3), 128, dtype=torch.uint8)
    value = rgb(run(images, certain("rectangle", rectangle_size=(0.2, 0.5)), size=40))
    inside = (value - 128 / 255).abs().amax(1) > 1e-4
    widths, heights = inside.any(1).sum(1) / 40, inside.any(2).sum(1) / 40
    for sides in (widths, heights):
        assert sides.max() <= 0.53
        assert sides.max() > 0.4
    assert ((widths * heights * 1600).round() == inside.sum((1, 2))).all()  # there is exactly one rectangle
    for picture, where in zip(value, inside, strict=True):
        if where.any():
            assert picture[:, where].std(1).max() < 1e-6  # the rectangle has one colour
    # rectangles are at all positions: every pixel is covered sometimes
    assert inside.float().mean(0).min() > 0.01


def test_pieces_come_from_the_donors() -> None:
    images = torch.zeros(60, 40, 40, 3, dtype=torch.uint8)
    donors = torch.zeros(4, 30, 30, 3, dtype=torch.uint8)
    colours = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], dtype=torch.uint8)
    donors[:] = colours[:, None, None]
    value = rgb(run(images, certain("piece", piece_size=(0.4, 0.7)), donors=donors, size=64))
    top = (value.amax((2, 3)) * 255).round()
    assert {tuple(c) for c in top.tolist()} == {tuple(map(float, c)) for c in colours.tolist()}
    covered = (value.amax(1) > 0.5).float().mean((1, 2))
    assert covered.max() < 0.7**2 + 0.05
    assert covered.mean() > 0.08
    # without donors, the pieces come from the image itself
    plain = textured(1, 100)
    own = rgb(run(plain, certain("piece"), torch.tensor([3])))
    assert (own - rgb(run(plain, NONE))).abs().max() > 0.05


def test_grey_has_no_colour() -> None:
    value = rgb(run(textured(6), certain("grey", "colour")))
    assert (value.amax(1) - value.amin(1)).max() < 1e-5
    plain = rgb(run(textured(6), NONE))
    luma = (plain * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    torch.testing.assert_close(rgb(run(textured(6), certain("grey")))[:, 0], luma, atol=1e-4, rtol=0)


def test_light_darkens_one_side() -> None:
    images = torch.full((50, 60, 60, 3), 100, dtype=torch.uint8)
    value = rgb(run(images, certain("light", light_strength=(0.6, 0.6)), size=64))[:, 0]
    dark, lit = value.flatten(1).amin(1), value.flatten(1).amax(1)
    assert (dark / lit < 0.75).all()
    assert (dark / lit > 0.39).all()


@pytest.mark.parametrize("size", [100, 128, 256])
def test_blur_has_the_width_that_is_set(size: int) -> None:
    image = torch.zeros(1, 2 * size, 2 * size, 3, dtype=torch.uint8)
    image[:, :, size:] = 255  # a vertical edge
    sharp, soft = (
        rgb(run(image, settings, size=size, crop_ratio=0.5, margin=1.0))[0, 0, size // 2]
        for settings in (NONE, certain("blur", blur_sigma=(0.02, 0.02)))
    )
    middle = slice(size // 2 - size // 8, size // 2 + size // 8)
    steps = (soft[1:] - soft[:-1]).double()[middle]
    place = (torch.arange(size - 1) + 0.5)[middle]
    mean = (steps * place).sum() / steps.sum()
    sigma = ((steps * (place - mean).square()).sum() / steps.sum()).sqrt()
    assert abs(mean - (size - 1) / 2) < 0.1  # the edge does not move
    assert abs(sigma - 0.02 * size) < 0.05 * 0.02 * size + 0.02
    assert (sharp > 0.5).sum() == size // 2


def test_motion_blurs_along_a_line() -> None:
    image, start = dots(1)
    for seed in range(5):
        options = {"seeds": torch.tensor([seed]), "crop_ratio": 1.0, "margin": 1.0, "size": 200}
        value = rgb(run(image, certain("motion", motion_length=(0.1, 0.1)), **options))[0, 0].clamp(min=0).double()
        place = torch.stack(torch.meshgrid(*[torch.arange(200.0)] * 2, indexing="xy"), -1).double() - start[0, 0]
        mean = (value[..., None] * place).sum((0, 1)) / value.sum()
        spread = torch.einsum("hw,hwi,hwj->ij", value, place - mean, place - mean) / value.sum()
        small, large = torch.linalg.eigvalsh(spread).sqrt()
        assert mean.norm() < 0.3
        # the deviation of the dot is 2.5, and that of a line of 20 pixels is 20 / sqrt(12)
        assert abs(small - 2.5) < 0.15
        assert abs(large - (2.5**2 + 20**2 / 12) ** 0.5) < 0.3


def test_low_resolution_keeps_only_means() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (4, 128, 128, 3), generator=generator, dtype=torch.uint8)
    options = {"crop_ratio": 1.0, "margin": 1.0, "size": 128}
    plain = rgb(run(image, NONE, **options))
    low = rgb(run(image, certain("low_resolution", low_resolution_share=(0.125, 0.125)), **options))
    # 16 x 16 means of 8 x 8 pixels, placed at the centres of these pixels
    means = torch.nn.functional.avg_pool2d(plain, 8)
    expected = torch.nn.functional.interpolate(means, scale_factor=8, mode="bilinear", align_corners=False)
    torch.testing.assert_close(low, expected, atol=1e-4, rtol=0)


def test_noise_has_the_strength_that_is_set() -> None:
    grey = torch.full((6, 64, 64, 3), 128, dtype=torch.uint8)
    value = rgb(run(grey, certain("noise", noise_sigma=(0.05, 0.05)))).flatten(1)
    expected = 0.05 * (128 / 255 + 0.3)
    assert (value.std(1) / expected - 1).abs().max() < 0.05
    assert (value.mean(1) - 128 / 255).abs().max() < 0.002
    assert not torch.equal(value[0], value[1])
    coarse = rgb(run(grey, certain("noise", "low_resolution", low_resolution_share=(0.25, 0.25))))
    # the noise is coarse: neighbouring pixels are similar
    assert (coarse[..., 1:] - coarse[..., :-1]).abs().mean() < 0.5 * (coarse - 128 / 255).abs().mean()


def test_colour_ranges() -> None:
    grey = torch.full((200, 16, 16, 3), 128, dtype=torch.uint8)
    still = {"contrast": 0.0, "saturation": 0.0, "tint": 0.0}
    value = rgb(run(grey, certain("colour", brightness=0.2, **still), size=16))[:, :, 8, 8] - 128 / 255
    assert 0.18 < value.max() < 0.2001
    assert -0.2001 < value.min() < -0.18
    value = rgb(run(grey, certain("gamma", gamma_range=(2.0, 2.0)), size=16))[:, :, 8, 8]
    torch.testing.assert_close(value, torch.full_like(value, (128 / 255) ** 2), atol=1e-4, rtol=0)


# --- errors and presets


def test_presets() -> None:
    assert {name: make() for name, make in PRESETS.items()} == {
        "none": Augmentation.none(),
        "paper": Augmentation.paper(),
        "modern": Augmentation(),
        "wild": Augmentation.wild(),
    }
    assert all(getattr(NONE, name) == 0 for name in PROBABILITIES)
    assert {f.name for f in fields(Augmentation)} > set(PROBABILITIES)
    assert Augmentation(zoom=[1, 2]).zoom == (1.0, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blur": 1.5}, "blur is 1.5, expected a probability"),
        ({"mirror": float("nan")}, "mirror is nan"),
        ({"zoom": (1.2, 0.8)}, "zoom is .*two ascending numbers"),
        ({"gamma_range": (0.0, 1.0)}, r"gamma_range is .*\[0.1, 10\]"),
        ({"noise_sigma": (0.1, 0.2, 0.3)}, "noise_sigma"),
        ({"rotate_degrees": -3.0}, "rotate_degrees is -3.0"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NONE, **change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(2, 20, 20, 3)}, TypeError, "images is torch.float32"),
        ({"images": torch.zeros(2, 3, 20, 20).byte()}, ValueError, "images has shape"),
        ({"points": torch.zeros(2, 3)}, ValueError, "points has shape"),
        ({"points": torch.zeros(1, 3, 2)}, ValueError, "points has shape"),
        ({"weights": torch.zeros(2, 4)}, ValueError, "weights has shape"),
        ({"seeds": torch.zeros(2)}, TypeError, "seeds is torch.float32"),
        ({"seeds": torch.zeros(3, dtype=torch.int64)}, ValueError, "seeds has shape"),
        ({"permutation": [1, 0]}, ValueError, "permutation has shape"),
        ({"margin": 0.0}, ValueError, "margin"),
        ({"size": 4}, ValueError, "size is 4"),
        ({"donors": torch.zeros(0, 9, 9, 3).byte()}, ValueError, "donors is empty"),
        ({"donors": torch.zeros(2, 9, 9, 3)}, TypeError, "donors is torch.float32"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {
        "images": torch.zeros(2, 20, 20, 3).byte(),
        "points": torch.zeros(2, 3, 2),
        "weights": torch.zeros(2, 3),
        "settings": NONE,
        "seeds": torch.arange(2),
        "permutation": SWAP,
    }
    augment(**given)
    with pytest.raises(error, match=message):
        augment(**given | change)


# --- preview


def test_preview_shows_points_and_targets(tmp_path: Path) -> None:
    images = torch.full((3, 64, 64, 3), 90, dtype=torch.uint8)
    points = torch.tensor([[[20.0, 24.0], [40.0, 24.0], [31.0, 40.0]]]).expand(3, -1, -1)
    weights = torch.tensor([[1.0, 1.0, 0.0]]).expand(3, -1)
    batch = augment(images, points, weights, settings=NONE, seeds=torch.arange(3), permutation=None, size=128)
    sheet = preview(batch, columns=2)
    assert sheet.shape == (2 * 128 + 4, 2 * 384 + 4, 3)
    write_image(tmp_path / "batch.png", sheet)
    np.testing.assert_array_equal(read_image(tmp_path / "batch.png"), sheet)
    crop, heat = (sheet[:128, left : left + 128].astype(int) for left in (0, 128))
    for (x, y), weight in zip(batch.points[0].round().int().tolist(), weights[0].tolist(), strict=True):
        assert (abs(crop[y, x] - 90).max() > 50) == (weight > 0)
        # a heatmap pixel covers four crop pixels, to the right of its landmark and below it
        assert (heat[y, x, 0] > 150) == (weight > 0)
    with pytest.raises(ValueError, match="at least 1"):
        preview(batch, columns=0)


def test_draw_points_does_not_change_the_image() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    drawn = draw_points(
        image, np.array([[10, 10], [50, 10], [np.nan, np.nan]], np.float32), np.array([1, 1, 0], np.float32)
    )
    assert not image.any()
    assert drawn[10, 10].any()
    assert drawn[10, 50].any()
    assert not drawn[30:].any()
