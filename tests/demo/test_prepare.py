"""`examples/web/prepare.py`: the files of the static page, and what they say of a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsers import web_prepare

from hih_align import FaceAligner


@pytest.fixture(scope="module")
def prepare() -> Any:
    pytest.importorskip("onnx", reason="needs the extra [onnx]")
    return web_prepare()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_of_somebody_else_are_never_deleted(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my own site")
    (tmp_path / "model.json").write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"out: .* has 'index\.html', expected a new or empty folder"):
        prepare.main("HIH_N", "fp32", tmp_path)
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match=r"out: .*index\.html is a file, expected a folder"):
        prepare.main("HIH_N", "fp32", tmp_path / "index.html")
    with pytest.raises(FileNotFoundError, match=r"out: .* is in a folder that does not exist"):
        prepare.main("HIH_N", "fp32", tmp_path / "no" / "models")
    assert contents(tmp_path) == before


def test_an_earlier_model_is_replaced_and_stays_if_the_export_fails(
    prepare: Any, tmp_path: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(detector_file.parent))
    out = tmp_path / "models"
    out.mkdir()
    for name in prepare.FILES:
        (out / name).write_text("old")
    with pytest.raises(ValueError, match="precision is 'fp64', expected one of"):
        prepare.main("HIH_N", "fp64", out)
    assert set(contents(out).values()) == {b"old"}
    prepare.main("HIH_N", "fp32", out)
    made = contents(out)
    assert set(made) == set(prepare.FILES)
    assert json.loads(made["model.json"])["name"] == "HIH_N/300w"
    assert made[detector_file.name] == detector_file.read_bytes()
    assert len(made["model.onnx"]) > 1e6


def test_the_page_knows_the_points_and_the_boxes_of_the_network(prepare: Any) -> None:
    converting = FaceAligner.from_pretrained("HIH_T", "cofw", device="cpu")
    about = prepare.about(converting)
    assert len(converting.scheme) == 29
    assert (about["scheme"], len(about["names"])) == ("wflw", 98)  # the file gives these
    assert about["five"] == [list(group) for group in converting.config.scheme.five]
    assert (about["refits"], about["box"]) == (True, None)
    reach = (0.2, 0.3, 0.2, 0.1)
    adapted = converting.with_config(replace(converting.config, box=reach))
    assert prepare.about(adapted)["box"] == reach
    uncalibrated = converting.with_config(replace(converting.config, calibration={}))
    assert [prepare.about(one)["calibrated"] for one in (converting, uncalibrated)] == [True, False]
    selected = FaceAligner.from_pretrained("HIH_T", "wflw", device="cpu").select(range(60, 98))
    assert (prepare.about(selected)["refits"], prepare.about(selected)["refine"]) == (False, 0)
