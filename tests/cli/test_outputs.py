"""The outputs of `hih-align` (devices, pipes, links, the standard output), and its messages at the end."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
from typer.testing import CliRunner

from hih_align.cli.app import app

BOX = ("27", "20", "125", "140")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "a.png"
    PIL.Image.fromarray(np.ascontiguousarray(skimage.data.astronaut()[60:230, 150:310])).save(path)
    (tmp_path / "boxes.csv").write_text("a.png,27,20,125,140\n")
    return path


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, words), "--model", "HIH_N", "--refine", "0", "--device", "cpu"])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def program(command: str, folder: Path, model: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a shell, as a user does; $ALIGN stands for the program.

    ``model`` is a folder with an exported network, so that the processes do not load PyTorch.
    """
    align = f"{sys.executable} -m hih_align align --model {model} --backend onnxruntime"
    return subprocess.run(
        ["bash", "-c", command.replace("$ALIGN", align)], cwd=folder, capture_output=True, timeout=300, check=False
    )


def test_the_standard_output(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    (face,) = json.loads(run("align", photo, "--bbox", *BOX, "--json", "-").stdout)
    assert (face["file"], len(face["points"])) == ("a.png", 68)
    (line,) = run("align", photo.parent, "--boxes", "boxes.csv", "--json", "-").stdout.splitlines()
    assert json.loads(line)["points"] == face["points"]
    picture = run("align", photo, "--bbox", *BOX, "--out", "-").stdout_bytes
    assert PIL.Image.open(io.BytesIO(picture)).size == (160, 170)
    for name in ("-", "a.png"):
        error = run("align", photo, "--bbox", *BOX, "--out", name, "--json", name, code=1).stderr
        assert f"out and json are both {name}" in error
    error = run("align", photo.parent, "--boxes", "boxes.csv", "--out", "-", code=1).stderr
    assert "out: - is a stream, expected a folder" in error
    assert sorted(os.listdir(tmp_path)) == before


def test_devices_and_pipes_in_a_shell(photo: Path, tmp_path: Path, converted_nano: Callable[..., str]) -> None:
    one = "$ALIGN photos/a.png --refine 0 --device cpu --bbox 27 20 125 140"
    many = "$ALIGN photos --refine 0 --device cpu --boxes boxes.csv"
    done = program(
        f"set -e; {many} --json >(cat > lines.jsonl); lines=$!; {one} --json /dev/stdout > points.json; wait $lines",
        tmp_path,
        converted_nano("onnxruntime", weights=False),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "points.json").read_text())
    assert [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()] == found


def test_a_device_and_a_named_pipe(photo: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    null = os.stat("/dev/null").st_ino
    with subprocess.Popen(["cat", tmp_path / "pipe.json"], stdout=subprocess.PIPE) as reader:
        try:
            run("align", photo, "--bbox", *BOX, "--json", tmp_path / "pipe.json")
            (face,) = json.loads(reader.communicate(timeout=60)[0])
        finally:
            reader.kill()
    assert (face["file"], len(face["points"])) == ("a.png", 68)
    run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", "/dev/null")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.json").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_ino == null


def test_links_are_followed_and_their_files_are_continued(photo: Path, tmp_path: Path) -> None:
    for name in ("points.jsonl", "points.json", "drawn.png"):
        (tmp_path / name).symlink_to(f"real-{name}")
    run("align", photo, "--bbox", *BOX, "--json", tmp_path / "points.json", "--out", tmp_path / "drawn.png")
    run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", tmp_path / "points.jsonl")
    for name in ("points.jsonl", "points.json", "drawn.png"):
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / f"real-{name}").stat().st_size > 1000
    again = run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", tmp_path / "points.jsonl")
    assert "nothing to do" in again.stderr


def test_without_a_standard_error_output(photo: Path, tmp_path: Path, converted_nano: Callable[..., str]) -> None:
    command = "$ALIGN photos --refine 0 --device cpu --boxes boxes.csv --json a.jsonl 2>&-"
    done = program(command, tmp_path, converted_nano("onnxruntime", weights=False))
    assert done.returncode == 0
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


def test_a_long_name(photo: Path, tmp_path: Path) -> None:
    for length in (244, 255):
        name = "x" * (length - 4)
        run("align", photo, "--bbox", *BOX, "--json", tmp_path / f"{name}.jso", "--out", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").is_file()
        assert json.loads((tmp_path / f"{name}.jso").read_text())


def test_json_lines_are_chosen_by_the_name(photo: Path, tmp_path: Path) -> None:
    two = ["--bbox", *BOX, "--bbox", *BOX]
    run("align", photo, *two, "--json", tmp_path / "a.json")
    run("align", photo, *two, "--json", tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads((tmp_path / "a.json").read_text()) == [json.loads(line) for line in lines]
    said = run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", tmp_path / "b.json").stderr
    assert "b.json gets JSON Lines, one line per face: a name with .jsonl is clearer" in said
    said = run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", tmp_path / "b.jsonl").stderr
    assert "JSON Lines" not in said


def test_a_finished_folder_is_reported(photo: Path, tmp_path: Path) -> None:
    words = ["align", photo.parent, "--boxes", tmp_path / "boxes.csv", "--json", tmp_path / "a.jsonl"]
    run(*words)
    assert run(*words).stderr == f"nothing to do: {tmp_path / 'a.jsonl'} holds all 1 faces\n"
    (tmp_path / "boxes.csv").write_text("")
    assert run(*words[:-2]).stderr == f"nothing to do: {tmp_path / 'boxes.csv'} names no faces\n"


def test_drawing_options(photo: Path, tmp_path: Path) -> None:
    from hih_align import FaceAligner

    words = ["--no-contours", "--box", "--labels", "--scores", "--point-size", 5, "--thickness", 2]
    words += ["--colour", "#ff00ff", "--line-colour", "yellow", "--scale", 2]
    run("align", photo, "--bbox", *BOX, *words, "--out", tmp_path / "drawn.png")
    face = FaceAligner.from_pretrained("HIH_N", device="cpu").align(photo, [[27, 20, 125, 140]], refine=0)
    options: dict[str, Any] = {"lines": False, "boxes": True, "labels": True, "scores": True, "size": 5, "scale": 2}
    expected = face.draw(photo, **options, thickness=2, colour=(255, 0, 255), line_colour="#ffff00")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "drawn.png")), expected)
    run("align", photo.parent, "--boxes", tmp_path / "boxes.csv", *words, "--out", tmp_path / "all")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "all" / "a.png")), expected)
    assert "out is missing" in run("align", photo, "--bbox", *BOX, "--labels", code=1).stderr
    assert "colour is 'grün'" in run("align", photo, "--bbox", *BOX, "--colour", "grün", code=1).stderr
