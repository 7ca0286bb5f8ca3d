"""Tabs of the demo without a browser. They need Gradio."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align import FaceAligner

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra [demo]")


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_T", device="cpu")


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
