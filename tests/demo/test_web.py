"""The static page of examples/web, served by a file server to Chromium: its results equal those of Python."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from browsers import PATIENCE, WEB, lacking, web_prepare

from hih_align import FaceAligner, FaceDetector
from hih_align.crops import square_crop
from hih_align.data.annotations import read_dataset
from hih_align.images import read_image

pytestmark = pytest.mark.browser

#: The page's code for one box: the points in the crop, the points in the image, and the time of each pass.
ONCE = """async ([name, box, times]) => {
  const { decode } = await import("./app.js");
  const bitmap = await decode(await (await fetch(name)).blob());
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const picture = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const face = await window.hih.aligner.once(picture, box);
  const begun = performance.now();
  for (let i = 0; i < times; i += 1) await window.hih.aligner.once(picture, box);
  return { ...face, ms: (performance.now() - begun) / Math.max(times, 1) };
}"""


@pytest.fixture(scope="module")
def site(
    detector_file: Path,
    photograph: Path,
    other_photograph: Path,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path, list[tuple[str, list[float]]]]]:
    """The page's address, its folder, and ten photographs in this folder, each with a box."""
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        lacking("needs ONNX Runtime Web (npm ci --prefix examples/web), which is not here")
    if find_spec("onnx") is None:
        lacking("needs onnx (pip install 'hih-align[onnx]'), which is not here")
    folder = tmp_path_factory.mktemp("web")
    for path in WEB.iterdir():
        if path.name != "models":
            (folder / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIH_ALIGN_WEIGHTS", str(detector_file.parent))
        web_prepare().main("HIH_N", "fp32", folder / "models")
    faces = [("astronaut.png", [177.0, 80.0, 275.0, 200.0]), ("grace_hopper.jpg", [168.0, 157.0, 354.0, 332.0])]
    shutil.copy(photograph, folder / "astronaut.png")
    shutil.copy(other_photograph, folder / "grace_hopper.jpg")
    dataset = read_dataset(shared / "data" / "300w_val" / "annotations.json", "300w")
    for number in np.linspace(0, len(dataset) - 1, 8).round().astype(int):
        record = dataset.records[number]
        shutil.copy(str(record.image), folder / f"{number}{Path(str(record.image)).suffix}")
        faces.append((f"{number}{Path(str(record.image)).suffix}", np.asarray(record.box, float).tolist()))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", folder, faces
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """The handler of `python -m http.server`, without its log lines."""

    def log_message(self, *_: Any) -> None:
        pass


def opened(visits: Any, address: str, **options: Any) -> Any:
    page = visits(address, **options).page
    page.wait_for_function("window.hih && window.hih.aligner && window.hih.detector")
    return page


def test_ten_faces_agree_with_python(visits: Any, site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    address, folder, faces = site
    page = opened(visits, address)
    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu")
    assert len(faces) == 10
    apart = []
    for name, box in faces:
        found = page.evaluate(ONCE, [name, box, 0])
        expected = aligner.align(folder / name, box, refine=0, roll=0.0)
        crop = square_crop(box, aligner.config.crop_ratio, aligner.config.input_size)
        in_crop = np.linalg.norm(found["inCrop"] - crop.to_crop(expected.points), axis=1)
        back = np.linalg.norm(found["points"] - expected.points, axis=1) * crop.scale
        apart.append((float(in_crop.max()), float(back.max())))
        np.testing.assert_allclose(found["scores"], expected.scores, atol=0.01)
    with capsys.disabled():
        print(f"\nlargest distance of ten faces: {np.max(apart):.4f} crop pixels")
    assert np.max(apart) <= 0.05


def test_speed_beside_python(visits: Any, site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Print both times. They are not compared, because times on a shared machine vary."""
    address, folder, faces = site
    page = opened(visits, address)
    name, box = faces[0]
    page.evaluate(ONCE, [name, box, 3])
    browser = page.evaluate(ONCE, [name, box, 20])["ms"]
    aligner, pixels = FaceAligner.from_pretrained("HIH_N", device="cpu"), read_image(folder / name)
    aligner.align(pixels, box, refine=0, roll=0.0)
    begun = time.perf_counter()
    for _ in range(20):
        aligner.align(pixels, box, refine=0, roll=0.0)
    python = (time.perf_counter() - begun) / 20 * 1000
    kind = page.evaluate("window.hih.kind")
    with capsys.disabled():
        print(
            f"\nHIH_N, one pass of one face: {browser:.1f} ms in Chromium ({kind}), {python:.1f} ms in Python (PyTorch)"
        )
    assert browser > 0


def drag(page: Any, corners: tuple[float, float, float, float], button: str = "left", release: bool = True) -> None:
    """Drag the mouse over the astronaut between two corners in pixels of the photograph."""
    where = page.locator("#picture").bounding_box()
    x1, y1, x2, y2 = (value * where["width"] / 512 for value in corners)
    page.mouse.move(where["x"] + x1, where["y"] + y1)
    page.mouse.down(button=button)
    page.mouse.move(where["x"] + x2, where["y"] + y2)
    if release:
        page.mouse.up(button=button)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_photograph_and_a_drawn_box(visits: Any, site: Any, photograph: Path, width: int, dark: bool) -> None:
    page = opened(visits, site[0], width=width, dark=dark)
    page.set_input_files("#file", photograph)
    page.wait_for_function("window.hih.faces.length === 1")
    with page.expect_download() as waiting:
        page.click("#save")
    (face,) = json.loads(Path(waiting.value.path()).read_text("utf-8"))
    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu")
    expected = aligner.align(photograph, [177, 80, 275, 200])
    # the box is the detector's, not the one used here
    assert np.linalg.norm(face["points"] - expected.points, axis=1).mean() < 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drag(page, (177, 80, 275, 200))
    page.wait_for_function("window.hih.faces.length === 2")
    drawn = np.array(page.evaluate("window.hih.faces[1].points"))
    assert np.linalg.norm(drawn - expected.points, axis=1).mean() < 1


def test_a_box_that_is_drawn_while_faces_are_found_is_kept(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    page.evaluate("""() => {
      const find = hih.detector.find.bind(hih.detector);
      window.slow = new Promise((go) => { window.go = go; });
      hih.detector.find = async (...given) => { await window.slow; return find(...given); };
    }""")
    page.set_input_files("#file", photograph)
    page.wait_for_function("hih.picture && hih.picture.width === 512")
    drag(page, (170, 70, 280, 210))
    page.wait_for_function("hih.faces.length === 1")
    page.evaluate("window.go()")
    page.wait_for_selector("#status:has-text('2 faces, ')")


def test_only_a_finished_drag_of_the_main_button_draws(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    page.set_input_files("#file", photograph)
    page.wait_for_function("hih.faces.length === 1")
    drag(page, (177, 80, 275, 200), button="right", release=False)
    assert page.evaluate("hih.drag") is None
    page.mouse.up(button="right")
    drag(page, (177, 80, 275, 200), release=False)
    assert page.evaluate("hih.drag") is not None
    # a finger that scrolls the page
    page.evaluate("document.querySelector('#picture').dispatchEvent(new PointerEvent('pointercancel'))")
    assert page.evaluate("hih.drag") is None
    page.mouse.up()
    page.wait_for_timeout(300)
    assert page.evaluate("hih.faces.length") == 1


def test_faces_in_quarter_turns(
    visits: Any, site: Any, photograph: Path, other_photograph: Path, detector_file: Path, tmp_path: Path
) -> None:
    page = opened(visits, site[0])
    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu", detector=FaceDetector(detector_file))
    pixels = read_image(photograph)[:, :400]  # not square
    for quarters in (1, 2, 3):
        turned = tmp_path / f"{quarters}.png"
        PIL.Image.fromarray(np.ascontiguousarray(np.rot90(pixels, quarters))).save(turned)
        page.set_input_files("#file", turned)
        size = "{} x {}".format(*PIL.Image.open(turned).size)
        js = "`${hih.picture.width} x ${hih.picture.height}`"
        page.wait_for_function(f"hih.picture && {js} === '{size}' && hih.faces.length === 1")
        found = np.array(page.evaluate("hih.faces[0].points"))
        expected = aligner.align(turned).points[0]
        assert np.linalg.norm(found - expected, axis=1).mean() < 1
        page.set_input_files("#file", other_photograph)  # so that the next face is a new one
        page.wait_for_function("hih.picture.width === 512 && hih.picture.height === 600 && hih.faces.length === 1")


def test_a_file_that_is_not_an_image_is_reported(visits: Any, site: Any, tmp_path: Path) -> None:
    page = opened(visits, site[0])
    (tmp_path / "letter.png").write_text("Dear reader")
    page.set_input_files("#file", tmp_path / "letter.png")
    page.wait_for_selector("#status:has-text('letter.png is no picture')", timeout=PATIENCE * 1000)


def test_scores_that_are_not_calibrated(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    told = "The scores are not calibrated"
    page.set_input_files("#file", photograph)
    page.wait_for_selector("#status:has-text('1 face, ')")
    assert told not in page.locator("#status").inner_text()
    page.evaluate("hih.aligner.about.calibrated = false")  # as in the model.json of such a model
    page.set_input_files("#file", photograph)
    page.wait_for_selector(f"#status:has-text('{told}')")


def test_a_camera(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    page.click("#camera")
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.wait_for_selector("#save:enabled")  # a slow machine loses the face for a moment
    page.set_input_files("#file", photograph)
    page.wait_for_function("hih.picture && hih.picture.width === 512")
    page.click("#camera")
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.wait_for_selector("#status:has-text('frames a second')")
    page.set_input_files("#file", photograph)  # the same file again
    page.wait_for_function("hih.picture.width === 512 && hih.faces.length === 1")
    assert page.evaluate("window.hih.stream") is None
    page.click("#camera")
    page.wait_for_selector("#status:has-text('frames a second')")
    page.click("#camera")
    assert page.evaluate("window.hih.stream") is None


def test_a_second_person_comes_before_the_camera(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    page.set_input_files("#file", photograph)
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.evaluate("""() => {
      const [canvas, { picture }] = [document.createElement("canvas"), window.hih];
      [canvas.width, canvas.height] = [2 * picture.width, picture.height];
      const context = canvas.getContext("2d");
      window.persons = 1;
      const paint = () => {
        for (let i = 0; i < window.persons; i += 1) context.putImageData(picture, i * picture.width, 0);
        requestAnimationFrame(paint);
      };
      paint();
      navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
    }""")
    page.click("#camera")
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.wait_for_selector("#status:has-text('frames a second')")
    page.evaluate("window.persons = 2")
    page.wait_for_selector("#status:has-text('2 faces, ')")
    apart = page.evaluate("window.hih.faces[1].points[30][0] - window.hih.faces[0].points[30][0]")
    assert abs(apart) == pytest.approx(512, abs=3)
    page.wait_for_timeout(1500)  # the detector has looked again, and both faces are still followed
    assert len(page.evaluate("window.hih.faces")) == 2


def test_each_frame_of_a_camera_is_computed_once(visits: Any, site: Any, photograph: Path) -> None:
    page = opened(visits, site[0])
    page.set_input_files("#file", photograph)
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.evaluate("""() => {
      const [canvas, { picture, aligner }] = [document.createElement("canvas"), window.hih];
      [canvas.width, canvas.height] = [picture.width, picture.height];
      const context = canvas.getContext("2d");
      const stream = canvas.captureStream(0);  // it sends a frame when it is asked to
      window.send = () => {
        context.putImageData(picture, 0, 0);
        stream.getVideoTracks()[0].requestFrame();
      };
      const once = aligner.once.bind(aligner);
      window.computed = 0;
      aligner.once = (...given) => {
        window.computed += 1;
        return once(...given);
      };
      navigator.mediaDevices.getUserMedia = async () => {
        setTimeout(window.send, 200);
        return stream;
      };
    }""")
    page.click("#camera")
    page.wait_for_selector("#status:has-text('frames a second')")
    page.evaluate("window.send()")  # the first frame that the browser reports
    before = -1
    for _ in range(20):  # a slow machine is still busy with the frames before
        if before == (before := page.evaluate("window.computed")):
            break
        page.wait_for_timeout(500)
    else:
        pytest.fail("the page computes without new frames")
    page.evaluate("window.send()")
    page.wait_for_function(f"window.computed === {before + 1}")
    page.wait_for_timeout(500)
    assert page.evaluate("window.computed") == before + 1


def test_two_faces_that_have_moved_to_one_place_are_one(visits: Any, site: Any) -> None:
    page = visits(site[0]).page
    boxes = "[[0, 0, 10, 10], [1, 0, 11, 10], [6, 0, 16, 10]].map((box) => ({ box }))"
    kept = page.evaluate(f"import('./geometry.js').then(({{ distinct }}) => distinct({boxes}, 0.6))")
    assert [face["box"][0] for face in kept] == [0, 6]


def test_a_phone_is_turned_while_its_camera_runs(visits: Any, site: Any) -> None:
    page = opened(visits, site[0])
    page.click("#camera")
    page.wait_for_function("hih.picture && hih.picture.width === 640 && hih.picture.height === 480")
    page.evaluate("""() => {
      for (const [name, value] of [["videoWidth", 480], ["videoHeight", 640]]) {
        Object.defineProperty(document.querySelector("#video"), name, { get: () => value });
      }
    }""")
    page.wait_for_function("hih.picture.width === 480 && hih.picture.height === 640")
    canvas = "document.querySelector('#picture')"
    assert page.evaluate(f"{canvas}.height / {canvas}.width") == pytest.approx(640 / 480, abs=0.01)


def test_a_page_that_gets_no_camera_says_why(visits: Any, site: Any) -> None:
    page = opened(visits, site[0])
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")  # as on http://192.168.0.1
    page.click("#camera")
    page.wait_for_selector("#status:has-text('pages of localhost and of https addresses alone')")


def test_a_camera_that_arrives_too_late_is_ended(visits: Any, site: Any, photograph: Path) -> None:
    """The browser asks the visitor for leave. Meanwhile the visitor clicks again, or chooses a photograph."""
    page = opened(visits, site[0])
    page.evaluate("""() => {
      window.streams = [];
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        await window.leave;
        const stream = await ask(wanted);
        window.streams.push(stream);
        return stream;
      };
    }""")
    page.evaluate("() => { const button = document.querySelector('#camera'); button.click(); button.click(); }")
    page.wait_for_selector("#status:has-text('frames a second')")
    live = "window.streams.filter((stream) => stream.active).length"
    assert page.evaluate("window.streams.length") == 2
    assert page.evaluate(live) == 1
    page.click("#camera")
    assert page.evaluate(live) == 0
    page.evaluate("() => { window.leave = new Promise((give) => { window.give = give; }); }")
    page.click("#camera")
    page.set_input_files("#file", photograph)
    page.wait_for_selector("#status:has-text('1 face, ')")
    page.evaluate("window.give()")
    page.wait_for_function("window.streams.length === 3")
    page.wait_for_function(f"{live} === 0")
    assert page.evaluate("[hih.picture.width, hih.picture.height, hih.stream]") == [512, 512, None]


def test_a_photograph_that_is_ready_too_late_is_not_shown(
    visits: Any, site: Any, photograph: Path, other_photograph: Path
) -> None:
    page = opened(visits, site[0])
    page.evaluate("""() => {
      window.slow = new Promise((go) => { window.go = go; });
      const make = window.createImageBitmap;
      window.createImageBitmap = async (from, ...options) => {
        const bitmap = await make(from, ...options);
        if (from.name === "astronaut.png") {
          await window.slow;
          window.late = true;
        }
        return bitmap;
      };
    }""")
    page.set_input_files("#file", photograph)
    page.set_input_files("#file", other_photograph)
    page.wait_for_function("hih.faces.length === 1")
    page.evaluate("window.go()")
    page.wait_for_function("window.late")
    page.wait_for_timeout(1000)
    assert page.evaluate("[hih.picture.height, hih.source.height, hih.faces.length]") == [600, 600, 1]


def test_transparent_pixels_keep_their_colours(visits: Any, site: Any, photograph: Path) -> None:
    address, folder, faces = site
    pixels = read_image(photograph)
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:140], alpha[140:160] = 0, 8
    wide = np.concatenate((np.tile(pixels, (1, 5, 1)), np.tile(alpha, (1, 5, 1))), 2)  # more than one part of WebGL
    PIL.Image.fromarray(wide).save(folder / "transparent.png")
    page = opened(visits, address)
    box = faces[0][1]
    for left in (0, 2048):
        moved = [box[0] + left, box[1], box[2] + left, box[3]]
        found = page.evaluate(ONCE, ["transparent.png", moved, 0])
        expected = page.evaluate(ONCE, ["astronaut.png", box, 0])
        np.testing.assert_allclose(np.subtract(found["points"], (left, 0)), expected["points"], atol=0.05)
