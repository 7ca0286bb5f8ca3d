"""`quantization`, compared with arithmetic written out here and with the paper's figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.schemes import W300, Scheme
from reproduction.paper import IDEAL as PAPER
from reproduction.quantization import main as command
from reproduction.quantization import plot
from reproduction.quantization import quantization_error as quantization

POINTS = Scheme("points", tuple(map(str, range(40))), normalizers={"inter-ocular": ((0,), (1,)), "side": ((2,), (3,))})


def dataset(
    points: NDArray[np.float64], weights: NDArray[np.float64] | None = None, scheme: Scheme = POINTS
) -> Dataset:
    """Faces whose first two landmarks are 100 px apart and whose tight boxes are 200 px wide."""
    weights = np.ones(points.shape[:2]) if weights is None else weights
    boxes = {"landmarks": np.array([0, 0, 1, 1.0])}
    records = [
        Record(Path("x"), Labels(p, w), boxes, key=str(n)) for n, (p, w) in enumerate(zip(points, weights, strict=True))
    ]
    return Dataset("made", scheme, tuple(records), Path("made"))


def faces(n: int, seed: int = 0) -> NDArray[np.float64]:
    """(n, 40, 2) landmarks, the first two 100 px apart, in tight boxes of 200 px."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 200, (n, 40, 2))
    points[:, 0], points[:, 1] = (50, 60), (150, 60)
    points[:, 2], points[:, 3] = (0, 0), (200, 200)
    return points + rng.uniform(0, 1000, (n, 1, 2))


def by_hand(points: NDArray[np.float64], ratio: float, cells: int) -> float:
    """The quantization error in percent of 100 px, for boxes of 200 px."""
    heat = ((points - points[:, 2:3] - 100) * 256 / (200 * ratio) + 127.5) / 4
    if cells == 0:
        found = np.floor(heat + 0.5)
    else:
        whole = np.floor(heat)
        found = whole + np.clip(np.floor((heat - whole) * cells + 0.5), 0, cells - 1) / cells
    return float((np.linalg.norm(found - heat, axis=-1) * 4 * 200 * ratio / 256).mean())


@pytest.mark.parametrize("ratio", [1.15, 1.25, 2.0])
def test_agrees_with_arithmetic(ratio: float) -> None:
    points = faces(30)
    got = quantization(dataset(points), ratio)
    assert [row.decimal_size for row in got.rows] == [0, 4, 8, 16]
    assert [row.nme for row in got.rows] == pytest.approx([by_hand(points, ratio, n) for n in (0, 4, 8, 16)], rel=1e-4)
    assert (got.faces, got.masked, got.crop_ratio, got.normalizer) == (30, 0, ratio, "inter-ocular")


def test_other_normalizers() -> None:
    points = faces(5)
    eyes, side = (quantization(dataset(points), normalizer=name).rows[0].nme for name in ("inter-ocular", "side"))
    assert eyes / side == pytest.approx(np.sqrt(2) * 200 / 100)


def test_uniform_points_have_the_error_that_theory_predicts() -> None:
    """The mean distance of a uniform point from its pixel's centre is (sqrt(2) + asinh(1)) / 6 of the pixel's side."""
    got = quantization(dataset(faces(300)), 1.28)  # four pixels of the crop are four pixels of the image
    # four of the 40 landmarks are not uniformly distributed
    assert got.rows[0].nme == pytest.approx(4 * (np.sqrt(2) + np.arcsinh(1)) / 6, rel=0.05)


def test_missing_landmarks_do_not_count() -> None:
    points = faces(4)
    weights = np.ones((4, 40))
    weights[:, 10:] = 0
    broken = points.copy()
    broken[:, 10:] = np.nan
    weights[3, 0] = 0  # this landmark is an end of the normalising distance
    got = quantization(dataset(broken, weights))
    assert got.faces == 3
    assert got.rows[2].nme == pytest.approx(by_hand(points[:3, :10], 1.15, 8), rel=1e-4)


def test_landmarks_outside_the_crop_are_masked() -> None:
    points = faces(10)
    got = quantization(dataset(points), 0.8)
    heat = ((points - points[:, 2:3] - 100) * 256 / 160 + 127.5) / 4
    inside = ((heat >= 0) & (heat < 64)).all(-1)
    assert got.masked == (~inside).sum() > 0
    assert got.rows[1].nme < by_hand(points, 0.8, 4) * 1.2


def test_published_figures() -> None:
    scheme = replace(POINTS, id="wflw")
    got = quantization(dataset(faces(3), scheme=scheme))
    assert [row.paper for row in got.rows] == [1.285, 0.420, 0.182, 0.091]
    assert got.rows[0].share["SOTA"] == pytest.approx(100 * got.rows[0].nme / 4.14)
    assert "| 8x8 |" in got.markdown()
    assert json.loads(json.dumps(got.to_dict()))["rows"][2]["decimal_size"] == 8
    other = quantization(dataset(faces(3), scheme=scheme), normalizer="side")
    assert all(row.paper is None and not row.share for row in other.rows)
    assert "paper" in quantization(dataset(faces(3))).markdown()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="crop_ratio is 0, expected a positive"):
        quantization(dataset(faces(1)), 0)
    with pytest.raises(ValueError, match="normalizer is 'pupils'"):
        quantization(dataset(faces(1)), normalizer="pupils")
    with pytest.raises(ValueError, match="decimal_size is 5"):
        quantization(dataset(faces(1)), decimal_sizes=(5,))
    unlabelled = np.ones((1, 40))
    unlabelled[0, 0] = 0
    with pytest.raises(ValueError, match="holds no face with all landmarks of 'inter-ocular'"):
        quantization(dataset(faces(1), unlabelled))
    boxes = {"annotated": np.array([0, 0, 9, 9.0])}
    with pytest.raises(ValueError, match="holds no faces with points"):
        quantization(Dataset("a", W300, (Record(Path("x"), None, boxes),), Path("a")))


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = [quantization(dataset(faces(2), scheme=replace(POINTS, id=i))) for i in ("wflw", "mine")]
    plot(results, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_the_papers_figures(shared: Path) -> None:
    got = quantization(read_dataset(shared / "data" / "wflw_dev", "wflw"), 1.15)
    for row in got.rows:
        assert row.nme == pytest.approx(PAPER["wflw"][row.decimal_size], rel=0.05)
    assert quantization(read_dataset(shared / "data" / "300w_test_lfpw", "300w"), 1.1).rows[0].nme == pytest.approx(
        1.111, rel=0.02
    )


def test_command(shared: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    options = ["--data", str(shared / "data" / "wflw_dev"), "--scheme", "wflw", "--crop-ratio", "1.15"]
    got = CliRunner().invoke(app, options)
    assert got.exit_code == 0
    assert "wflw_dev: 303 faces" in got.output
    assert "| 1.285 |" in got.output
    assert json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)["faces"] == 303
