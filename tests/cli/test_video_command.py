"""`hih-align video`, on a video of two faces from photographs; one of the faces leaves and comes back."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import preloaded
import pytest
from click.testing import Result
from made_videos import astronaut, hopper, placing, read_back, scene, write_video
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app

pytest.importorskip("av", reason="needs PyAV: pip install 'hih-align[video]'")

Array = NDArray[Any]
FRAMES, SIZE, SIDE = 100, (320, 240), 90
#: Frames. The second face does not move until LEAVES, is outside from GONE to BACK, and is in place again at THERE.
LEAVES, GONE, BACK, THERE = 10, 40, 50, 80
#: The smallest network; its file is in the checkout.
MODEL = "HIH_N/300w"


def run(*words: object, weights: Path | str, code: int = 0, backend: str = "torch") -> Result:
    environment = {"HIH_ALIGN_TRACEBACK": None, "HIH_ALIGN_WEIGHTS": str(weights), "HF_HUB_OFFLINE": "1"}
    options = ("--model", MODEL, "--device", "cpu", "--backend", backend)
    result = CliRunner().invoke(app, ["video", *map(str, (*words, *options))], env=environment)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def first(frame: float) -> tuple[float, float]:
    """The centre of the astronaut's face, which moves by up to 2 px per frame."""
    return 90 + 20 * np.sin(frame / 12), 120 + 15 * np.sin(frame / 17)


def second(frame: float) -> tuple[float, float]:
    """The centre of Grace Hopper's face."""
    way = np.interp(frame, (LEAVES, GONE, BACK, THERE), (0, 160, 160, 0))
    return 240 + float(way), 125.0


def frames(count: int) -> Any:
    one, other = astronaut(), hopper()
    for number in range(count):
        faces = [(one[0], placing(one[1], first(number), SIDE)), (other[0], placing(other[1], second(number), SIDE))]
        yield scene(SIZE, faces)


@dataclass(frozen=True)
class Followed:
    """The source video, the video that the command wrote, and the lines that it wrote."""

    source: Path
    out: Path
    lines: list[dict[str, Any]]

    def points(self, number: int) -> tuple[Array, Array]:
        """The frames with a face, and the face's points (F, 68, 2)."""
        at = [line["frame"] for line in self.lines if number in line["id"]]
        found = [line["points"][line["id"].index(number)] for line in self.lines if number in line["id"]]
        return np.array(at), np.array(found)


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "weights"


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 400 equal frames."""
    return write_video(tmp_path_factory.mktemp("still") / "in.mp4", list(frames(1)) * 400, sound="aac")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Followed:
    folder = tmp_path_factory.mktemp("video")
    source = write_video(folder / "in.mp4", frames(FRAMES), sound="aac")
    out, points = folder / "out.mp4", folder / "points.jsonl"
    run(source, "--out", out, "--json", points, "--keep", 3, weights=weights, backend="auto")
    assert sorted(path.name for path in folder.iterdir()) == ["in.mp4", "out.mp4", "points.jsonl"]
    lines = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    return Followed(source, folder / "out.mp4", lines)


def test_a_line_for_each_frame(followed: Followed) -> None:
    assert [line["frame"] for line in followed.lines] == list(range(FRAMES))
    assert [line["time"] for line in followed.lines] == pytest.approx(np.arange(FRAMES) / 30, abs=1e-3)
    for line in followed.lines:
        count = len(line["id"])
        assert (line["width"], line["height"], line["model"], line["scheme"]) == (*SIZE, MODEL, "300w")
        assert np.shape(line["bbox"]) == ((count, 4) if count else (0,))
        assert np.shape(line["points"]) == ((count, 68, 2) if count else (0,))
        assert np.shape(line["scores"]) == ((count, 68) if count else (0,))


def test_both_faces_keep_their_ids(followed: Followed) -> None:
    """The face that was away for less time than --keep keeps its id, too."""
    ids = [line["id"] for line in followed.lines]
    assert sorted(ids[0]) == [0, 1]
    assert {number for found in ids for number in found} == {0, 1}
    one = followed.points(0)[0] if second(0)[0] - followed.points(0)[1][0].mean(0)[0] > 80 else followed.points(1)[0]
    assert one.tolist() == list(range(FRAMES))
    other = [n for n, found in enumerate(ids) if len(found) == 2]
    assert set(range(LEAVES)) <= set(other)
    assert not set(range(GONE, BACK)) & set(other)
    assert set(range(THERE + 12, FRAMES)) <= set(other)


@pytest.mark.parametrize("face", ["astronaut", "hopper"])
def test_points_move_with_the_faces(followed: Followed, weights: Path, face: str) -> None:
    """In the photograph's coordinates the points do not move, and they are those of HIH_T.

    The mean distance is about one pixel of the video, or a fortieth of the distance of the eyes.
    """
    (image, box), path = (astronaut(), first) if face == "astronaut" else (hopper(), second)
    known = FaceAligner.from_pretrained("HIH_T", device="cpu").align(image, box).points
    eyes = float(np.linalg.norm(known[36] - known[45]))
    number = min((0, 1), key=lambda n: abs(followed.points(n)[1][0].mean(0)[0] - path(0)[0]))
    at, found = followed.points(number)
    if face == "hopper":
        # only frames in which the whole face is visible, because points outside are guessed
        inside = (at < LEAVES) | (at > THERE + 12)
        at, found = at[inside], found[inside]
    back = []
    for frame, points in zip(at, found, strict=True):
        matrix = placing(box, path(frame), SIDE)
        back.append((points - matrix[:, 2]) / matrix[0, 0])
    still = np.array(back)
    error = np.linalg.norm(still - known, axis=-1).mean() / eyes
    spread = np.sqrt(((still - still.mean(0)) ** 2).sum(-1).mean()) / eyes
    lag = np.linalg.norm((still - still.mean(0)).mean(1), axis=-1).max() / eyes
    assert error < 0.045
    assert spread < 0.02
    assert lag < 0.04


def test_the_output_video_shows_the_faces(followed: Followed) -> None:
    """Length, size and sound are those of the source. Only the faces are drawn on, in green."""
    before, times, samples, _ = read_back(followed.source)
    after, shown, heard, sound = read_back(followed.out)
    assert len(after) == FRAMES
    assert shown == pytest.approx(times, abs=1e-4)
    assert after[0].shape == (SIZE[1], SIZE[0], 3)
    assert (sound, heard) == ("aac", samples)
    for number in (0, 8, 45, 95):
        changed = np.abs(after[number].astype(int) - before[number]).max(-1) > 60
        points = np.concatenate(followed.lines[number]["points"])
        rows, columns = np.nonzero(changed)
        near = np.linalg.norm(np.stack((columns, rows), 1)[:, None] - points, axis=-1).min(1)
        assert len(near) > 40 * len(followed.lines[number]["id"])
        assert np.quantile(near, 0.9) < 12  # drawn: the lines between points, and the ids above the faces
        at = np.round(points).astype(int)
        inside = ((at >= 0) & (at < SIZE)).all(1)
        green, skin = (
            image[number][at[inside, 1], at[inside, 0]].astype(int) @ (-1, 2, -1) for image in (after, before)
        )
        assert np.median(green - skin) > 30


def test_without_an_output_video_the_lines_go_to_the_standard_output(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", frames(5))
    lines = [json.loads(line) for line in run(source, "--seconds", 0.1, weights=weights).stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]  # 0.1 s of 30 frames a second
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_video_without_faces(weights: Path, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", [np.zeros((64, 64, 3), np.uint8)] * 2)
    result = run(source, weights=weights)
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [[], []]
    assert f"{source}: no face was found" in result.stderr


def test_a_frame_of_another_size_restarts_the_tracker(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a video call can change.

    The tracker detects the faces again, and the output keeps the first size.
    """
    from hih_align.video import VideoFile

    source = write_video(tmp_path / "in.mp4", frames(4))
    given = VideoFile.frames

    def grown(self: Any, sound: Any = None) -> Any:
        for number, frame in enumerate(given(self, sound)):
            if number < 2:
                yield frame
            else:
                large = np.repeat(np.repeat(frame.image, 2, 0), 2, 1)
                yield type(frame)(large, frame.ticks, frame.time)

    monkeypatch.setattr(VideoFile, "frames", grown)
    run(source, "--out", tmp_path / "out.mp4", "--json", tmp_path / "a.jsonl", weights=weights)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [sorted(line["id"]) for line in lines] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [line["width"] for line in lines] == [320, 320, 640, 640]
    before, after = (np.array(sorted(line["points"], key=lambda p: p[0][0])) for line in (lines[1], lines[2]))
    assert np.abs(after / 2 - before).mean() < 2
    assert [image.shape for image in read_back(tmp_path / "out.mp4")[0]] == [(240, 320, 3)] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_frames_that_were_done(
    weights: Path, still: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [still, "--out", tmp_path / "out.mp4", "--json", tmp_path / "a.jsonl", "--model", MODEL, "--device", "cpu"]

    def interrupt(process: BaseProcess) -> None:
        began = time.monotonic()
        # until the end, the lines are in a temporary file
        while not any(path.stat().st_size > 4000 for path in tmp_path.glob(".*.jsonl")):
            if not process.is_alive():
                return
            assert time.monotonic() - began < 120
            time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, number)

    env = os.environ | {"HIH_ALIGN_WEIGHTS": str(weights), "HF_HUB_OFFLINE": "1"}
    done = preloaded.program("video", *words, env=env, meanwhile=interrupt, timeout=120)
    said = done.stderr
    assert done.returncode == 130, said
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert 1 <= len(lines) < 400
    files = f"{tmp_path}/out.mp4 and {tmp_path}/a.jsonl"
    assert f"interrupted after {len(lines)} frames. {files} contain these frames" in said
    images, times, samples, _ = read_back(tmp_path / "out.mp4")
    assert len(images) == len(lines)
    assert times[-1] == pytest.approx(json.loads(lines[-1])["time"], abs=1e-3)
    assert samples / 44100 > times[-1] - 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.mp4"], "video: no such file: gone.mp4"),
        (["empty.mp4"], "video: empty.mp4 cannot be read as a video: "),
        (["97"], "video: there is no camera 97"),
        (["in.mp4", "--out", "a.gif"], "out is a.gif, expected the name of a video, which ends in .mp4"),
        (["in.mp4", "--out", "in.mp4"], "out: in.mp4 is an input itself"),
        (["in.mp4", "--json", "in.mp4"], "json: in.mp4 is an input itself"),
        (["in.mp4", "--out", "a.mp4", "--json", "a.mp4"], "out and json are both a.mp4, expected different outputs"),
        (["in.mp4", "--scores"], "out is missing: the drawing options need --out"),
        (["in.mp4", "--seconds", "0"], "seconds is 0.0, expected more than 0"),
        (["in.mp4", "--every", "0"], "every is 0, expected a whole number of frames"),
    ],
)
def test_bad_input_is_one_line(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.mp4").touch()
    write_video(Path("in.mp4"), frames(1))
    error = run(*words, weights=weights, code=1).stderr
    assert error.startswith(f"hih-align: {message}")
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mp4", "in.mp4"]
