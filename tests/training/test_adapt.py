"""`adapt`, without training: the saved aligner gives the points that were measured."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_faces import SCHEME, TINY, any_box, no_curve, write_faces  # noqa: F401
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app
from hih_align.crops import tight_box
from hih_align.data.annotations import Record
from hih_align.hub.config import Config
from hih_align.hub.download import WeightsUnavailableError
from hih_align.images import read_image
from hih_align.method.network import HIHNet
from hih_align.roll import roll_of
from hih_align.schemes import WFLW, scheme_from_dict
from hih_align.training import adaptation, fine_tune, looking
from hih_align.training.adaptation import adapt, candidates, open_dataset
from hih_align.training.looking import look
from hih_align.training.own_scheme import guessed_scheme
from hih_align.training.recipe import load_recipe
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer

KNOWN = scheme_from_dict({"id": "known", "names": [f"k{i}" for i in range(8)], "mirror": [[0, 1], [2, 3], [4, 5]]})


@pytest.fixture(scope="module")
def start() -> FaceAligner:
    torch.manual_seed(2)
    return FaceAligner(HIHNet(8, *TINY), Config(KNOWN, **TINY._asdict(), name="HIH_N/known"))


@pytest.fixture(scope="module")
def network() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("adapt") / "made", 5, 0)


@pytest.mark.usefixtures("any_box")
def test_the_saved_aligner_gives_the_points_that_were_measured(
    start: FaceAligner, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no shift of the decoder: it is in pixels of the box of the points, and an untrained network finds another box
    monkeypatch.setattr(looking, "MEDIAN_ERROR", np.inf)
    made = adapt(start, data, scheme=scheme_from_dict(SCHEME), out=tmp_path / "mine", progress=False)
    loaded = FaceAligner.from_pretrained(tmp_path / "mine")
    assert loaded.scheme.names == tuple(SCHEME["names"])
    assert loaded.calibrated
    assert made.report.overall.faces == 5
    seen = look(start, open_dataset(data, scheme_from_dict(SCHEME)), progress=False)
    expected = made.matching.readout.points(seen.points)
    for record, points in zip(seen.records, expected, strict=True):
        face = loaded.align(read_image(record.image), record.box)
        np.testing.assert_allclose(face.points, points, atol=1e-2)
    assert "cross-validated on 5 faces" in made.text()
    assert [row.split()[0] for row in made.text().splitlines()[1:5]] == SCHEME["names"]


@pytest.mark.usefixtures("any_box")
def test_faces_of_one_photograph_are_left_out_one_by_one(start: FaceAligner, data: Path) -> None:
    """There is no other photograph to measure with, so the result says that the errors may be too low."""
    faces = open_dataset(data, scheme_from_dict(SCHEME))
    image = faces.records[0].image
    together = replace(faces, records=tuple(replace(record, image=image) for record in faces.records))
    made = adapt(start, together, progress=False)
    assert "cross-validated on 5 faces" in made.text()
    assert any("all faces are of one photograph" in sentence for sentence in made.advice)
    look_again = look(start, together, progress=False)
    own = made.matching.readout.points(look_again.points)
    assert np.abs(made.report.points - own).max() > 0.01  # not the points of the whole matching
    one = adapt(start, replace(faces, records=faces.records[:1]), progress=False)
    assert "not cross-validated, measured on 1 faces" in one.text()


@pytest.mark.usefixtures("any_box")
def test_labels_that_could_not_be_left_out_are_reported(start: FaceAligner, data: Path) -> None:
    faces = open_dataset(data, scheme_from_dict(SCHEME))
    first, *others = faces.records

    def without_top(record: Record) -> Record:
        assert record.labels is not None
        return replace(record, labels=replace(record.labels, weights=np.array([1.0, 1.0, 0.0, 1.0])))

    made = adapt(start, replace(faces, records=(first, *map(without_top, others))), progress=False)
    assert any(sentence.startswith("6% of the labels could not be left out") for sentence in made.advice)


def test_a_coco_file_names_its_landmarks(data: Path) -> None:
    with pytest.warns(UserWarning, match="no mirror table"):
        assert open_dataset(data).scheme.names == tuple(SCHEME["names"])


def test_the_commands(start: FaceAligner, data: Path, tmp_path: Path) -> None:
    start.save_pretrained(tmp_path / "start")
    runner = CliRunner()
    file = tmp_path / "mine.json"
    with warnings.catch_warnings(record=True) as caught:  # the missing mirror table is what the command writes
        warnings.simplefilter("always")
        done = runner.invoke(app, ["scheme", "new", str(file), "--from", str(data), "--init", str(tmp_path / "start")])
    assert done.exit_code == 0, done.output
    assert not [w for w in caught if "mirror table" in str(w.message)]
    assert "mirror table" not in done.output
    written = json.loads(file.read_text())
    assert written["id"] == "mine"
    assert written["names"] == SCHEME["names"]
    assert written.get("mirror") is None or {name for pair in written["mirror"] for name in pair} <= {*SCHEME["names"]}
    assert "check them" in done.output
    again = runner.invoke(app, ["scheme", "new", str(file), "--from", str(data), "--init", str(tmp_path / "start")])
    assert again.exit_code == 1
    piped = runner.invoke(app, ["scheme", "new", "-", "--from", str(data), "--init", str(tmp_path / "start")])
    assert piped.exit_code == 0, piped.output
    assert json.loads(piped.stdout)["names"] == SCHEME["names"]  # nothing else is written there
    picture = runner.invoke(app, ["data", "check", str(data), "--scheme", str(file), "--sheet", "-"])
    assert Image.open(io.BytesIO(picture.stdout_bytes)).format == "PNG"
    args = ["--data", str(data), "--scheme", str(file), "--init", str(tmp_path / "start"), "--out", str(tmp_path / "m")]
    done = runner.invoke(app, ["adapt", *args])
    assert done.exit_code == 0, done.output
    assert "new point" in done.output
    assert FaceAligner.from_pretrained(tmp_path / "m").scheme.id == "mine"


@cache
def photographs(network: FaceAligner) -> list[tuple[Image.Image, NDArray[np.float64]]]:
    """Four pictures of a real face, and the points that a network finds in them."""
    photo = Image.fromarray(astronaut()).crop((90, 0, 360, 270))
    pictures = []
    for turn, side in zip((-9, -3, 3, 9), (220, 270, 220, 270), strict=True):
        picture = photo.rotate(turn, Image.Resampling.BILINEAR).resize((side, side))
        found = network.align(np.asarray(picture), np.array([87, 80, 185, 200]) * side / 270)
        pictures.append((picture, found.points.astype(float)))
    return pictures


def labelled(
    folder: Path, network: FaceAligner, wanted: list[int], right: float = 0.0, tight: bool = False
) -> tuple[Path, list[str]]:
    """A COCO file of four pictures of a real face, with some landmarks of a network, and the names of the landmarks.

    The labels lie to the right of the landmarks, by this share of the longer side of the face. The boxes are the
    tight boxes of all landmarks of the network, or only of the labels. With the latter `adapt` runs the network three
    times as often.
    """
    images, annotations = [], []
    for i, (picture, found) in enumerate(photographs(network)):
        picture.save(folder / f"{i}.png", compress_level=1)
        points = found[wanted] + (right * np.ptp(found, axis=0).max(), 0)
        images.append({"id": i, "file_name": f"{i}.png", "width": picture.width, "height": picture.height})
        keypoints = [value for x, y in points.tolist() for value in (x, y, 2)]
        corners = points if tight else found
        bbox = [*corners.min(0).tolist(), *np.ptp(corners, axis=0).tolist()]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "keypoints": keypoints, "bbox": bbox})
    names = [f"own {n}" for n in wanted]
    categories = [{"id": 1, "name": "face", "keypoints": names}]
    file = folder / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file, names


def test_boxes_around_a_few_landmarks_are_noticed(network: FaceAligner, tmp_path: Path) -> None:
    """CVAT writes the tight box of the landmarks if the user draws no box. It holds only a part of the face."""
    file, names = labelled(tmp_path, network, [48, 54, 51, 57], tight=True)  # the mouth
    made = adapt(network, file, scheme=scheme_from_dict({"id": "own", "names": names}), progress=False)
    assert made.aligner.config.refine == 1
    assert {m.how for m in made.matching.matches} <= {"same", "near"}
    assert made.report.overall.nme < 4  # percent of the longer side of the tight box


def test_labels_that_lie_to_one_side_move_the_decoder(network: FaceAligner, tmp_path: Path) -> None:
    """The matching treats both sides of a face alike, so only the decoder can move all points to the right."""
    wanted, shifts = [36, 45, 30, 48, 54], []
    for right in (0.0, 0.02):
        file, names = labelled(tmp_path, network, wanted, right)
        scheme = scheme_from_dict({"id": "own", "names": names, "mirror": [[0, 1], [3, 4]]})
        made = adapt(network, file, scheme=scheme, out=tmp_path / "mine", progress=False)
        assert made.report.overall.nme < 1.5
        shifts.append(made.aligner.decoder.shift)
        assert FaceAligner.from_pretrained(tmp_path / "mine").decoder == made.aligner.decoder
    heatmap = 128 / 4 / network.config.crop_ratio  # heatmap pixels of a face's longer side
    assert 0.5 * 0.02 * heatmap < shifts[1][0] - shifts[0][0] < 1.1 * 0.02 * heatmap
    assert shifts[1][1] == shifts[0][1] == network.decoder.shift[1]


@pytest.mark.filterwarnings("ignore:scheme .* has no mirror table")
@pytest.mark.parametrize(
    ("wanted", "five"),
    [
        ([54, 48, 30, 45, 36, 42, 39], ((4, 6), (3, 5), (2,), (1,), (0,))),  # each eye by its two corners
        ([48, 54, 37, 44, 38, 43, 41, 46], None),  # no landmark of the nose
        ([48, 54, 51, 57], None),  # the mouth alone
    ],
)
def test_the_five_points_are_guessed(network: FaceAligner, tmp_path: Path, wanted: list[int], five: object) -> None:
    file, _ = labelled(tmp_path, network, wanted)
    scheme = guessed_scheme(network, open_dataset(file), progress=False)
    assert scheme.five == five
    if five is not None:
        true = network.align(tmp_path / "3.png", (87, 80, 185, 200))
        own = scheme.five_points(true.points[wanted])
        assert np.linalg.norm(own - true.five_points(), axis=-1).max() < 0.04 * 120
        assert abs(float(roll_of(own)) - true.roll) < 3


def test_a_size_stands_for_the_networks_that_are_published() -> None:
    own = scheme_from_dict({"id": "own", "names": ["a", "b"], "mirror": [[0, 1]]})
    assert candidates("HIH_N", own) == ("HIH_N/300w", "HIH_N/wflw")
    assert candidates("HIH_N", WFLW) == ("HIH_N/wflw",)
    assert candidates("HIH_N", None) == ("HIH_N",)  # the network says the scheme
    assert candidates("HIH_N/300w", own) == ("HIH_N/300w",)
    assert candidates(Path("mine"), own) == ("mine",)


def test_networks_that_are_not_available_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str, **_: Any) -> str:
        if name == "missing":
            raise WeightsUnavailableError("model: no connection")
        return f"aligner {name}"

    monkeypatch.setattr(FaceAligner, "from_pretrained", loaded)
    for names in (["missing", "here"], ["here", "missing"]):
        with pytest.warns(UserWarning, match="missing is not tried: model: no connection"):
            assert adaptation._loaded(names) == {"here": "aligner here"}
    with pytest.raises(WeightsUnavailableError), pytest.warns(UserWarning, match="is not tried"):
        adaptation._loaded(["missing", "missing"])


def test_the_published_network_with_the_lowest_error_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HIH_N/300w has no pupils and no lower edges of the brows."""
    file, names = labelled(tmp_path, FaceAligner.from_pretrained("HIH_N/wflw", device="cpu"), [96, 97, 41, 47, 54, 79])
    scheme = scheme_from_dict({"id": "own", "names": names, "mirror": [[0, 1], [2, 3]]})
    made = adapt("HIH_N", file, scheme=scheme, out=tmp_path / "mine", progress=False)
    assert made.start == "HIH_N/wflw"
    assert made.compared["HIH_N/wflw"] == made.report.overall.nme < made.compared["HIH_N/300w"]
    line = f"networks tried: HIH_N/300w {made.compared['HIH_N/300w']:.3f} %, HIH_N/wflw "
    assert line in made.text()
    assert FaceAligner.from_pretrained(tmp_path / "mine").config.heads == 98

    data = open_dataset(file, scheme)
    hint = "5 of 6 landmarks are no landmarks of HIH_N/300w, first 'own 96': 'HIH_N' as the start also tries HIH_N/wflw"
    (said,) = adapt("HIH_N/300w", data, progress=False).advice
    assert said.startswith(hint)
    with pytest.warns(UserWarning, match=hint):
        Trainer(load_recipe("finetune"), [Source(data)], tmp_path / "alone", init="HIH_N/300w", progress=False)
    assert adapt("HIH_N/wflw", data, progress=False).advice == made.advice == ()
    with monkeypatch.context() as here:  # the other network cannot be loaded, which `_loaded` says
        here.setattr(adaptation, "_loaded", lambda *_, **__: {"HIH_N/300w": FaceAligner.from_pretrained("HIH_N/300w")})
        assert adapt("HIH_N", data, progress=False).advice == ()

    run = tmp_path / "run"
    short = {"out": run, "few": {"steps": 1, "views": 8}, "epochs": 1, "progress": False}
    with monkeypatch.context() as alone:  # the faces were looked at to choose the network
        alone.setattr("hih_align.training.matched_start.look", None)
        fine_tune("HIH_N", data, **short)
    written = json.loads((run / "run.json").read_text())
    assert (written["init"], written["start"]) == ("HIH_N", "HIH_N/wflw")
    monkeypatch.setattr("hih_align.training.trainer.compared", None)  # a run that goes on does not choose again
    fine_tune("HIH_N", data, **short, resume=True)


def test_boxes_of_whole_photographs_get_advice(network: FaceAligner, tmp_path: Path) -> None:
    """In percent of such boxes, the error seems low."""
    file, names = labelled(tmp_path, network, [36, 45, 30, 48, 54])
    data = open_dataset(file, scheme_from_dict({"id": "own", "names": names, "mirror": [[0, 1], [3, 4]]}))
    assert adapt(network, data, progress=False).advice == ()
    wide = [replace(r, boxes={"annotated": r.box + np.array((-400, -400, 400, 400))}) for r in data.records]
    data = replace(data, records=tuple(wide))
    said = adapt(network, data, progress=False).advice
    with pytest.warns(UserWarning, match="the network sees no face"):
        guessed_scheme(network, data, progress=False)
    assert said[0].startswith("the network sees no face in most boxes: the median of its scores is 0.")


def test_a_model_of_own_landmarks_can_be_the_start_of_others(network: FaceAligner, tmp_path: Path) -> None:
    """Its boxes are larger than the tight boxes of its points, as `Config.box` says."""
    file, names = labelled(tmp_path, network, [36, 45, 30, 48, 54])
    scheme = scheme_from_dict({"id": "own", "names": names, "mirror": [[0, 1], [3, 4]]})
    data = open_dataset(file, scheme)
    faces = []
    for record in data.records:
        assert record.size is not None
        found = network.align(record.image, np.array([87, 80, 185, 200]) * record.size[0] / 270)
        faces.append(replace(record, boxes={"annotated": tight_box(found.points)}))
    data = replace(data, records=tuple(faces))
    first = adapt(network, data, progress=False)
    assert (first.aligner.config.refine, first.aligner.config.box is None) == (0, False)
    second = adapt(first.aligner, data, progress=False)
    assert second.aligner.config.refine == 0
    np.testing.assert_allclose(second.aligner.config.box, first.aligner.config.box, atol=0.1)
    assert second.report.overall.nme < 1.3 * first.report.overall.nme


def test_an_aligner_that_converts_its_points_can_be_the_start(network: FaceAligner, tmp_path: Path) -> None:
    cofw = FaceAligner.from_pretrained("HIH_N", "cofw", device="cpu")
    file, names = labelled(tmp_path, network, [36, 45, 30, 48, 54])
    data = open_dataset(file, scheme_from_dict({"id": "own", "names": names, "mirror": [[0, 1], [3, 4]]}))
    made = adapt(cofw, data, progress=False)
    assert made.aligner.config.heads == 98
    assert made.report.overall.nme < 5
    assert guessed_scheme(cofw, data, progress=False).mirror == ((0, 1), (3, 4))


def test_a_model_is_not_written_over_a_run(start: FaceAligner, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"out: .* holds a training run, expected another folder"):
        adapt(start, data, scheme=scheme_from_dict(SCHEME), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="holds a training run"):
        start.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(NotADirectoryError, match=r"out: .*run\.json is a file, expected a folder"):
        adapt(start, data, scheme=scheme_from_dict(SCHEME), out=tmp_path / "run.json", progress=False)
