"""`check`: the faults that it finds in data with known faults, the contact sheet, and real faces from shared/data."""

from __future__ import annotations

import io
import json
import re
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align.cli import data as commands
from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.data.check import check, contact_sheet, require_disjoint, shared_faces
from hih_align.schemes import Scheme

SCHEME = Scheme(
    id="seven",
    names=("eye_l", "eye_r", "mouth_l", "mouth_r", "jaw_l", "jaw_r", "nose"),
    mirror=((0, 1), (2, 3), (4, 5)),
    contours=((2, 3),),
    normalizers={"inter-ocular": ((0,), (1,))},
)
FACE = np.array([[20, 20], [60, 20], [28, 60], [52, 60], [10, 45], [70, 45], [40, 42]], float)
ASTRONAUT = np.ascontiguousarray(skimage.data.astronaut()[20:180, 150:310])


def shape(n: int) -> NDArray[np.float64]:
    """The points of `FACE` with some noise, slightly rotated and shifted."""
    rng = np.random.default_rng(n)
    angle = rng.uniform(-0.3, 0.3)
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return (FACE - 40) @ turn * rng.uniform(0.8, 1.1) + 75 + rng.uniform(-5, 5, 2) + rng.normal(0, 1, FACE.shape)


@cache
def photograph(seed: int, kind: str) -> bytes:
    """A file. Each seed gives different pixels: a duplicate is found by its pixels, not by its name."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.roll(ASTRONAUT, seed, axis=1)).save(file, kind)
    return file.getvalue()


def save(folder: Path, name: str, seed: int) -> Path:
    path = folder / name
    path.write_bytes(photograph(seed, {".png": "PNG", ".jpg": "JPEG"}[path.suffix]))
    return path


def record(image: Path, points: NDArray[np.float64] | None, key: str, **changes: Any) -> Record:
    box = np.array([30, 30, 120, 120], float)
    if points is None:
        return Record(image, None, {"annotated": box}, key=key, size=(160, 160))
    boxes = {"landmarks": np.concatenate((points.min(0), points.max(0)))}
    weights = changes.pop("weights", np.ones(len(points)))
    return Record(image, Labels(points, weights), boxes, key=key, size=(160, 160), **changes)


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    records = tuple(record(save(tmp_path, f"{n}.png", n), shape(n), f"k{n}") for n in range(20))
    return Dataset("clean", SCHEME, records, tmp_path)


def with_record(dataset: Dataset, *more: Record) -> Dataset:
    return replace(dataset, records=(*dataset.records, *more))


def test_clean_data(clean: Dataset) -> None:
    got = check(clean)
    assert (got.name, got.scheme, got.faces, got.images, got.without_points) == ("clean", "seven", 20, 20, 0)
    assert (got.labelled, got.weight, got.missing) == (1.0, 1.0, {})
    assert not got.suspects
    assert not got.unreadable + got.skipped
    sides = [max(np.ptp(r.labels.points, axis=0)) for r in clean.records if r.labels is not None]
    assert got.boxes == {"landmarks": (20, min(sides), np.median(sides), max(sides))}


def test_counts(clean: Dataset, tmp_path: Path) -> None:
    weights = np.array([1, 0, 0.5, 1, 1, 1, 0])
    points = np.where(weights[:, None] > 0, shape(50), np.nan)
    image = clean.records[0].image
    boxes = {"landmarks": np.array([0, 0, 9, 9.0]), "rect": np.array([0, 0, 30, 50.0])}
    got = check(
        with_record(
            clean,
            Record(image, Labels(points, weights), boxes, key="part", size=(160, 160)),
            record(save(tmp_path, "b.png", 40), None, "box"),
        )
    )
    assert (got.faces, got.images, got.without_points) == (22, 21, 1)
    assert got.missing == {"eye_r": 1, "nose": 1}
    assert got.labelled == pytest.approx((20 * 7 + 5) / (21 * 7))
    assert got.weight == pytest.approx((20 * 7 + 4.5) / (20 * 7 + 5))
    assert {name: s.faces for name, s in got.boxes.items()} == {"landmarks": 21, "rect": 1, "annotated": 1}
    assert got.boxes["rect"].largest == 50


def test_faces_without_a_box_are_counted(clean: Dataset) -> None:
    line = "no bbox in the file: 20, the tight box of their landmarks is used"
    assert line in check(clean).text().splitlines()
    boxes = {"annotated": np.array([30.0, 30.0, 120.0, 120.0])}
    given = replace(clean, records=tuple(replace(face, boxes=dict(face.boxes) | boxes) for face in clean.records))
    assert "no bbox" not in check(given).text()
    tight = [dict(face.boxes) | {"annotated": face.boxes["landmarks"]} for face in clean.records]
    drawn = [replace(face, boxes=own) for face, own in zip(clean.records, tight, strict=True)]
    said = "the boxes of the file are the tight boxes of the landmarks"  # as CVAT writes them for skeletons
    assert said in check(replace(clean, records=tuple(drawn))).text().splitlines()
    assert said not in check(given).text() + check(clean).text()


def test_outliers(clean: Dataset, tmp_path: Path) -> None:
    scrambled = shape(30)[[4, 2, 6, 0, 1, 3, 5]]
    mirrored = shape(31) * [-1, 1] + [160, 0]
    leaving = shape(32) + np.array([60, 0])
    data = with_record(
        clean,
        record(save(tmp_path, "x.png", 31), scrambled, "scrambled"),
        record(save(tmp_path, "y.png", 32), mirrored, "mirrored"),
        record(save(tmp_path, "z.png", 33), leaving, "leaving"),
    )
    got = check(data)
    assert [f.key for f in got.far] == ["scrambled"]
    assert [f.key for f in got.swapped] == ["mirrored"]
    assert [f.key for f in got.outside] == ["leaving"]
    assert got.outside[0].value == pytest.approx(leaving.max() - 159.5)
    assert got.suspects == ("mirrored", "scrambled", "leaving")
    assert "scrambled (x.png): " in got.text()
    # without a mirror table, a mirrored face is only far from the mean shape
    unknown = check(replace(data, scheme=replace(SCHEME, mirror=None)))
    assert {f.key for f in unknown.far} == {"scrambled", "mirrored"}
    assert unknown.swapped == ()


def test_points_outside_that_are_not_labelled(clean: Dataset, tmp_path: Path) -> None:
    points = shape(30)
    points[6] = -500
    weights = np.array([1, 1, 1, 1, 1, 1, 0.0])
    assert check(with_record(clean, record(clean.records[3].image, points, "a", weights=weights))).outside == ()


def test_duplicates_are_found_by_image_content_and_face_position(clean: Dataset, tmp_path: Path) -> None:
    first = clean.records[0]
    assert first.labels is not None
    with PIL.Image.open(first.image) as image:
        image.save(tmp_path / "copy.bmp")  # different bytes, the same pixels
    copy = tmp_path / "copy.bmp"
    again = record(copy, first.labels.points + 2, "again")
    beside = record(copy, (first.labels.points - 40) * 0.4 + 120, "beside")  # another face in the same image
    got = check(with_record(clean, again, beside))
    assert got.duplicates == (("again", "k0"),)
    assert f"  again (copy.bmp) = k0 ({first.image.name})" in got.text().splitlines()
    assert check(with_record(clean, record(first.image, first.labels.points + 60, "there"))).duplicates == ()
    assert check(with_record(clean, record(first.image, first.labels.points + 3, "anew"))).duplicates == (
        ("anew", "k0"),
    )


def test_unreadable_images(clean: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(clean.records[0].image.read_bytes()[:-400])
    data = with_record(clean, record(broken, shape(9), "a"), record(tmp_path / "gone.png", shape(8), "b"))
    got = check(replace(data, skipped=("f#1: bad",)))
    assert len(got.unreadable) == 2
    assert all(name in " ".join(got.unreadable) for name in ("broken.png", "gone.png"))
    assert got.skipped == ("f#1: bad",)
    contact_sheet(data, tmp_path / "sheet.png", faces=30, suspects=["a", "b"])


def test_summary_as_json(clean: Dataset, tmp_path: Path) -> None:
    data = with_record(clean, record(save(tmp_path, "x.png", 31), shape(30) + np.array([60, 0]), "leaving"))
    got = json.loads(json.dumps(check(data).to_dict()))
    assert got["faces"] == 21
    assert got["outside"][0]["key"] == "leaving"
    assert got["boxes"]["landmarks"]["faces"] == 21


def test_no_points_at_all(tmp_path: Path) -> None:
    data = Dataset("boxes", SCHEME, (record(save(tmp_path, "a.png", 0), None, "a"),), tmp_path)
    got = check(data)
    assert (got.without_points, got.labelled, got.missing, got.far) == (1, 0.0, {}, ())
    contact_sheet(data, tmp_path / "sheet.png")


# contact sheet


def sheet_of(data: Dataset, folder: Path, **options: Any) -> NDArray[np.uint8]:
    contact_sheet(data, folder / "sheet.png", **options)
    return np.asarray(PIL.Image.open(folder / "sheet.png").convert("RGB"))


def test_contact_sheet_shows_points_where_they_are(tmp_path: Path) -> None:
    black = tmp_path / "a.png"
    PIL.Image.fromarray(np.zeros((160, 160, 3), np.uint8)).save(black)
    points = FACE + 20.0
    plain = replace(SCHEME, contours=())
    got = sheet_of(Dataset("a", plain, (record(black, points, "a"),), tmp_path), tmp_path, size=180)
    assert got.shape == (180, 180, 3)
    # crop side 1.5 * 60 = 90 around (60, 60): two sheet pixels per image pixel, image centre at 89.5
    place = ((points - 60) * 2 + 89.5).round().astype(int)
    blue, orange, white = got[place[0, 1], place[0, 0]], got[place[1, 1], place[1, 0]], got[place[6, 1], place[6, 0]]
    assert blue[2] > 2 * blue[0] > 0
    assert orange[0] > 2 * orange[2] > 0
    assert white.min() > 150
    lit = np.argwhere(got.max(-1) > 60)[:, ::-1]
    assert np.linalg.norm(lit[:, None] - place[None], axis=-1).min(1).max() < 5.5
    faint = record(black, points, "a", weights=np.array([1, 1, 1, 1, 1, 1, 0.15]))
    dimmed = sheet_of(Dataset("a", plain, (faint,), tmp_path), tmp_path, size=180)
    assert 60 < dimmed[place[6, 1], place[6, 0]].max() < 150


def test_contact_sheet_layout(clean: Dataset, tmp_path: Path) -> None:
    got = sheet_of(clean, tmp_path, faces=7, columns=3, size=64, suspects=["k5", "k9", "unknown"])
    assert got.shape == (3 * 64, 3 * 64, 3)
    red = (got == [255, 0, 0]).all(-1)
    framed = [red[0, x * 64 : (x + 1) * 64].all() for x in range(3)]
    assert framed == [True, True, False]
    assert not red[64:].any()
    assert got[128:, 64:].max() == 0  # the seventh face is alone in the second row
    few = sheet_of(clean, tmp_path, faces=100, columns=8, size=16)
    assert few.shape == (3 * 16, 8 * 16, 3)


def test_contact_sheet_needs_an_image(tmp_path: Path) -> None:
    data = Dataset("a", SCHEME, (record(tmp_path / "gone.png", FACE, "a"),), tmp_path)
    with pytest.raises(ValueError, match="none of the images"):
        contact_sheet(data, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


# real faces from shared/data


def test_shared_faces(clean: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "val"
    other.mkdir()
    first = clean.records[4]
    assert first.labels is not None
    (other / "renamed.png").write_bytes(first.image.read_bytes())
    val = Dataset("val", SCHEME, (record(save(other, "new.png", 77), shape(5), "new"),), other)
    assert shared_faces([clean], val) == ()
    require_disjoint([clean], val)
    leaked = with_record(
        val,
        record(other / "renamed.png", first.labels.points + 1, "leak"),
        record(other / "renamed.png", (first.labels.points - 40) * 0.3 + 130, "neighbour"),
    )
    assert shared_faces([val, clean], leaked) == (("new", "new"), ("leak", "k4"))
    assert shared_faces([clean], leaked) == (("leak", "k4"),)
    with pytest.raises(
        ValueError, match=r"1 faces of .*val are also in the training data: leak \(renamed.png\) = k4 \("
    ):
        require_disjoint([clean], leaked)


def test_shared_faces_without_known_sizes(clean: Dataset) -> None:
    unsized = replace(clean, records=tuple(replace(r, size=None) for r in clean.records))
    assert len(shared_faces([unsized], clean)) == 20


# the command


def csv(path: Path, names: list[str], seeds: list[int]) -> Path:
    header = ",".join(["image", *(f"{name}_{axis}" for name in SCHEME.names for axis in "xy")])
    rows = [",".join([name, *(f"{v:.2f}" for v in shape(n).ravel())]) for name, n in zip(names, seeds, strict=True)]
    path.write_text("\n".join([header, *rows]))
    return path


@pytest.fixture
def app(tmp_path: Path) -> typer.Typer:
    (tmp_path / "seven.json").write_text(json.dumps(SCHEME.to_dict()))
    app = typer.Typer()
    app.command()(commands.check)
    return app


def test_command(tmp_path: Path, app: typer.Typer) -> None:
    for n in range(6):
        save(tmp_path, f"{n}.png", n)
    table = csv(tmp_path / "faces.csv", [f"{n}.png" for n in range(6)], list(range(6)))
    options = ["--scheme", str(tmp_path / "seven.json")]
    got = CliRunner().invoke(app, [str(table), *options, "--sheet", str(tmp_path / "sheet.png")])
    assert got.exit_code == 0
    assert "faces: 6 faces on 6 images, scheme seven" in got.output
    assert (tmp_path / "sheet.png").is_file()

    val = csv(tmp_path / "val.csv", ["5.png", "gone.png"], [5, 6])
    got = CliRunner().invoke(app, [str(val), *options, "--against", str(table), "--json"])
    assert got.exit_code == 1
    report = json.loads(got.stdout)
    assert (report["faces"], len(report["skipped"])) == (1, 1)
    assert report["shared"] == [[f"{val}#2", f"{table}#7"]]
    assert "gone.png" in CliRunner().invoke(app, [str(val), *options]).output

    # a truncated photograph does not take the report with it
    whole = save(tmp_path, "half.jpg", 7).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    val = csv(tmp_path / "val.csv", ["half.jpg", "5.png"], [4, 5])
    got = CliRunner().invoke(app, [str(val), *options, "--against", str(table)])
    assert got.exit_code == 1
    assert "val: 2 faces on 2 images" in got.output
    assert re.search("not compared with other data: .*half.jpg", got.output)


def test_swapped_faces_are_listed_and_drawn(tmp_path: Path, app: typer.Typer) -> None:
    """The command shows them; `read_dataset`, for training, refuses such data."""
    for n in range(12):
        save(tmp_path, f"{n}.png", n)
    table = csv(tmp_path / "faces.csv", [f"{n}.png" for n in range(12)], list(range(12)))
    header, *rows = table.read_text().splitlines()
    for n in range(3):
        name, *numbers = rows[n].split(",")
        pairs = np.array(numbers).reshape(-1, 2)[[1, 0, 3, 2, 5, 4, 6]]
        rows[n] = ",".join([name, *pairs.ravel().tolist()])
    table.write_text("\n".join([header, *rows]))
    with pytest.raises(ValueError, match="left and right are swapped in 3 of 12 faces"):
        read_dataset(table, SCHEME)
    options = ["--scheme", str(tmp_path / "seven.json"), "--sheet", str(tmp_path / "sheet.png")]
    got = CliRunner().invoke(app, [str(table), *options])
    assert got.exit_code == 1
    assert "problem: left and right are swapped in 3 of 12 faces" in got.output
    assert all(f"faces.csv#{n + 2} ({n}.png): the face fits the mean shape only with" in got.output for n in range(3))
    assert (tmp_path / "sheet.png").is_file()


def test_mistakes_that_concern_many_faces(clean: Dataset, tmp_path: Path) -> None:
    assert check(clean).problems == ()

    def changed(points: Any) -> Dataset:
        made = []
        for face in clean.records:
            assert face.labels is not None
            made.append(record(face.image, points(face.labels.points), face.key))
        return replace(clean, records=tuple(made))

    zeros = check(changed(lambda p: np.concatenate((p[:6], [[0, 0]])))).problems[-1]
    assert zeros.startswith("20 landmarks of 20 faces are labelled at 0, 0. A landmark that is not labelled has")
    fractions = check(changed(lambda p: p / 160)).problems[-1]
    assert "They seem to be fractions of the image, expected pixels" in fractions
    boxed = [replace(face, boxes={"annotated": face.boxes["landmarks"] + (3, 3, -3, -3)}) for face in clean.records]
    assert check(replace(clean, records=tuple(boxed))).problems == ()
    half = [replace(face, boxes={"annotated": face.boxes["landmarks"] / 2}) for face in clean.records]
    some = check(replace(clean, records=(*half[:2], *boxed[2:])))
    assert (some.problems, {finding.key for finding in some.beside}) == ((), {"k0", "k1"})
    assert "landmarks outside the box: 2\n" in some.text()
    assert {"k0", "k1"} <= set(some.suspects)
    assert check(replace(clean, records=(*half[:11], *boxed[11:]))).problems == (
        "most landmarks of 11 faces lie outside their boxes. Boxes and landmarks may be of another size of the image, "
        "or x and y are exchanged",
    )
    (nothing,) = check(replace(clean, records=tuple(replace(r, labels=None) for r in clean.records))).problems
    assert nothing.startswith("no face has points. In a COCO file they are the list 'keypoints'")


def test_faces_of_one_label_each(clean: Dataset) -> None:
    """They have no common shape. Warnings of numpy would stand between the lines of the report."""
    records = []
    for n, face in enumerate(clean.records):
        assert face.labels is not None
        records.append(replace(face, labels=replace(face.labels, weights=(np.arange(7) == n % 7).astype(float))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not check(replace(clean, records=tuple(records))).suspects


def test_check_counts_the_same_records_that_read_dataset_reads(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path, f"{n}.png", n)
    data = read_dataset(csv(tmp_path / "a.csv", ["0.png", "1.png", "2.png"], [0, 1, 2]), SCHEME)
    assert check(data).faces == 3
