"""`evaluation`: errors that are known beforehand, and the aligner's own results on photographs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align import SCHEMES, FaceAligner, Landmarks, Scheme
from hih_align.cli.app import app
from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.data.boxes import face_boxes, jitter, square
from hih_align.evaluation.evaluate import evaluate
from hih_align.evaluation.report import (
    as_dict,
    calibration_figure,
    ced_figure,
    markdown,
    part_errors,
    worst_figure,
    write_report,
)
from hih_align.evaluation.results import Report, Settings
from hih_align.evaluation.subsets import Where, chosen_by, subset_masks
from hih_align.images import write_image

Array = NDArray[Any]

#: Four points. Errors are normalised by the distance of the eye corners, 10 px.
CROSS = Scheme(
    id="cross",
    names=("left", "right", "top", "bottom"),
    parts={"eyes": (0, 1), "line": (2, 3)},
    mirror=((0, 1),),
    contours=((0, 1), (2, 3)),
    normalizers={"inter-ocular": ((0,), (1,))},
)
CROSS_POINTS = np.array([(10.0, 20.0), (20.0, 20.0), (15.0, 10.0), (15.0, 50.0)])
NONE = dict.fromkeys(("pose", "expression", "illumination", "makeup", "occlusion", "blur"), 0)


def record(number: int = 0, weights: Sequence[float] = (1, 1, 1, 1), **attributes: Any) -> Record:
    """A face whose annotated box has a longer side of 40 px."""
    points = np.where(np.array(weights)[:, None] > 0, CROSS_POINTS, np.nan)
    boxes = {"annotated": np.array([10.0, 10.0, 20.0, 50.0])}
    return Record(
        Path(f"{number}.png"), Labels(points, np.array(weights, float)), boxes, attributes, f"set#{number}", (64, 64)
    )


def report(
    records: Sequence[Record], shifts: Sequence[float | Sequence[float]], scores: Any = 0.5, **changes: Any
) -> Report:
    """A report on predictions that lie ``shifts`` pixels to the right of the labels, per face or per face and point."""
    off = np.stack([np.broadcast_to(np.array(shift, float), 4) for shift in shifts])
    points = CROSS_POINTS + np.stack((off, np.zeros_like(off)), -1)
    given = {
        "model": "model",
        "dataset": "set",
        "scheme": CROSS,
        "settings": Settings(),
        "records": tuple(records),
        "boxes": face_boxes(records),
        "points": points.astype(np.float32),
        "scores": np.broadcast_to(np.array(scores, np.float32), (len(records), 4)),
    }
    return Report(**(given | changes))


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture(scope="module")
def wflw() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/wflw", device="cpu")


@pytest.fixture(scope="module")
def photograph_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut."""
    path = tmp_path_factory.mktemp("photograph") / "astronaut.png"
    write_image(path, skimage.data.astronaut())
    return path


def dataset(folder: Path, image: Path, boxes: Array, points: Array, scheme: Scheme, labelled: Array) -> Dataset:
    """Two photographs, written as COCO and read back.

    The first holds all faces but the last; the second holds the last.
    """
    for name in ("a.png", "b.png"):
        shutil.copy(image, folder / name)
    last = len(boxes) - 1
    annotations = [
        {
            "id": i + 1,
            "image_id": 2 if i == last else 1,
            "category_id": 1,
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "keypoints": np.concatenate((p, 2 * known[:, None]), 1).ravel().tolist(),
            "attributes": {"pose": i % 2, "kind": "odd" if i % 2 else "even"},
        }
        for i, (box, p, known) in enumerate(zip(boxes, points, labelled, strict=True))
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    categories = [{"id": 1, "name": "face", "keypoints": list(scheme.names)}]
    (folder / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return read_dataset(folder, scheme)


@pytest.fixture(scope="module")
def found(w300: FaceAligner) -> Landmarks:
    """The astronaut's landmarks, as the aligner finds them from three boxes."""
    boxes = np.array([177, 80, 275, 200]) + np.array([[0, 0, 0, 0], [4, -3, 4, -3], [-5, 2, 0, 6]])
    return w300.align(skimage.data.astronaut(), boxes, refine=0)


@pytest.fixture
def three(tmp_path: Path, photograph_file: Path, found: Landmarks) -> Dataset:
    """The labels are the aligner's points, moved right by 1, 2 and 3 px. Ten labels of the second face are missing."""
    points = found.points + np.array([1.0, 2.0, 3.0])[:, None, None] * (1, 0)
    labelled = np.ones((3, 68), int)
    labelled[1, :10] = 0
    return dataset(tmp_path, photograph_file, found.bbox, points, SCHEMES["300w"], labelled)


class TestNumbers:
    def test_means_failures_and_areas(self) -> None:
        found = report([record(i) for i in range(4)], [0.5, 0.5, 0.9, 2.0])
        # one pixel is 10 % of the distance of the eyes and 2.5 % of the box's side
        np.testing.assert_allclose(found.nme, [5, 5, 9, 20], rtol=1e-5)
        np.testing.assert_allclose(found.box_nme, [1.25, 1.25, 2.25, 5], rtol=1e-5)
        overall = found.overall
        assert (overall.faces, overall.measured) == (4, 4)
        assert overall.nme == pytest.approx(9.75, rel=1e-5)
        assert overall.median == pytest.approx(7, rel=1e-5)
        assert (overall.fr8, overall.fr10) == (50, 25)
        assert overall.auc8 == pytest.approx((3 + 3 + 0 + 0) / 8 / 4, rel=1e-4)
        assert overall.auc10 == pytest.approx((5 + 5 + 1 + 0) / 10 / 4, rel=1e-4)
        assert overall.box_nme == pytest.approx(9.75 / 4, rel=1e-5)

    def test_unlabelled_points_do_not_count(self) -> None:
        found = report([record(0, (1, 1, 0, 1)), record(1)], [[1, 1, 50, 4], [1, 1, 1, 1]])
        np.testing.assert_allclose(found.nme, [20, 10], rtol=1e-5)
        np.testing.assert_allclose(found.landmark_nme, [10, 10, 10, 25], rtol=1e-5)
        np.testing.assert_allclose(found.landmark_box_nme, [2.5, 2.5, 2.5, 6.25], rtol=1e-5)
        assert found.score_quality.points == 7
        assert part_errors(found)["line"] == (pytest.approx(17.5, rel=1e-5), pytest.approx(4.375, rel=1e-5))

    def test_a_low_weight_counts_as_labelled(self) -> None:
        assert report([record(0, (1, 1, 0.15, 1))], [[0, 0, 4, 0]]).nme[0] == pytest.approx(10, rel=1e-5)

    def test_faces_without_the_normalizing_points_are_counted_but_not_measured(self) -> None:
        found = report([record(0, (1, 0, 1, 1)), record(1)], [1, 0.5])
        assert np.isnan(found.nme[0])
        assert (found.overall.faces, found.overall.measured) == (2, 1)
        assert found.overall.nme == pytest.approx(5, rel=1e-5)
        assert found.overall.box_nme == pytest.approx((2.5 + 1.25) / 2, rel=1e-5)
        assert found.worst().tolist() == [1]
        assert "1 of 2 faces have no labelled inter-ocular distance" in markdown(found)

    def test_a_report_without_measured_faces(self, tmp_path: Path) -> None:
        found = report([record(0, (1, 0, 1, 1))], [1])
        assert np.isnan([found.overall.nme, found.overall.fr10, found.overall.auc10]).all()
        assert len(found.worst()) == 0
        written = {path.name for path in write_report(found, tmp_path)}
        assert written == {"report.json", "report.md", "ced.png", "calibration.png"}
        assert json.loads((tmp_path / "report.json").read_text())["overall"]["nme"] is None

    def test_box_normalizer(self) -> None:
        found = report([record(0, (1, 0, 1, 1))], [1], settings=Settings(normalizer="box"))
        np.testing.assert_allclose(found.nme, [2.5], rtol=1e-5)

    def test_worst_faces_come_first(self) -> None:
        found = report([record(i) for i in range(4)], [1, 3, 0, 2])
        assert found.worst(3).tolist() == [1, 3, 0]

    def test_full_set_weights_both_groups_by_their_shares_in_wflw(self) -> None:
        records = [record(0, **NONE | {"blur": 1}), record(1, **NONE | {"pose": 1, "blur": 1}), record(2, **NONE)]
        full = report(records, [0.6, 1.2, 0.4]).full_set
        assert full is not None
        assert full.with_attribute.nme == pytest.approx(9, rel=1e-5)
        assert full.without_attribute.nme == pytest.approx(4, rel=1e-5)
        assert full.estimate.nme == pytest.approx(0.7864 * 9 + 0.2136 * 4, rel=1e-5)
        assert full.estimate.fr10 == pytest.approx(0.7864 * 50)
        assert full.estimate.auc10 == pytest.approx(0.7864 * (0.4 + 0) / 2 + 0.2136 * 0.6, rel=1e-4)

    @pytest.mark.parametrize(
        "records",
        [
            [record(0, blur=1), record(1, blur=0)],
            [record(0, **NONE), record(1)],
            [record(0, **NONE)],
            [record(0, **NONE | {"pose": 1})],
        ],
        ids=["one attribute", "a face without", "none marked", "all marked"],
    )
    def test_other_records_have_no_full_set(self, records: list[Record]) -> None:
        assert report(records, [1] * len(records)).full_set is None


class TestScores:
    def test_calibration_error(self) -> None:
        # points within 5 % of the box's side of 40 px, so within 2 px, count as found
        shifts = [[0, 0, 0, 3], [3, 3, 3, 0]]
        scores = [[0.95, 0.95, 0.95, 0.95], [0.15, 0.15, 0.15, 0.15]]
        quality = report([record(0), record(1)], shifts, scores).score_quality
        assert quality.error == pytest.approx((0.2 + 0.1) / 2, abs=1e-6)
        assert quality.count.tolist() == [0, 4, 0, 0, 0, 0, 0, 0, 0, 4]
        assert quality.found[[1, 9]].tolist() == [0.25, 0.75]
        assert np.isnan(quality.found[5])

    def test_scores_of_1_are_in_the_last_bin(self) -> None:
        quality = report([record(0)], [0], 1.0).score_quality
        assert quality.count[9] == 4
        assert quality.error == 0

    def test_rank_correlation(self) -> None:
        shifts, scores = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]]
        quality = report([record(0), record(1)], shifts, scores).score_quality
        assert quality.rank_correlation == pytest.approx(-1)
        assert quality.face_rank_correlation == pytest.approx(-1)
        swapped = report([record(0), record(1)], shifts, scores[::-1]).score_quality
        assert swapped.face_rank_correlation == pytest.approx(1)
        assert np.isnan(report([record(0)], [0], 0.5).score_quality.rank_correlation)


class TestBoxes:
    def test_jitter(self) -> None:
        boxes = np.array([[0.0, 0.0, 100.0, 50.0], [10.0, 20.0, 110.0, 70.0]])
        moved = jitter(boxes)
        # calculated here: centre + uniform(-.1, .1, (2, 2)) * sides, then sides * uniform(.8, 1.3, (2, 1)), from
        # default_rng(5)
        rng = np.random.default_rng(5)
        shift, scale = rng.uniform(-0.1, 0.1, (2, 2)), rng.uniform(0.8, 1.3, (2, 1))
        np.testing.assert_allclose((moved[:, :2] + moved[:, 2:]) / 2, [[50, 25], [60, 45]] + shift * (100, 50))
        np.testing.assert_allclose(moved[:, 2:] - moved[:, :2], (100, 50) * scale)
        np.testing.assert_array_equal(boxes[0], [0, 0, 100, 50])

    def test_jitter_stays_in_its_range(self) -> None:
        boxes = np.tile([0.0, 0.0, 100.0, 50.0], (4000, 1))
        moved = jitter(boxes)
        shift = ((moved[:, :2] + moved[:, 2:]) / 2 - (50, 25)) / (100, 50)
        scale = (moved[:, 2:] - moved[:, :2]) / (100, 50)
        assert -0.1 <= shift.min() < -0.099
        assert 0.099 < shift.max() <= 0.1
        assert 0.8 <= scale.min() < 0.801
        assert 1.299 < scale.max() <= 1.3
        assert scale.mean() == pytest.approx(1.05, abs=0.01)
        np.testing.assert_allclose(scale[:, 0], scale[:, 1])

    def test_square_includes_the_forehead(self) -> None:
        tall, wide = square([[10.0, 20.0, 90.0, 120.0], [0.0, 0.0, 200.0, 100.0]])
        np.testing.assert_allclose(tall, [-15, -10, 115, 120])  # from 30 px above the eyebrows down to the chin
        np.testing.assert_allclose(wide, [0, -65, 200, 135])

    def test_square_has_the_upper_edge_of_wflws_detector_boxes(self, shared: Path) -> None:
        records = read_dataset(shared / "data" / "wflw_dev", "wflw").records
        tight, rect, ours = (face_boxes(records, box) for box in ("annotated", "rect", "square"))  # type: ignore[arg-type]
        height = tight[:, 3] - tight[:, 1]
        above = ((rect[:, 1] - tight[:, 1]) / height, (ours[:, 1] - tight[:, 1]) / height)
        assert np.median(above[0]) == pytest.approx(np.median(above[1]), abs=0.03)
        np.testing.assert_allclose(ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1])

    def test_boxes_by_name(self) -> None:
        boxes = {"annotated": np.array([0.0, 0, 10, 10]), "rect": np.array([1.0, 1, 9, 9])}
        one = replace(record(), boxes=boxes | {"landmarks": np.array([2.0, 2, 8, 8])})
        assert face_boxes([one], "rect").tolist() == [[1, 1, 9, 9]]
        assert face_boxes([one], "landmarks").tolist() == [[2, 2, 8, 8]]
        assert face_boxes([one], "annotated").tolist() == [[0, 0, 10, 10]]
        with pytest.raises(ValueError, match=r"'rect', which 1 of 2 faces lack, first set#7.*\['annotated'\]"):
            face_boxes([one, record(7)], "rect")
        with pytest.raises(ValueError, match="box is 'detector', expected one of"):
            face_boxes([one], "detector")  # type: ignore[arg-type]


class TestChoosing:
    @pytest.mark.parametrize(
        ("text", "chosen"),
        [
            ("attributes.id >= 4", [4, 5]),
            ("kind==odd", [1, 3, 5]),
            ("kind != odd and id<3", [0, 2]),
            ("first==true", [0, 1]),
            ("first!=True", [2, 3, 4, 5]),
            ("first==0", [2, 3, 4, 5]),
        ],
    )
    def test_where(self, text: str, chosen: list[int]) -> None:
        records = [record(i, id=i, kind="odd" if i % 2 else "even", first=i < 2) for i in range(6)]
        assert [r.attributes["id"] for r in records if Where(text)(r)] == chosen

    def test_a_condition_on_true_and_false(self) -> None:
        with pytest.raises(ValueError, match=r"where is 'hat==yes', but hat of .* is true or false"):
            Where("hat==yes")(record(3, hat=True))

    def test_conditions_with_remainders_still_work_and_warn(self) -> None:
        with pytest.warns(FutureWarning, match=r"where is 'id%3!=0': a condition with % is deprecated.*split file"):
            where = Where("id%3!=0")
        assert [i for i in range(6) if where(record(i, id=i))] == [1, 2, 4, 5]

    @pytest.mark.parametrize("text", ["", "id", "id=3", "id%0==1", "id%3", "id==1 and", "id%x==1"])
    def test_where_with_wrong_syntax(self, text: str) -> None:
        with pytest.raises(ValueError, match="where is"):
            Where(text)

    def test_where_on_faces_without_the_attribute(self) -> None:
        with pytest.raises(ValueError, match=r"set#3 has only \['id'\]"):
            Where("age>3")(record(3, id=3))
        with pytest.raises(ValueError, match="kind of set#3 is 'odd', expected a number"):
            Where("kind>3")(record(3, kind="odd"))

    def test_subsets(self) -> None:
        records = [record(i, pose=i % 2, kind="ab"[i // 2], id=i) for i in range(4)]
        masks = subset_masks(records, ["attributes.pose", "kind"])
        assert {name: mask.tolist() for name, mask in masks.items()} == {
            "pose": [False, True, False, True],
            "kind=a": [True, True, False, False],
            "kind=b": [False, False, True, True],
        }
        assert list(subset_masks(records, ["attributes"])) == ["pose"]
        found = report(records, [0.1, 0.5, 0.3, 0.7], subsets=masks)
        assert found.by_subset["pose"].nme == pytest.approx(6, rel=1e-5)
        assert found.by_subset["kind=a"].faces == 2

    def test_unknown_subsets(self) -> None:
        with pytest.raises(ValueError, match=r"'attributes.age', but the faces have only \['id', 'pose'\]"):
            subset_masks([record(0, id=0, pose=0)], ["attributes.age"])
        with pytest.raises(ValueError, match="none that are 0 or 1"):
            subset_masks([record(7, id=7)], ["attributes"])
        with pytest.raises(ValueError, match="30 values"):
            subset_masks([record(i, id=i) for i in range(30)], ["id"])


class TestChosenBy:
    def test_a_split_file_chooses_all_faces_of_its_images(self, tmp_path: Path) -> None:
        records = [record(1), record(2, kind="odd"), replace(record(2, kind="even"), key="set#2b"), record(12)]
        records += [replace(record(5), image=Path(f"/data/{part}/5.png"), key=part) for part in ("in", "out")]
        data = Dataset("made", CROSS, tuple(records), tmp_path)
        split = tmp_path / "test split.txt"
        split.write_text("2.png\r\n\nin/5.png\n", "utf-8-sig")
        chosen = chosen_by([str(split)], data)
        assert [chosen(r) for r in records] == [False, True, True, False, True, False]
        assert data.where(chosen).chosen == str(split)
        split.write_text("2.png")
        both = chosen_by([str(split), "kind==odd"], data)
        assert [r.key for r in records if both(r)] == [records[1].key]
        assert both.text == f"{split} and kind==odd"
        split.write_text("2.png\n3.png")
        with pytest.raises(ValueError, match=r"test split.txt, whose line '3.png' names no image of 'made'"):
            chosen_by([str(split)], data)
        split.write_text("\n")
        with pytest.raises(ValueError, match="which is empty"):
            chosen_by([str(split)], data)
        with pytest.raises(ValueError, match=r"where is 'missing.txt', expected"):
            chosen_by(["missing.txt"], data)
        long = " and ".join(f"id!={number}" for number in range(100, 160))  # too long for a path
        assert all(chosen_by([long], data)(replace(r, attributes={"id": 1})) for r in records)


class TestEvaluate:
    def test_errors_known_beforehand(self, three: Dataset, w300: FaceAligner) -> None:
        found = evaluate(w300, three, refine=0, subsets=["pose"], progress=False)
        norms = [
            np.linalg.norm(r.labels.points[36] - r.labels.points[45]) for r in three.records if r.labels is not None
        ]
        np.testing.assert_allclose(found.nme, 100 * np.array([1, 2, 3]) / norms, atol=0.01)
        assert found.by_subset["pose"].nme == pytest.approx(found.nme[1])
        assert found.labelled.sum() == 3 * 68 - 10
        assert found.worst().tolist() == [2, 1, 0]
        assert (found.model, found.settings.refine, found.settings.box) == ("HIH_N/300w", 0, "annotated")

    @pytest.mark.parametrize(("refine", "mirror"), [(0, False), (1, False), (0, True)])
    def test_evaluate_gives_the_same_points_as_align(
        self, three: Dataset, w300: FaceAligner, astronaut: Array, refine: int, mirror: bool
    ) -> None:
        found = evaluate(
            w300, three, box="jitter", refine=refine, mirror=mirror, batch_size=2, keep=Where("id>1"), progress=False
        )
        assert len(found) == 2
        # a face's jittered box is the same when other faces are left out
        np.testing.assert_array_equal(found.boxes, jitter(np.array([r.box for r in three.records]))[1:])
        for box, points, scores in zip(found.boxes, found.points, found.scores, strict=True):
            face = w300.align(astronaut, box, refine=refine, mirror=mirror)
            # sums over a batch are calculated in another order
            np.testing.assert_allclose(points, face.points, atol=0.01)
            np.testing.assert_allclose(scores, face.scores, atol=1e-3)

    def test_only_the_chosen_faces_need_the_box(self, three: Dataset, w300: FaceAligner) -> None:
        first, *rest = three.records
        data = replace(three, records=(replace(first, boxes=first.boxes | {"rect": first.box}), *rest))
        found = evaluate(w300, data, box="rect", refine=0, keep=Where("id==1"), progress=False)
        np.testing.assert_array_equal(found.boxes, [first.box])
        with pytest.raises(ValueError, match="box is 'rect', which 2 of 3 faces lack"):
            evaluate(w300, data, box="rect", refine=0, progress=False)

    def test_the_checkpoints_default_passes_are_reported(self, three: Dataset, w300: FaceAligner) -> None:
        aligner = FaceAligner(w300.network, replace(w300.config, refine=2, refine_above=None), device="cpu")
        keep = Where("id==1")
        found = evaluate(aligner, three, keep=keep, progress=False)
        assert (found.settings.refine, found.settings.keep) == (2, "id==1")
        np.testing.assert_allclose(found.points, evaluate(w300, three, refine=2, keep=keep, progress=False).points)

    def test_converts_to_the_scheme_of_the_data(self, three: Dataset, wflw: FaceAligner, astronaut: Array) -> None:
        found = evaluate(wflw, three, refine=0, keep=lambda r: r.attributes["id"] == 1, progress=False)
        face = wflw.align(astronaut, three.records[0].box, refine=0).to("300w")
        np.testing.assert_allclose(found.points[0], face.points, atol=1e-3)
        np.testing.assert_allclose(found.scores[0], face.scores, atol=1e-5)
        assert found.overall.nme < 8  # the labels come from another network, and are moved by a pixel

    def test_a_scheme_without_inter_ocular_distance(self, three: Dataset, w300: FaceAligner) -> None:
        """The error is normalised by the scheme's own distance if there is one, else by the box.

        The report says which.
        """
        for normalizers, expected, unit in (
            ({"mouth": ((48,), (54,))}, "mouth", "mouth distance"),
            ({}, "box", "longer side of the box"),
        ):
            data = replace(three, scheme=replace(three.scheme, normalizers=normalizers))
            report = evaluate(w300, data, progress=False, refine=0)
            assert report.settings.normalizer == expected
            assert f"NME in percent of the {unit}" in markdown(report)
            side = 120 if expected == "box" else np.linalg.norm(report.target[0, 48] - report.target[0, 54])
            assert report.nme[0] == pytest.approx(100 / side, rel=1e-3)

    def test_profiles_are_measured_by_their_box(self, three: Dataset, w300: FaceAligner) -> None:
        """No face has both ends of the inter-ocular distance.

        Without a chosen normaliser, errors are relative to the box.
        """
        unlabelled = [
            replace(r, labels=replace(r.labels, weights=np.where(np.arange(68) == 36, 0.0, r.labels.weights)))
            for r in three.records
        ]
        report = evaluate(w300, replace(three, records=tuple(unlabelled)), progress=False, refine=0)
        assert report.settings.normalizer == "box"
        assert report.overall.measured == 3
        asked = evaluate(w300, replace(three, records=tuple(unlabelled)), normalizer="inter-ocular", progress=False)
        assert asked.overall.measured == 0

    def test_faces_that_a_detector_finds(
        self, three: Dataset, w300: FaceAligner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With box="detector", each labelled face gets the detected box that fits it.

        The report names the faces not found.
        """
        known = face_boxes(three.records)
        beside = known[0] + 1.5 * np.array((120, 0, 120, 0))
        asked: list[int] = []

        def detector(image: Array) -> Array:
            asked.append(len(asked))
            first = len(asked) == 1
            return np.array([beside, known[1] + 4, known[0] - 3] if first else np.zeros((0, 4)))

        monkeypatch.setattr(w300, "detector", detector)
        found = evaluate(w300, three, box="detector", refine=0, progress=False)
        on_first = [i for i, r in enumerate(three.records) if r.image == three.records[0].image]
        assert len(asked) == len({r.image for r in three.records})
        assert len(found) + len(found.missed) == 3
        assert set(found.missed) == {r.key for i, r in enumerate(three.records) if i not in on_first}
        for record, box in zip(found.records, found.boxes, strict=True):
            assert np.abs(box - record.box).max() <= 4
        assert f"{len(found.missed)} of 3 faces were not found, first {found.missed[0]}." in markdown(found)
        assert as_dict(found)["missed"] == list(found.missed)
        monkeypatch.setattr(w300, "detector", lambda image: np.zeros((0, 4)))
        with pytest.raises(ValueError, match="box is 'detector', which found none of the 3 faces"):
            evaluate(w300, three, box="detector", refine=0, progress=False)

    def test_faces_without_points_are_left_out(self, three: Dataset, w300: FaceAligner) -> None:
        bare = replace(three.records[0], labels=None)
        mixed = replace(three, records=(bare, *three.records[1:]))
        found = evaluate(w300, mixed, refine=0, progress=False)
        assert (len(found), found.without_points) == (2, 1)
        assert "1 faces without labelled points" in markdown(found)

    def test_bad_requests(self, three: Dataset, w300: FaceAligner) -> None:
        with pytest.raises(ValueError, match=r"normalizer is 'eyes', expected for scheme '300w' one of \['box', 'int"):
            evaluate(w300, three, normalizer="eyes")
        with pytest.raises(ValueError, match=r"subsets names 'attributes\.blur'"):
            evaluate(w300, three, subsets=["attributes.blur"])
        with pytest.raises(ValueError, match="3 faces with points, but none of them was chosen"):
            evaluate(w300, three, keep=Where("id>5"))
        with pytest.raises(ValueError, match="no conversion from scheme '300w' to 'wflw'"):
            evaluate(w300, replace(three, scheme=SCHEMES["wflw"]))
        with pytest.raises(ValueError, match="has 4 points in the dataset, but 68 in the model"):
            evaluate(w300, replace(three, scheme=replace(CROSS, id="300w")))

    def test_bad_faces_are_named(self, three: Dataset, w300: FaceAligner) -> None:
        image = three.records[2].image
        Path(image).write_bytes(b"no image any more")
        with pytest.raises(ValueError, match=r"annotations.json#3: image .*b.png' cannot be read"):
            evaluate(w300, three, refine=0, progress=False)
        Path(image).unlink()
        with pytest.raises(FileNotFoundError, match=r"annotations.json#3: image .*b.png' does not exist"):
            evaluate(w300, three, refine=0, progress=False)

    def test_first_faces_of_the_test_set(self, shared: Path, w300: FaceAligner) -> None:
        data = read_dataset(shared / "data" / "300w_test_lfpw", "300w")
        found = evaluate(w300, data, refine=0, keep=Where("id<=6"), progress=False)
        for face, points, nme in zip(found.records, found.points, found.nme, strict=True):
            assert face.labels is not None
            errors = np.linalg.norm(points - face.labels.points, axis=1)
            assert nme == pytest.approx(
                100 * errors.mean() / np.linalg.norm(face.labels.points[36] - face.labels.points[45])
            )
        assert found.overall.faces == 6
        assert found.overall.nme < 4


class TestPictures:
    def test_files(self, three: Dataset, w300: FaceAligner, tmp_path: Path) -> None:
        found = evaluate(w300, three, refine=0, subsets=["kind"], progress=False)
        folder = tmp_path / "deep" / "out"
        paths = write_report(found, folder, command="hih-align evaluate")
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
        assert {path.name for path in paths} == {
            "report.json",
            "report.md",
            "ced.png",
            "calibration.png",
            "worst.png",
        }
        data = json.loads((folder / "report.json").read_text())
        assert data["overall"]["nme"] == pytest.approx(found.overall.nme)
        assert data["subsets"]["kind=odd"]["nme"] == pytest.approx(found.nme[1])
        assert data["command"] == "hih-align evaluate"
        assert [face["nme"] for face in data["faces"]] == pytest.approx(found.nme.tolist())
        assert len(data["landmarks"]) == 68
        assert f"| all | 3 | {found.overall.nme:.2f} |" in (folder / "report.md").read_text()
        for name in ("ced", "calibration", "worst"):
            picture = PIL.Image.open(folder / f"{name}.png").convert("RGB")
            assert min(picture.size) > 300
            colours = picture.getcolors(picture.width * picture.height)
            assert colours is not None
            assert len(colours) > 20

    def test_names_and_attributes_that_formats_refuse(self, three: Dataset, w300: FaceAligner, tmp_path: Path) -> None:
        """A dollar begins a formula in Matplotlib, and JSON has no NaN."""
        found = evaluate(w300, three, refine=0, progress=False)
        name = tmp_path / "a_$1^$.png"
        name.write_bytes(found.records[0].image.read_bytes())
        odd = replace(found.records[0], image=name, attributes={"age": float("nan"), "kind": "$y^$"})
        found = replace(found, records=(odd, *found.records[1:]), dataset="$x^$", model="$z_$")
        write_report(found, tmp_path / "out")
        data = json.loads((tmp_path / "out" / "report.json").read_text())
        assert data["faces"][0]["attributes"] == {"age": None, "kind": "$y^$"}
        ced_figure([found]).savefig(tmp_path / "ced.png")

    def test_a_report_that_fails_leaves_the_old_report(self, tmp_path: Path) -> None:
        write_report(report([record(0, (1, 0, 1, 1))], [1]), tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(FileNotFoundError):  # the image of the worst face does not exist
            write_report(report([record(0)], [1]), tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_worst_faces_show_where_points_are(self, three: Dataset, w300: FaceAligner) -> None:
        found = evaluate(w300, three, refine=0, progress=False)
        figure = worst_figure(found, 2)
        shown = [axes for axes in figure.axes if axes.images]
        assert [axes.get_title().split(" %")[0] for axes in shown] == [f"{found.nme[i]:.1f}" for i in (2, 1)]
        # the picture is a square of 1.5 times the box's longer side, drawn with 320 px
        record = found.records[2]
        x1, y1, x2, y2 = record.box
        assert record.labels is not None
        expected = (record.labels.points - ((x1 + x2) / 2, (y1 + y2) / 2)) * 320 / (1.5 * max(x2 - x1, y2 - y1)) + 159.5
        drawn = np.asarray(shown[0].collections[0].get_offsets())
        np.testing.assert_allclose(drawn, expected)
        moved = np.asarray(shown[0].collections[1].get_offsets()) - drawn
        np.testing.assert_allclose(moved[:, 0], -3 * 320 / (1.5 * max(x2 - x1, y2 - y1)), atol=0.01)

    def test_curves(self) -> None:
        easy, hard = report([record(0), record(1)], [0.2, 0.4]), report([record(0), record(1)], [0.4, 5])
        axes = ced_figure([easy, hard]).axes[0]
        x, y = axes.lines[0].get_data()
        np.testing.assert_allclose(x[1:3], [2, 4], rtol=1e-5)
        np.testing.assert_array_equal(y[1:3], [50, 100])
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["model on set: NME 3.00, AUC 0.700", "model on set: NME 27.00, AUC 0.300"]

    def test_calibration_plot(self) -> None:
        found = report([record(0), record(1)], [[0, 0, 0, 3], [3, 3, 3, 0]], [[0.95] * 4, [0.15] * 4])
        points = np.asarray(calibration_figure(found).axes[0].collections[0].get_offsets())
        np.testing.assert_allclose(points, [[0.15, 0.25], [0.95, 0.75]], atol=1e-6)

    def test_json_holds_no_nan(self) -> None:
        data = as_dict(report([record(0, (1, 0, 1, 1))], [1]))
        json.dumps(data, allow_nan=False)
        assert data["landmarks"][1] == {"name": "right", "faces": 0, "nme": None, "box_nme": None}


class TestCommand:
    def test_table_and_files(self, three: Dataset, w300: FaceAligner, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = ["evaluate", "--data", str(three.source), "--model", "HIH_N", "--refine", "0", "--out", str(out)]
        arguments += ["--subsets", "attributes.pose,kind", "--where", "id>1", "--device", "cpu"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        expected = evaluate(w300, three, refine=0, keep=Where("id>1"), progress=False)
        assert f"| all | 2 | {expected.overall.nme:.2f} |" in result.stdout
        assert "| kind=odd | 1 |" in result.stdout
        assert json.loads((out / "report.json").read_text())["settings"]["keep"] == "id>1"

    def test_another_runtime(self, three: Dataset, w300: FaceAligner, tmp_path: Path) -> None:
        pytest.importorskip("openvino")
        arguments = ["evaluate", "--data", str(three.source), "--model", "HIH_N", "--refine", "0", "--where", "id>2"]
        arguments += ["--device", "cpu"]
        result = CliRunner().invoke(app, [*arguments, "--backend", "openvino", "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert "float32, openvino, faces" in result.stdout
        written = json.loads((tmp_path / "out" / "report.json").read_text())
        assert written["settings"]["backend"] == "openvino"
        expected = evaluate(w300, three, refine=0, keep=Where("id>2"), progress=False)
        assert expected.settings.backend == "torch"
        assert "openvino" not in markdown(expected)
        assert written["overall"]["nme"] == pytest.approx(expected.overall.nme, abs=0.02)
        result = CliRunner().invoke(app, [*arguments, "--backend", "tensorrt"])
        assert result.exit_code == 1
        assert "backend is 'tensorrt', expected one of" in result.stderr

    def test_bad_requests_are_one_line(self, three: Dataset) -> None:
        result = CliRunner().invoke(app, ["evaluate", "--data", str(three.source), "--where", "id"])
        assert result.exit_code == 1
        assert result.stderr.startswith("hih-align: where is 'id', expected")
        assert len(result.stderr.strip().splitlines()) == 1
        result = CliRunner().invoke(app, ["evaluate", "--data", str(three.source), "--box", "round"])
        assert result.exit_code == 2
        file = three.records[0].image
        words = ["evaluate", "--model", "HIH_X", "--data", str(three.source), "--out", str(file)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"hih-align: out: {file} is a file, expected the name of a folder")
