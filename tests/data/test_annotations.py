"""Readers of annotation formats, on files that follow each format's documentation; and the checks of a record."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from hih_align.data.annotations import Record, read_dataset
from hih_align.data.readers.coco import relative
from hih_align.data.readers.coco import write as write_coco
from hih_align.data.records import image_size, outside, spread_weights
from hih_align.data.shapes import distances, left_right_problem, mean_shape, swapped
from hih_align.images import read_image
from hih_align.schemes import COFW, W300, WFLW, Scheme

EYES = Scheme(
    id="eyes",
    names=("left", "right", "nose"),
    mirror=((0, 1),),
    normalizers={"inter-ocular": ((0,), (1,))},
)


def picture(path: Path, width: int = 60, height: int = 40, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


def only(dataset: Any) -> Record:
    (record,) = dataset.records
    assert isinstance(record, Record)
    return record


def same(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, atol=1e-9)


# COCO, https://cocodataset.org/#format-data: "keypoints" is x1, y1, v1, ...; bbox is x, y, width, height

COCO = """{
  "info": {"year": 2024, "version": "1.0", "description": "", "contributor": "", "url": "", "date_created": ""},
  "licenses": [{"id": 1, "name": "CC BY 4.0", "url": ""}],
  "images": [
    {"id": 397133, "width": 60, "height": 40, "file_name": "a.png", "license": 1, "coco_url": "x", "date_captured": ""}
  ],
  "annotations": [
    {"id": 1268, "image_id": 397133, "category_id": 1, "segmentation": [[9.5, 7, 30, 7, 30, 28]], "area": 400.5,
     "bbox": [9.5, 7.0, 21.0, 22.5], "iscrowd": 0, "num_keypoints": 2,
     "keypoints": [10.25, 12.0, 2, 29.0, 11.5, 1, 0, 0, 0]}
  ],
  "categories": [
    {"id": 1, "name": "person", "supercategory": "person", "keypoints": ["left", "right", "nose"],
     "skeleton": [[1, 2]]}
  ]
}"""


def coco(folder: Path, **changes: Any) -> Path:
    """Write the file `COCO`, with changed entries of its annotation, and its image; return the path."""
    data = json.loads(COCO)
    data["annotations"][0] |= changes
    path = folder / "a.json"
    path.write_text(json.dumps(data))
    picture(folder / "a.png")
    return path


def test_coco(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(COCO)
    picture(tmp_path / "a.png")
    dataset = read_dataset(tmp_path / "a.json", EYES)
    record = only(dataset)
    assert record.labels is not None
    same(record.labels.points[:2], [[10.25, 12], [29, 11.5]])
    same(record.labels.weights, [1, 1, 0])  # v = 1 counts as labelled
    same(record.boxes["annotated"], [9.5, 7, 30.5, 29.5])
    same(record.boxes["landmarks"], [10.25, 11.5, 29, 12])
    same(record.box, record.boxes["annotated"])
    assert (record.key, record.size) == (f"{tmp_path / 'a.json'}#1268", (60, 40))
    assert record.image == tmp_path / "a.png"
    assert dataset.name == tmp_path.name
    assert dataset.scheme is EYES


# CVAT, https://docs.cvat.ai/docs/manual/advanced/formats/coco-keypoints/: images/<subset>/ lies beside annotations/.
# Each joint is also a category. A joint that is "outside" has v = 0 and still has coordinates
CVAT = """{"licenses":[{"name":"","id":0,"url":""}],
"info":{"contributor":"","date_created":"","description":"","url":"","version":"","year":""},"categories":[
{"id":1,"name":"face","supercategory":"","keypoints":["nose","right","left"],"skeleton":[[1,2],[2,3]]},
{"id":2,"name":"nose","supercategory":"face","keypoints":[],"skeleton":[]},
{"id":3,"name":"right","supercategory":"face","keypoints":[],"skeleton":[]}],
"images":[{"id":1,"width":60,"height":40,"file_name":"b/c.png","license":0,"flickr_url":"","coco_url":"",
"date_captured":0}],
"annotations":[{"id":1,"image_id":1,"category_id":1,"segmentation":[],"area":600.0,"bbox":[10.0,5.0,30.0,20.0],
"iscrowd":0,"attributes":{"occluded":false,"pose":"profile","track_id":0,"keyframe":true},
"keypoints":[25.5,18.0,2,-812.4,9.0,0,10.0,5.0,1],"num_keypoints":2},
{"id":2,"image_id":1,"category_id":2,"segmentation":[],"area":0.0,"bbox":[1,1,1,1],"iscrowd":0,"attributes":{}}]}"""


@pytest.mark.parametrize("folder", ["images", "images/default"])
def test_cvat(tmp_path: Path, folder: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_default.json").write_text(CVAT)
    picture(tmp_path / folder / "b" / "c.png")
    dataset = read_dataset(tmp_path, EYES)
    record = only(dataset)
    assert record.labels is not None
    # matched by name: the category lists the keypoints in another order
    same(record.labels.points[[0, 2]], [[10, 5], [25.5, 18]])
    same(record.labels.weights, [1, 0, 1])
    assert record.attributes == {"id": 1, "occluded": False, "pose": "profile", "track_id": 0, "keyframe": True}
    assert dataset.name == tmp_path.name


# Label Studio's converter (label_studio_sdk/converter): result.json and images/. The paths come from os.path.relpath,
# so they have backslashes on Windows. All points of an image are one annotation without area. Rectangles are
# annotations without keypoints
LABEL_STUDIO = r"""{"images": [{"width": 60, "height": 40, "id": 0, "file_name": "images\\1a2b-d.png"},
{"width": null, "height": null, "id": 1, "file_name": "images/e.png"}],
"categories": [{"id": 0, "name": "face"},
{"id": 1, "name": "default", "supercategory": "default", "keypoints": ["left", "right", "nose"], "skeleton": []}],
"annotations": [
{"id": 0, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [5.1, 6.2, 40, 30], "ignore": 0, "iscrowd": 0,
"area": 1200.0},
{"id": 1, "image_id": 0, "category_id": 1, "keypoints": [10, 12, 2, 30, 12, 2, 20, 25, 2], "num_keypoints": 3,
"bbox": [10, 12, 20, 13], "iscrowd": 0},
{"id": 2, "image_id": 1, "category_id": 1, "keypoints": [11, 12, 2, 0, 0, 0, 21, 25, 2], "num_keypoints": 2,
"bbox": [0, 0, 0, 0], "iscrowd": 0}],
"info": {"year": 2025, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""}}"""


def test_label_studio(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(LABEL_STUDIO)
    picture(tmp_path / "images" / "1a2b-d.png")
    picture(tmp_path / "images" / "e.png")
    first, second = read_dataset(tmp_path, EYES).records
    same(first.labels.points, [[10, 12], [30, 12], [20, 25]])
    same(first.boxes["annotated"], [10, 12, 30, 25])
    assert first.key.endswith("result.json#1")
    same(second.labels.weights, [1, 0, 1])
    assert set(second.boxes) == {"landmarks"}


# Roboflow, https://roboflow.com/formats/coco-keypoint: category 0 is a placeholder, and the file lies beside the images
ROBOFLOW = """{"info":{"year":"2024","version":"1","description":"Exported from roboflow.com","contributor":"",
"url":"https://public.roboflow.com/object-detection/undefined","date_created":"2024-09-10T07:12:44+00:00"},
"licenses":[{"id":1,"url":"https://creativecommons.org/licenses/by/4.0/","name":"CC BY 4.0"}],
"categories":[{"id":0,"name":"faces-Qg7R","supercategory":"none"},
{"id":1,"name":"face","supercategory":"faces-Qg7R","keypoints":["a","b","c"],"skeleton":[[1,2]]}],
"images":[{"id":0,"license":1,"file_name":"IMG_jpg.rf.21d9ecc5.png","height":40,"width":60,
"date_captured":"2024-09-10T07:12:44+00:00"}],
"annotations":[{"id":0,"image_id":0,"category_id":1,"bbox":[8,9,30,22.5],"area":675,"segmentation":[],"iscrowd":0,
"keypoints":[10,12,2,30,12,2,20,25,2]}]}"""


def test_roboflow(tmp_path: Path) -> None:
    (tmp_path / "_annotations.coco.json").write_text(ROBOFLOW)
    picture(tmp_path / "IMG_jpg.rf.21d9ecc5.png")
    record = only(read_dataset(tmp_path, EYES))
    same(record.labels.points, [[10, 12], [30, 12], [20, 25]])
    same(record.boxes["annotated"], [8, 9, 38, 31.5])


# the project's own format, see shared/data/README.md
OURS = """{"images": [
{"id": 7, "file_name": "a.png", "width": 60, "height": 40, "attributes": {"pose": 0, "blur": 1},
 "rect": [2.0, 3.0, 50.0, 39.0], "source": "0--Parade/x.jpg"},
{"id": 8, "file_name": "b.png", "width": 60, "height": 40, "subset": "afw"}],
"annotations": [
{"id": 7, "image_id": 7, "category_id": 1, "bbox": [10, 5, 30, 20], "num_keypoints": 2, "area": 600, "iscrowd": 0,
 "keypoints": [10.0, 5.0, 2, 40.0, 5.0, 1, 0.0, 0.0, 0], "spread": [0.006, 0.024, 0.9]},
{"id": 8, "image_id": 8, "category_id": 1, "bbox": [1, 2, 30, 20], "num_keypoints": 0, "area": 600, "iscrowd": 0,
 "keypoints": [0, 0, 0, 0, 0, 0, 0, 0, 0]}],
"categories": [{"id": 1, "name": "face", "keypoints": ["0", "1", "2"], "skeleton": []}]}"""


def ours(folder: Path) -> Path:
    (folder / "annotations.json").write_text(OURS)
    picture(folder / "images" / "a.png")
    picture(folder / "images" / "b.png")
    return folder


def test_the_projects_own_format(tmp_path: Path) -> None:
    first, second = read_dataset(ours(tmp_path), EYES).records
    same(first.labels.weights, [1, 0.5, 0])
    same(first.boxes["rect"], [2, 3, 50, 39])
    assert first.attributes == {"id": 7, "pose": 0, "blur": 1, "source": "0--Parade/x.jpg"}
    assert second.labels is None
    assert second.labels is None
    same(second.box, [1, 2, 31, 22])
    assert second.attributes["subset"] == "afw"
    same(read_dataset(tmp_path, EYES, full_spread=0.006).records[0].labels.weights, [1, 0.25, 0])


def test_spread_weights() -> None:
    same(spread_weights(np.array([0, 0.006, 0.012, 0.024, 0.5])), [1, 1, 1, 0.5, 0.15])


def test_crowds_are_not_faces(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.json'} holds no faces")):
        read_dataset(coco(tmp_path, iscrowd=1), EYES)


def test_two_faces_on_one_image(tmp_path: Path) -> None:
    data = json.loads(COCO)
    data["annotations"].append(data["annotations"][0] | {"id": 2, "keypoints": [1, 2, 2, 3, 4, 2, 0, 0, 0]})
    (tmp_path / "a.json").write_text(json.dumps(data))
    picture(tmp_path / "a.png")
    assert len(read_dataset(tmp_path / "a.json", EYES)) == 2


def test_a_category_that_the_file_does_not_define(tmp_path: Path) -> None:
    """The names of the only category with keypoints say the order. Without them, the points would be exchanged."""
    data = json.loads(COCO)
    data["categories"][0]["keypoints"] = ["nose", "right", "left"]
    data["annotations"][0] |= {"category_id": 0, "keypoints": [20, 25, 2, 29, 11, 2, 10, 12, 2]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    picture(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="category_id is 0, which the file does not define: taken as 1"):
        record = only(read_dataset(path, EYES))
    assert record.labels is not None
    same(record.labels.points, [[10, 12], [29, 11], [20, 25]])
    data["categories"].append({"id": 2, "name": "other", "keypoints": ["left", "right", "nose"]})
    data["annotations"].append(data["annotations"][0] | {"id": 3, "category_id": 1, "bbox": [9, 7, 30, 30]})
    data["annotations"].append(data["annotations"][0] | {"id": 4, "category_id": 9, "iscrowd": 1})
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"#1268: category_id is 0, expected one of \[1, 2\]"):
        read_dataset(path, EYES)
    assert only(read_dataset(path, EYES, skip_bad=True)).key.endswith("#3")
    # without names of keypoints the points are taken by place, whatever the category
    data["categories"], data["annotations"] = [{"id": 1, "name": "face"}], data["annotations"][:1]
    path.write_text(json.dumps(data))
    assert len(read_dataset(path, EYES)) == 1


def test_other_skeletons_are_not_faces(tmp_path: Path) -> None:
    data = json.loads(COCO)
    data["categories"].insert(0, {"id": 5, "name": "hand", "keypoints": ["thumb", "palm"], "skeleton": []})
    data["annotations"].append({"id": 2, "image_id": 397133, "category_id": 5, "keypoints": [1, 2, 2, 3, 4, 2]})
    (tmp_path / "a.json").write_text(json.dumps(data))
    picture(tmp_path / "a.png")
    assert only(read_dataset(tmp_path / "a.json", EYES)).key.endswith("#1268")


@pytest.mark.parametrize(
    ("names", "left", "told"),
    [
        (["right", "left", "nose"], [29, 11.5], None),  # sorted by name
        (["0", "1", "2"], [10.25, 12], None),  # numbers instead of names
        (["1", "2", "3"], [10.25, 12], None),
        (["a", "b", "nose"], [10.25, 12], "keypoint 0 is named 'a', in scheme 'eyes' 'left': the keypoints are taken"),
    ],
)
def test_keypoint_names_that_differ_from_the_scheme_are_reported(
    tmp_path: Path, names: list[str], left: list[float], told: str | None
) -> None:
    path = renamed(tmp_path, names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = only(read_dataset(path, EYES))
    assert record.labels is not None
    same(record.labels.points[0], left)
    messages = [str(w.message) for w in caught]
    assert len(messages) == (told is not None)
    assert all(str(told) in message for message in messages)


@pytest.mark.parametrize("corners", [False, True])
def test_boxes_given_by_corners_are_reported(tmp_path: Path, corners: bool) -> None:
    data = json.loads(COCO)
    data["images"], data["annotations"] = [], []
    for n in range(4):  # faces of 40 x 40 pixels at different places of the image
        x, y = 50 + 20 * n, 60 + 5 * n
        picture(tmp_path / f"{n}.png", 200, 150)
        data["images"].append({"id": n, "file_name": f"{n}.png", "width": 200, "height": 150})
        keypoints = [x + 10, y + 10, 2, x + 30, y + 12, 2, x + 19, y + 30, 2]
        bbox = [x, y, x + 40, y + 40] if corners else [x, y, 40, 40]
        data["annotations"].append({"id": n, "image_id": n, "category_id": 1, "keypoints": keypoints, "bbox": bbox})
    (tmp_path / "a.json").write_text(json.dumps(data))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(read_dataset(tmp_path / "a.json", EYES)) == 4
    said = [str(w.message) for w in caught if "bbox" in str(w.message)]
    assert len(said) == corners
    assert all("the bbox of 4 of 4 faces seems to be x1, y1, x2, y2" in sentence for sentence in said)


def renamed(folder: Path, names: list[str]) -> Path:
    data = json.loads(coco(folder).read_text())
    data["categories"][0]["keypoints"] = names
    path = folder / "a.json"
    path.write_text(json.dumps(data))
    return path


def test_a_scheme_name_at_another_position_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'left' stands in another place than in the scheme"):
        read_dataset(renamed(tmp_path, ["right", "left", "chin"]), EYES)


def test_the_first_of_more_keypoints_are_not_taken_for_the_landmarks(tmp_path: Path) -> None:
    data = json.loads(renamed(tmp_path, ["0", "1", "2", "3"]).read_text())
    data["annotations"][0]["keypoints"] += [20, 20, 2]
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="the data have 4 landmarks"):
        read_dataset(tmp_path / "a.json", EYES)


# .pts, https://ibug.doc.ic.ac.uk/resources/300-W/; coordinates are 1-based, as menpo's PTSImporter documents


def pts(folder: Path, text: bytes = b"version: 1\nn_points:  3\n{\n1.000 1.000\n31.5 12.250\n20 25\n}\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image_0001.pts").write_bytes(text)
    picture(folder / "image_0001.png")
    return folder


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_pts(tmp_path: Path, end: bytes) -> None:
    pts(
        tmp_path / "lfpw" / "trainset",
        b"version: 1\nn_points:  3\n{\n1.000 1.000\n31.5 12.250\n20 25\n}\n".replace(b"\n", end),
    )
    picture(tmp_path / "lfpw" / "trainset" / "without_points.png")
    record = only(read_dataset(tmp_path, EYES))
    same(record.labels.points, [[0, 0], [30.5, 11.25], [19, 24]])  # (1, 1) is the centre of the first pixel
    same(record.labels.weights, [1, 1, 1])
    assert record.image.name == "image_0001.png"
    assert record.key == str(tmp_path / "lfpw" / "trainset" / "image_0001.pts")
    same(only(read_dataset(record.key, EYES)).labels.points, record.labels.points)


def test_pts_with_a_missing_point(tmp_path: Path) -> None:
    record = only(read_dataset(pts(tmp_path, b"version: 1\nn_points: 3\n{\n1 1\nnan nan\n20 25\n}\n"), EYES))
    same(record.labels.weights, [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"version: 1\nn_points: 4\n{\n1 1\n2 2\n3 3\n}\n", "3 points, n_points says 4, scheme 'eyes' has 3"),
        (b"version: 1\nn_points: 2\n{\n1 1\n2 2\n}\n", "2 points, n_points says 2, scheme 'eyes' has 3"),
        (b"version: 1\nn_points: 3\n{\n1 1\n2\n3 3\n}\n", "has 1 numbers, expected 2"),
        (b"version: 1\nn_points: 3\n{\n1 1\n2 x\n3 3\n}\n", "is not a list of numbers"),
        (b"version: 1\nn_points: 3\n{\n1 1\n2 2\n3 3\n", "no '{ ... }'"),
        (b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_bad_pts(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"image_0001\.pts: .*" + re.escape(message)):
        read_dataset(pts(tmp_path, text), EYES)


def test_pts_and_its_images(tmp_path: Path) -> None:
    folder = pts(tmp_path)
    picture(folder / "image_0001.jpg")
    with pytest.raises(ValueError, match=r"image_0001\.pts: several images"):
        read_dataset(folder, EYES)
    for file in folder.glob("image_0001.[jp][pn]g"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"image_0001\.pts: no image image_0001\.\*"):
        read_dataset(folder, EYES)


# WFLW, https://wywu.github.io/projects/LAB/WFLW.html: "coordinates of 98 landmarks (196) + coordinates of upper left
# corner and lower right corner of detection rectangle (4) + attributes annotations (6) + image name (1)"


# the points in these files do not form a face, so the scheme has no mirror table and no five points
PLAIN_WFLW = replace(WFLW, mirror=None, five=None)
untabled = pytest.mark.filterwarnings("ignore:scheme .* has no mirror table")


def wflw_line(tail: str) -> str:
    corners = " ".join(f"{10 + n % 14 + n / 1000:.6f} {5 + n // 7:.6f}" for n in range(98))
    return f"{corners} {tail}\n"


@untabled
def test_wflw(tmp_path: Path) -> None:
    listed = tmp_path / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text(wflw_line("8 2 31 29 1 0 0 1 0 1 37--Soccer/37_Soccer_soccer_ball_37_45.png"))
    picture(tmp_path / "WFLW_images" / "37--Soccer" / "37_Soccer_soccer_ball_37_45.png")
    record = only(read_dataset(listed, PLAIN_WFLW))
    assert record.labels is not None
    same(record.labels.points[[0, 1, 97]], [[10, 5], [11.001, 5], [23.097, 18]])
    same(record.labels.weights, np.ones(98))
    same(record.boxes["rect"], [8, 2, 31, 29])
    same(record.box, record.boxes["landmarks"])
    attributes = {"pose": 1, "expression": 0, "illumination": 0, "makeup": 1, "occlusion": 0, "blur": 1}
    assert record.attributes == attributes
    assert record.key == f"{listed}#1"


@untabled
def test_wflw_without_rectangles(tmp_path: Path) -> None:
    listed = tmp_path / "list_98pt_test_blur.txt"
    listed.write_text("\n" + wflw_line("a b.png"))
    picture(tmp_path / "images" / "a b.png")
    record = only(read_dataset(listed, PLAIN_WFLW))
    assert (record.key, record.attributes, set(record.boxes)) == (f"{listed}#2", {}, {"landmarks"})


@pytest.mark.parametrize(
    ("landmarks", "tail", "message"),
    [
        (120, "8 2 31 29 1 0 0 1 0 1 a.png", "207 fields, expected 251 for the 120"),
        (68, "8 2 31 29 1 0 0 1 0 1 a.png", "207 fields, expected 147 for the 68"),
        (98, "8 2 31 29 1 0 0 1 0 a.png", "206 fields, expected 207 for the 98"),
        (98, "8 2 31 29 1 0 0 1 0 1 1 a.png", "208 fields, expected 207 for the 98"),
        (98, "8 2 31 29 1 0 0 x 0 1 a.png", "is not a list of numbers"),
        (98, "", "196 fields, expected 207 for the 98"),
    ],
)
def test_bad_wflw(tmp_path: Path, landmarks: int, tail: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(wflw_line(tail))
    with pytest.raises(ValueError, match=r"list\.txt#1: .*" + message):
        read_dataset(tmp_path / "list.txt", Scheme("s", tuple(map(str, range(landmarks)))))


# COFW: IsTr holds the images (cells), phisTr holds 29 x, 29 y and 29 occlusion flags, bboxesTr holds left, top, width
# and height; coordinates are 1-based

COFW_X = np.linspace(11, 39, 29)
COFW_Y = np.linspace(35, 7, 29)
GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (42, 50, 3), dtype=np.uint8)
PLAIN_COFW = replace(COFW, mirror=None, five=None)


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(folder))
    return folder


def check_cofw(path: Path) -> None:
    before = {file.name for file in path.parent.iterdir()}
    first, second = read_dataset(path, PLAIN_COFW).records
    assert first.labels is not None
    same(first.labels.points[[0, 28]], [[10, 34], [38, 6]])
    same(first.labels.weights, np.ones(29))
    same(first.boxes["rect"], [8, 4, 48, 39])
    assert first.attributes == {"occlusion": pytest.approx(2 / 29)}
    assert first.key == f"{path}#1"
    same(np.asarray(PIL.Image.open(first.image)), np.stack([GREY] * 3, -1))
    same(np.asarray(PIL.Image.open(second.image)), RGB)
    assert second.size == (50, 42)
    assert {file.name for file in path.parent.iterdir()} == before, "nothing is written beside the file"


@untabled
def test_cofw(tmp_path: Path, cache: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    cells = np.empty((2, 1), object)
    cells[0, 0], cells[1, 0] = GREY, RGB
    occluded = np.zeros(29)
    occluded[3:5] = 1
    phis = np.stack([np.concatenate((COFW_X, COFW_Y, occluded)), np.concatenate((COFW_X + 1, COFW_Y, occluded))])
    boxes = np.array([[9, 5, 40, 35], [9, 5, 40, 35]], np.uint16)
    path = tmp_path / "COFW_train_color.mat"
    savemat(path, {"IsTr": cells, "phisTr": phis, "bboxesTr": boxes})
    check_cofw(path)
    check_cofw(path)
    assert len(list(cache.rglob("*.png"))) == 2, "written once"
    cells[1, 0] = 255 - RGB
    savemat(path, {"IsTr": cells, "phisTr": phis, "bboxesTr": boxes})  # a file of the same size
    changed = read_dataset(path, PLAIN_COFW).records[1].image
    same(np.asarray(PIL.Image.open(changed)), 255 - RGB)
    savemat(tmp_path / "t.mat", {"IsT": cells, "phisT": phis, "bboxesT": boxes})
    assert len(read_dataset(tmp_path / "t.mat", PLAIN_COFW)) == 2
    with pytest.raises(ValueError, match=r"COFW_train_color\.mat: phis has shape \(2, 87\), expected 3 columns .* 68"):
        read_dataset(path, W300)
    savemat(tmp_path / "x.mat", {"points": phis})
    with pytest.raises(ValueError, match=r"x\.mat holds \['points'\], expected IsTr and phisTr"):
        read_dataset(tmp_path / "x.mat", PLAIN_COFW)
    (tmp_path / "y.mat").write_bytes(b"no mat file, but long enough to hold a header of a hundred and twenty-eight" * 3)
    with pytest.raises(ValueError, match=r"y\.mat cannot be read"):
        read_dataset(tmp_path / "y.mat", PLAIN_COFW)


@untabled
def test_cofw_version_7_3(tmp_path: Path, cache: Path) -> None:
    """MATLAB's HDF5 format: a user block of 512 bytes, transposed arrays, and cells stored as references."""
    h5py = pytest.importorskip("h5py", reason="h5py, which reads version 7.3, is not installed")
    path = tmp_path / "COFW_test_color.mat"
    occluded = np.zeros(29)
    occluded[3:5] = 1
    phis = np.stack([np.concatenate((COFW_X, COFW_Y, occluded)), np.concatenate((COFW_X + 1, COFW_Y, occluded))])
    with h5py.File(path, "w", userblock_size=512) as file:
        file["#refs#/a"], file["#refs#/b"] = GREY.T, RGB.T
        references = [[file["#refs#/a"].ref, file["#refs#/b"].ref]]
        file.create_dataset("IsT", data=references, dtype=h5py.ref_dtype)
        file["phisT"] = phis.T
        file["bboxesT"] = np.array([[9, 5, 40, 35], [9, 5, 40, 35]], float).T
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Dec 10 20:24:50 2013 HDF5 schema 1.00 ."
    with open(path, "r+b") as file:
        file.write(header.ljust(124, b" ") + b"\x00\x02IM")
    check_cofw(path)


# CSV, RFC 4180; OpenFace's columns: https://github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format


@pytest.mark.parametrize(
    "text",
    [
        "image,left_x,left_y,right_x,right_y,nose_x,nose_y\r\na.png,10,12.5,30,12,20,25\r\n",
        'image;nose_x;nose_y;left_x;left_y;right_x;right_y\n"a.png";20;25;10;12.5;30;12\n\n',
        "file_name\tx_0\tx_1\tx_2\ty_0\ty_1\ty_2\na.png\t10\t30\t20\t12.5\t12\t25\n",
        "image_name, x_0, x_1, x_2, y_0, y_1, y_2\na.png, 10, 30, 20, 12.5, 12, 25\n",
        "image,x1,y1,x2,y2,x3,y3\na.png,10,12.5,30,12,20,25\n",
        "image_name,original_0_x,original_0_y,original_1_x,original_1_y,original_2_x,original_2_y\n"
        "a.png,10,12.5,30,12,20,25\n",
        "\ufeffimage,0_x,0_y,1_x,1_y,2_x,2_y\na.png,10,12.5,30,12,20,25",
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    picture(tmp_path / "a.png")
    record = only(read_dataset(tmp_path / "a.csv", EYES))
    same(record.labels.points, [[10, 12.5], [30, 12], [20, 25]])
    same(record.labels.weights, [1, 1, 1])
    assert record.key == f"{tmp_path / 'a.csv'}#2"


def test_csv_with_all_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "image,pose,light,x1,y1,x2,y2,left_x,left_y,left_v,right_x,right_y,right_v,nose_x,nose_y,nose_v\n"
        "a.png,0.5,dark,1,2,41,32,10,12,2,,,,30,nan,1\n"
        "b.png,,,1,2,41,32,10,12,0,,,,,,\n"
    )
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    first, second = read_dataset(tmp_path / "a.csv", EYES).records
    same(first.labels.weights, [1, 0, 0])
    same(first.boxes["annotated"], [1, 2, 41, 32])
    assert first.attributes == {"pose": 0.5, "light": "dark"}
    assert second.labels is None
    assert second.attributes == {}


def test_labels_that_stand_for_no_label(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for missing, said in (("0,0", "1 landmarks of 1 faces are labelled at 0, 0."), ("-1,-1", "labelled at -1, -1.")):
        (tmp_path / "a.csv").write_text(f"image,x0,y0,x1,y1,x2,y2\na.png,10,12,30,12,{missing}\n")
        with pytest.warns(UserWarning, match=f"a.csv: .*{said} .* empty cells in a CSV file"):
            read_dataset(tmp_path / "a.csv", EYES)

    PIL.Image.new("L", (640, 640)).save(tmp_path / "a.png")
    scheme, points = heads(12)
    points[::2, 6:12] = points[1::2, :3] = 0  # the hidden half; the mirror table seems wrong
    header = ",".join(f"{name}_{axis}" for name in scheme.names for axis in "xy")
    rows = [",".join(map(str, face.ravel())) for face in points]
    (tmp_path / "a.csv").write_text("\n".join([f"image,{header}", *(f"a.png,{row}" for row in rows)]))
    with pytest.raises(ValueError, match=r"mirror table .* 54 landmarks of 12 faces are labelled at 0, 0"):
        read_dataset(tmp_path / "a.csv", scheme)
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text().replace("0.0,0.0", "inf,inf"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_dataset(tmp_path / "a.csv", scheme).records[1].labels.known.sum() == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x_0,y_0\n1,2\n", r"a\.csv has the columns .*expected a column of images"),
        ("image,x_0,x_1,y_0,y_1\na.png,1,2,3,4\n", r"a\.csv has the columns .* 3 landmarks"),
        ("image,x_0,x_1,x_2,x_3,y_0,y_1,y_2,y_3\na.png,1,2,3,4,5,6,7,8\n", r"a\.csv has the columns .* 3 landmarks"),
        ("image,x_0,x_1,x_2,y_0,y_1,y_2\na.png,1,2,3,4,5\n", r"a\.csv#2: 6 cells, expected 7"),
        ("image,x_0,x_1,x_2,y_0,y_1,y_2\na.png,1,2,3,4,5,?\n", r"a\.csv#2: the y columns is not a list of numbers"),
        ("", r"a\.csv has the columns \[\]"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path / "a.csv", EYES)


# bad records, and files that are not annotations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1, 2, 2, 3, 4, 2]}, "keypoints has 6 numbers, expected 3 for each of 3"),
        ({"keypoints": [1, 2, 2, 3, 4, 2, 5, 6, 2, 7, 8, 2]}, "keypoints has 12 numbers"),
        ({"keypoints": [1, 2, 2, 3, 4, 2, 5, 6]}, "keypoints has 8 numbers"),
        ({"keypoints": [1, 2, 2, 3, 4, 2, 5, "x", 2]}, "keypoints is not a list of numbers"),
        ({"keypoints": [1, 2, 2, 3, None, 2, 5, 6, 2]}, "landmark 1 is labelled at"),
        ({"keypoints": [1, 2, 2, 3, 4, -1, 5, 6, 2]}, "visibility -1"),
        ({"keypoints": "text"}, "keypoints is not a list of numbers"),
        ({"spread": [0.1, 0.2]}, "spread has 2 numbers, expected 3"),
        ({"spread": [0.1, -0.2, 0]}, "spread is negative"),
        ({"bbox": [1, 2, 3]}, "bbox has 3 numbers, expected 4"),
        ({"bbox": [1, 2, 3, None]}, r"box 'annotated' is \[1.0, 2.0, 4.0, nan\]"),
        ({"rect": [9, 2, 3, 4]}, r"box 'rect' is \[9.0, 2.0, 3.0, 4.0\], expected x1 < x2"),
        ({"image_id": 4}, "image_id is 4, expected the id of an image"),
        ({"keypoints": [], "bbox": None}, "the face has no box and 0 points, expected a box, or points at two places"),
        ({"keypoints": [1, 2, 2, *[0] * 6], "bbox": None}, "the face has no box and 1 points"),
        ({"keypoints": [70, 12, 2, 29, 11.5, 2, 10, 12, 2]}, None),  # 10 px outside the image; the face is 60 px wide
        (
            {"keypoints": [-900, 12, 2, 29, 11.5, 2, 10, 12, 2]},
            r"landmark 0 at \(-900, 12\) is 899.5 px outside .*60x40",
        ),
        ({"keypoints": [-900, 12, 0, 29, 11.5, 2, 10, 12, 2]}, None),  # outside, but not labelled
        ({"keypoints": [-4, 12, 2, 0, 0, 0, 0, 0, 0]}, None),  # one point; the box is 22 px high
    ],
)
def test_record(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    path = coco(tmp_path, **changes)
    if message is None:
        read_dataset(path, EYES)
        return
    with pytest.raises(ValueError, match=rf"a\.json#1268: .*({message})"):
        read_dataset(path, EYES)
    with pytest.raises(ValueError, match=r"a\.json holds no faces \(all 1 are bad, the first: .*#1268"):
        read_dataset(path, EYES, skip_bad=True)


def test_bad_records_are_skipped_when_asked(tmp_path: Path) -> None:
    (ours(tmp_path) / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"annotations\.json#8: image '.*b\.png' cannot be read"):
        read_dataset(tmp_path, EYES)
    dataset = read_dataset(tmp_path, EYES, skip_bad=True)
    assert [r.key[-2:] for r in dataset.records] == ["#7"]
    assert len(dataset.skipped) == 1
    assert re.match(r".*annotations\.json#8: image '.*b\.png' cannot be read", dataset.skipped[0])


def test_missing_image(tmp_path: Path) -> None:
    (ours(tmp_path) / "images" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations\.json#8: image 'b\.png' does not exist, .*images"):
        read_dataset(tmp_path, EYES)
    assert len(read_dataset(tmp_path, EYES, skip_bad=True)) == 1


def test_image_of_another_size(tmp_path: Path) -> None:
    path = coco(tmp_path)
    # as from a tool that ignores the EXIF orientation; the reader cannot tell the difference
    picture(tmp_path / "a.png", 40, 60)
    read_dataset(path, EYES)
    picture(tmp_path / "a.png", 120, 80)
    with pytest.raises(ValueError, match=r"#1268: image '.*a\.png' is 120x80, the annotation says 60x40"):
        read_dataset(path, EYES)


def test_turned_image(tmp_path: Path) -> None:
    path = coco(tmp_path)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.png", 40, 60, exif=exif)
    assert only(read_dataset(path, EYES)).size == (60, 40)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_an_image_is_that_of_its_pixels(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    PIL.Image.new("RGB", (40, 60)).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[1::-1]


def test_landmarks_on_one_line_make_a_box_with_an_area(tmp_path: Path) -> None:
    path = coco(tmp_path, keypoints=[10, 12, 2, 40, 12, 2, 20, 12, 2], bbox=None)
    x1, y1, x2, y2 = only(read_dataset(path, EYES)).box
    assert (x1, x2) == (10, 40)
    assert y1 < 12 < y2
    assert y2 - y1 == pytest.approx(0.3)


def test_sizes_that_are_exchanged_in_the_file_are_reported(tmp_path: Path) -> None:
    path = coco(tmp_path)
    picture(tmp_path / "a.png", 40, 60)
    with pytest.warns(UserWarning, match=r"width and height of 1 images, such as a\.png, are exchanged in the file"):
        read_dataset(path, EYES)


def test_keypoints_that_the_scheme_lacks_are_reported(tmp_path: Path) -> None:
    path = coco(tmp_path)
    with pytest.warns(UserWarning, match=f"{EYES.names[2]!r}: scheme 'two' lacks 1 keypoints of the file"):
        read_dataset(path, Scheme("two", EYES.names[:2], mirror=((0, 1),)))


@pytest.mark.parametrize(
    ("name", "advice"),
    [("a.xml", "export the task as COCO Keypoints 1.0"), ("a.zip", "Unpack it, and give the folder")],
)
def test_other_exports_of_cvat(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=advice):
        read_dataset(tmp_path / name, EYES)


def test_same_face_twice(tmp_path: Path) -> None:
    data = json.loads(COCO)
    data["annotations"].append(data["annotations"][0] | {"id": 9})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.json#9: is the same face as .*a\.json#1268"):
        read_dataset(path, EYES)
    assert len(read_dataset(path, EYES, skip_bad=True)) == 1


@pytest.mark.parametrize("name", ["images", "annotations"])
def test_duplicate_ids(tmp_path: Path, name: str) -> None:
    data = json.loads(COCO)
    data[name] *= 2
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"a\.json: '{name}' holds id \d+ twice"):
        read_dataset(tmp_path / "a.json", EYES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json is not JSON"),
        ("a.json", "[]", r"a\.json holds a list, expected COCO's"),
        ("a.json", '{"images": []}', r"a\.json holds \['images'\]"),
        ("a.json", '{"images": [], "annotations": []}', r"a\.json holds no faces"),
        ("a.json", '{"images": [1], "annotations": []}', r"a\.json: 'images' is not a list of objects"),
        ("a.csv", "image,x_0,x_1,x_2,y_0,y_1,y_2\n", r"a\.csv holds no faces"),
        ("a.txt", "\n", r"a\.txt holds no faces"),
        ("a.xml", "<a/>", r"a\.xml has the suffix '\.xml', expected one of"),
    ],
)
def test_bad_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path / name, EYES)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dataset: no such file or folder: gone"):
        read_dataset("gone", EYES)
    with pytest.raises(ValueError, match="holds neither"):
        read_dataset(tmp_path, EYES)
    with pytest.raises(ValueError, match="format is 'yolo', expected one of"):
        read_dataset(tmp_path, EYES, format="yolo")
    with pytest.raises(ValueError, match="scheme is 'dog'"):
        read_dataset(ours(tmp_path), "dog")


def test_format_by_argument(tmp_path: Path) -> None:
    coco(tmp_path).rename(tmp_path / "labels.txt")
    assert len(read_dataset(tmp_path / "labels.txt", EYES, format="coco")) == 1


def test_distance_outside_the_image() -> None:
    points = np.array([[-0.5, 39.5], [59.5, 0], [-1.5, 41.5], [60, 0]])
    same(outside(points, (60, 40)), [0, 0, 2, 0.5])


# left and right


def heads(n: int, seed: int = 0, yaw: tuple[float, float] = (-0.5, 0.5)) -> tuple[Scheme, NDArray[np.float64]]:
    """A scheme of six pairs and three midline landmarks, and ``n`` heads from random viewpoints, (n, 15, 2)."""
    rng = np.random.default_rng(seed)
    half = np.array([[-6, -4, 0], [-3, -4, 3], [-5, -6, 1], [-2, 4, 4], [-7, 2, -3], [-4, 7, 0]], float)
    middle = np.array([[0, -3, 4], [0, 1, 6], [0, 9, 1]], float)
    solid = np.concatenate((half, half * [-1, 1, 1], middle))
    shapes = []
    for _ in range(n):
        a, b, c = rng.uniform(*yaw), rng.uniform(-0.3, 0.3), rng.uniform(-0.6, 0.6)
        head = solid + rng.normal(0, 0.15, solid.shape)
        x, z = np.cos(a) * head[:, 0] + np.sin(a) * head[:, 2], np.cos(a) * head[:, 2] - np.sin(a) * head[:, 0]
        y = np.cos(b) * head[:, 1] - np.sin(b) * z
        flat = np.stack((x, y), -1) @ [[np.cos(c), np.sin(c)], [-np.sin(c), np.cos(c)]]
        shapes.append(rng.uniform(0.5, 9) * flat + rng.uniform(0, 500, 2))
    names = tuple(f"p{n}" for n in range(15))
    return Scheme("heads", names, mirror=tuple((n, n + 6) for n in range(6))), np.stack(shapes)


@pytest.mark.parametrize("n", [1, 4, 100])
@pytest.mark.parametrize("yaw", [(-0.5, 0.5), (0.3, 1.2), (-1.5, -1.0)])
def test_correct_mirror_tables_pass(n: int, yaw: tuple[float, float]) -> None:
    scheme, points = heads(n, n, yaw)
    assert left_right_problem(points, np.ones(points.shape[:2], bool), scheme) is None


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ((), "no face at all"),
        (tuple((n + 1, n + 7) for n in range(6)), "not parallel|no face at all|it exchanges"),  # 1-based indices
        (((0, 6), (1, 7), (2, 8), (3, 9), (4, 10)), "it exchanges 5 'p5' with 5 'p5', 11 'p11' with 11 'p11'"),
        (((0, 7), (1, 6), (2, 8), (3, 9), (4, 10), (5, 11)), "it exchanges 0 'p0' with 7 'p7', 1 'p1' with 6 'p6'"),
        (((0, 6), (1, 7), (2, 8), (3, 11), (4, 10), (5, 9)), "it exchanges 3|not parallel"),
    ],
)
def test_wrong_mirror_tables_are_found(mirror: tuple[tuple[int, int], ...], message: str) -> None:
    scheme, points = heads(200)
    problem = left_right_problem(points, np.ones(points.shape[:2], bool), replace(scheme, mirror=mirror))
    assert problem is not None
    assert re.search(f"mirror table of scheme 'heads' does not fit the data: .*({message})", problem)


def test_a_wrong_mirror_table_is_found_when_all_faces_look_the_same_way() -> None:
    scheme, points = heads(40, yaw=(0.5, 1.0))
    wrong = replace(scheme, mirror=((0, 9), (1, 7), (2, 8), (3, 6), (4, 10), (5, 11)))
    assert "not parallel" in str(left_right_problem(points, np.ones(points.shape[:2], bool), wrong))


def test_faces_with_only_one_labelled_side_report_no_problem() -> None:
    scheme, points = heads(60, yaw=(0.9, 1.5))
    labelled = np.ones(points.shape[:2], bool)
    labelled[:, 6:12] = False
    alone = replace(scheme, mirror=((0, 6), (1, 7), (2, 8), (3, 9), (4, 10)))  # landmarks 5 and 11 are not paired
    for n in (1, 5, 60):
        assert left_right_problem(points[:n], labelled[:n], scheme) is None
        assert left_right_problem(points[:n], labelled[:n], alone) is None


def test_a_profile_is_not_symmetric() -> None:
    """A correct mirror table passes on profiles: the nose tip lies off the midline, and only one side has labels."""
    middle = np.array([[0, -6], [0, -4], [0, -2], [5, 0], [0, 2], [0, 4], [0, 6]], float)
    side = np.array([[-4, -3], [-6, 2], [-4, 6]], float)
    scheme = Scheme("profile", tuple("abcdefghijklm"), mirror=((7, 10), (8, 11), (9, 12)))
    points = np.concatenate((middle, side, side * 0))[None] + np.random.default_rng(0).normal(0, 0.1, (80, 13, 2))
    labelled = np.arange(13)[None] < np.full((80, 1), 10)
    assert left_right_problem(points, labelled, scheme) is None


def test_a_few_wrong_faces_do_not_change_the_mean_shape() -> None:
    _, points = heads(40)
    labelled = np.ones(points.shape[:2], bool)
    before = mean_shape(points[:34], labelled[:34])
    points[34:] = points[34:][:, np.random.default_rng(3).permutation(15)]
    after = mean_shape(points, labelled)
    assert distances(after[None], labelled[:1], before)[0] < 0.02


def test_swapped_faces_are_found() -> None:
    scheme, points = heads(60)
    labelled = np.random.default_rng(0).random(points.shape[:2]) > 0.2
    wrong = np.arange(60) % 8 == 0
    points[wrong] *= [-1, 1]  # mirrored, without exchanging the left and right labels
    order = scheme.permutation
    assert order is not None
    mean = mean_shape(points, labelled)
    np.testing.assert_array_equal(swapped(points, labelled, mean, order), wrong)
    assert distances(points, labelled, mean)[~wrong].max() < 0.5 < distances(points, labelled, mean)[wrong].min()
    assert left_right_problem(points, labelled, scheme) == "left and right are swapped in 8 of 60 faces"


def test_five_points_on_the_wrong_sides() -> None:
    scheme, points = heads(30)
    labelled = np.ones(points.shape[:2], bool)
    right = replace(scheme, five=((0,), (6,), (13,), (3,), (9,)))
    assert left_right_problem(points, labelled, right) is None
    wrong = replace(scheme, five=((6,), (0,), (13,), (9,), (3,)))
    assert "'five'" in str(left_right_problem(points, labelled, wrong))
    labelled[:, 6] = False  # one eye is never labelled: the check cannot decide
    assert left_right_problem(points, labelled, wrong) is None


def test_mean_shape_ignores_position_scale_and_roll() -> None:
    _, points = heads(50)
    labelled = np.ones(points.shape[:2], bool)
    turned = points @ [[0, 3], [-3, 0]] + 7
    mean = mean_shape(points, labelled)
    same(distances(turned, labelled, mean), distances(points, labelled, mean))
    assert np.sqrt((mean**2).sum(-1).mean()) == pytest.approx(1)
    labelled[:, 4] = False
    assert np.isnan(mean_shape(points, labelled)[4]).all()


def test_a_wrong_mirror_table_stops_reading(tmp_path: Path) -> None:
    scheme, points = heads(12)
    points += 80
    rows = [",".join(["a.png", *(f"{v:.3f}" for v in p.ravel())]) for p in points]
    header = ",".join(["image", *(f"{name}_{axis}" for name in scheme.names for axis in "xy")])
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    picture(tmp_path / "a.png", 700, 700)
    assert len(read_dataset(tmp_path / "a.csv", scheme)) == 12
    with pytest.raises(ValueError, match=r"a\.csv: the mirror table of scheme 'heads' does not fit"):
        read_dataset(tmp_path / "a.csv", replace(scheme, mirror=()))


def test_a_missing_mirror_table_warns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="'eyes' has no mirror table"):
        dataset = read_dataset(ours(tmp_path), replace(EYES, mirror=None))
    assert dataset.scheme.mirror is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_dataset(tmp_path, EYES)


@pytest.mark.parametrize(
    ("name", "scheme", "faces", "without"),
    [
        ("300w_val", W300, 210, 0),
        ("cfp68_val", W300, 160, 0),
        ("wflw_dev", WFLW, 303, 0),
        ("wflw_like", WFLW, 564, 149),  # each eighth face
    ],
)
def test_shared_data(shared: Path, tmp_path: Path, name: str, scheme: Scheme, faces: int, without: int) -> None:
    folder = shared / "data" / name
    if name == "wflw_like":
        content = json.loads((folder / "annotations.json").read_text("utf-8"))
        content |= {part: content[part][::8] for part in ("images", "annotations")}
        (tmp_path / "annotations.json").write_text(json.dumps(content), "utf-8")
        (tmp_path / "images").symlink_to(folder / "images")
        folder = tmp_path
    dataset = read_dataset(folder, scheme)
    assert (dataset.name, len(dataset)) == (folder.name, faces)
    assert sum(r.labels is None for r in dataset.records) == without
    assert all("annotated" in r.boxes for r in dataset.records)


def test_profiles_of_one_side_only(shared: Path) -> None:
    records = read_dataset(shared / "data" / "cfp68_val", W300).records
    left = [r for r in records if r.labels is not None and r.labels.weights[:8].sum() > r.labels.weights[9:17].sum()]
    points = np.stack([r.labels.points for r in left if r.labels is not None])
    labelled = np.stack([r.labels.weights > 0 for r in left if r.labels is not None])
    assert len(left) > 20
    for some in (slice(None), slice(5), slice(1)):
        assert left_right_problem(points[some], labelled[some], W300) is None


def test_names_of_written_images_have_slashes_on_windows_too() -> None:
    """A file that was written there is read elsewhere, also by other programs."""
    folder = PureWindowsPath("C:/data")
    assert relative(PureWindowsPath("C:/data/images/0.jpg"), folder) == "images/0.jpg"
    assert relative(PureWindowsPath("C:/photos/0.jpg"), folder) == "../photos/0.jpg"
    assert relative(PureWindowsPath("D:/photos/0.jpg"), folder) == "D:/photos/0.jpg"
    assert relative(PurePosixPath("/labels/a\\b.jpg"), PurePosixPath("/labels/photos")) == "../a\\b.jpg"


def test_a_written_file_names_photographs_outside_its_folder_and_behind_links(tmp_path: Path) -> None:
    photos, labels = tmp_path / "photos", tmp_path / "store" / "labels"
    photos.mkdir()
    labels.mkdir(parents=True)
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "hash.png")
    (photos / "a.png").symlink_to(tmp_path / "hash.png")
    (tmp_path / "linked").symlink_to(labels)
    record = Record(photos / "a.png", None, {"annotated": np.array([10.0, 10, 30, 30])})
    for name in ("linked", "store/labels"):
        write_coco([record], W300, tmp_path / name / "faces.json")
        data = json.loads((labels / "faces.json").read_text("utf-8"))
        assert [image["file_name"] for image in data["images"]] == ["../../photos/a.png"]
        (read,) = read_dataset(tmp_path / name / "faces.json", W300).records
        assert read.image.samefile(tmp_path / "hash.png")
