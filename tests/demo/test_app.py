"""The demo in a browser: the actions of a visitor, and their results."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from browsers import PATIENCE
from made_videos import read_back, write_video

from hih_align import FaceAligner, FaceTracker, Landmarks
from hih_align.images import read_image

pytestmark = pytest.mark.browser

FACE = "#photo-view circle[data-index]"


@pytest.fixture(scope="module")
def aligner(detector_file: Path) -> FaceAligner:
    from hih_align import FaceDetector

    return FaceAligner.from_pretrained("HIH_N", device="cpu", detector=FaceDetector(detector_file))


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def wait_for_faces(page: Any, points: int = 68) -> None:
    page.wait_for_function(f"document.querySelectorAll('{FACE}').length === {points}")


def downloaded(page: Any, name: str) -> Path:
    with page.expect_download() as waiting:
        page.click(f"#download-{name}")
    return Path(waiting.value.path())


def drawn_points(page: Any) -> np.ndarray:
    js = f"Array.from(document.querySelectorAll('{FACE}')).map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
    return np.array(page.evaluate(js))


def said(page: Any, text: str) -> None:
    page.wait_for_selector(f".toast-body:has-text({json.dumps(text)})")


def test_a_photograph_gives_the_landmarks_that_align_gives(
    visits: Any, served: str, photograph: Path, aligner: FaceAligner
) -> None:
    page = visits(served).page
    upload(page, photograph)  # the only action
    wait_for_faces(page)
    expected = aligner.align(photograph)
    (face,) = json.loads(downloaded(page, "json").read_text("utf-8"))
    np.testing.assert_allclose(face["points"], expected[0].points, atol=1e-3)
    np.testing.assert_allclose(face["scores"], expected[0].scores, atol=1e-4)
    assert face["file"] == "astronaut.png"
    np.testing.assert_allclose(drawn_points(page), expected[0].points, atol=0.006)  # coordinates have two decimals
    coco = json.loads(downloaded(page, "coco").read_text("utf-8"))
    keypoints = np.array(coco["annotations"][0]["keypoints"]).reshape(68, 3)
    np.testing.assert_allclose(keypoints[:, :2], expected[0].points, atol=2e-3)
    np.testing.assert_array_equal(read_image(downloaded(page, "png")), expected.draw(photograph))
    cells = page.locator("#faces td").all_inner_texts()
    assert float(cells[1]) == pytest.approx(expected[0].score, abs=1e-3)
    assert page.locator("#chips img").count() == 1
    page.locator(FACE).nth(36).hover()
    ring = page.locator(FACE).nth(36).evaluate("point => getComputedStyle(point).strokeWidth")
    assert ring == "6px"  # a share of the picture would cover the face
    name = f"left_eye_0 (36), left eye, score {expected.scores[0, 36]:.2f}"
    assert page.locator("#photo-view figcaption > span").inner_text() == name


def test_boxes_are_typed_and_drawn(visits: Any, served: str, photograph: Path, aligner: FaceAligner) -> None:
    page = visits(served).page
    upload(page, photograph)
    wait_for_faces(page)
    page.fill("#boxes textarea", "170, 70, 280, 200")
    page.click("#align")
    typed = aligner.align(photograph, [170, 70, 280, 200])
    page.wait_for_function("document.querySelector('#faces').innerText.includes('170.0')")
    np.testing.assert_allclose(drawn_points(page), typed.points, atol=0.006)
    page.fill("#boxes textarea", "1, 2, three")
    page.click("#align")
    said(page, "the line '1, 2, three' is not four numbers")
    page.fill("#boxes textarea", "")
    page.get_by_role("button", name="Whole picture").click()
    where = page.locator("#photo-view .hih-view svg").bounding_box()
    scale = min(where["width"], where["height"]) / 512
    left, top = where["x"] + (where["width"] - 512 * scale) / 2, where["y"] + (where["height"] - 512 * scale) / 2
    page.mouse.move(left + 172 * scale, top + 76 * scale)
    page.mouse.down()
    page.mouse.move(left + 250 * scale, top + 150 * scale)
    page.mouse.move(left + 280 * scale, top + 205 * scale)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#boxes textarea').value !== ''")
    box = [float(word) for word in page.input_value("#boxes textarea").split(",")]
    np.testing.assert_allclose(box, [171.5, 75.5, 279.5, 204.5], atol=1.5)
    page.wait_for_function(f"document.querySelector('#faces').innerText.includes('{box[0]:.1f}')")
    np.testing.assert_allclose(drawn_points(page), aligner.align(photograph, box).points, atol=0.02)


def test_a_box_is_drawn_while_the_result_of_the_box_before_arrives(visits: Any, served: str, photograph: Path) -> None:
    page = visits(served).page
    upload(page, photograph)
    wait_for_faces(page)
    page.fill("#boxes textarea", "170, 70, 280, 200")
    where = page.locator("#photo-view .hih-view svg").bounding_box()
    left, top = where["x"] + where["width"] / 2, where["y"] + where["height"] / 4
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 20, top + 20)
    page.evaluate("document.querySelector('#align').click()")
    page.wait_for_function("document.querySelector('#faces').innerText.includes('170.0')")
    page.mouse.move(left + 60, top + 60)
    assert page.locator("#photo-view .hih-rubber").count() == 1
    page.mouse.up()
    page.wait_for_function("document.querySelector('#boxes textarea').value.split('\\n').length === 2")
    assert page.locator("#photo-view .hih-rubber").count() == 0
    page.wait_for_function("document.querySelectorAll('#faces tr').length === 3")  # the head and two faces


def test_another_model_scheme_and_decoder(visits: Any, served: str, photograph: Path, detector_file: Path) -> None:
    from hih_align import FaceDetector

    page = visits(served).page
    upload(page, photograph)
    wait_for_faces(page)
    page.locator(".hih-model input").first.click()
    page.get_by_role("option", name="HIH_T").click()
    page.locator(".hih-scheme input").first.click()
    page.get_by_role("option", name="WFLW: 98").click()
    wait_for_faces(page, 98)
    page.get_by_label("argmax").first.check()
    detector = FaceDetector(detector_file)
    other = FaceAligner.from_pretrained("HIH_T", "wflw", "cpu", decode="argmax", detector=detector).align(photograph)
    js = f"+document.querySelectorAll('{FACE}')[0].getAttribute('cx')"
    page.wait_for_function(f"Math.abs({js} - {float(other.points[0, 0, 0])}) < 0.006")
    np.testing.assert_allclose(drawn_points(page), other.points[0], atol=0.006)


def test_two_visitors_at_once(visits: Any, served: str, photograph: Path, other_photograph: Path) -> None:
    pages = [visits(served).page for _ in range(2)]
    for page, path in zip(pages, (photograph, other_photograph), strict=True):
        upload(page, path)
    for page, name in zip(pages, ("astronaut.png", "grace_hopper.jpg"), strict=True):
        wait_for_faces(page)
        (face,) = json.loads(downloaded(page, "json").read_text("utf-8"))
        assert face["file"] == name


def test_a_file_that_is_not_an_image_and_a_too_large_image_are_reported(
    visits: Any, served: str, photograph: Path, tmp_path: Path
) -> None:
    page = visits(served).page
    (tmp_path / "letter.png").write_text("Dear reader")
    upload(page, tmp_path / "letter.png")
    said(page, "letter.png is no picture")
    PIL.Image.new("L", (10000, 6000)).save(tmp_path / "large.png")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    upload(page, tmp_path / "large.png")
    said(page, "large.png has 10000 x 6000 pixels, 60.0 megapixels: this page takes at most 50")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    upload(page, photograph)  # the page still works
    wait_for_faces(page)
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    upload(page, tmp_path / "letter.png")  # at once
    page.wait_for_selector(FACE, state="detached")  # the result of another photograph does not stay
    page.wait_for_selector("#download-json:disabled")


def test_a_photograph_chosen_while_another_one_is_aligned_is_aligned_too(
    visits: Any, served: str, photograph: Path, tmp_path: Path
) -> None:
    page = visits(served).page
    with PIL.Image.open(photograph) as opened:
        opened.resize((4096, 4096)).save(tmp_path / "slow.png", compress_level=1)
    upload(page, tmp_path / "slow.png")
    page.wait_for_selector("#photo-view .generating, #photo-view .pending, #photo-view .wrap:not(.hide)")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    upload(page, photograph)
    wait_for_faces(page)
    page.wait_for_function("document.querySelector('#photo-view image').getAttribute('width') === '512'")
    (face,) = json.loads(downloaded(page, "json").read_text("utf-8"))
    assert face["file"] == "astronaut.png"


def test_look_inside(visits: Any, served: str, photograph: Path, aligner: FaceAligner) -> None:
    page = visits(served).page
    upload(page, photograph)
    wait_for_faces(page)
    page.get_by_role("tab", name="Look inside").click()
    page.wait_for_selector("#inside-view .hih-map", state="attached")
    page.locator("#inside-view circle[data-index='30']").click()
    maps = aligner.heatmaps(photograph, aligner.align(photograph)[0].bbox)
    y, x = np.unravel_index(maps.integer[30].argmax(), maps.integer[30].shape)
    page.wait_for_selector(f"#inside-view figcaption:has-text('Maximum {maps.integer[30].max():.2f} at ({x}, {y})')")
    text = page.locator("#inside-view").inner_text()
    v, u = np.unravel_index(maps.decimal[30].argmax(), maps.decimal[30].shape)
    assert f"Maximum at ({u}, {v})" in text
    # Eq. 4
    assert f"argmax (the paper's Eq. 4): {4 * (x + u / 8):.2f}, {4 * (y + v / 8):.2f} crop pixels" in text
    # this is what the aligner of HIH_N does with the expectation
    assert text.rstrip().endswith("Then the constant shift of the labels is added and the other landmarks correct it.")


def film(path: Path, photograph: Path, frames: int) -> Path:
    """A video of the astronaut's face, 256 x 256, which goes to the left."""
    image = np.asarray(PIL.Image.open(photograph))
    starts = (100 + number // 8 for number in range(frames))
    return write_video(path, (np.ascontiguousarray(image[10:266, left : left + 256]) for left in starts), sound="aac")


def test_a_video_comes_back_as_found_and_smoothed(visits: Any, served: str, photograph: Path, tmp_path: Path) -> None:
    page = visits(served).page
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video input[type=file]", film(tmp_path / "film.mp4", photograph, 6))  # the one action
    page.wait_for_selector("#video-view video", state="attached")
    page.wait_for_function("document.querySelector('#video-status').innerText.startsWith('6 frames, ')")
    page.wait_for_function("document.querySelector('#video-view video').videoWidth === 512")  # it plays
    made = tmp_path / "made.mp4"
    made.write_bytes(page.request.get(page.locator("#video-view video").get_attribute("src")).body())
    frames, times, samples, sound = read_back(made)
    assert (len(frames), sound) == (6, "aac")
    assert samples > 0
    np.testing.assert_allclose(times, np.arange(6) / 30, atol=1e-3)
    for half in (frames[-1][:, :256], frames[-1][:, 256:]):  # green points on both
        green = (half[..., 1].astype(int) - half[..., [0, 2]].max(-1)) > 40
        assert green.sum() > 30
    (tmp_path / "letter.mp4").write_text("Dear reader")
    page.get_by_label("Clear").or_(page.get_by_label("Remove Video")).first.click()
    page.set_input_files("#video input[type=file]", tmp_path / "letter.mp4")
    said(page, "video: letter.mp4 cannot be read as a video")
    page.wait_for_selector("#video-status progress", state="hidden")  # nothing is on its way any more


def test_a_video_is_cancelled(visits: Any, served: str, photograph: Path, tmp_path: Path) -> None:
    page = visits(served).page
    page.get_by_role("tab", name="Video").click()
    page.set_input_files("#video input[type=file]", film(tmp_path / "long.mp4", photograph, 1500))
    page.wait_for_selector("#video-status:has-text('of 1500 frames, ')")
    shown = page.locator("#video-status progress")
    assert 0 < float(shown.get_attribute("value")) < float(shown.get_attribute("max")) == 1500
    results = Path(os.environ["GRADIO_TEMP_DIR"], "results")
    assert list(results.rglob("*long-landmarks*"))
    page.click("#video-stop")
    page.wait_for_selector("#video-status:has-text('Cancelled.')")
    deadline = time.monotonic() + 30
    while list(results.rglob("*long-landmarks*")):  # the work ends, and leaves no half file
        assert time.monotonic() < deadline
        time.sleep(0.2)
    page.wait_for_timeout(2000)  # a report of progress may arrive late; the page does not keep it
    assert page.locator("#video-status").inner_text() == "Cancelled."
    page.get_by_label("Clear").or_(page.get_by_label("Remove Video")).first.click()
    page.set_input_files("#video input[type=file]", film(tmp_path / "short.mp4", photograph, 3))  # the page goes on
    page.wait_for_function("document.querySelector('#video-status').innerText.startsWith('3 frames, ')")


def test_the_last_video_is_followed(visits: Any, served: str, photograph: Path, tmp_path: Path) -> None:
    page = visits(served).page
    page.get_by_role("tab", name="Video").click()
    page.click("#video-go")
    said(page, "First choose a video")
    long, short = film(tmp_path / "long.mp4", photograph, 600), film(tmp_path / "short.mp4", photograph, 3)
    for following, text in ((short, "3 frames, "), (long, "of 600 frames, ")):
        page.set_input_files("#video input[type=file]", long)
        page.wait_for_selector("#video-status:has-text('of 600 frames, ')")
        page.get_by_label("Clear").or_(page.get_by_label("Remove Video")).first.click()
        page.set_input_files("#video input[type=file]", following)  # while the video before is worked on
        page.wait_for_function("!document.querySelector('#video-status').innerText.includes('of 600 frames')")
        page.wait_for_selector(f"#video-status:has-text('{text}')")
        page.get_by_label("Clear").or_(page.get_by_label("Remove Video")).first.click()
    page.click("#video-stop")
    page.wait_for_selector("#video-status:has-text('Cancelled.')")
    results = Path(os.environ["GRADIO_TEMP_DIR"], "results")
    deadline = time.monotonic() + 30
    while list(results.rglob("*long-landmarks*")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_left_half_is_as_found_and_the_right_half_smoothed(
    aligner: FaceAligner, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="needs the extra [demo]")
    from hih_align.demo import video

    class Far(FaceTracker):
        """Its smoothed points are far from those that were found, so that no encoder hides which is which."""

        def update(self, frame: Any, time: float | None = None) -> Landmarks:
            faces = super().update(frame, time)
            return replace(faces, points=faces.points + 30)

    monkeypatch.setattr(video, "FaceTracker", Far)
    source, out = film(tmp_path / "film.mp4", photograph, 12), tmp_path / "out.mp4"
    steps = []
    for step in video.side_by_side(source, out, aligner, seconds=0.1):
        steps.append(step)
        assert out.exists() == (len(steps) == 4)
    Done = video.Done  # 0.1 s of 30 frames a second
    assert steps == [Done(1, 3), Done(2, 3), Done(3, 3), Done(3, 3, cut=True)]
    given, made = (read_back(path)[0] for path in (source, out))
    assert [frame.shape for frame in made] == [(256, 512, 3)] * 3
    tracker = Far(aligner)
    for number in range(3):
        smooth = tracker.update(given[number], number / 30)
    assert tracker.raw is not None
    for half, own, other in ((made[2][:, :256], tracker.raw, smooth), (made[2][:, 256:], smooth, tracker.raw)):
        drawn = [faces.draw(given[2]).astype(float) for faces in (own, other)]
        where = np.abs(drawn[0] - drawn[1]).max(-1) > 60
        apart = [float(np.abs(half - one)[where].mean()) for one in drawn]
        assert apart[0] < 0.6 * apart[1]


def test_a_video_of_too_large_frames(aligner: FaceAligner, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="needs the extra [demo]")
    from hih_align.demo.video import side_by_side

    large = write_video(tmp_path / "large.mp4", [np.zeros((2200, 4200, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"large\.mp4 has frames of 4200 x 2200 pixels: this page takes at most 9"):
        list(side_by_side(large, tmp_path / "out.mp4", aligner))
    assert [path.name for path in tmp_path.iterdir()] == ["large.mp4"]


def test_a_camera(visits: Any, served: str) -> None:
    page = visits(served).page
    page.get_by_role("tab", name="Webcam").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#camera button").filter(has_text="Record").first.click()
    page.wait_for_selector("#camera-view circle[data-index]", state="attached")
    page.wait_for_function(
        "/1 face, (?!0[.]0 )[0-9.]+ frames a second/.test(document.querySelector('#camera-view figcaption').innerText)"
    )


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(visits: Any, served: str, photograph: Path, width: int) -> None:
    page = visits(served, width, dark=width < 1280).page
    upload(page, photograph)
    wait_for_faces(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for name in ("Photo", "Video", "Webcam", "Look inside"):
            page.get_by_role("tab", name=name).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, scheme)
    page.get_by_role("tab", name="Photo").click()


def test_a_killed_server_restarts_and_removes_its_files(
    visits: Any, photograph: Path, detector_file: Path, tmp_path: Path
) -> None:
    httpx = pytest.importorskip("httpx", reason="needs the extra [demo]")
    pytest.importorskip("gradio", reason="needs the extra [demo]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"TMPDIR": str(tmp_path), "HIH_ALIGN_WEIGHTS": str(detector_file.parent)}

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "hih_align", "demo", "--no-open", "--port", str(port), "--device", "cpu"]
        words += ["--model", "HIH_N"]
        server = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        return server

    server = start()
    try:
        with photograph.open("rb") as file:  # sent as the page sends it
            answer = httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": file}, timeout=PATIENCE)
        answer.raise_for_status()
        sent = Path(answer.json()[0])
        assert tmp_path in sent.parents
        server.kill()
        server.wait(60)
        assert sent.is_file()  # the killed server could not remove the file
        server = start()
        assert not sent.exists()
        page = visits(f"http://127.0.0.1:{port}").page
        upload(page, photograph)
        wait_for_faces(page)
        assert list(tmp_path.rglob("astronaut.png"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith("astronaut")]
    finally:
        server.kill()
        server.wait(60)


def test_a_second_start_on_the_same_port_is_refused(served: str) -> None:
    port = served.rstrip("/").rpartition(":")[2]
    words = [sys.executable, "-m", "hih_align", "demo", "--no-open", "--port", port, "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stdout == ""
    told = f"hih-align: port {port} is in use by another program: choose another port, or none"
    assert done.stderr.strip() == told


def test_the_server_listens_on_loopback_only_and_restricts_what_pages_load(served: str) -> None:
    with urllib.request.urlopen(served, timeout=60) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)
    port = int(served.rstrip("/").rpartition(":")[2])
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no address beside 127.0.0.1")
    with pytest.raises((ConnectionError, TimeoutError)), socket.create_connection((own, port), timeout=5):
        pass
