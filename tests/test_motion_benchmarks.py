"""`benchmarks/video.py` and `benchmarks/roll.py`: figures of points that are known, and their tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.schemes import W300

Array = NDArray[Any]
FRAMES = 40


@pytest.fixture(scope="module")
def points() -> Array:
    """(68, 2) points of one face."""
    import skimage.data

    aligner = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    return aligner.align(skimage.data.astronaut(), (177, 80, 275, 200)).points.astype(np.float64)


def truth(video: Any) -> Array:
    """(F, 68, 2) where the points are in the frames."""
    maps = np.array([video.matrix(frame) for frame in range(video.frames)])
    return np.asarray(video.points @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2])


def video_of(module: Any, points: Array, motion: str) -> Any:
    return module.Video(np.zeros((512, 512, 3), np.uint8), points, motion, 4.0, FRAMES)


@pytest.mark.parametrize("motion", ["rest", "smooth", "fast", "stop"])
def test_exact_points_have_no_error(part: Any, points: Array, motion: str) -> None:
    module = part("video")
    video = video_of(module, points, motion)
    found = module.measure(video, truth(video), W300)
    assert {name: round(value, 6) for name, value in found.items()} == dict.fromkeys(found, 0)


def test_figures_of_noise_are_those_of_its_distribution(part: Any, points: Array) -> None:
    """For noise of deviation s in x and y: the spread is s sqrt(2), the second difference s sqrt(6) sqrt(pi / 2)."""
    module = part("video")
    video = video_of(module, points, "rest")
    scale = np.linalg.norm(video.matrix(0)[:, 0])
    norm = float(W300.distance(points[None])[0]) * scale
    deviation = 0.02 * norm
    found = module.measure(video, truth(video) + np.random.default_rng(0).normal(0, deviation, (FRAMES, 68, 2)), W300)
    assert found["spread"] == pytest.approx(100 * 0.02 * np.sqrt(2), rel=0.05)
    assert found["second"] == pytest.approx(100 * 0.02 * np.sqrt(6 * np.pi / 2), rel=0.05)
    assert found["NME"] == pytest.approx(100 * 0.02 * np.sqrt(np.pi / 2), rel=0.05)


@pytest.mark.parametrize("late", [0.25, 1.0])
def test_late_points_have_their_lag(part: Any, points: Array, late: float) -> None:
    module = part("video")
    video = video_of(module, points, "fast")
    now = truth(video)
    before = np.concatenate((now[:1], now[:-1]))
    assert module.measure(video, now + late * (before - now), W300)["lag"] == pytest.approx(late, abs=0.1)


def test_frames_without_the_face_do_not_change_the_lag(part: Any, points: Array) -> None:
    module = part("video")
    video = video_of(module, points, "fast")
    now = truth(video)
    late = np.concatenate((now[:1], now[:-1]))
    late[10::2] = np.nan
    assert module.measure(video, late, W300)["lag"] == pytest.approx(1, abs=0.2)


def test_missing_faces_are_counted(part: Any, points: Array) -> None:
    module = part("video")
    video = video_of(module, points, "rest")
    found = truth(video)
    found[7:9] = np.nan
    figures = module.measure(video, found, W300)
    assert figures["lost"] == 2
    assert figures["NME"] == pytest.approx(0, abs=1e-6)


def test_bars_say_what_holds(part: Any) -> None:
    module = part("video")
    figures = dict.fromkeys(module.FIGURES, 0.2)
    rows = [
        {"motion": motion, "noise": 4.0, "way": way} | figures | ({"NME": 0.3} if (motion, way) == worse else {})
        for worse in [("fast", "smoothed")]
        for motion in ("smooth", "fast")
        for way in ("frame by frame", "smoothed")
    ]
    lines = module.bars(rows)
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["holds"] * 4 + ["does not hold"]
    assert lines[-1].startswith("- NME, fast, noise 4: 0.300, at most 0.200")


def test_the_one_euro_filter_by_hand(part: Any) -> None:
    """A first-order filter whose cut-off is 1 Hz plus 30 times the smoothed speed. It starts anew after a gap."""
    one_euro = part("one_euro").one_euro
    points = np.array([[[0.0, 0.0], [10.0, 0.0]]]).repeat(5, 0)
    points[2, :, 0] += 1.0
    points[3] = np.nan
    found = one_euro(points, 0.1)
    assert found[:2].tolist() == points[:2].tolist()
    size = 5.0
    taken = 2 * np.pi * 0.1 / (1 + 2 * np.pi * 0.1)
    cutoff = 1 + 30 * taken * (1.0 / 0.1 / size)
    assert found[2, :, 0] - points[1, :, 0] == pytest.approx(2 * np.pi * cutoff * 0.1 / (1 + 2 * np.pi * cutoff * 0.1))
    assert np.isnan(found[3]).all()
    assert found[4].tolist() == points[4].tolist()


def test_the_row_of_a_model_at_all_rolls(part: Any) -> None:
    """Ratios to the upright faces: 3.15 / 3 = 1.05, and 3.6 / 3 = 1.2, which is above the bar of 1.15."""
    roll = part("roll")
    row = {"faces": 2, "step": 90, "nme": {"0": 3.0, "90": 3.0, "180": 3.6, "270": 3.0}}
    assert roll.summary(row) == [2, "90", 3.0, 3.15, "1.050", "1.200", "180", "no"]
    held = row | {"nme": {"0": 3.0, "90": 3.0, "180": 3.3, "270": 3.0}}
    assert roll.summary(held)[-1] == "yes"
    lines = roll.markdown({"HIH_N/300w": row | {"data": "made", "measured": "now"}})
    assert lines[2] == "| `HIH_N/300w` | 2 | 90 | 3.00 | 3.15 | 1.050 | 1.200 | 180 | no |"
    assert lines[-1] == "- HIH_N/300w, `made`: now"
