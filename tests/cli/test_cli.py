"""The `hih-align` command. Most tests call it in this process, a few start it as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from click.testing import Result
from numpy.typing import NDArray
from typer.testing import CliRunner

import hih_align.cli.app
import hih_align.cli.folder
from hih_align import FaceAligner, Landmarks
from hih_align.cli.align import _of_photo
from hih_align.cli.app import app
from hih_align.hub.manifest import manifest_path, read_manifest
from hih_align.images import write_image

#: The face in the part of the astronaut's photograph that these tests use.
BOX = (27.0, 20.0, 125.0, 140.0)
OTHER = (20.5, 14.0, 130.0, 145.25)


def run(*words: object, code: int = 0, **env: str) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"HIH_ALIGN_TRACEBACK": None} | env)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def run_align(*words: object, **options: Any) -> Result:
    """Align with HIH_N, which is several times faster than the default, unless the words name another model."""
    model = () if "--model" in words else ("--model", "HIH_N")
    return run("align", *words, *model, "--refine", 0, "--device", "cpu", **options)


def program(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Start the program as a user does."""
    path = os.pathsep.join([str(Path(hih_align.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "hih_align", *map(str, words)],
        env=os.environ | {"PYTHONPATH": path} | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def faces_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(PIL.Image.open(path))


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    return np.ascontiguousarray(skimage.data.astronaut()[60:230, 150:310])


@pytest.fixture(scope="module")
def expected(aligner: FaceAligner, photograph: NDArray[np.uint8]) -> Landmarks:
    """The landmarks in both boxes."""
    return aligner.align(photograph, [BOX, OTHER], refine=0)


@pytest.fixture
def photo(photograph: NDArray[np.uint8], tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(photograph).save(path)
    return path


@pytest.fixture
def folder(photograph: NDArray[np.uint8], tmp_path: Path) -> Path:
    """Three photographs. One of them has two boxes, one has one box, and one has no box."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "more/b c.png", "none.png"):
        PIL.Image.fromarray(photograph).save(folder / name)
    return folder


def coco(path: Path) -> Path:
    x1, y1, x2, y2 = OTHER
    data = {
        "images": [
            {"id": 7, "file_name": "a.png"},
            {"id": 3, "file_name": "none.png"},
            {"id": 9, "file_name": "more/b c.png"},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "bbox": [27, 20, 98, 120]},
            {"id": 2, "image_id": 7, "bbox": [27, 20, 98, 120]},
            {"id": 3, "image_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]},
        ],
    }
    path.write_text(json.dumps(data))
    return path


def table(path: Path) -> Path:
    path.write_text("file,x1,y1,x2,y2\n# two of one photograph\na.png,27,20,125,140\na.png,20.5,14,130,145.25\n"
                    '"more/b c.png",27,20,125,140\n')  # fmt: skip
    return path


def same(line: dict[str, Any], face: Landmarks, file: str, index: int) -> None:
    assert set(line) == {"file", "index", "bbox", "scheme", "points", "scores", "model"}
    assert (line["file"], line["index"]) == (file, index)
    assert (line["scheme"], line["model"]) == (face.scheme.id, face.model)
    np.testing.assert_allclose(line["bbox"], face.bbox)
    np.testing.assert_allclose(line["points"], face.points, atol=1e-3)
    np.testing.assert_allclose(line["scores"], face.scores, atol=1e-4)


def of_folder(lines: list[dict[str, Any]], expected: Landmarks) -> None:
    """Check the lines for `folder` with the boxes of `coco` or `table`."""
    assert len(lines) == 3
    for line, (face, file, index) in zip(
        lines, [(expected[0], "a.png", 0), (expected[1], "a.png", 1), (expected[0], "more/b c.png", 0)], strict=True
    ):
        same(line, face, file, index)


# a photograph


def test_a_photograph_to_the_standard_output(photo: Path, expected: Landmarks) -> None:
    (line,) = faces_in(run_align(photo, "--bbox", *BOX).stdout)
    same(line, expected[0], "photo.png", 0)


def test_several_boxes_an_overlay_and_a_file(
    photo: Path, photograph: NDArray[np.uint8], expected: Landmarks, tmp_path: Path
) -> None:
    out, points = tmp_path / "drawn.png", tmp_path / "points.json"
    words = ["--bbox", *BOX, "--out", out, "--bbox", *OTHER, "--json", points]
    assert run_align(photo, *words).stdout == ""
    for index, (line, face) in enumerate(zip(json.loads(points.read_text()), expected, strict=True)):
        same(line, face, "photo.png", index)
    np.testing.assert_array_equal(read(out), expected.draw(photograph))
    np.testing.assert_array_equal(read(photo), photograph)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.png", "photo.png", "points.json"]
    # once more to the same files, with one face
    run_align(photo, "--bbox", *BOX, "--out", out, "--json", points)
    assert len(json.loads(points.read_text())) == 1
    np.testing.assert_array_equal(read(out), expected[0].draw(photograph))


def test_an_overlay_alone(photo: Path, tmp_path: Path) -> None:
    assert run_align(photo, "--out", tmp_path / "o.jpg", "--bbox", *BOX).stdout == ""
    assert read(tmp_path / "o.jpg").shape == (170, 160, 3)


@pytest.mark.parametrize(
    "words", [["--bbox", "-8", "-9.5", "90", "1e2"], ["--bbox=-8,-9.5,90,100"], ["--bbox=-8 -9.5 90 100"]]
)
def test_negative_numbers(photo: Path, aligner: FaceAligner, photograph: NDArray[np.uint8], words: list[str]) -> None:
    (line,) = faces_in(run_align(photo, *words).stdout)
    same(line, aligner.align(photograph, (-8, -9.5, 90, 100), refine=0), "photo.png", 0)


@pytest.mark.parametrize("boxes", [coco, table])
def test_boxes_of_a_photograph_from_a_file(
    folder: Path, expected: Landmarks, tmp_path: Path, boxes: Callable[[Path], Path]
) -> None:
    lines = faces_in(run_align(folder / "a.png", "--boxes", boxes(tmp_path / "boxes")).stdout)
    for index, (line, face) in enumerate(zip(lines, expected, strict=True)):
        same(line, face, "a.png", index)


@pytest.mark.parametrize("name", ["photos/a.png", "{folder}/a.png", "./photos/a.png"])
def test_boxes_of_a_photograph_in_a_subfolder(folder: Path, tmp_path: Path, name: str) -> None:
    """A name with a folder is preferred to the bare name, which may be another photograph's and here is longer."""
    lines = ["./././././././a.png,0,0,5,5", f"{name.format(folder=folder)},27,20,125,140", "other/a.png,1,1,6,6"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    np.testing.assert_array_equal(_of_photo(tmp_path / "boxes.csv", folder / "a.png"), [[27, 20, 125, 140]])


def test_boxes_of_a_link_have_the_name_of_the_link(folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to("a.png")
    (tmp_path / "boxes.csv").write_text("a.png,0,0,5,5\nlink.png,27,20,125,140")
    np.testing.assert_array_equal(_of_photo(tmp_path / "boxes.csv", folder / "link.png"), [[27, 20, 125, 140]])


def test_options(photo: Path, photograph: NDArray[np.uint8]) -> None:
    words = ["--model", "HIH_N/wflw", "--scheme", "cofw", "--decode", "argmax", "--mirror", "--dtype", "float32"]
    (line,) = faces_in(run("align", photo, "--bbox", *BOX, *words, "--refine", 1, "--device", "cpu").stdout)
    there = FaceAligner.from_pretrained("HIH_N/wflw", scheme="cofw", decode="argmax", device="cpu")
    face = there.align(photograph, BOX, refine=1, mirror=True)
    assert len(line["points"]) == 29
    same(line, face, "photo.png", 0)


# a folder


@pytest.mark.parametrize("boxes", [coco, table])
def test_a_folder(folder: Path, expected: Landmarks, tmp_path: Path, boxes: Callable[[Path], Path]) -> None:
    points = tmp_path / "points.jsonl"
    words = [folder, "--boxes", boxes(tmp_path / "boxes"), "--batch-size", 2]
    result = run_align(*words, "--json", points)
    assert result.stdout == ""
    assert "3/3" in result.stderr  # from the progress bar
    of_folder(faces_in(points.read_text()), expected)
    # all faces are done, so no face is aligned again
    before = points.read_bytes()
    run_align(*words, "--json", points)
    assert points.read_bytes() == before


def test_a_folder_to_the_standard_output_and_to_overlays(folder: Path, expected: Landmarks, tmp_path: Path) -> None:
    boxes, out = table(tmp_path / "boxes.csv"), tmp_path / "drawn" / "here"
    of_folder(faces_in(run_align(folder, "--boxes", boxes).stdout), expected)
    assert run_align(folder, "--boxes", boxes, "--out", out).stdout == ""
    drawn = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert drawn == {"a.png", "more/b c.png"}
    image = read(folder / "a.png")
    np.testing.assert_array_equal(read(out / "a.png"), expected.draw(image))
    np.testing.assert_array_equal(read(out / "more/b c.png"), expected[:1].draw(image))


@pytest.mark.parametrize(
    ("kept", "cut"), [(1, ""), (1, '{"fi'), (1, '{"file": "a.png", "index": 1, "bbox": [27.0, 2'), (1, None), (2, "")]
)
def test_resuming(folder: Path, expected: Landmarks, tmp_path: Path, kept: int, cut: str | None) -> None:
    points = tmp_path / "points.jsonl"
    lines = [
        json.dumps({"file": "a.png", "index": index} | face.to_dict() | {"scores": [0.5] * 68})
        for index, face in enumerate(expected)
    ]
    # None: the file ends just before the line's end
    points.write_text("".join(line + "\n" for line in lines[:kept]) + (lines[1] if cut is None else cut))
    done = run_align(folder, "--boxes", table(tmp_path / "boxes.csv"), "--json", points)
    assert f"holds {kept} faces of an earlier run, which are kept" in done.stderr
    found = faces_in(points.read_text())
    earlier = [line["scores"] == [0.5] * 68 for line in found]
    assert earlier == [True] * kept + [False] * (3 - kept)
    again = [face.to_dict()["scores"] for face in expected]
    of_folder(
        [line | {"scores": again[line["index"]]} if was else line for line, was in zip(found, earlier, strict=True)],
        expected,
    )


def test_a_face_is_done_only_when_its_image_is_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an image cannot be drawn, the run stops. The next run draws this image."""
    points, out = tmp_path / "points.jsonl", tmp_path / "drawn"
    words = [folder, "--boxes", table(tmp_path / "boxes.csv"), "--json", points, "--out", out, "--batch-size", 1]

    def full(path: Path, array: NDArray[np.uint8]) -> None:
        if path.name == "b c.png":
            raise OSError("no space left")
        write_image(path, array)

    monkeypatch.setattr(hih_align.cli.folder, "write_image", full)
    assert run_align(*words, code=1).stderr.splitlines()[-1] == "hih-align: no space left"
    assert [line["file"] for line in faces_in(points.read_text())] == ["a.png", "a.png"]
    monkeypatch.undo()
    run_align(*words)
    assert [line["file"] for line in faces_in(points.read_text())] == ["a.png", "a.png", "more/b c.png"]
    assert (out / "more" / "b c.png").is_file()


def test_faces_of_another_model_are_refused(folder: Path, expected: Landmarks, tmp_path: Path) -> None:
    points = tmp_path / "points.jsonl"
    line = json.dumps({"file": "a.png", "index": 0} | expected[0].to_dict() | {"model": "mine/98"}) + "\n"
    points.write_text(line)
    error = run_align(folder, "--boxes", table(tmp_path / "boxes.csv"), "--json", points, code=1).stderr
    other = "line 1 is of the model mine/98 (300w), but the model of this run is HIH_N/300w (300w): use another file"
    assert other in error
    assert points.read_text() == line


@pytest.mark.parametrize("content", ['{"images": []}', "not ours", "file,x1,y1\n", '{"file": 3}\n', "[1]\n", "{}"])
def test_a_file_with_other_content_is_not_changed(folder: Path, tmp_path: Path, content: str) -> None:
    points = tmp_path / "precious.json"
    points.write_text(content)
    error = run_align(folder, "--boxes", table(tmp_path / "b.csv"), "--json", points, code=1).stderr
    assert "precious.json, line 1 is not a face of an earlier run" in error
    assert points.read_text() == content


def test_a_picture_of_a_format_that_is_only_read_is_a_png(folder: Path, expected: Landmarks, tmp_path: Path) -> None:
    """Pillow reads PSD files, and files of any name, but writes neither."""
    boxes, out = tmp_path / "boxes.csv", tmp_path / "drawn"
    for name in ("a.psd", "b"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    boxes.write_text("a.psd,27,20,125,140\nb,27,20,125,140\n")
    run_align(folder, "--boxes", boxes, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["a.psd.png", "b.png"]
    np.testing.assert_array_equal(read(out / "b.png"), expected[:1].draw(read(folder / "a.png")))


def test_photographs_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    before = (folder / "a.png").read_bytes()
    boxes = table(tmp_path / "boxes.csv")
    error = run_align(folder, "--boxes", boxes, "--out", folder, code=1).stderr
    assert "is an input itself" in error
    error = run_align(folder / "a.png", "--boxes", boxes, "--out", folder / "more" / ".." / "a.png", code=1).stderr
    assert "is an input itself" in error
    for inputs in ((folder / "a.png", "--bbox", "27 20 125 140"), (folder / "a.png", "--boxes", boxes)):
        for name in (folder / "a.png", boxes) if boxes in inputs else (folder / "a.png",):
            assert f"json: {name} is an input itself" in run_align(*inputs, "--json", name, code=1).stderr
    assert f"json: {boxes} is an input itself" in run_align(folder, "--boxes", boxes, "--json", boxes, code=1).stderr
    assert boxes.read_text() == table(tmp_path / "again.csv").read_text()
    for name, message in (("../photos/a.png", "outside"), (str(folder / "a.png"), "an input itself")):
        boxes.write_text(f"{name},27,20,125,140\n")
        assert message in run_align(folder, "--boxes", boxes, "--out", tmp_path / "drawn" / "x", code=1).stderr
    assert (folder / "a.png").read_bytes() == before


@pytest.mark.parametrize(("code", "at_once"), [(130, [130]), (1, []), (0, [])])
def test_only_an_interrupted_command_ends_without_the_interpreters_end(
    monkeypatch: pytest.MonkeyPatch, code: int, at_once: list[int]
) -> None:
    """There, threads of PyTorch that still work can abort the process, which then has another exit code."""
    ended: list[int] = []
    monkeypatch.setattr(hih_align.cli.app, "app", lambda: sys.exit(code))
    monkeypatch.setattr(os, "_exit", ended.append)
    with contextlib.suppress(SystemExit):
        hih_align.cli.app.main()
    assert ended == at_once


def test_a_bad_photograph_is_left_out_until_it_is_repaired(folder: Path, tmp_path: Path, expected: Landmarks) -> None:
    (folder / "more" / "b c.png").write_bytes(b"no image")
    points = tmp_path / "points.jsonl"
    words = [folder, "--boxes", table(tmp_path / "boxes.csv"), "--json", points, "--batch-size", 1]
    errors = run_align(*words, code=1).stderr
    assert re.search(r"left out: image '.*b c\.png' cannot be read", errors)
    assert re.search(r"hih-align: 1 images of .* cannot be read and are left out, first more/b c\.png\n$", errors)
    assert [(line["file"], line["index"]) for line in faces_in(points.read_text())] == [("a.png", 0), ("a.png", 1)]
    PIL.Image.fromarray(read(folder / "a.png")).save(folder / "more" / "b c.png")
    run_align(*words)
    of_folder(faces_in(points.read_text()), expected)


# errors: one line and exit code 1; exit code 2 for an invalid command line


def one_line(result: Result, message: str) -> None:
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert re.match(f"hih-align: .*{message}", lines[0]), lines[0]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/none.png", "--bbox", *BOX], "image: no such file: .*none.png"),
        (["{tmp}/text.png", "--bbox", *BOX], "image .*text.png' cannot be read"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--boxes", "{tmp}/boxes.csv"], "bbox"),
        (["{tmp}/photo.png", "--bbox", 125, 20, 27, 140], r"bbox 0 is \(125, 20, 27, 140\), expected x1 < x2"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--bbox", 900, 20, 990, 140], "bbox 1 is .* which lies outside the image"),
        (["{tmp}/photo.png", "--bbox", "nan", 20, 27, 140], "bbox 0 is .* expected finite"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--model", "HIH_X"], "model is 'HIH_X', expected one of"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--model", "my-modle"], "a folder that exists, or a Hub repository"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--model", "./HIH_X"], "model: no such folder: ./HIH_X"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--scheme", "68"], "scheme is '68', expected one of"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--device", "gpu"], "device is 'gpu'"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--dtype", "int3"], "dtype is 'int3'"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--decode", "mean"], "decode is 'mean'"),
        (["{tmp}/photo.png", "--bbox", *BOX, "--refine", -1], "refine is -1"),
        # an unknown model as well: the path is checked first
        (["{tmp}/photo.png", "--model", "HIH_X", "--out", "{tmp}/o.xyz"], r".*o\.xyz' has the suffix '.xyz'"),
        (
            ["{tmp}/photo.png", "--model", "HIH_X", "--out", "{tmp}/no/o.png"],
            r"out: .*no/o\.png is in a folder that does",
        ),
        (["{tmp}/photo.png", "--model", "HIH_X", "--json", "{tmp}/no/p.json"], "json: .*p.json is in a folder"),
        (["{tmp}/photos", "--model", "HIH_X", "--json", "{tmp}/no/p.json"], "json: .*p.json is in a folder"),
        (["{tmp}/photos", "--model", "HIH_X", "--json", "{tmp}"], "json: .* is a folder, expected the name of a file"),
        (["{tmp}/photo.png", "--boxes", "{tmp}/none.csv"], "boxes: no such file: .*none.csv"),
        (["{tmp}/photo.png", "--boxes", "{tmp}/boxes.csv"], "boxes: .* has no boxes for .*photo.png, only for a.png"),
        (["{tmp}/photo.png", "--boxes", "{tmp}/bad.csv"], "boxes: .*bad.csv, line 2 is 'a.png,1,2,3'"),
        (["{tmp}/photo.png", "--boxes", "{tmp}/bad.json"], "boxes: .*bad.json is not COCO JSON"),
        (["{tmp}/photos", "--boxes", "{tmp}/missing.csv"], "boxes: .* names 1 files that .* lacks, first nowhere.png"),
        (["{tmp}/photos", "--bbox", *BOX], "is a folder: expected --boxes with a file"),
        (["{tmp}/photos", "--boxes", "{tmp}/boxes.csv", "--out", "{tmp}/photo.png"], "File exists"),
    ],
)
def test_errors(photo: Path, folder: Path, tmp_path: Path, words: list[Any], message: str) -> None:
    table(tmp_path / "boxes.csv")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "bad.csv").write_text("file,x1,y1,x2,y2\na.png,1,2,3\n")
    (tmp_path / "bad.json").write_text('{"images": 3}')
    (tmp_path / "missing.csv").write_text("nowhere.png,1,2,30,40\n")
    words = [str(word).format(tmp=tmp_path) for word in words]
    if "--refine" not in words:
        words += ["--refine", "0"]
    one_line(run("align", *words, "--device", "cpu", code=1) if "--device" not in words
             else run("align", *words, code=1), message)  # fmt: skip


def without_weights(monkeypatch: pytest.MonkeyPatch, folder: Path, **change: object) -> None:
    """Use a manifest whose first checkpoint, HIH_T/300w, has no file on this machine."""
    data = json.loads(manifest_path().read_text("utf-8"))
    data["checkpoints"][0] |= change
    (folder / "weights_manifest.json").write_text(json.dumps(data))
    monkeypatch.setattr("hih_align.hub.manifest.manifest_path", lambda: folder / "weights_manifest.json")
    monkeypatch.setattr("hih_align.hub.manifest.packaged_weights", lambda: folder / "weights")
    monkeypatch.delenv("HIH_ALIGN_WEIGHTS", raising=False)


def test_calibrate_writes_nothing_into_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = manifest_path().read_text("utf-8")
    manifest = tmp_path / "hih_align" / "weights_manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(text, "utf-8")
    monkeypatch.setattr("hih_align.hub.manifest.__file__", str(manifest.parent / "hub" / "checkpoints.py"))
    # the error comes before the work: the missing data file is not noticed
    words = ("calibrate", "--model", "HIH_T/300w", "--data", tmp_path / "missing.json")
    one_line(
        run(*words, "--write", code=1), "model is 'HIH_T/300w', whose config is .*weights_manifest.json, a file of"
    )
    assert manifest.read_text("utf-8") == text


def test_weights_that_are_not_available(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_weights(monkeypatch, tmp_path)
    one_line(run("align", photo, "--bbox", *BOX, "--model", "HIH_T", code=1), "HIH_T/300w is not published: expected")


def test_a_bad_box_in_a_folder_names_its_photograph(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("a.png,27,20,125,140\nmore/b c.png,125,20,27,140\n")
    error = run_align(folder, "--boxes", tmp_path / "boxes.csv", "--batch-size", 1, code=1).stderr
    assert re.search(r"hih-align: bbox 0 is \(125, 20, 27, 140\), .*; in image '.*b c\.png'", error)
    assert "batch_size is 0" in run_align(folder, "--boxes", tmp_path / "boxes.csv", "--batch-size", 0, code=1).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align"], "Missing argument"),
        (["align", "a.png", "--bbox", "1", "2", "3"], "'1 2 3', expected four numbers x1 y1 x2 y2"),
        (["align", "a.png", "--bbox", "1", "2", "3", "four"], "expected four numbers"),
        (["align", "a.png", "--bbox"], "expected four numbers"),
        (["align", "a.png", "--bbox", "1", "2", "3", "--refine", "0"], "'1 2 3', expected four numbers"),
        (["align", "--bbox", "1", "2", "3", "a.png"], "photo.png', expected four numbers"),
        (["align", "a.png", "--refine", "much"], "--refine"),
        (["align", "a.png", "--boxen", "b.csv"], "--boxen"),
        (["convert", "a.pth"], "--scheme"),
        (["paint"], "paint"),
    ],
)
def test_invalid_command_lines(photo: Path, words: list[str], message: str) -> None:
    words = [str(photo) if word == "a.png" else word for word in words]
    result = run(*words, code=2)
    assert message in re.sub(r"\s+", " ", result.stderr)
    assert "Traceback" not in result.output


def test_a_traceback_on_request(photo: Path) -> None:
    result = CliRunner().invoke(app, ["align", "nowhere.png"], env={"HIH_ALIGN_TRACEBACK": "1"})
    assert isinstance(result.exception, FileNotFoundError)


def test_help() -> None:
    top = run("--help").stdout
    for command in ("align", "models", "convert"):
        assert command in top
    text = run("align", "--help").stdout
    for option in ("--bbox", "--boxes", "--out", "--json", "--model", "--scheme", "--device", "--refine", "--mirror"):
        assert option in text
    assert "align" in run(code=2).output  # without a command
    assert run("--version").stdout == f"hih-align {hih_align.__version__}\n"


# the other commands


def test_models() -> None:
    header, *rows = run("models").stdout.splitlines()
    assert header.split()[:3] == ["id", "scheme", "points"]
    manifest = read_manifest()
    assert [row.split()[0] for row in rows] == list(manifest)
    for text, row in zip(rows, manifest.values(), strict=True):
        assert text.split()[1:3] == [row.scheme, str(row.landmarks)]
    assert "HIH_T_300w.safetensors" in rows[0]


@pytest.mark.parametrize(
    ("sha256", "where"), [(None, "not trained yet"), ("0" * 64, "not published")], ids=("untrained", "trained")
)
def test_models_marks_weights_that_are_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None, where: str
) -> None:
    without_weights(monkeypatch, tmp_path, sha256=sha256)
    assert where in run("models").stdout.splitlines()[1]


@pytest.mark.parametrize("half", [[], ["--half"]])
def test_convert(
    shared: Path, tmp_path: Path, aligner: FaceAligner, photograph: NDArray[np.uint8], half: list[str]
) -> None:
    released, out = shared / "weights" / "hih_t_300w.pth", tmp_path / "deep" / "converted"
    report = run("convert", released, "--scheme", "300w", "--out", out, *half).stdout
    for found in ("HIH_T/300w", "1 stacks", "68 points", "decimal size 8", "dropped"):
        assert found in report
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    size = (out / "model.safetensors").stat().st_size
    assert (size < 20e6) == bool(half)
    assert size < 2 * released.stat().st_size
    loaded = FaceAligner.from_pretrained(out, device="cpu", decode="argmax")
    assert (loaded.scheme.id, loaded.config.crop_ratio, loaded.config.rounding) == ("300w", 1.25, "round")
    # the weights in the package are these weights
    shipped = FaceAligner(aligner.network, aligner.config, device="cpu", decode="argmax")
    found, known = (a.align(photograph, BOX, refine=0).points for a in (loaded, shipped))
    assert np.isfinite(found).all()
    if read_manifest()["HIH_T/300w"].training.startswith("Start weights"):  # type: ignore[union-attr]
        np.testing.assert_allclose(found, known, atol=1e-3)


def test_convert_writes_the_settings_of_the_training(shared: Path, tmp_path: Path) -> None:
    words = ["--scheme", "wflw", "--out", tmp_path, "--crop-ratio", 1.5, "--rounding", "floor"]
    assert "98 points" in run("convert", shared / "weights" / "hih_t_wflw.pth", *words).stdout
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["scheme"], config["crop_ratio"], config["rounding"]) == ("wflw", 1.5, "floor")
    assert config["decoder"]["bin_offset"] == 0.5, "floored labels stand for their cells' centres"


class Trojan:
    """A pickle that runs a command when it is loaded without weights_only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_convert_refuses(shared: Path, tmp_path: Path) -> None:
    released = shared / "weights" / "hih_t_300w.pth"
    data = released.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "other.pth")
    torch.save({"state_dict": {}, "x": Trojan(tmp_path / "ran")}, tmp_path / "trojan.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Trojan(tmp_path / "ran"), 2))
    for path, scheme, message in (
        (tmp_path / "none.pth", "300w", "checkpoint: no such file"),
        (tmp_path, "300w", "checkpoint: no such file"),
        (tmp_path / "cut.pth", "300w", "checkpoint: .*cut.pth cannot be read"),
        (tmp_path / "text.pth", "300w", "checkpoint: .*text.pth cannot be read"),
        (tmp_path / "other.pth", "300w", "checkpoint: .*other.pth is not in the released HIH layout"),
        (tmp_path / "trojan.pth", "300w", "checkpoint: .*trojan.pth cannot be read"),
        (tmp_path / "pickle.pth", "300w", "checkpoint: .*pickle.pth cannot be read"),
        (released, "wflw", "scheme 'wflw' has 98 landmarks, .* 68"),
        (released, "68", "scheme is '68', expected one of"),
    ):
        one_line(run("convert", path, "--scheme", scheme, "--out", tmp_path / "out", code=1), message)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    words = ("convert", shared / "weights" / "hih_t_300w.pth", "--scheme", "300w", "--out", tmp_path / "run")
    one_line(run(*words, code=1), r"holds a training run, expected another folder")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


# in a process of its own


def test_python_m(photo: Path, photograph: NDArray[np.uint8], tmp_path: Path) -> None:
    """The program, with its default model."""
    default = FaceAligner.from_pretrained("HIH_T/300w", device="cpu")
    done = program("align", photo, "--bbox", *BOX, "--refine", 0, "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = faces_in(done.stdout)
    same(line, default.align(photograph, BOX, refine=0), "photo.png", 0)
    failed = program("align", tmp_path / "nowhere.png", "--bbox", *BOX)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"hih-align: image: no such file: {tmp_path / 'nowhere.png'}\n"
