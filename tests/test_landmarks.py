"""`landmarks.Landmarks` on made-up points: indexing, conversion, aligned chips, and drawing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from hih_align import SCHEMES, Landmarks, Scheme

# the arcface_112x112 template, as its authors publish it
TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
# a scheme that consists of these five points
FIVE = Scheme(id="five", names=("le", "re", "n", "lm", "rm"), five=((0,), (1,), (2,), (3,), (4,)), contours=((0, 1),))


def made(scheme: Scheme, faces: int | None = None, seed: int = 0) -> Landmarks:
    """Random landmarks of one face, or of several."""
    random = np.random.default_rng(seed)
    lead = () if faces is None else (faces,)
    return Landmarks(
        points=random.uniform(10, 90, (*lead, len(scheme), 2)).astype(np.float32),
        scores=random.uniform(0, 1, (*lead, len(scheme))).astype(np.float32),
        scheme=scheme,
        bbox=random.uniform(0, 100, (*lead, 4)).astype(np.float32),
        model="made/up",
    )


def same(a: Landmarks, b: Landmarks) -> None:
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.bbox, b.bbox)
    assert (a.scheme, a.model, a.several) == (b.scheme, b.model, b.several)


@pytest.fixture
def face() -> Landmarks:
    return made(SCHEMES["300w"])


@pytest.fixture
def faces() -> Landmarks:
    return made(SCHEMES["300w"], 4)


# indexing


def test_several_faces_are_a_sequence(faces: Landmarks) -> None:
    assert (len(faces), faces.several, bool(faces)) == (4, True, True)
    for number, face in enumerate(faces):
        assert isinstance(face, Landmarks)
        assert not face.several
        same(face, faces[number])
        np.testing.assert_array_equal(face.points, faces.points[number])
        np.testing.assert_array_equal(face.scores, faces.scores[number])
        np.testing.assert_array_equal(face.bbox, faces.bbox[number])
    assert len(list(faces)) == 4
    same(faces[-1], faces[3])
    same(faces[np.int64(2)], faces[2])
    with pytest.raises(IndexError):
        faces[4]


@pytest.mark.parametrize(
    ("key", "chosen"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(0, 1), [0]),
        (slice(0, 0), []),
        (np.array([True, False, False, True]), [0, 3]),
        ([2, 0], [2, 0]),
        (np.array([3]), [3]),
        (torch.tensor([False, False, True, False]), [2]),
    ],
)
def test_some_of_several_faces(faces: Landmarks, key: Any, chosen: list[int]) -> None:
    some = faces[key]
    assert some.several
    assert len(some) == len(chosen)
    for got, number in zip(some, chosen, strict=True):
        same(got, faces[number])


def test_faces_picked_by_score(faces: Landmarks) -> None:
    best = faces[np.argsort(-faces.score)]
    assert (np.diff(best.score) <= 0).all()
    assert len(faces[faces.score > 2]) == 0


def test_a_mask_of_one_face_is_no_number(faces: Landmarks) -> None:
    """PyTorch offers NumPy a tensor of one element as a number."""
    assert len(faces[:1][torch.tensor([False])]) == 0


def test_one_face_is_not_a_sequence(face: Landmarks) -> None:
    assert bool(face)
    for act in (len, iter, lambda f: f[0], lambda f: f[:2]):
        with pytest.raises(TypeError, match="one face"):
            act(face)


def test_no_face(face: Landmarks, faces: Landmarks) -> None:
    none = faces[:0]
    assert (len(none), bool(none), list(none), none.several) == (0, False, [], True)
    assert none["left_eye"].shape == (0, 6, 2)
    assert none.score.shape == (0,)
    assert none.five_points().shape == (0, 5, 2)
    assert np.asarray(none).shape == (0, 68, 2)
    assert made(SCHEMES["wflw"], 0).to("cofw").points.shape == (0, 29, 2)
    image = np.zeros((20, 30, 3), np.uint8)
    assert none.crop(image).shape == (0, 112, 112, 3)
    np.testing.assert_array_equal(none.draw(image), image)
    assert none.to_dict()["points"] == []


def test_a_slice_of_one_face_is_several_faces(faces: Landmarks) -> None:
    one = faces[:1]
    assert one.crop(np.zeros((99, 99, 3), np.uint8)).shape == (1, 112, 112, 3)
    assert one.five_points().shape == (1, 5, 2)
    assert one.score.shape == (1,)


def test_parts_by_name(face: Landmarks, faces: Landmarks) -> None:
    np.testing.assert_array_equal(face["left_eye"], face.points[36:42])
    np.testing.assert_array_equal(face["mouth"], face.points[48:68])
    np.testing.assert_array_equal(faces["right_eye"], faces.points[:, 42:48])
    np.testing.assert_array_equal(made(SCHEMES["wflw"])["left_pupil"].shape, (1, 2))
    np.testing.assert_array_equal(face["jaw_8"], face.points[8])  # a landmark, where no part has the name
    np.testing.assert_array_equal(faces["jaw_8"], faces.points[:, 8])
    with pytest.raises(KeyError, match=r"'tail'.*left_eye.*jaw_0"):
        face["tail"]
    for scheme in SCHEMES.values():
        for part, group in scheme.parts.items():
            assert made(scheme)[part].shape == (len(group), 2)


def test_as_an_array(face: Landmarks, faces: Landmarks) -> None:
    assert np.asarray(face) is face.points
    assert np.asarray(faces).shape == (4, 68, 2)
    double = np.asarray(face, np.float64)
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double, face.points)
    copy = np.array(face)
    assert not np.shares_memory(copy, face.points)
    np.testing.assert_array_equal(copy, face.points)
    np.testing.assert_array_equal(np.add(face, 1), face.points + 1)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="need a copy"):
            np.asarray(face, np.float64, copy=False)


def test_score_is_the_mean(face: Landmarks, faces: Landmarks) -> None:
    assert isinstance(face.score, float)
    assert face.score == pytest.approx(face.scores.mean())
    np.testing.assert_allclose(faces.score, faces.scores.mean(1))


def test_frozen(face: Landmarks) -> None:
    with pytest.raises(FrozenInstanceError):
        face.model = "other"  # type: ignore[misc]


# conversion


def test_to_68() -> None:
    face = made(SCHEMES["wflw"])
    there = face.to("300w")
    assert there.scheme == SCHEMES["300w"]
    assert there.points.shape == (68, 2)
    assert there.points.dtype == there.scores.dtype == np.float32
    # the jaw is every second of the 33 jaw points; the nose and the corners of eyes and mouth are the same points in
    # both
    np.testing.assert_allclose(there["jaw"], face["jaw"][::2], rtol=1e-6)
    for ours, theirs in ((36, 60), (39, 64), (42, 68), (45, 72), (48, 76), (54, 82), (30, 54), (33, 57), (60, 88)):
        np.testing.assert_allclose(there.points[ours], face.points[theirs], rtol=1e-6)
        assert there.scores[ours] == pytest.approx(face.scores[theirs])
    np.testing.assert_array_equal(there.bbox, face.bbox)
    assert there.model == face.model


def test_to_29() -> None:
    face = made(SCHEMES["wflw"])
    there = face.to("cofw")
    named = dict(zip(there.scheme.names, there.points, strict=True))
    for ours, theirs in (
        *(("left_eye_outer", 60), ("left_eye_inner", 64), ("right_eye_inner", 68), ("right_eye_outer", 72)),
        *(("left_pupil", 96), ("right_pupil", 97), ("nose_tip", 54), ("mouth_left", 76), ("mouth_right", 82)),
        *(("chin", 16), ("upper_lip_top", 79), ("lower_lip_bottom", 85)),
    ):
        np.testing.assert_allclose(named[ours], face.points[theirs], rtol=1e-6, err_msg=ours)
    assert (there.scores >= 0).all()
    assert (there.scores <= 1).all()


def test_conversion_of_several_is_that_of_each() -> None:
    faces = made(SCHEMES["wflw"], 3)
    for scheme in ("300w", "cofw"):
        for converted, face in zip(faces.to(scheme), faces, strict=True):
            same(converted, face.to(scheme))


def test_conversion_to_itself_and_where_none_is_known(face: Landmarks) -> None:
    same(face.to("300w"), face)
    same(face.to(SCHEMES["300w"]), face)
    for target in ("wflw", "cofw", FIVE):
        with pytest.raises(ValueError, match="no conversion from scheme '300w'"):
            face.to(target)
    with pytest.raises(ValueError, match="scheme is 'w300'"):
        face.to("w300")


def test_conversion_to_a_scheme_of_the_same_id(face: Landmarks) -> None:
    with pytest.raises(ValueError, match=r"no conversion from scheme '300w' to '300w'"):
        face.to(Scheme("300w", ("a", "b")))
    # the same landmarks in other parts: the points stay, and the parts are those of the requested scheme
    grouped = replace(face.scheme, parts={"first": (0, 1)})
    there = face.to(grouped)
    assert there.scheme is grouped
    np.testing.assert_array_equal(there["first"], face.points[:2])
    np.testing.assert_array_equal(there.points, face.points)


# five points and the aligned chip


def test_five_points(face: Landmarks) -> None:
    five = face.five_points()
    assert five.shape == (5, 2)
    for row, part in ((0, "left_eye"), (1, "right_eye")):
        np.testing.assert_allclose(five[row], face[part].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(five[2:], face.points[[30, 48, 54]])
    wflw = made(SCHEMES["wflw"])
    np.testing.assert_array_equal(wflw.five_points()[2:], wflw.points[[54, 76, 82]])
    faces = made(SCHEMES["300w"], 3)
    np.testing.assert_array_equal(faces.five_points()[1], faces[1].five_points())
    with pytest.raises(ValueError, match="five"):
        made(Scheme(id="blind", names=("a", "b"))).five_points()


def dots(points: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """A black image with a smooth white dot at each point."""
    y, x = np.mgrid[:size, :size]
    image = sum(255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 4.0**2)) for px, py in points)
    return np.clip(image, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def dot_near(chip: NDArray[np.uint8], x: float, y: float, radius: int) -> tuple[float, float]:
    """Centre of brightness in a window around (x, y)."""
    x0, y0 = round(x) - radius, round(y) - radius
    part = chip[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1, 0].astype(float)
    ys, xs = np.mgrid[: part.shape[0], : part.shape[1]]
    return x0 + (xs * part).sum() / part.sum(), y0 + (ys * part).sum() / part.sum()


@pytest.mark.parametrize("size", [112, 224, 96])
def test_chip_has_the_five_points_on_arcfaces_template(size: int) -> None:
    # the points are the template after an exact similarity: rotated by 25 degrees, 2.2 times as large, shifted
    turn = 2.2 * np.exp(1j * np.radians(25))
    placed = np.array(TEMPLATE) @ (1, 1j) * turn + (130 + 20j)
    points = np.stack((placed.real, placed.imag), -1)
    face = replace(made(FIVE), points=points.astype(np.float32))
    chip = face.crop(dots(points, 400), size=size)
    assert (chip.shape, chip.dtype) == ((size, size, 3), np.uint8)
    for x, y in np.array(TEMPLATE) * (size / 112):
        np.testing.assert_allclose(dot_near(chip, x, y, size // 16), (x, y), atol=0.15)


def test_chip_is_the_least_squares_fit() -> None:
    face = made(FIVE, seed=3)
    image = np.random.default_rng(1).integers(0, 256, (100, 100, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    chip = face.crop(image).astype(int)
    # a x - b y + c = x', b x + a y + d = y', solved by numpy
    rows = [row for x, y in face.points.tolist() for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(TEMPLATE).ravel(), rcond=None)[0]
    expected = cv2.warpAffine(image, np.array([[a, -b, c], [b, a, d]]), (112, 112)).astype(int)
    assert expected.any()
    assert np.abs(chip - expected).mean() < 0.5


def test_chips_of_several_faces(faces: Landmarks) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    chips = faces.crop(image, size=64)
    assert chips.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(chips[2], faces[2].crop(image, size=64))


def test_chip_is_black_outside_the_image() -> None:
    far = replace(made(FIVE), points=np.array(TEMPLATE, np.float32) + 1000)
    chip = far.crop(np.full((50, 50, 3), 255, np.uint8))
    assert not chip.any()
    for size in (0, True, 112.0):
        with pytest.raises(ValueError, match=f"size is {size}, expected a whole number"):
            far.crop(np.zeros((50, 50, 3), np.uint8), size=size)  # type: ignore[arg-type]
    assert far.crop(np.zeros((50, 50, 3), np.uint8), size=np.int64(40)).shape == (40, 40, 3)  # type: ignore[arg-type]


# drawing


def at(x: float, y: float, score: float = 1.0) -> Landmarks:
    """One face whose second point is 60 px to the right of (x, y); all other points are at (x, y)."""
    points = np.array([[x, y], [x + 60, y], [x, y], [x, y], [x, y]], np.float32)
    return replace(made(FIVE), points=points, scores=np.full(5, score, np.float32))


def changed(picture: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (picture != image).any(-1)


def test_draws_at_the_positions_of_the_points() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    picture = at(30, 40).draw(image, lines=False)
    assert (picture.shape, picture.dtype) == (image.shape, np.uint8)
    ys, xs = np.nonzero(changed(picture, image))
    assert set(zip(ys, xs, strict=True)) >= {(40, 30), (40, 90)}
    distance = np.minimum(np.hypot(xs - 30, ys - 40), np.hypot(xs - 90, ys - 40))
    assert distance.max() <= 3
    # a score of 1 is green, a score of 0 is red
    red, green, _ = (int(v) for v in picture[40, 30])
    assert green > 150 > red
    red, green, _ = (int(v) for v in at(30, 40, score=0).draw(image, lines=False)[40, 30])
    assert red > 150 > green


def test_draws_at_subpixel_positions() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    for shift in (0.0, 0.25, 0.5, 0.75):
        weight = at(30 + shift, 40).draw(image, lines=False)[30:50, 20:42, 1].astype(float)
        centre = (weight.sum(0) * np.arange(20, 42)).sum() / weight.sum()
        assert centre == pytest.approx(30 + shift, abs=0.15)


def test_lines_and_boxes_are_optional() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    face = replace(at(30, 40), bbox=np.array([10, 20, 110, 80], np.float32))
    points, lines, boxes = (
        changed(face.draw(image, **options), image)
        for options in ({"lines": False}, {}, {"lines": False, "boxes": True})
    )
    assert not points[40, 60]
    assert lines[40, 60]  # halfway between the two points
    for y, x in ((20, 60), (80, 60), (50, 10), (50, 110)):
        assert boxes[y, x]
        assert not lines[y, x]
    assert lines[points].all()
    assert boxes[points].all()


@pytest.mark.parametrize("make", [np.copy, lambda a: a / 255.0, lambda a: a[..., 0], lambda a: a[::-1]])
def test_drawing_does_not_change_the_image(make: Callable[[Any], NDArray[Any]], faces: Landmarks) -> None:
    image = make(np.full((100, 120, 3), 90, np.uint8))
    before = image.copy()
    picture = faces.draw(image)
    np.testing.assert_array_equal(image, before)
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8
    assert changed(picture, np.full_like(picture, 90)).any()


@pytest.mark.parametrize("turned", [np.rot90, np.asfortranarray])
def test_drawing_large_faces_into_arrays_of_another_order(turned: Callable[[Any], NDArray[np.uint8]]) -> None:
    """Small faces are drawn into an enlarged copy, large ones into the picture itself."""
    image = turned(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    face = replace(at(30, 40), points=5 * at(30, 40).points)
    np.testing.assert_array_equal(face.draw(image), face.draw(np.ascontiguousarray(image)))


def test_draws_every_face(faces: Landmarks) -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    together = changed(faces.draw(image), image)
    for face in faces:
        assert together[changed(face.draw(image), image)].all()


def test_draws_far_to_the_right_in_a_panorama() -> None:
    image = np.zeros((20, 50_000, 3), np.uint8)
    ys, xs = np.nonzero(at(40_000, 10).draw(image).any(-1))
    assert (xs.min(), xs.max()) == (pytest.approx(40_000, abs=3), pytest.approx(40_060, abs=3))
    assert ys.mean() == pytest.approx(10, abs=1)


def test_drawing_points_outside_the_image_and_points_that_are_not_finite() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    face = at(30, 40)
    for wild in (-300.0, 1e7, np.nan, np.inf):
        points = face.points.copy()
        points[1] = wild
        assert replace(face, points=points).draw(image).shape == image.shape


def test_sizes_follow_the_face() -> None:
    """On a face a quarter as large, points and lines are a quarter as large. So they do not hide a small face."""
    shares = []
    for side in (60, 240):
        points = np.array([[0, 0], [side, 0], [0, side], [side, side], [side / 2, side / 2]], np.float32) + side / 2
        face = replace(made(FIVE), points=points, scores=np.ones(5, np.float32))
        image = np.zeros((2 * side, 2 * side, 3), np.uint8)
        for lines in (False, True):
            shares.append(face.draw(image, lines=lines).sum() / side**2)
    small, small_lines, large, large_lines = shares
    assert small == pytest.approx(large, rel=0.25)
    assert small_lines - small < 2.5 * (large_lines - large)  # lines do not become thinner than a third of a pixel


def test_pixels_that_are_not_drawn_on_do_not_change() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    picture = at(30, 40).draw(image)
    ys, xs = np.nonzero(changed(picture, image))
    assert (xs.min(), xs.max()) == (pytest.approx(30, abs=2), pytest.approx(90, abs=2))
    assert (ys.min(), ys.max()) == (pytest.approx(40, abs=2), pytest.approx(40, abs=2))


def test_size_thickness_and_colours() -> None:
    image = np.full((100, 120, 3), 90, np.uint8)
    for size in (3, 9, 20.5):
        white = at(30, 40).draw(image, lines=False, size=size, colour="white")[..., 0]
        covered = ((white.astype(float) - 90) / (255 - 90)).sum() / 2
        assert covered == pytest.approx(np.pi * (size / 2) ** 2, rel=0.25)
    for thickness in (1, 5, 12):
        column = at(30, 40).draw(image, thickness=thickness, line_colour=(0, 0, 200))[:, 60]
        assert (column != 90).any(-1).sum() == pytest.approx(thickness, abs=2)
        assert column[40].tolist() == [0, 0, 200]
    for colour, expected in (("magenta", (255, 0, 255)), ("#102030", (16, 32, 48)), ((1, 2, 3), (1, 2, 3))):
        assert tuple(at(30, 40).draw(image, colour=colour, size=9, lines=False)[40, 30]) == expected
        assert tuple(at(30, 40, score=0).draw(image, colour=colour, size=9, lines=False)[40, 30]) == expected


def test_labels_and_scores() -> None:
    image = np.full((300, 300, 3), 90, np.uint8)
    face = replace(made(FIVE), points=np.array([[60, 60], [240, 60], [150, 150], [90, 240], [210, 240]], np.float32))
    face = replace(face, bbox=np.array([40, 40, 260, 260], np.float32))
    plain = changed(face.draw(image, lines=False), image)
    labelled = changed(face.draw(image, lines=False, labels=True), image) & ~plain
    for x, y in face.points.astype(int):
        assert labelled[y - 8 : y + 3, x : x + 16].any(), "a number beside every point"
    scored = changed(face.draw(image, lines=False, scores=True), image) & ~plain
    ys, xs = np.nonzero(scored)
    assert ys.max() < 40  # the text is above the box
    assert 38 <= xs.min() < 60
    # there is no room above the box, so the text is inside
    face = replace(face, bbox=np.array([40, 2, 260, 260], np.float32))
    ys, _ = np.nonzero(changed(face.draw(image, lines=False, scores=True), image) & ~plain)
    assert ys.min() > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0, expected pixels"),
        ({"thickness": -1.0}, "thickness is -1.0, expected pixels"),
        ({"size": float("nan")}, "size is nan"),
        ({"scale": 0.009}, r"scale is 0\.009, expected a positive factor that leaves at least one pixel"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"colour": "greenish"}, "colour is 'greenish', expected a name such as 'lime'"),
        ({"colour": 255}, "colour is 255"),
        ({"colour": (1, 2)}, r"colour is \(1, 2\)"),
        ({"colour": (1.0, 0.5, 0.0)}, r"colour is \(1\.0, 0\.5, 0\.0\), expected .* three whole numbers from 0 to 255"),
        ({"line_colour": (1, 2, 256)}, r"line_colour is \(1, 2, 256\)"),
    ],
)
def test_bad_styles(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        at(30, 40).draw(np.zeros((50, 50, 3), np.uint8), **options)


# display in a notebook


def test_repr_is_short(face: Landmarks, faces: Landmarks) -> None:
    assert repr(replace(face, bbox=np.array([1, 2, 30.5, 40], np.float32), scores=np.full(68, 0.9, np.float32))) == (
        "Landmarks(68 points of 300w, box (1, 2, 30.5, 40), score 0.90, model 'made/up')"
    )
    several = repr(faces)
    assert several.startswith("Landmarks(4 faces, 68 points of 300w, scores [")
    many = made(SCHEMES["wflw"], 1000)
    for text in (str(face), several, repr(many), repr(made(FIVE, 0)), repr(SCHEMES["wflw"])):
        assert len(text) < 200
        assert "\n" not in text
    assert repr(made(FIVE, 0)).startswith("Landmarks(0 faces, 5 points of five, scores []")


def test_a_notebook_draws_faces(face: Landmarks, faces: Landmarks) -> None:
    one, four = (np.asarray(PIL.Image.open(io.BytesIO(some._repr_png_() or b""))) for some in (face, faces))
    assert one.shape == (256, 256, 3)
    assert four.shape == (256, 4 * 260 - 4, 3)
    # the face fills the picture, and all points are visible
    ys, xs = np.nonzero((one[..., 1] > 200) | (one[..., 0] > 200))
    assert np.ptp(xs) > 200 or np.ptp(ys) > 200
    np.testing.assert_array_equal(four[:, :256], np.asarray(PIL.Image.open(io.BytesIO(faces[0]._repr_png_()))))
    assert made(FIVE, 0)._repr_png_() is None
    nothing = replace(face, points=np.full_like(face.points, np.nan))
    assert nothing._repr_png_() is not None


# plain data


def test_to_dict_is_json(face: Landmarks, faces: Landmarks) -> None:
    data = json.loads(json.dumps(face.to_dict()))
    assert set(data) == {"bbox", "scheme", "points", "scores", "model"}
    assert (data["scheme"], data["model"]) == ("300w", "made/up")
    for key in ("points", "scores", "bbox"):
        np.testing.assert_array_equal(np.array(data[key], np.float32), getattr(face, key))
    several = json.loads(json.dumps(faces.to_dict()))
    np.testing.assert_array_equal(np.array(several["points"], np.float32), faces.points)
    assert [several["points"][2], several["scores"][2]] == [faces[2].to_dict()[key] for key in ("points", "scores")]


def test_boxes_are_scaled_with_the_image() -> None:
    points = np.array([[10.0, 10], [20, 20]], np.float32)
    scheme = Scheme("two", ("a", "b"))
    face = Landmarks(points, np.ones(2, np.float32), scheme, np.array([8, 6, 22, 24], np.float32))
    drawn = face.draw(np.zeros((30, 30, 3), np.uint8), boxes=True, lines=False, scale=4)
    white = np.argwhere((drawn > 60).all(-1))
    # (8 + 0.5) * 4 - 0.5 = 33.5, (6 + 0.5) * 4 - 0.5 = 25.5, ...
    np.testing.assert_allclose(white.min(0)[::-1], (33.5, 25.5), atol=1.5)
    np.testing.assert_allclose(white.max(0)[::-1], (89.5, 97.5), atol=1.5)


@pytest.mark.parametrize("key", [(0, 1), None, True, [[0], [1]], np.ones((2, 3), bool), np.argwhere([True, False])])
def test_invalid_keys(key: object) -> None:
    faces = Landmarks(
        np.zeros((2, 3, 2), np.float32), np.zeros((2, 3), np.float32), Scheme("x", ("a", "b", "c")), np.zeros((2, 4))
    )
    with pytest.raises(TypeError, match=r"indexed by number, slice, mask .* or part"):
        faces[key]
