"""`boxes`: files of boxes, correct and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hih_align.boxes import read_boxes


def read(folder: Path, text: str | bytes, name: str = "boxes") -> dict[str, list[list[float]]]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_boxes(path)
    for boxes in found.values():
        assert boxes.dtype == np.float64
        assert boxes.shape == (len(boxes), 4)
    assert {name: boxes.tolist() for name, boxes in read_boxes(str(path)).items()} == {
        name: boxes.tolist() for name, boxes in found.items()
    }
    return {name: boxes.tolist() for name, boxes in found.items()}


COCO = """{
  "images": [
    {"id": 7, "file_name": "b.jpg", "width": 640, "height": 480},
    {"id": 3, "file_name": "sub/a.jpg"},
    {"id": "x", "file_name": "empty.jpg"}
  ],
  "annotations": [
    {"id": 1, "image_id": 3, "category_id": 1, "bbox": [10, 20, 30.5, 40]},
    {"id": 2, "image_id": 7, "bbox": [-5, 0, 1e2, 50], "keypoints": [1, 2, 2]},
    {"id": 3, "image_id": 3, "bbox": [0.25, 1, 2, 3]}
  ],
  "categories": [{"id": 1, "name": "face"}]
}"""


def test_coco(tmp_path: Path) -> None:
    """Boxes of x, y, width, height become corners.

    All images are listed in the file's order, also those without a face.
    """
    for text in (COCO, "\ufeff" + COCO, "\n " + COCO):
        found = read(tmp_path, text)
        assert found == {
            "b.jpg": [[-5, 0, 95, 50]],
            "sub/a.jpg": [[10, 20, 40.5, 60], [0.25, 1, 2.25, 4]],
            "empty.jpg": [],
        }
        assert list(found) == ["b.jpg", "sub/a.jpg", "empty.jpg"]


CSV = """\
b.jpg,10,20,30.5,60
sub/a b.jpg, -5 , 1e1,100,50
# a remark, with, many, more, commas

b.jpg,1,2,3,4
"a, quoted.jpg",5,6,7,8
"""

FOUND = {
    "b.jpg": [[10, 20, 30.5, 60], [1, 2, 3, 4]],
    "sub/a b.jpg": [[-5, 10, 100, 50]],
    "a, quoted.jpg": [[5, 6, 7, 8]],
}


@pytest.mark.parametrize("header", ["", "file,x1,y1,x2,y2\n", "# boxes\nImage, X1, Y1, X2, Y2\n"])
def test_csv(tmp_path: Path, header: str) -> None:
    for text in (header + CSV, "\ufeff" + header + CSV, (header + CSV).replace("\n", "\r\n"), (header + CSV).rstrip()):
        found = read(tmp_path, text)
        assert found == FOUND
        assert list(found) == list(FOUND)


def test_a_header_names_further_columns(tmp_path: Path) -> None:
    text = "image,score,label,Y1,X1,y2,x2\nb.jpg,0.9,a face,20,10,60,30.5\n"
    assert read(tmp_path, text) == {"b.jpg": [[10, 20, 30.5, 60]]}


def test_the_format_is_found_from_the_content(tmp_path: Path) -> None:
    assert read(tmp_path, COCO, "boxes.csv")["b.jpg"] == [[-5, 0, 95, 50]]
    assert read(tmp_path, CSV, "boxes.json") == FOUND


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "file,x1,y1,x2,y2\n", '{"images": [], "annotations": []}'])
def test_empty_files(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


def test_the_boxes_of_the_data_set(shared: Path) -> None:
    """The file's boxes are tight around the points in the same file."""
    path = shared / "data" / "300w_test_lfpw" / "annotations.json"
    found = read_boxes(path)
    data = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    assert len(found) == 224
    assert sum(map(len, found.values())) == 224
    for face in data["annotations"]:
        points = np.array(face["keypoints"], float).reshape(-1, 3)[:, :2]
        tight = np.concatenate((points.min(0), points.max(0)))
        assert np.abs(found[names[face["image_id"]]] - tight).min(0).max() < 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b.jpg,1,2,3\n", "line 1 is 'b.jpg,1,2,3', expected file,x1,y1,x2,y2"),
        (
            "b.jpg,1,2,3,4\nb.jpg,1,2,3,4,5\n",
            "line 2 is 'b.jpg,1,2,3,4,5', expected file,x1,y1,x2,y2. A header line names further columns",
        ),
        ("file,x1,y1,x2,y2,score\nb.jpg,1,2,3,4\n", "line 2 is"),
        ("b.jpg,1,2,3,4\n# remark\nb.jpg,1,2,x,4\n", "line 3 is 'b.jpg,1,2,x,4'"),
        ("b.jpg,1,2,3,4\nfile,x1,y1,x2,y2\n", "line 2 is"),
        ("file,x1,y1,x2,y2\nfile,x1,y1,x2,y2\n", "line 2 is"),
        ("file,x,y,w,h\nb.jpg,1,2,3,4\n", "line 1 is"),
        ("b.jpg;1;2;3;4\n", "line 1 is"),
        ("b.jpg,1,2,,4\n", "line 1 is"),
        ("some text", "line 1 is"),
        ("a" * 200000 + ",1,2,3,4", "is not CSV"),
        (b"\xff\xfe\x00\x01", "is not text"),
        ("{", "is not COCO JSON"),
        ("[]", "is not COCO JSON"),
        ("{}", "is not COCO JSON"),
        ('{"images": []}', "is not COCO JSON"),
        ('{"images": 3, "annotations": []}', "is not COCO JSON"),
        ('{"images": [3], "annotations": []}', "is not COCO JSON"),
        ('{"images": [{"id": 1}], "annotations": []}', "is not COCO JSON"),
        ('{"images": [{"file_name": "a"}], "annotations": []}', "is not COCO JSON"),
        ('{"images": [{"id": [1], "file_name": "a"}], "annotations": []}', "is not COCO JSON"),
        ('{"images": [], "annotations": 3}', "is not COCO JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^boxes: .*boxes,? {message}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "annotation",
    [
        {"image_id": 2, "bbox": [1, 2, 3, 4]},
        {"bbox": [1, 2, 3, 4]},
        {"image_id": 1},
        {"image_id": 1, "bbox": None},
        {"image_id": 1, "bbox": [1, 2, 3]},
        {"image_id": 1, "bbox": [1, 2, 3, "wide"]},
        {"image_id": 1, "bbox": [1, 2, 3, None]},
        "face",
        None,
    ],
    ids=repr,
)
def test_bad_annotations(tmp_path: Path, annotation: Any) -> None:
    good = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    text = json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [good, annotation]})
    with pytest.raises(ValueError, match=r"^boxes: .*, annotation 1: .*, expected image_id and bbox"):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["gone.json", "."])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^boxes: no such file"):
        read_boxes(tmp_path / name)
