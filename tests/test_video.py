"""`video`: reading and writing frames with their times, rotations, sizes and sound; and files that are not videos."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from made_videos import read_back, write_video
from numpy.typing import NDArray

from hih_align.video import Camera, VideoFile, check_writable, open_video, writing

av = pytest.importorskip("av", reason="needs PyAV: pip install 'hih-align[video]'")

Array = NDArray[Any]


def pictures(count: int, size: tuple[int, int] = (64, 48), start: int = 0) -> list[Array]:
    """Grey images with a red upper left corner. Each image is a little brighter than the one before."""
    found = []
    for number in range(start, start + count):
        image = np.full((size[1], size[0], 3), 40 + 4 * number, np.uint8)
        image[: size[1] // 2, : size[0] // 2] = (200, 30, 30)
        found.append(image)
    return found


def passed_on(source: Path, out: Path) -> Path:
    with open_video(source) as given, writing(out, given) as writer:
        for frame in given.frames(writer.sound):
            writer.write(frame.image, frame)
    return out


@pytest.mark.parametrize(
    ("suffix", "sound", "kept"), [(".mp4", "aac", "aac"), (".mkv", "pcm_s16le", "aac"), (".mov", None, None)]
)
def test_a_video_is_read_and_written_again(tmp_path: Path, suffix: str, sound: str | None, kept: str | None) -> None:
    """Images, times and sound are kept. A sound codec that players do not support in MP4 is encoded again."""
    source = write_video(tmp_path / f"a{suffix}", pictures(30), sound=sound)
    images, times, samples, name = read_back(passed_on(source, tmp_path / "b.mp4"))
    assert len(images) == 30
    assert times == pytest.approx(np.arange(30) / 30, abs=1e-3)
    for image, known in zip(images, pictures(30), strict=True):
        assert np.abs(image.astype(float) - known).mean() < 3
    assert name == kept
    assert abs(samples - (44100 if sound else 0)) <= (2 * 1024 if sound else 0)
    assert [path.name for path in tmp_path.iterdir()] != []
    assert {path.name for path in tmp_path.iterdir()} == {f"a{suffix}", "b.mp4"}


@pytest.mark.parametrize(
    ("words", "kept"),
    [({b"mp4a": b"apac", b"esds": b"free"}, None), ({b"Lavf": b"caf\xe9"}, "aac")],  # the second is Latin-1
)
def test_unknown_sound_and_titles_that_are_not_utf_8(
    tmp_path: Path, words: dict[bytes, bytes], kept: str | None
) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(3), sound="aac")
    content = source.read_bytes()
    for word, other in words.items():
        assert word in content
        content = content.replace(word, other)
    source.write_bytes(content)
    images, _, _, name = read_back(passed_on(source, tmp_path / "b.mp4"))
    assert (len(images), name) == (3, kept)


def test_frames_at_irregular_times_keep_their_times(tmp_path: Path) -> None:
    at = np.cumsum([0, 1000, 2000, 500, 4000, 1000])
    source = write_video(tmp_path / "a.mp4", pictures(6), ticks=lambda n: int(at[n]))
    with open_video(source) as given:
        assert [frame.time for frame in given.frames()] == pytest.approx(at / 30000, abs=1e-4)
    _, times, _, _ = read_back(passed_on(source, tmp_path / "b.mp4"))
    assert times == pytest.approx(at / 30000, abs=1e-4)


@pytest.mark.parametrize(("turned", "corner"), [(90, "lower left"), (180, "lower right"), (270, "upper right")])
def test_a_rotated_video_becomes_upright(tmp_path: Path, turned: int, corner: str) -> None:
    """A file from a telephone says by which angle players rotate the images. The written video needs no rotation."""
    source = write_video(tmp_path / "a.mp4", pictures(3), turned=turned)
    for image in (
        next(iter(VideoFile(source).frames())).image,
        read_back(passed_on(source, tmp_path / "b.mp4"))[0][0],
    ):
        height, width = image.shape[:2]
        assert (height, width) == ((48, 64) if turned == 180 else (64, 48))
        y = slice(height // 2, None) if "lower" in corner else slice(None, height // 2)
        x = slice(width // 2, None) if "right" in corner else slice(None, width // 2)
        red = image[y, x].astype(int)
        assert (red[..., 0] - red[..., 1]).mean() > 100
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert next(iter(file.decode(video=0))).rotation == 0


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((-1, 0, 0, 1), "upper right"), ((1, 0, 0, -1), "lower left"), ((0, 1, 1, 0), "upper left")],
    ids=["left and right", "upside down", "transposed"],
)
def test_a_mirrored_video_is_mirrored(tmp_path: Path, matrix: tuple[int, int, int, int], corner: str) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(2))
    data = bytearray(source.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 20] = struct.pack(">5i", a, b, 0, c, d)
    source.write_bytes(data)
    image = next(iter(VideoFile(source).frames())).image
    height, width = image.shape[:2]
    assert (height, width) == ((64, 48) if matrix[0] == 0 else (48, 64))
    y = slice(height // 2, None) if "lower" in corner else slice(None, height // 2)
    x = slice(width // 2, None) if "right" in corner else slice(None, width // 2)
    red = image[y, x].astype(int)
    assert (red[..., 0] - red[..., 1]).mean() > 100


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_recordings_that_were_joined(tmp_path: Path, suffix: str) -> None:
    """The times of pictures and sound begin again in the middle of the file."""
    part = write_video(tmp_path / "part.ts", pictures(20), sound="mp2")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    with open_video(joined) as given:
        times = [frame.time for frame in given.frames()]
    assert times == pytest.approx(np.arange(40) / 30, abs=1e-3)
    images, times, samples, _ = read_back(passed_on(joined, tmp_path / f"b{suffix}"))
    assert len(images) == 40
    assert times == pytest.approx(np.arange(40) / 30 + times[0], abs=1e-3)
    assert samples > 1.8 * 20 / 30 * 44100


@pytest.mark.parametrize(("sound", "rate"), [("flac", 44100), ("libopus", 48000), ("pcm_s16le", 192000)])
def test_sound_that_the_file_format_refuses_is_encoded(tmp_path: Path, sound: str, rate: int) -> None:
    source = write_video(tmp_path / "a.mkv", pictures(30), sound=sound, samples=rate)
    for suffix, refused in ((".mov", sound != "pcm_s16le"), (".mp4", sound == "pcm_s16le")):
        *_, samples, name = read_back(passed_on(source, tmp_path / f"b{suffix}"))
        assert samples > 0.9 * min(rate, 48000)
        assert (name == "aac") == refused


def test_an_error_of_the_reader_ends_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV raises an IndexError if a damaged file announces another stream. The frames before it are kept."""
    given = VideoFile(write_video(tmp_path / "a.mp4", pictures(30)))

    def demux(*streams: Any) -> Iterator[Any]:
        yield from packets
        raise IndexError("list index out of range")

    packets = [packet for packet in given._container.demux(given.stream) if packet.dts is not None]
    monkeypatch.setattr(given, "_container", SimpleNamespace(demux=demux))
    assert len(list(given.frames())) == 30
    assert given.broken == 1


def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    """All frames get the size of the video. An odd size gains a pixel, and another shape gains black borders."""
    source = write_video(tmp_path / "a.mp4", pictures(2, (64, 48)))
    with open_video(source) as given, writing(tmp_path / "b.mkv", given) as writer:
        for frame, image in zip(given.frames(), (pictures(1, (63, 47))[0], pictures(1, (40, 80))[0]), strict=True):
            writer.write(image, frame)
    images, *_ = read_back(tmp_path / "b.mkv")
    assert [image.shape for image in images] == [(48, 64, 3)] * 2
    assert images[1][:, :12].max() < 20  # a black border
    assert images[1][24:40, 28:36].min() > 20


@pytest.mark.parametrize("change", [lambda p: p[..., 0], lambda p: p / 255, lambda p: p[..., [0, 1, 2, 0]]])
def test_pictures_that_are_not_rgb_are_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    with open_video(write_video(tmp_path / "a.mp4", pictures(1))) as given, writing(tmp_path / "b.mp4", given) as video:
        frame = next(given.frames())
        with pytest.raises((TypeError, ValueError), match=r"picture (is|has) .*, expected .*\(H, W, 3\)"):
            video.write(change(frame.image), frame)
        video.write(frame.image, frame)


def test_times_that_go_back_are_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of a damaged file get increasing times."""
    source = write_video(tmp_path / "a.mp4", pictures(4))
    given = VideoFile(source)
    packets = list(given._container.demux(given.stream))
    frames = [frame for packet in packets for frame in packet.decode()]
    frames[2].pts = frames[0].pts
    frames[3].pts = None

    class Packet:
        stream = given.stream

        def __init__(self, frame: Any) -> None:
            self.frame = frame

        def decode(self) -> Any:
            return [self.frame]

    container = type("Container", (), {"demux": lambda self, *_: map(Packet, frames)})()
    monkeypatch.setattr(given, "_container", container)
    times = [frame.time for frame in given.frames()]
    assert times == sorted(set(times))
    assert times[:2] == pytest.approx([0, 1 / 30], abs=1e-3)


def spoil(source: Path, first: float, last: float) -> None:
    """Replace a part of an MP4's data by noise. The file's index stays."""
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    part = slice(start + int(first * size), start + int(last * size))
    data[part] = np.random.default_rng(0).integers(1, 256, part.stop - part.start, dtype=np.uint8).tobytes()
    source.write_bytes(data)


def test_packets_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(30) * 2)
    spoil(source, 0.5, 0.7)
    with open_video(source) as given:
        assert 10 < len(list(given.frames())) < 60
        assert given.broken > 0


def test_files_that_are_not_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        tone: Any = out.add_stream("aac", rate=44100, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.int16), format="s16", layout="mono")
        part.rate = 44100
        out.mux(tone.encode(part))
        out.mux(tone.encode())
    for source, kind, message in (
        ("gone.mp4", FileNotFoundError, r"video: no such file: .*gone\.mp4$"),
        (".", IsADirectoryError, "is a folder, expected a video file or the number of a camera"),
        ("empty.mp4", ValueError, r"video: .*empty\.mp4 cannot be read as a video"),
        ("text.mp4", ValueError, r"video: .*text\.mp4 cannot be read as a video: Invalid data"),
        ("sound.mp4", ValueError, r"video: .*sound\.mp4 has no video stream, it contains audio"),
    ):
        with pytest.raises(kind, match=message):
            open_video(tmp_path / source)
    with pytest.raises(FileNotFoundError, match="no such file: rtsp://camera/1; URLs are not supported"):
        open_video("rtsp://camera/1")


def test_a_video_is_read_once(tmp_path: Path) -> None:
    """A second reading would go on where the first one ended, with times from 0."""
    with open_video(write_video(tmp_path / "a.mp4", pictures(3))) as given:
        next(given.frames())
        with pytest.raises(ValueError, match=r"video: .*a\.mp4 was read before: open it again"):
            next(given.frames())


@pytest.mark.parametrize("name", ["12:30:05.mp4", "pipe:0.mp4", "concat:a.mp4"])
def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / name, pictures(3))
    monkeypatch.chdir(tmp_path)
    with open_video(name) as given:
        assert given.name == name
        assert len(list(given.frames())) == 3


def test_a_video_without_frames(tmp_path: Path) -> None:
    """The file's index is complete, but no frame can be decoded. No output file is left."""
    source = write_video(tmp_path / "a.mp4", pictures(3))
    spoil(source, 0, 1)
    with pytest.raises(ValueError, match=r"a\.mp4 contains no frame that can be decoded"):
        passed_on(source, tmp_path / "b.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_output_names_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "a.mp4", pictures(1))
    check_writable(tmp_path / "b.MOV", source)
    for name, kind, message in (
        ("b.jpg", ValueError, r"out is .*b\.jpg, expected the name of a video, which ends in \.mp4, \.m4v"),
        ("a.mp4", ValueError, "out: .* is an input itself"),
        ("gone/b.mp4", FileNotFoundError, "out: .* is in a folder that does not exist"),
    ):
        with pytest.raises(kind, match=message):
            check_writable(tmp_path / name, source)
    monkeypatch.setattr("hih_align.video.writer.ENCODER", "libx264000")
    with pytest.raises(ValueError, match=r"has no encoder libx264000 .* pip install .* Or use --json without --out"):
        check_writable(tmp_path / "b.mp4", source)


def test_pyav_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"video needs PyAV: pip install 'hih-align\[video\]'"):
        VideoFile(tmp_path / "a.mp4")


class FakeCapture:
    """A camera of OpenCV that returns three frames."""

    def __init__(self, number: int) -> None:
        assert number == 2
        self.left = pictures(3)

    def isOpened(self) -> bool:
        return True

    def set(self, *_: Any) -> None: ...

    def get(self, what: int) -> float:
        return 25.0

    def read(self) -> tuple[bool, Any]:
        return (True, self.left.pop(0)[..., ::-1]) if self.left else (False, None)

    def release(self) -> None: ...


def test_a_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The BGR images of OpenCV become RGB, and times come from the clock."""
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with open_video("2") as camera, writing(tmp_path / "c.mp4", camera) as writer:
        assert isinstance(camera, Camera)
        assert camera.rate == 25
        frames = list(camera.frames())
        for frame in frames:
            writer.write(frame.image, frame)
    np.testing.assert_array_equal(frames[1].image, pictures(2)[1])
    assert frames[0].time == 0 < frames[1].time < frames[2].time
    assert len(read_back(tmp_path / "c.mp4")[0]) == 3


def test_a_missing_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="there is no camera 97"):
        open_video("97")
    assert capfd.readouterr().err == ""  # OpenCV prints no messages of its own
