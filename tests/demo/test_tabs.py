"""Tabs of the demo without a browser. They need Gradio."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from browsers import has_ipv6
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.hub.download import WeightsUnavailableError

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra [demo]")


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


def test_tags_in_the_names_of_a_model_are_shown_as_text(
    aligner: FaceAligner, astronaut: NDArray[np.uint8], astronaut_box: tuple[float, float, float, float]
) -> None:
    from hih_align.demo import inside, photo, view

    names = tuple(f"<script>{name}</script>" for name in aligner.scheme.names)
    scheme = replace(aligner.scheme, id="<script>", names=names)
    foreign = aligner.with_config(replace(aligner.config, scheme=scheme, name="<script>"))
    faces = foreign.align(astronaut, [astronaut_box])
    result = photo.Result("<script>.png", astronaut, faces, foreign)
    pages = [
        inside.page(result, 0, 5),
        view.picture(astronaut, faces, photo.sentence(faces)),
        view.table(faces),
        view.chips(faces.crop(astronaut, 112), photo.stem(result)),
    ]
    assert [page.count("<script>") for page in pages] == [0, 0, 0, 0]
    assert "<title>&lt;script&gt;jaw_5&lt;/script&gt; (5)</title>" in pages[0]


def test_messages_do_not_tell_where_the_server_keeps_its_files(photograph: Path, tmp_path: Path) -> None:
    from hih_align.demo import uploads

    whole = photograph.read_bytes()
    with pytest.raises(ValueError, match=r"gone\.png is no longer on the server: .* after 60 minutes\. Choose") as gone:
        uploads.read_photo(tmp_path / "gone.png")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png") as cut:
        uploads.read_photo(tmp_path / "cut.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png") as empty:
        uploads.read_photo(tmp_path / "empty.png")
    (tmp_path / "odd.dds").write_bytes(b"DDS " + (124).to_bytes(4, "little") + bytes(120))
    with pytest.raises(ValueError, match=r"odd\.dds cannot be read: Unknown pixel format") as odd:  # not an OSError
        uploads.read_photo(tmp_path / "odd.dds")
    for told in (gone, cut, empty, odd):
        assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_look_inside_sees_a_turned_face_upright(
    aligner: FaceAligner, astronaut: NDArray[np.uint8], quarters: int
) -> None:
    from hih_align.demo import inside, photo

    image = np.ascontiguousarray(np.rot90(astronaut, quarters))
    x, y = 226.0 - 255.5, 140.0 - 255.5  # centre of the face
    for _ in range(quarters):
        x, y = y, -x
    box = [255.5 + x - 49, 255.5 + y - 60, 255.5 + x + 49, 255.5 + y + 60]
    faces = aligner.align(image, [box])
    result = photo.Result("turned.png", image, faces, aligner)
    maps = inside.heatmaps(result, 0)
    points = np.array([inside.reading(maps, head, aligner).expectation for head in range(len(aligner.scheme))])
    apart = np.linalg.norm(maps.transform.to_image(points) - faces.points[0], axis=1)
    assert apart.mean() < 1.5  # pixels; the eyes are 40 apart. The rest is decoder and further passes
    assert inside.page(result, 0, 30).count("<figure") == 3


def test_the_roll_of_heatmaps_is_a_number(aligner: FaceAligner, astronaut: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="roll"):
        aligner.heatmaps(astronaut, (177, 80, 275, 200), roll=float("nan"))


def test_the_page_starts_with_the_decoder_of_the_model(aligner: FaceAligner, tmp_path: Path) -> None:
    from hih_align.demo import app, choices, models

    aligner.with_config(aligner.config, decode="argmax").save_pretrained(tmp_path)
    for chosen, decoder in ((choices.Choices.of(str(tmp_path)), "argmax"), (choices.Choices(), "expectation")):
        load = models.Models(device="cpu")
        page = app.build(load, chosen)
        radios = [block.value for block in page.blocks.values() if block.get_block_name() == "radio"]
        assert radios == [decoder] * 3  # of the tabs Photo, Video and Webcam
        own = load(chosen.model, chosen.scheme, None)
        assert own.decoder.method == decoder
        assert load(chosen.model, chosen.scheme, decoder) is own  # it is not loaded again


def test_a_camera_starts_with_the_smallest_network_for_the_chosen_scheme() -> None:
    from hih_align.demo.choices import Choices, fast

    small = Choices.of("HIH_N")
    assert fast(Choices.of("HIH_T")) == small
    for scheme in ("300w", "wflw", "cofw"):
        assert fast(Choices("HIH_T", scheme, "argmax")) == replace(small, scheme=scheme, decode="argmax")
    own = Choices("somebody/else", None)
    assert fast(own) is own


def test_a_camera_shows_an_error_in_place_of_its_picture(
    astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of Gradio would be a message on the page for each frame."""
    from hih_align.demo import app, choices, models

    def missing(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise WeightsUnavailableError("no <file>")

    monkeypatch.setattr(models, "FaceDetector", lambda: missing)
    page = app.build(models.Models(device="cpu"), choices.Choices.of("HIH_N"))
    step = next(function.fn for function in page.fns.values() if function.name == "step")
    shown, _ = step(astronaut, None, "HIH_N", "300w", "expectation", True)
    assert shown == '<div class="hih-empty">no &lt;file&gt;</div>'


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_the_page_is_served_at_an_ipv6_address() -> None:
    import gradio

    from hih_align.demo import app

    with gradio.Blocks(analytics_enabled=False) as page:
        pass
    try:
        there = app.launch(page, host="::1")
        assert there.startswith("http://[::1]:")
        with urllib.request.urlopen(there, timeout=60) as answer:
            assert answer.status == 200
    finally:
        page.close(verbose=False)


def test_an_exported_model_offers_only_its_own_decoder(converted_nano: Callable[..., str]) -> None:
    from hih_align.demo import app, choices, models

    name, load = converted_nano("onnxruntime", False), models.Models(device="cpu", backend="onnxruntime")
    page = app.build(load, choices.Choices.of(name))
    radios = [block.choices for block in page.blocks.values() if block.get_block_name() == "radio"]
    assert radios == [[("expectation", "expectation")]] * 3  # of the tabs Photo, Video and Webcam
    follow = next(function.fn for function in page.fns.values() if function.name == "follow")
    _, radio = follow("HIH_N", "300w", "expectation")
    assert [value for _, value in radio.choices] == ["expectation", "argmax"]
    _, radio = follow(name, "300w", "argmax")
    assert (radio.choices, radio.value) == ([("expectation", "expectation")], "expectation")


def test_look_inside_says_that_an_exported_file_gives_no_heatmaps(
    converted_nano: Callable[..., str], astronaut: NDArray[np.uint8], astronaut_box: tuple[float, float, float, float]
) -> None:
    from hih_align.demo import inside, photo

    exported = FaceAligner.from_pretrained(converted_nano("onnxruntime", False), backend="onnxruntime", device="cpu")
    faces = exported.align(astronaut, [astronaut_box])
    assert inside.page(photo.Result("a.png", astronaut, faces, exported), 0, 5) == inside.WITHOUT


def test_the_page_says_that_scores_are_not_calibrated(
    aligner: FaceAligner, astronaut: NDArray[np.uint8], astronaut_box: tuple[float, float, float, float]
) -> None:
    from hih_align.demo import photo

    faces = aligner.align(astronaut, [astronaut_box])
    assert "calibrated" not in photo.sentence(faces)
    assert "not calibrated" in photo.sentence(replace(faces, calibrated=False))
