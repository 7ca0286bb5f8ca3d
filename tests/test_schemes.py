"""`schemes`: the tables of indices, compared with annotated faces, and schemes that a user defines."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align.schemes import COFW, SCHEMES, W300, WFLW, Scheme, conversion, get_scheme, load_scheme, scheme_from_dict

BUILT_IN = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def read(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.bool_]]:
    """Read COCO keypoints: file names, points (N, K, 2), and whether they are labelled, all sorted by file."""
    data = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    faces = sorted(data["annotations"], key=lambda a: names[a["image_id"]])
    points = np.array([a["keypoints"] for a in faces], float).reshape(len(faces), -1, 3)
    return [names[a["image_id"]] for a in faces], points[..., :2], points[..., 2] > 0


def box(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centre and the longer side of each face."""
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    return (low + high) / 2, (high - low).max(-1, keepdims=True)


@pytest.fixture(scope="module")
def faces(shared: Path) -> dict[str, NDArray[np.float64]]:
    """For each scheme annotated faces (N, K, 2), upright, in units of their box.

    COFW's points are converted from WFLW.
    """
    points_68 = read(shared / "data" / "300w_val" / "annotations.json")[1]
    points_98 = read(shared / "data" / "wflw_dev" / "annotations.json")[1]
    found = {"300w": points_68, "wflw": points_98, "cofw": conversion(WFLW, COFW) @ points_98}
    for name, points in found.items():
        pair = SCHEMES[name].normalizers["inter-ocular"]
        left, right = (points[:, list(group)].mean(1) for group in pair)
        eyes = right - left
        upright = points[(np.abs(eyes[:, 1]) < 0.2 * eyes[:, 0])]
        centre, side = box(upright)
        found[name] = (upright - centre) / side
        assert len(upright) > 50
    return found


# the tables alone


@pytest.mark.parametrize(("scheme", "landmarks"), [(W300, 68), (WFLW, 98), (COFW, 29)])
def test_sizes(scheme: Scheme, landmarks: int) -> None:
    assert len(scheme) == len(scheme.names) == len(set(scheme.names)) == landmarks
    assert SCHEMES[scheme.id] is scheme
    assert scheme.id == scheme.id.lower()


def test_ids() -> None:
    assert set(SCHEMES) == {"300w", "wflw", "cofw"}


@BUILT_IN
def test_parts_cover_every_landmark(scheme: Scheme) -> None:
    assert {i for part in scheme.parts.values() for i in part} == set(range(len(scheme)))
    assert {"left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth"} <= set(scheme.parts)
    for part in scheme.parts.values():
        assert len(set(part)) == len(part)


@BUILT_IN
def test_mirror_is_an_involution(scheme: Scheme) -> None:
    order = scheme.permutation
    assert order is not None
    assert sorted(order) == list(range(len(scheme)))
    np.testing.assert_array_equal(order[order], np.arange(len(scheme)))


@BUILT_IN
def test_mirror_exchanges_left_and_right(scheme: Scheme) -> None:
    """The mirror table maps left parts to right parts and left names to right names.

    It maps normalisers, contours and the five points to themselves.
    """
    order = scheme.permutation
    assert order is not None

    def other(name: str) -> str:
        return name.translate({}).replace("left", "?").replace("right", "left").replace("?", "right")

    for name, part in scheme.parts.items():
        assert {order[i] for i in part} == set(scheme.parts[other(name)]), name
    for index, name in enumerate(scheme.names):
        if not name[-1].isdigit():  # a name such as "jaw_3" does not say its side
            assert scheme.names[order[index]] == other(name)
    for a, b in scheme.normalizers.values():
        assert {order[i] for i in a} == set(b)
    edges = {frozenset(edge) for line in scheme.contours for edge in pairwise(line)}
    assert {frozenset(int(order[i]) for i in edge) for edge in edges} == edges
    assert scheme.five is not None
    sides = [{order[i] for i in group} for group in scheme.five]
    assert [sides[i] for i in (1, 0, 2, 4, 3)] == [set(group) for group in scheme.five]


@pytest.mark.parametrize(("scheme", "ocular"), [(W300, ((36,), (45,))), (WFLW, ((60,), (72,))), (COFW, ((8,), (9,)))])
def test_normalizers(scheme: Scheme, ocular: Any) -> None:
    """The distance is that of the outer eye corners, by which published figures are normalised."""
    assert scheme.normalizers["inter-ocular"] == ocular
    points = np.random.default_rng(0).uniform(0, 100, (3, len(scheme), 2))
    (a,), (b,) = ocular
    np.testing.assert_allclose(scheme.distance(points), np.linalg.norm(points[:, a] - points[:, b], axis=-1))
    assert scheme.distance(points[0]).shape == ()
    assert scheme.distance(points, "inter-pupil").shape == (3,)


def test_inter_pupil() -> None:
    """In the 68-point scheme, the centre of each eye's six points is used, because the scheme has no pupils.

    The other schemes have pupils.
    """
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = [[0, 0], [2, -2], [4, -2], [6, 0], [4, 2], [2, 2]], [[13, 4]] * 6
    assert W300.distance(points, "inter-pupil") == pytest.approx(np.hypot(10, 4))
    assert WFLW.normalizers["inter-pupil"] == ((96,), (97,))
    assert COFW.normalizers["inter-pupil"] == ((16,), (17,))


def test_unknown_normalizer() -> None:
    with pytest.raises(ValueError, match=r"^normalizer is 'brow', scheme 'wflw' has \['inter-ocular', 'inter-pupil'\]"):
        WFLW.distance(np.zeros((98, 2)), "brow")


# the tables compared with faces


@BUILT_IN
def test_mean_face_is_its_own_mirror_image(scheme: Scheme, faces: dict[str, NDArray[np.float64]]) -> None:
    """The mean position of each landmark, mirrored, is the mean position of its partner.

    No other landmark in the partner's part is nearer.
    """
    mean = faces[scheme.id].mean(0)
    mirrored = mean * (-1, 1)
    order = scheme.permutation
    assert order is not None
    assert np.abs(mirrored[order] - mean).max() < 0.03
    for name, part in scheme.parts.items():
        partners = order[list(part)]
        distances = np.linalg.norm(mirrored[list(part), None] - mean[partners], axis=-1)
        # in the mouth, corners of outer and inner lips are at the same position
        if name != "mouth" or "outer_lips" not in scheme.parts:
            assert (distances.argmin(1) == np.arange(len(part))).all(), name


@BUILT_IN
def test_left_is_left_in_the_image(scheme: Scheme, faces: dict[str, NDArray[np.float64]]) -> None:
    mean = faces[scheme.id].mean(0)
    for name, part in scheme.parts.items():
        middle = mean[list(part)].mean(0)
        if "left" in name or "right" in name:
            assert (middle[0] < -0.1) == ("left" in name), name
    rows = {name: mean[list(part), 1].mean() for name, part in scheme.parts.items()}
    assert rows["left_brow"] < rows["left_eye"] < rows["nose"] < rows["mouth"]
    assert rows["right_brow"] < rows["right_eye"] < rows["nose"]
    for name in ("left_pupil", "right_pupil"):
        if name in scheme.parts:
            eye = mean[list(scheme.parts[name.replace("pupil", "eye")])]
            pupil = mean[list(scheme.parts[name])][0]
            assert (eye.min(0) < pupil).all()
            assert (pupil < eye.max(0)).all()


@BUILT_IN
def test_five_points(scheme: Scheme, faces: dict[str, NDArray[np.float64]]) -> None:
    mean = faces[scheme.id].mean(0)
    assert scheme.five is not None
    left_eye, right_eye, nose, left_mouth, right_mouth = (mean[list(group)].mean(0) for group in scheme.five)
    for part, point in (("left_eye", left_eye), ("right_eye", right_eye)):
        assert np.abs(mean[list(scheme.parts[part])].mean(0) - point).max() < 0.03
    assert abs(nose[0]) < 0.03
    assert left_eye[1] < nose[1] < left_mouth[1]
    mouth = mean[list(scheme.parts["mouth"])]
    assert left_mouth[0] == mouth[:, 0].min()
    assert right_mouth[0] == mouth[:, 0].max()
    assert right_eye[0] - left_eye[0] > 0.3


@BUILT_IN
def test_contours_are_short_lines(scheme: Scheme, faces: dict[str, NDArray[np.float64]]) -> None:
    """The lines of a contour are short: no line crosses the face."""
    mean = faces[scheme.id].mean(0)
    for line in scheme.contours:
        steps = np.linalg.norm(np.diff(mean[list(line)], axis=0), axis=-1)
        assert steps.max() < (0.32 if scheme is COFW else 0.17), line
        assert steps.max() < 4.5 * np.median(steps)


# conversion


def test_98_to_68_on_annotated_faces(shared: Path) -> None:
    """The conversion from 98 to 68 points returns the 68 points from which the data's 98 points were made.

    The jaw and the eyelids of the data are interpolated. Landmarks that both schemes have return with the file's
    precision, the eyelids approximately.
    """
    folder = shared / "data" / "300w_val"
    names, points_68, _ = read(folder / "annotations.json")
    names_98, points_98, labelled = read(folder / "annotations_wflw98.json")
    assert names == names_98
    weights = conversion(WFLW, W300)
    # the weights use only points that are labelled
    assert not (np.abs(weights).sum(0) > 0)[~labelled.any(0)].any()
    got = weights @ points_98
    lids = [37, 38, 40, 41, 43, 44, 46, 47]
    others = np.setdiff1d(np.arange(68), lids)
    assert np.abs(got - points_68)[:, others].max() <= 0.0011
    error = np.linalg.norm(got - points_68, axis=-1) / W300.distance(points_68)[:, None]
    assert error[:, lids].mean() < 0.015
    assert error[:, lids].max() < 0.08


def test_98_to_29(faces: dict[str, NDArray[np.float64]]) -> None:
    """On annotated faces, each of COFW's points is where its name says."""
    face = dict(zip(COFW.names, faces["cofw"].mean(0), strict=True))
    for side, sign in (("left", -1), ("right", 1)):
        outer, inner, top, bottom = (face[f"{side}_brow_{end}"] for end in ("outer", "inner", "top", "bottom"))
        assert outer[0] * sign > top[0] * sign > inner[0] * sign > 0
        assert top[1] < bottom[1] < face[f"{side}_eye_top"][1]
        outer, inner, top, bottom = (face[f"{side}_eye_{end}"] for end in ("outer", "inner", "top", "bottom"))
        assert outer[0] * sign > face[f"{side}_pupil"][0] * sign > inner[0] * sign > 0
        assert top[1] < face[f"{side}_pupil"][1] < bottom[1]
        assert 0 < face[f"nose_{side}"][0] * sign < face[f"mouth_{side}"][0] * sign
    lips = [f"{lip}_lip_{edge}" for lip in ("upper", "lower") for edge in ("top", "bottom")]
    column = ["nose_tip", "nose_bottom", *lips, "chin"]
    heights = [face[name][1] for name in column]
    assert heights == sorted(heights)
    assert max(abs(face[name][0]) for name in column) < 0.03
    assert face["chin"][1] == max(point[1] for point in face.values())


@pytest.mark.parametrize("target", [W300, COFW])
def test_conversion_keeps_mirroring_and_normalizers(target: Scheme) -> None:
    weights = conversion(WFLW, target)
    assert weights.shape == (len(target), 98)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (weights >= 0).all()
    # mirroring before the conversion and after the conversion gives the same
    source_order, target_order = WFLW.permutation, target.permutation
    assert source_order is not None
    assert target_order is not None
    np.testing.assert_allclose(weights[target_order][:, source_order], weights)
    # both schemes have the same distance between the eyes
    points = np.random.default_rng(0).uniform(0, 1, (98, 2))
    assert target.distance(weights @ points) == pytest.approx(WFLW.distance(points))


@BUILT_IN
def test_conversion_to_itself(scheme: Scheme) -> None:
    np.testing.assert_array_equal(conversion(scheme, scheme), np.eye(len(scheme)))


@pytest.mark.parametrize(("source", "target"), [(W300, WFLW), (COFW, WFLW), (W300, COFW), (Scheme("me", ("a",)), W300)])
def test_no_conversion(source: Scheme, target: Scheme) -> None:
    with pytest.raises(
        ValueError, match=rf"^no conversion from scheme '{source.id}' to '{target.id}', only to"
    ) as error:
        conversion(source, target)
    # the error lists the possible conversions; it does not only say "none"
    assert "none" not in str(error.value)
    assert "wflw to 300w, wflw to cofw" in str(error.value)


# a user's own scheme

OWN: dict[str, Any] = {
    "id": "Cat",
    "names": ["left eye", "right eye", "nose", "left ear", "right ear"],
    "parts": {"eyes": [0, 1], "nose": 2},
    "mirror": [[0, 1], [3, 4], [2, 2]],
    "contours": [[3, 0, 2, 1, 4]],
    "normalizers": {"inter-ocular": [0, 1], "ears to eyes": [[3, 4], [0, 1]]},
}

YAML = """
id: Cat
names: [left eye, right eye, nose, left ear, right ear]
parts: {eyes: [0, 1], nose: 2}  # one landmark needs no list
mirror:
  - [0, 1]
  - [3, 4]
  - [2, 2]
contours: [[3, 0, 2, 1, 4]]
normalizers:
  inter-ocular: [0, 1]
  ears to eyes: [[3, 4], [0, 1]]
"""


def test_own_scheme(tmp_path: Path) -> None:
    for name, text in (("cat.json", json.dumps(OWN)), ("cat.yaml", YAML), ("cat.yml", YAML)):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        for scheme in (load_scheme(path), load_scheme(str(path)), get_scheme(str(path))):
            assert scheme == Scheme(
                id="cat",
                names=("left eye", "right eye", "nose", "left ear", "right ear"),
                parts={"eyes": (0, 1), "nose": (2,)},
                mirror=((0, 1), (3, 4), (2, 2)),
                contours=((3, 0, 2, 1, 4),),
                normalizers={"inter-ocular": ((0,), (1,)), "ears to eyes": ((3, 4), (0, 1))},
            )
    assert scheme.permutation is not None
    assert scheme.permutation.tolist() == [1, 0, 2, 4, 3]
    points = np.array([[0, 0], [8, 0], [4, 5], [-3, -6], [11, -6]])
    assert scheme.distance(points) == 8
    assert scheme.distance(points, "ears to eyes") == 6


def test_landmarks_by_name() -> None:
    names = ["left pupil", "right pupil", "nose", "mouth"]
    words = scheme_from_dict(
        {
            "id": "four",
            "names": names,
            "mirror": [["left pupil", "right pupil"]],
            "parts": {"eyes": ["left pupil", "right pupil"], "nose": "nose"},
            "contours": [["nose", "mouth"]],
            "normalizers": {"pupils": ["left pupil", 1]},
            "five": [*names, ["mouth"]],
        }
    )
    numbers = {
        "mirror": [[0, 1]],
        "parts": {"eyes": [0, 1], "nose": [2]},
        "contours": [[2, 3]],
        "normalizers": {"pupils": [0, 1]},
        "five": [[0], [1], [2], [3], [3]],
    }
    assert words == scheme_from_dict({"id": "four", "names": names} | numbers)


def test_scheme_with_the_fewest_fields() -> None:
    scheme = scheme_from_dict({"id": "five", "landmarks": 5})
    assert scheme == Scheme("five", ("0", "1", "2", "3", "4"))
    assert scheme.permutation is None
    with pytest.raises(ValueError, match=r"^normalizer is 'inter-ocular', scheme 'five' has none"):
        scheme.distance(np.zeros((5, 2)), "inter-ocular")
    with pytest.raises(ValueError, match=r"^normalizer is 'box', scheme 'five' has none"):
        scheme.distance(np.zeros((5, 2)))


def test_default_normalizer() -> None:
    pupils, ears = ((0,), (1,)), ((3,), (4,))
    scheme = Scheme("mine", tuple("abcde"), normalizers={"ears": ears, "inter-pupil": pupils})
    assert scheme.default_normalizer == "ears"  # the first normaliser of the scheme
    assert scheme.distance(np.arange(10.0).reshape(5, 2)) == scheme.distance(np.arange(10.0).reshape(5, 2), "ears")
    assert replace(scheme, normalizers={"ears": ears, "inter-ocular": pupils}).default_normalizer == "inter-ocular"
    assert replace(scheme, normalizers={}).default_normalizer == "box"
    assert {s.default_normalizer for s in SCHEMES.values()} == {"inter-ocular"}


@BUILT_IN
def test_round_trip(scheme: Scheme, tmp_path: Path) -> None:
    assert scheme_from_dict(scheme.to_dict()) == scheme
    path = tmp_path / "scheme.json"
    path.write_text(json.dumps(scheme.to_dict()))
    assert load_scheme(path) == scheme


def test_get_scheme() -> None:
    assert get_scheme("wflw") is WFLW
    assert get_scheme(COFW) is COFW
    for unknown in ("WFLW", "68", "", "aflw"):
        with pytest.raises(ValueError, match=rf"^scheme is '{unknown}', expected one of \['300w', 'cofw', 'wflw'\]"):
            get_scheme(unknown)
    with pytest.raises(FileNotFoundError, match=r"^scheme: no such file: no/such\.yaml"):
        get_scheme("no/such.yaml")


def own(**changes: Any) -> dict[str, Any]:
    return OWN | changes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "expected 'id' and 'names'"),
        ({"id": "cat"}, "expected 'id' and 'names'"),
        (own(colour="black"), r"has unknown keys \['colour'\], expected some of"),
        (own(names=[]), "has no landmarks"),
        (own(names=["a", "b", "a", "c", "d"]), "repeats landmark names"),
        (own(names="abcde"), "names is not of the expected form"),
        (own(names=5), "names is not of the expected form"),
        (own(landmarks=4), "names is not of the expected form.* for 4 landmarks"),
        ({"id": "cat", "landmarks": "five"}, "landmarks is not of the expected form"),
        ({"id": "cat", "landmarks": 2.5}, "landmarks is not of the expected form"),
        ({"id": "cat", "landmarks": 0}, "has no landmarks"),
        ({"id": "cat", "landmarks": -1}, "landmarks is not of the expected form"),
        (own(parts={"tail": [5]}), r"parts names landmark 5, expected 0\.\.4"),
        (own(parts={"tail": [-1]}), "parts names landmark -1"),
        (own(parts={"tail": []}), "parts has an empty group"),
        (own(parts={"tail": "12"}), "parts is not of the expected form"),
        (own(parts={"tail": [0.5]}), "parts is not of the expected form"),
        (own(parts={"tail": None}), "parts is not of the expected form"),
        (own(parts=[[0, 1]]), "parts is not of the expected form: got list"),
        (own(mirror=[[0, 1], [1, 2]]), "mirror is not an involution"),
        (own(mirror=[[0, 1], [0, 1]]), "mirror is not an involution"),
        (own(mirror=[[0, 7]]), "mirror names landmark 7"),
        (own(mirror=[0, 1]), r"mirror is not of .*: got \[0, 1\], expected a list of pairs of landmarks"),
        (own(mirror=[[0, 1, 2]]), "mirror is not of the expected form"),
        (own(mirror=[["left eye", "ear"]]), "got 'ear', which is no landmark, expected a list of pairs"),
        (own(contours=[[0, 9]]), "contours names landmark 9"),
        (own(contours=4), "contours is not of the expected form: got 4, expected a list of lists of landmarks"),
        (own(normalizers={"eyes": [0, 1, 2]}), "normalizers is not of the expected form"),
        (own(normalizers={"eyes": [0]}), "normalizers is not of the expected form"),
        (own(normalizers={"eyes": [0, 5]}), "normalizers names landmark 5"),
        (own(normalizers={"eyes": [0, []]}), "normalizers has an empty group"),
        (own(five=[0, 1, 2]), "five is not of the expected form: got 3 groups, expected 5"),
        (own(five=[0, 1, 2, 3, 8]), "five names landmark 8"),
    ],
)
def test_bad_schemes(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^scheme.*{message}"):
        scheme_from_dict(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "cannot be read"),
        ("a.json", b"", "cannot be read"),
        ("a.json", b"\xff\xfe\x00", "cannot be read"),
        ("a.json", b"[1, 2]", "holds a list, expected an object"),
        ("a.yaml", b"id: [", "cannot be read"),
        ("a.yaml", b"just words", "holds a str, expected an object"),
        ("a.yaml", b"!!python/object/apply:os.system [touch executed]", "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^scheme: .*{name} {message}"):
        load_scheme(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["gone.json", "gone.yaml", "."])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^scheme: no such file"):
        load_scheme(tmp_path / name)


def test_a_scheme_equals_a_copy_and_its_id() -> None:
    again = scheme_from_dict(W300.to_dict())
    assert again == W300 == "300w"
    assert hash(again) == hash(W300)
    assert str(W300) == "300w"
    assert W300 != WFLW
    assert W300 != "wflw"
    assert W300 != 68
    changed = scheme_from_dict(W300.to_dict() | {"mirror": None})
    assert changed != W300, "the same id, but other content"


def test_equality_is_transitive() -> None:
    impostor = Scheme("300w", ("a", "b"))
    changed = replace(W300, mirror=None)
    mine = Scheme("mine", ("a",))
    everything = [W300, WFLW, impostor, changed, mine, replace(mine), "300w", "wflw", "mine"]
    for a in everything:
        for b in everything:
            for c in everything:
                assert not (a == b == c) or a == c, (a, b, c)
            assert a != b or hash(a) == hash(b)
    assert impostor != "300w"
    assert mine != "mine"
    assert len({W300, impostor, changed, "300w"}) == 3


def test_conversion_depends_on_the_landmarks_only() -> None:
    impostor = Scheme("wflw", tuple(f"p{i}" for i in range(98)))
    for target in (W300, COFW, WFLW):
        with pytest.raises(ValueError, match=r"^no conversion from scheme 'wflw' to .* has other landmarks"):
            conversion(impostor, target)
    with pytest.raises(ValueError, match="to another scheme of the same id"):
        conversion(Scheme("mine", ("a", "b")), Scheme("mine", ("b", "a")))
    # other fields of a scheme do not change its points
    np.testing.assert_array_equal(conversion(replace(WFLW, mirror=None), W300), conversion(WFLW, W300))
    np.testing.assert_array_equal(conversion(Scheme("mine", ("a",)), Scheme("mine", ("a",), {"p": (0,)})), [[1]])
