from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from hih_align.crops import square_crop, warp
from hih_align.data.annotations import Dataset, Labels, Record
from hih_align.data.faces import FaceStore, StreamingFaces, store_bytes
from hih_align.images import write_image
from hih_align.schemes import W300, Scheme

SCHEME = Scheme("four", ("left_eye", "right_eye", "nose", "chin"), mirror=((0, 1),))
# the eyes, nose and chin of scikit-image's astronaut photograph
POINTS = np.array([[207.0, 119.0], [247.5, 112.25], [229.0, 139.0], [232.0, 193.0]])
BOX = np.array([177.0, 80.0, 275.0, 200.0])


def record(path: Path, key: str = "a", shift: float = 0.0, missing: int | None = None) -> Record:
    points, weights = POINTS + shift, np.array([1.0, 0.5, 1.0, 1.0])
    if missing is not None:
        points[missing], weights[missing] = np.nan, 0.0
    boxes = {"annotated": BOX + shift, "wide": BOX + shift + np.array([-20.0, -30.0, 10.0, 0.0])}
    return Record(path, Labels(points, weights), boxes, {"pose": 1.0}, key)


def dataset(*records: Record, scheme: Scheme = SCHEME) -> Dataset:
    return Dataset("test", scheme, records, Path("test"))


@pytest.fixture
def photograph(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    path = tmp_path / "astronaut.png"
    write_image(path, astronaut)
    return path


def build(*records: Record, **options: object) -> FaceStore:
    return FaceStore.build(dataset(*records), progress=False, **options)  # type: ignore[arg-type]


def test_stores_the_square_around_the_box(photograph: Path, astronaut: NDArray[np.uint8]) -> None:
    store = build(record(photograph, "astronaut", missing=2))
    crop = square_crop(BOX, 2.0, 384)
    assert store.images.shape == (1, 384, 384, 3)
    assert store.images.dtype == torch.uint8
    np.testing.assert_array_equal(store.images[0].numpy(), warp(astronaut, crop.matrix, 384))
    assert store.points.dtype == store.weights.dtype == torch.float32
    assert store.weights.tolist() == [[1.0, 0.5, 0.0, 1.0]]
    labelled = [0, 1, 3]
    np.testing.assert_allclose(store.points[0].numpy()[labelled], crop.to_crop(POINTS)[labelled], atol=1e-3)
    assert store.points[0, 2].tolist() == [0.0, 0.0]  # not the record's NaN: NaN times a weight of 0 is still NaN
    assert (store.keys, store.attributes, store.margin) == (("astronaut",), ({"pose": 1.0},), 2.0)


@pytest.mark.parametrize(("side", "margin"), [(384, 2.0), (256, 1.6)])
def test_a_face_comes_back_from_its_store(
    photograph: Path, astronaut: NDArray[np.uint8], side: int, margin: float
) -> None:
    store = build(record(photograph), side=side, margin=margin)
    crop = store.crops[0]
    np.testing.assert_allclose(crop.to_image(store.points[0].numpy()), POINTS, atol=1e-3)
    # warped back to the image, the stored face is where it was
    again = warp(store.images[0].numpy(), np.linalg.inv(np.vstack((crop.matrix, (0, 0, 1))))[:2], 512)
    before, after = (image[80:200, 177:275].mean(2) for image in (astronaut, again))
    assert np.abs(before - after).mean() < 5
    (dx, dy), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow((98, 120), cv2.CV_64F))
    assert abs(dx) < 0.1  # OpenCV interpolates in steps of 1/32 pixel
    assert abs(dy) < 0.1


def test_faces_keep_their_order_with_any_number_of_workers(tmp_path: Path) -> None:
    pictures = {"a.png": skimage.data.astronaut(), "b.png": skimage.data.astronaut()[:, ::-1].copy()}
    for name, picture in pictures.items():
        write_image(tmp_path / name, picture)
    records = [record(tmp_path / f"{'ab'[n % 2]}.png", str(n), shift=3.0 * n) for n in range(7)]
    one, three = build(*records, workers=1, side=64), build(*records, workers=3, side=64)
    assert one.keys == three.keys == tuple("0123456")
    assert torch.equal(one.images, three.images)
    for n, (stored, one_record) in enumerate(zip(one.images, records, strict=True)):
        crop = square_crop(one_record.box, 2.0, 64)
        np.testing.assert_array_equal(stored.numpy(), warp(pictures["ab"[n % 2] + ".png"], crop.matrix, 64))


def test_the_named_box_is_used(photograph: Path) -> None:
    store = build(record(photograph), box="wide", margin=1.5)
    assert store.crops[0] == square_crop([157, 50, 285, 200], 1.5, 384)
    with pytest.raises(ValueError, match=r"a has no box 'rect', it has \['annotated', 'wide'\]"):
        build(record(photograph), box="rect")


def test_several_datasets_of_one_scheme(photograph: Path) -> None:
    first = dataset(record(photograph, "a"), record(photograph, "b", 2))
    second = dataset(record(photograph, "c", 4))
    store = FaceStore.build([first, second], side=32, progress=False)
    assert store.sources.tolist() == [0, 0, 1]
    assert store.keys == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"schemes.*300w.*four"):
        FaceStore.build([first, dataset(record(photograph), scheme=W300)], progress=False)


def test_records_without_points_are_left_out(photograph: Path) -> None:
    empty = Record(photograph, None, {"annotated": BOX}, {}, "empty")
    assert build(empty, record(photograph, "full"), side=32).keys == ("full",)
    with pytest.raises(ValueError, match="no face with points"):
        build(empty)


def test_bad_photographs_are_named_or_skipped(photograph: Path, tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(photograph.read_bytes()[:5000])
    bad = [record(broken, "first"), record(broken, "second", 2), record(missing, "third")]
    records = [record(photograph, "good"), *bad]
    with pytest.raises(ValueError, match=r"first: .*broken\.png"):
        build(*records)
    with pytest.raises(FileNotFoundError, match=r"third: .*missing\.png"):
        build(records[0], records[3])
    with pytest.warns(UserWarning, match="3 faces of 2 photographs"):
        store = build(*records, record(photograph, "last", 5), skip_bad=True, side=32)
    assert store.keys == ("good", "last")
    assert len(store.images) == len(store.points) == len(store.weights) == len(store.sources) == len(store.crops) == 2
    assert store.images.flatten(1).any(1).all()
    with pytest.warns(UserWarning, match="3 faces"), pytest.raises(ValueError, match="no face whose photograph"):
        build(*bad, skip_bad=True)


def test_a_data_set_that_does_not_fit_into_memory_is_refused(photograph: Path) -> None:
    assert store_bytes(10, 100) == 300_000
    with pytest.raises(ValueError, match=r"2 faces of 384 px take .* StreamingFaces"):
        build(record(photograph), record(photograph, "b", 1), limit=store_bytes(1))
    assert len(build(record(photograph), limit=store_bytes(1))) == 1


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 5.0], [np.nan, 0.0, 1.0, 1.0]])
def test_a_box_without_a_side_is_an_error(photograph: Path, box: list[float]) -> None:
    bad = Record(photograph, Labels(POINTS, np.ones(4)), {"annotated": np.array(box)}, {}, "flat")
    with pytest.raises(ValueError, match="flat: the longer side of its box"):
        build(bad)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_streaming_gives_the_same_faces_as_a_store(photograph: Path, workers: int) -> None:
    records = [record(photograph, str(n), 7.0 * n, missing=n % 4) for n in range(5)]
    store = build(*records, side=96, margin=1.8)
    streamed = StreamingFaces(dataset(*records), side=96, margin=1.8, workers=workers)
    assert len(streamed) == len(store) == 5
    assert (streamed.margin, streamed.crops) == (store.margin, store.crops)
    rows = [[0, 3], [4], [1, 1, 2], [0], [2, 4]]  # more than are made ahead
    for row, batch in zip(rows, streamed.batches(rows), strict=True):
        for got, want in zip(batch, store.gather(torch.tensor(row)), strict=True):
            assert torch.equal(got, want)


def test_a_photograph_that_disappears_is_named_by_its_batch(photograph: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    gone.write_bytes(photograph.read_bytes())
    streamed = StreamingFaces(dataset(record(photograph, "a"), record(gone, "b")), side=32)
    gone.unlink()
    batches = streamed.batches([[0], [1]])
    assert len(next(batches).points) == 1
    with pytest.raises(FileNotFoundError, match=r"b: .*gone\.png"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hih-align-cut")]


def test_gather_and_to(photograph: Path) -> None:
    store = build(*(record(photograph, str(n), 5.0 * n) for n in range(3)), side=32)
    face = store.gather(torch.tensor([2, 0]))
    assert torch.equal(face.image, store.images[[2, 0]])
    assert torch.equal(face.points, store.points[[2, 0]])
    assert torch.equal(face.weights, store.weights[[2, 0]])
    moved = store.to("meta")
    assert moved.device == moved.points.device == moved.weights.device == torch.device("meta")
    assert len(moved) == 3
