"""Labels made by one of the project's own networks: on a real face, and on small arrays checked by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app
from hih_align.crops import tight_box
from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.data.pack import pack
from hih_align.data.readers import coco
from hih_align.data.relabel import GIVEN_RATIO, Label, combine, error_ratio, look, relabel
from hih_align.images import read_image
from hih_align.schemes import W300, scheme_from_dict

BOX = np.array((177.0, 80, 275, 200))  # of the astronaut's face


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The astronaut's record, with a box and without labels."""
    path = tmp_path_factory.mktemp("faces") / "astronaut.png"
    PIL.Image.fromarray(skimage.data.astronaut()).save(path)
    return Record(path, None, {"annotated": BOX}, {"id": 7}, "astronaut", (512, 512))


@pytest.fixture(scope="module")
def labels(aligner: FaceAligner, bare: Record) -> list[Label]:
    points = aligner.align(bare.image, BOX).points.astype(np.float64)
    labelled = replace(bare, labels=Labels(points, np.ones(68)), boxes={"landmarks": tight_box(points)})
    return list(look(aligner, [bare, labelled], progress=False))


def test_views_agree_on_a_clear_face(aligner: FaceAligner, bare: Record, labels: list[Label]) -> None:
    """Points of mirrored views are mirrored back: each point is near the expected one, and each spread is small."""
    expected = aligner.align(bare.image, BOX).points
    for label in labels:
        assert np.linalg.norm(label.points - expected, axis=-1).max() < 0.05 * 120
        assert 0 < label.spread.mean() < 0.01


def test_a_wrong_box_is_corrected_by_a_second_look(aligner: FaceAligner, bare: Record, labels: list[Label]) -> None:
    tall = replace(bare, boxes={"annotated": np.array((165.0, 40, 290, 205))})
    (label,) = look(aligner, [tall], progress=False)
    assert np.linalg.norm(label.points - labels[0].points, axis=-1).mean() < 2


def test_a_decoders_shift_moves_labels_and_leaves_spreads(aligner: FaceAligner, bare: Record) -> None:
    """The shift moves mirrored and unmirrored views in the same direction, each in proportion to its own box."""
    points = aligner.align(bare.image, BOX).points.astype(np.float64)
    labelled = replace(bare, labels=Labels(points, np.ones(68)), boxes={"landmarks": tight_box(points)})
    found = []
    for shift in ((0.0, 0.0), (0.5, -0.25)):
        moved = FaceAligner(aligner.network, aligner.config, device="cpu", decode=replace(aligner.decoder, shift=shift))
        found += list(look(moved, [labelled], progress=False))
    side = (labelled.box[2:] - labelled.box[:2]).max()  # the views' boxes differ from this side by up to 15 %
    by = (found[1].points - found[0].points) / (1.25 * side / (aligner.config.input_size / 4))
    assert np.ptp(by, axis=0).max() < 1e-3
    np.testing.assert_allclose(by[0], (0.5, -0.25), rtol=0.15)
    assert np.abs(found[1].spread - found[0].spread).max() < 0.001


def test_combine_weights_by_certainty() -> None:
    """Two labels are combined by their precision.

    With equal spreads the result is the midpoint, and its spread is smaller by the square root of two. Half the spread
    means four times the weight.
    """
    zero, one = np.zeros((2, 2)), np.full((2, 2), (0.5, 0.0))
    given, new = Label(zero, np.array((0.01, 0.01))), Label(one, np.array((0.01, 0.02)))
    fused = combine(given, new, side=100.0, ratio=GIVEN_RATIO)
    np.testing.assert_allclose(fused.points[:, 0], (0.25, 0.1))
    np.testing.assert_allclose(fused.spread, (0.01 / np.sqrt(2), 0.02 / np.sqrt(5)))


def test_combine_takes_the_new_label_where_none_was_given() -> None:
    given = Label(np.full((2, 2), np.nan), np.array((0.0, np.nan)))
    fused = combine(given, Label(np.ones((2, 2)), np.array((0.01, 0.02))), side=100.0, ratio=2 * GIVEN_RATIO)
    np.testing.assert_allclose(fused.points, 1.0)
    np.testing.assert_allclose(fused.spread, (0.02, 0.04))


def test_combine_raises_the_spread_where_two_labels_are_far_apart() -> None:
    given, new = Label(np.zeros((1, 2)), np.array((0.01,))), Label(np.array(((30.0, 0.0),)), np.array((0.01,)))
    fused = combine(given, new, side=100.0, ratio=GIVEN_RATIO)
    expected = 0.3 / (GIVEN_RATIO * 0.01 * np.sqrt(2)) * 0.01 / np.sqrt(2)
    np.testing.assert_allclose(fused.spread, expected)


def test_error_ratio_uses_only_labelled_points(bare: Record) -> None:
    points = np.zeros((2, 2))
    record = replace(bare, labels=Labels(points, np.array((1.0, 0.0))), boxes={"annotated": np.array((0.0, 0, 10, 10))})
    label = Label(np.array(((3.0, 4.0), (1e6, 0.0))), np.array((0.1, 9.0)))
    assert error_ratio([label], [record]) == pytest.approx(5.0)


def test_labels_of_a_person_are_returned_unchanged(aligner: FaceAligner, bare: Record) -> None:
    own = replace(bare, labels=Labels(np.full((68, 2), 200.0), np.ones(68)))
    data = Dataset("own", W300, (own, own), Path())
    assert relabel(aligner, data, 1.0, progress=False) == [own, own]


def test_labels_are_read_back(aligner: FaceAligner, bare: Record, tmp_path: Path) -> None:
    """Hand-made points stay as they are. Points that a network made or added are written with their spread."""
    points = aligner.align(bare.image, BOX).points.astype(np.float64).round(2)
    hand = replace(bare, labels=Labels(points, np.ones(68)), key="hand")
    machine = replace(hand, labels=Labels(points + 1.5, np.ones(68), np.full(68, 0.01)), key="machine")
    dataset = Dataset("three", W300, (hand, machine, bare), tmp_path)
    found = relabel(aligner, dataset, ratio=3.0, progress=False)
    assert [face.labels.spread is None for face in found] == [True, False, False]
    coco.write(found, W300, tmp_path / "labels.json")
    first, second, third = read_dataset(tmp_path / "labels.json", "300w").records
    assert first.labels is not None
    np.testing.assert_array_equal(first.labels.points, points)
    assert first.labels.spread is None
    for record, made in ((second, found[1]), (third, found[2])):
        assert record.labels is not None
        assert made.labels is not None
        assert record.attributes["id"] is not None
        known = record.labels.known
        np.testing.assert_allclose(record.labels.points[known], made.labels.points[known], atol=0.01)
        assert np.linalg.norm(record.labels.points - points, axis=-1)[known].mean() < 2
    np.testing.assert_array_equal(second.box, BOX)
    assert found[2].labels.points is not None
    np.testing.assert_allclose(third.box, tight_box(found[2].labels.points), atol=0.02)


def test_uncertain_points_are_written_as_uncertain(bare: Record, tmp_path: Path) -> None:
    spread = np.array((0.01, 0.03, 0.05, 0.01))
    points = np.array(((200.0, 100), (240, 100), (220, 150), (0, 0)))
    weights = np.array((1.0, 1, 1, 0))
    record = replace(bare, labels=Labels(points, weights, spread))
    scheme = scheme_from_dict({"id": "four", "names": ["a", "b", "c", "d"]})
    coco.write([record], scheme, tmp_path / "a.json")
    (annotation,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert annotation["keypoints"][2::3] == [2, 1, 0, 0]
    assert annotation["spread"] == spread.tolist()


@pytest.mark.parametrize("side", [64, 512])
def test_packed_faces_show_the_same_pixels(bare: Record, labels: list[Label], tmp_path: Path, side: int) -> None:
    """Points stay on the same pixels when the crop is reduced and when it keeps its size, up to JPEG's loss."""
    box = BOX - (0, 0, 1, 1)  # the crop of this box has 238 pixels and begins at a whole pixel, (107, 21)
    record = replace(bare, labels=Labels(labels[0].points, np.ones(68)), boxes={"annotated": box})
    dataset = Dataset("two", W300, (record, bare), tmp_path)
    size = pack(dataset, tmp_path / "packed", side=side, margin=2.0, progress=False)
    first, second = read_dataset(tmp_path / "packed" / "annotations.json", "300w").records
    assert size == sum(r.image.stat().st_size for r in (first, second))
    assert first.size == (min(side, 238),) * 2
    assert second.labels is None
    assert first.labels is not None
    scale = min(side, 238) / 238
    edge = np.array((107, 21)) - 0.5  # the top left corner of the crop's first pixel
    np.testing.assert_allclose(first.labels.points, (labels[0].points - edge) * scale - 0.5, atol=0.02)
    np.testing.assert_allclose(first.box[2:] - first.box[:2], (box[2:] - box[:2]) * scale, atol=0.02)
    if scale == 1:
        crop, photograph = read_image(first.image), read_image(bare.image)
        # rounded here, because stored points differ by up to 0.02 and could round to another pixel
        for there in labels[0].points.round():
            assert abs(patch(crop, there - (107, 21)) - patch(photograph, there)) < 3


def test_packed_faces_keep_a_detectors_box(bare: Record, labels: list[Label], tmp_path: Path) -> None:
    rect = BOX + np.array((-12.0, -40.0, 9.0, 5.0))
    record = replace(bare, labels=Labels(labels[0].points, np.ones(68)), boxes={"annotated": BOX, "rect": rect})
    pack(Dataset("one", W300, (record, bare), tmp_path), tmp_path / "packed", margin=2.0, progress=False)
    first, second = read_dataset(tmp_path / "packed" / "annotations.json", "300w").records
    assert "rect" not in second.boxes
    scale = np.ptp(first.boxes["annotated"][::2]) / np.ptp(BOX[::2])
    offset = first.boxes["annotated"] - BOX * scale
    np.testing.assert_allclose(first.boxes["rect"], rect * scale + offset, atol=0.05)


def test_packing_does_not_overwrite_its_own_photographs(bare: Record, tmp_path: Path) -> None:
    dataset = Dataset("one", W300, (bare, replace(bare, key="again", boxes={"annotated": BOX + 9})), tmp_path)
    pack(dataset, tmp_path / "packed", margin=2.0, progress=False)
    packed = read_dataset(tmp_path / "packed" / "annotations.json", "300w")
    before = {path: path.read_bytes() for path in (tmp_path / "packed").rglob("*.*")}
    other = replace(packed, records=packed.records[::-1])
    with pytest.raises(ValueError, match=r"out: .* is a file of the data set itself"):
        pack(other, tmp_path / "packed", side=64, progress=False)
    (tmp_path / "packed" / "annotations.json").rename(tmp_path / "packed" / "result.json")
    for source in ("packed", "packed/result.json"):
        elsewhere = replace(packed, source=tmp_path / source, records=(bare,))
        with pytest.raises(ValueError, match=r"out: .*annotations.json is a file of the data set itself, or beside it"):
            pack(elsewhere, tmp_path / "packed", progress=False)
    (tmp_path / "packed" / "result.json").rename(tmp_path / "packed" / "annotations.json")
    assert {path: path.read_bytes() for path in (tmp_path / "packed").rglob("*.*")} == before


@pytest.mark.parametrize("words", [["label", "--val"], ["harmonize", "--onto"]])
def test_labels_are_not_written_over_their_source(bare: Record, tmp_path: Path, words: list[str]) -> None:
    command, option = words
    coco.write([bare], W300, tmp_path / "annotations.json")
    arguments = ["data", command, "--model", "HIH_N", "--data", str(tmp_path), option, str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "annotations.json")])
    assert result.exit_code == 1
    assert "is an input itself, expected another name" in str(result.output) + str(result.exception)


def test_a_ratio_of_errors_needs_labels(bare: Record) -> None:
    with pytest.raises(ValueError, match="val: none of 1 faces has points"):
        error_ratio([Label(np.zeros((68, 2)), np.zeros(68))], [bare])


def patch(image: np.ndarray, point: np.ndarray) -> float:
    """Mean of 5 x 5 pixels around a point."""
    x, y = point.astype(int)
    return float(image[y - 2 : y + 3, x - 2 : x + 3].mean())
