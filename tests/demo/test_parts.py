"""Parts of the demo that need neither a browser nor Gradio."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import has_ipv6

from hih_align import Landmarks
from hih_align.demo import address, models, session, view
from hih_align.schemes import SCHEMES


def landmarks(name: str = "300w") -> Landmarks:
    scheme = SCHEMES[name]
    points = np.stack((np.linspace(40, 60, len(scheme)), np.linspace(50, 80, len(scheme))), -1).astype(np.float32)
    scores = np.linspace(0, 1, len(scheme)).astype(np.float32)
    return Landmarks(points[None], scores[None], scheme, np.array([[40, 50, 60, 80]], np.float32))


def test_boxes_are_lines_of_four_numbers() -> None:
    assert view.boxes_from_text("") is None
    assert view.boxes_from_text(" \n") is None
    assert view.boxes_from_text("1, 2, 3.5, 4\n\n5 6 7 8\n") == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert view.boxes_from_text(view.boxes_as_text([[1, 2, 3.5, 4]])) == [[1, 2, 3.5, 4]]
    with pytest.raises(ValueError, match="boxes: the line '1, 2, 3' is not four numbers"):
        view.boxes_from_text("1, 2, 3, 4\n1, 2, 3")


def test_the_drawing_has_every_point_with_its_name_and_colour() -> None:
    page = view.picture(np.zeros((100, 200, 3), np.uint8), landmarks(), "one & <only>")
    points = re.findall(r'<circle cx="([^"]+)" cy="([^"]+)" r="[^"]+" fill="([^"]+)" data-index="(\d+)">', page)
    assert len(points) == 68
    assert points[0] == ("40.00", "50.00", "#ff2828", "0")  # a low score is red
    assert points[-1] == ("60.00", "80.00", "#50ff50", "67")  # a high score is green
    assert "<title>left_eye_0 (36), left eye, score 0.54</title>" in page
    assert "one &amp; &lt;only&gt;" in page
    assert "<only>" not in page


def test_the_view_zooms_to_a_small_face_and_shows_all_of_a_large_one() -> None:
    small = view.around(landmarks(), 2000, 1000)
    assert small is not None
    x, y, width, height = small
    assert (x, y) == (22, 32)  # the margin around the points is 0.6 of the longer side, which is 30
    assert (width, height) == (56, 66)
    assert view.around(landmarks(), 80, 100) is None


def test_a_table_has_a_line_for_each_face() -> None:
    faces = landmarks()
    assert view.table(faces[:0]) == ""
    cells = re.findall(r"<td>([^<]*)</td>", view.table(faces))
    assert cells[:7] == ["1", "0.500", "", "40.0", "50.0", "60.0", "80.0"]


def test_models_and_schemes_that_are_installed() -> None:
    assert "HIH_T" in models.sizes()  # HIH_T is in the wheel
    assert models.schemes("HIH_T") == ["300w", "wflw", "cofw"]
    assert models.schemes("somebody/else") == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files of a demo. The environment is restored after the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in session.PRIVATE:
        monkeypatch.setenv(name, "")
    return tmp_path


def test_uploads_are_removed_at_exit_and_those_of_killed_demos_at_the_next_start(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(session.FOLDER, raising=False)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed, running = (temporary / f"{session._NAME}{pid}-x" for pid in (ended.pid, os.getppid()))
    elsewhere = temporary / f"hih-align-demo-another-machine-{ended.pid}-x"  # that shares the folder
    for folder in (killed, running, elsewhere):
        folder.mkdir()
    with session.private_folder() as folder:
        assert not killed.exists()
        assert running.is_dir()
        assert elsewhere.is_dir()
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        result = session.result_folder()
        assert result.is_relative_to(folder)
        (result / "points.json").write_text("[]")
        os.utime(result, (0, 0))  # as if the folder were old
        assert session.result_folder() != result
        assert not result.exists()
    assert not folder.exists()
    assert session.FOLDER not in os.environ


def test_where_no_process_can_be_asked_the_age_of_a_folder_decides(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, signal 0 is Ctrl-C, which would end another demo of the same console."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    monkeypatch.setattr(session, "_running", session._recent)
    killed, running, idle = (temporary / f"{session._NAME}{number}-x" for number in (1, 2, 3))
    for folder in (killed, running, idle):
        folder.mkdir()
        (folder / "photo.jpg").touch()
    for old in (killed / "photo.jpg", killed, running):
        os.utime(old, (0, 0))
    os.utime(idle / "photo.jpg", (0, 0))
    with session.private_folder():
        assert not killed.exists()
        assert (running / "photo.jpg").exists()  # a file in it is new
        assert idle.exists()  # its last file has just been deleted


def test_a_result_that_is_still_made_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.FOLDER, str(tmp_path))
    with session.working_folder() as folder:
        (folder / "film.mp4").write_bytes(b"half")
        os.utime(folder, (0, 0))  # as if the work took hours
        session.result_folder()  # of another visitor
        assert (folder / "film.mp4").exists()
    session.result_folder()
    assert folder.exists()  # its time begins when it is ready
    os.utime(folder, (0, 0))
    stat = Path.stat

    def deleted_meanwhile(path: Path, **options: Any) -> os.stat_result:
        if path == folder:
            raise FileNotFoundError  # another visitor deletes the same folder
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", deleted_meanwhile)
    assert session.result_folder().is_dir()


@pytest.mark.parametrize(("height", "width"), [(1, 5000), (5000, 1), (3000, 2000), (20, 30)])
def test_a_very_narrow_picture_is_shown(height: int, width: int) -> None:
    image = np.full((height, width, 3), 7, np.uint8)
    small = view.reduced(image, 1600)
    assert max(small.shape[:2]) == min(max(height, width), 1600)
    assert min(small.shape[:2]) >= 1
    assert (small == 7).all()
    assert f'width="{width}" height="{height}"' in view.picture(image)


def test_a_used_port_and_an_address_of_another_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {taken} is in use by another program"):
            address.free_port("127.0.0.1", taken)
        monkeypatch.setattr(address, "PORTS", (taken,))
        with pytest.raises(OSError, match=f"all ports from {taken} to {taken} are in use"):
            address.free_port("127.0.0.1")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            there = free.getsockname()[1]
        monkeypatch.setattr(address, "PORTS", (taken, there))
        assert address.free_port("127.0.0.1") == there
        assert address.free_port("127.0.0.1", there) == there
    with pytest.raises(ValueError, match=r"host is '192\.0\.2\.1', which is not an address of this machine"):
        address.free_port("192.0.2.1")
    with pytest.raises(ValueError, match=r"host is 'nowhere\.invalid', which is not an address"):
        address.free_port("nowhere.invalid", 7860)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ports_that_the_system_reserves_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows reserves ranges of ports for virtual machines."""

    def bind(host: str, port: int) -> None:
        if port == 7860:
            raise PermissionError(errno.EACCES, "forbidden by its access permissions")

    monkeypatch.setattr(address, "_bind", bind)
    assert address.free_port("127.0.0.1") == 7861
    with pytest.raises(PermissionError, match="port is 7860, which only an administrator may use"):
        address.free_port("127.0.0.1", 7860)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_free_port_of_an_ipv6_address(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        there = free.getsockname()[1]
    assert address.free_port(host, there) == there
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(address, "PORTS", (taken, there))
        assert address.free_port(host) == there  # Gradio refuses a port that is taken on 127.0.0.1
    assert address.in_url(host) == "[::1]"
    assert address.in_url("127.0.0.1") == "127.0.0.1"


def test_without_gradio_the_command_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['gradio'] = None; from hih_align.cli.app import main; sys.argv[1:] = ['demo']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "hih-align: demo needs gradio: pip install 'hih-align[demo]'" in done.stderr
