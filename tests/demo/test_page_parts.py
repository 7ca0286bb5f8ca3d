"""Modules of the static page in Node.js, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
from browsers import WEB, lacking

from hih_align.crops import reach_of
from hih_align.roll import upright_box


def run(code: str, *values: Any) -> Any:
    """What the body of an async JavaScript function returns. ``values`` are its argument ``given``."""
    program = shutil.which("node")
    if program is None:
        lacking("needs Node.js, which is not here")
    call = f"await (async (given) => {{ {code} }})({json.dumps(values)})"
    words = [program, "--input-type=module", "--eval", f"console.log(JSON.stringify({call}))"]
    done = subprocess.run(words, cwd=WEB, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_missing_files_are_named_with_the_program_that_makes_them() -> None:
    told = run(
        """
        const { Aligner } = await import("./aligner.js");
        globalThis.fetch = async (path) => new Response("<!DOCTYPE html>", { status: 404 });
        return Aligner.load({}, "models").catch((error) => error.message);
        """
    )
    assert told == 'models/model.json is not there: run "python examples/web/prepare.py" first'


@pytest.mark.parametrize("reach", [None, [0.5, 0.6, 0.4, 0.7], [-0.1, 0, 0.2, 0.1]])
@pytest.mark.parametrize("roll", [0.0, 70.0, -160.0])
def test_the_box_of_a_face_is_that_of_python(reach: list[float] | None, roll: float) -> None:
    points = np.random.default_rng(0).uniform(100, 200, (5, 2))
    box, again = run(
        """
        const { reachOf, uprightBox } = await import("./geometry.js");
        const [points, roll, reach] = given;
        const box = uprightBox(points, roll, reach);
        return [box, reachOf(box, uprightBox(points, 0))];
        """,
        points.tolist(),
        roll,
        reach,
    )
    expected = upright_box(points, roll, reach)
    np.testing.assert_allclose(box, expected, atol=1e-6)
    np.testing.assert_allclose(again, reach_of(expected[None], upright_box(points, 0)[None]), atol=1e-4)


@pytest.mark.parametrize(("refits", "reach"), [(True, None), (True, [0.5, 0.6, 0.4, 0.7]), (False, None)])
def test_further_passes_and_frames_use_the_boxes_of_the_model(refits: bool, reach: list[float] | None) -> None:
    """The model always finds the same five points of a face of roll 90."""
    five = [[240, 180], [240, 220], [210, 200], [180, 185], [180, 215]]
    given = [120, 120, 300, 280]
    crops, followed, again = run(
        """
        const { Aligner } = await import("./aligner.js");
        const [five, about, box] = given;
        const aligner = new Aligner(null, null, about);
        const crops = [];
        aligner.once = async (picture, box, roll = 0) => {
          crops.push([box, roll]);
          return { points: five, scores: [1, 1, 1, 1, 1], box, roll };
        };
        const face = await aligner.align(null, box);
        const followed = aligner.follow(face);
        const next = { ...(await aligner.once(null, followed.box, followed.roll)), reach: followed.reach };
        return [crops.slice(0, 2), followed, aligner.follow(next)];
        """,
        five,
        {"refine": 1, "refine_above": None, "refits": refits, "box": reach, "five": [[0], [1], [2], [3], [4]]},
        given,
    )
    roll = followed["roll"]
    assert roll == pytest.approx(90, abs=2)
    own = upright_box(five, roll, reach)
    assert crops[0] == [given, 0]
    assert crops[1][1] == pytest.approx(roll)
    np.testing.assert_allclose(crops[1][0], own if refits else given, atol=1e-6)
    np.testing.assert_allclose(followed["box"], own if refits else given, atol=1e-6)
    np.testing.assert_allclose(again["box"], followed["box"], atol=1e-6)


def test_faces_of_a_model_that_is_not_calibrated_are_not_judged_by_their_scores() -> None:
    """As in `FaceAligner.align`: heights of heatmaps do not tell whether there is a face."""
    kept = run(
        """
        const { Aligner } = await import("./aligner.js");
        const faces = [[0.1, 0.2], [0.3, 0.2]].map((scores) => ({ scores }));
        return given[0].map((about) => faces.map((face) => new Aligner(null, null, about).isFace(face)));
        """,
        [{"calibrated": True}, {"calibrated": False}, {}, {"calibrated": True, "limit_scale": 0.5}],
    )
    assert kept == [[False, True], [True, True], [False, True], [True, True]]
