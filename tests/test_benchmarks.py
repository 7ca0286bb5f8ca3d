"""The benchmark commands, with very little work: the tests check what is measured, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import hih_align
from hih_align import FaceAligner
from hih_align.runtime import memory

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"

#: A stand-in for dlib, whose predictor returns the points in its file.
DLIB = """
import json
class rectangle:
    def __init__(self, *sides):
        assert all(isinstance(side, int) for side in sides)
        self.sides = sides
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
class shape_predictor:
    def __init__(self, path):
        with open(path) as file:
            self.known = json.load(file)
    def __call__(self, image, square):
        left, top, right, bottom = square.sides
        assert right - left == bottom - top
        self.found = [Point(*p) for p in self.known]
        return self
    def parts(self):
        return self.found
"""


@pytest.fixture(scope="module")
def found() -> NDArray[np.float32]:
    """The astronaut's points, (68, 2), from HIH_N."""
    import skimage.data

    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu")
    return aligner.align(skimage.data.astronaut(), (177, 80, 275, 200)).points


@pytest.fixture
def data(tmp_path: Path, astronaut: NDArray[np.uint8], found: NDArray[np.float32]) -> Path:
    """A data set: the astronaut, annotated with the points from HIH_N."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    PIL.Image.fromarray(astronaut).save(tmp_path / "data" / "images" / "a.png")
    keypoints = np.column_stack((found, np.full(68, 2))).ravel().tolist()
    face = {"id": 1, "image_id": 1, "bbox": [177, 80, 98, 120], "keypoints": keypoints}
    path = tmp_path / "data" / "annotations.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [face]}))
    return path


def worked_here(command: list[str], **options: Any) -> Any:
    """In place of `subprocess.Popen`: a worker that needs PyTorch works in this process, which has loaded it."""
    import worker
    from competitors import COMPETITORS

    contender = worker.Contender(**json.loads(command[2]))
    if contender.backend in COMPETITORS:
        return subprocess.Popen(command, **options)
    requests: list[str] = []
    answers = worker.answers(contender, Path(command[3]), iter(requests.pop, None))
    pipe = SimpleNamespace(write=requests.append, flush=bool, readline=lambda: next(answers), close=bool)
    return SimpleNamespace(stdin=pipe, stdout=pipe, wait=bool)


def test_speed(
    part: Any,
    data: Path,
    found: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command writes a table, a JSON file and a plot.

    The table has the NME of this package and of one other program. It says why a second program was not run.
    """
    stub = tmp_path / "stub"
    (stub / "face_recognition_models" / "models").mkdir(parents=True)
    (stub / "dlib.py").write_text(DLIB)
    (stub / "face_recognition_models" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    points = found.astype(float) + np.array((3, 4))  # five pixels away
    weights = stub / "face_recognition_models" / "models" / "shape_predictor_68_face_landmarks.dat"
    weights.write_text(json.dumps(points.tolist()))
    words = ["--sizes", "HIH_N", "--backends", "torch", "--precisions", "fp32", "--faces", 1, 2]
    words += ["--threads", torch.get_num_threads()]  # a worker sets it for the whole process
    words += ["--rounds", 1, "--seconds", 0.01, "--matrices", 64, "--data", data, "--out", tmp_path / "out"]
    words += ["--competitors", "dlib", "mediapipe", "--python", f"mediapipe={tmp_path / 'python'}"]
    monkeypatch.setenv("PYTHONPATH", str(stub))  # of the competitors' processes
    monkeypatch.setattr(part("speed"), "subprocess", SimpleNamespace(Popen=worked_here, PIPE=subprocess.PIPE))
    monkeypatch.setattr(part("speed"), "RELEASED", ("HIH_N",))  # run plainly, too
    monkeypatch.setattr(sys, "argv", ["speed.py", *map(str, words)])
    part("speed").main()
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "speed.md").read_text() + "\n"
    report = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert len(report["not_run"]) == 1, report["not_run"]
    plain, ours, dlib = report["results"]
    settings = [f"{faces}, refine {refine}" for faces in ("1 face", "2 faces") for refine in (0, "default")]
    assert report["settings"] == settings
    assert list(ours["measured"]) == settings
    assert list(plain["measured"]) == list(dlib["measured"]) == settings[::2], "they have no refining"
    for row in (plain, ours, dlib):
        assert all(m["ms_per_face"] > 0 and m["calls"] >= 1 for m in row["measured"].values())
    assert ours["share_of_matmul"] > 0
    outside = ours["outside_network"]
    assert 0 < outside["share"] < 1
    assert f": {ours['name']} {outside['ms']:.2f} ms ({outside['share']:.1%})." in printed
    assert "outside_network" not in plain
    # the annotations are the points of this package with its default settings
    assert ours["accuracy"] == {"nme": pytest.approx(0, abs=0.01), "found": 1, "faces": 1}
    assert 0.3 < plain["accuracy"]["nme"] < 5, "the paper's decoder, and no refining"
    outer = np.linalg.norm(found[36] - found[45])
    assert dlib["accuracy"]["nme"] == pytest.approx(100 * 5 / outer, rel=1e-3)
    assert "trained on these very test faces" in printed
    (error,) = report["not_run"]
    assert error.startswith("MediaPipe Face Mesh, 1 thread: ")
    assert f"Not run: {error}" in printed
    with PIL.Image.open(tmp_path / "out" / "speed.png") as image:
        assert image.width > 500


def test_an_exported_row_is_compared_with_the_row_of_its_size(part: Any) -> None:
    def row(size: str, backend: str, threads: int, ms: float) -> dict[str, Any]:
        measured = {"1 face, refine 0": {"ms_per_face": ms, "quartiles": [ms, ms], "calls": 1}}
        return {"contender": {"backend": backend, "threads": threads}, "size": size, "measured": measured}

    rows = [row("HIH_S", "plain", 2, 90), row("HIH_T", "plain", 1, 80), row("HIH_T", "plain", 2, 60)]
    exported = row("HIH_T", "openvino", 2, 12)
    assert part("speed")._time([*rows, exported], exported, "1 face, refine 0") == "12.0, 5.00x"
    assert part("speed")._time(rows, exported, "64 faces, refine 0") == "-"
    other = row("mine", "torch", 2, 12)
    assert part("speed")._time([*rows, other], other, "1 face, refine 0") == "12.0"


def test_time_outside_the_network(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part("speed").write_photograph(tmp_path / "photograph.npz")
    worker = part("worker")
    threads = torch.get_num_threads()
    ours = worker.Ours(worker.Contender("HIH_N", "torch", "fp32", threads), tmp_path / "photograph.npz")
    assert 0 < ours.outside(3)["share"] < 0.5
    network = ours.time(1, 0, 3)
    warp = hih_align.crops.warp

    def slowly(*given: Any, **options: Any) -> Any:
        time.sleep(4 * max(network))
        return warp(*given, **options)

    monkeypatch.setattr(hih_align.crops, "warp", slowly)
    assert 0.5 < ours.outside(3)["share"] < 1


def test_the_plot(part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plot has a point for each program with weights. The point of dlib is hollow, and FAN-4 is a line.

    Rows with fewer threads are not drawn.
    """
    from matplotlib.axes import Axes

    def row(backend: str, ms: float, nme: float | None, threads: int = 2, model: str = "HIH_T") -> dict[str, Any]:
        return {
            "contender": {"model": model, "backend": backend, "precision": "fp32", "threads": threads},
            "size": model,
            "measured": {"1 face, refine 0": {"ms_per_face": ms}},
            "accuracy": None if nme is None else {"nme": nme},
        }

    rows = [row("torch", 50, 3.1), row("torch", 90, 3.1, threads=1), row("plain", 80, 3.5), row("openvino", 60, None)]
    rows += [row("dlib", 2, 2.0, 1, "dlib"), row("mediapipe", 4, 5.0, 1, "MediaPipe"), row("fan4", 240, None)]
    rows[0]["measured"]["1 face, refine default"] = {"ms_per_face": 100}
    points, lines = {}, []
    plot, line = Axes.plot, Axes.axvline

    def plotted(self: Any, x: float, y: float, *words: Any, **options: Any) -> Any:
        points[x, y] = options.get("markerfacecolor")
        return plot(self, x, y, *words, **options)

    def lined(self: Any, x: float, **options: Any) -> Any:
        lines.append(x)
        return line(self, x, **options)

    monkeypatch.setattr(Axes, "plot", plotted)
    monkeypatch.setattr(Axes, "axvline", lined)
    about = {"cpu": "a CPU", "date": "2026-01-01 00:00 UTC"}
    part("plot").draw({"results": rows, "machine": about, "data": "faces"}, tmp_path / "plot.png")
    assert set(points) == {(50, 3.1), (80, 3.5), (2, 2.0), (4, 5.0)}
    assert [xy for xy, face in points.items() if face == "none"] == [(2, 2.0)]
    assert lines == [240]
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_68_points_of_the_mesh(part: Any) -> None:
    mesh = part("competitors").MESH
    assert len(mesh) == len(set(mesh)) == 68
    assert 0 <= min(mesh) <= max(mesh) < 468
    assert [mesh[i] for i in (8, 30, 36, 39, 42, 45, 48, 54)] == [152, 4, 33, 133, 362, 263, 61, 291]


def test_slow_and_fast_settings_are_called_in_the_right_rounds(part: Any) -> None:
    """A slow setting is called once, in the middle round.

    A fast setting is called in every round, as often as its seconds allow.
    """
    speed, contender = part("speed"), part("worker").Contender("HIH_T", "torch", "fp32", 1)
    calls: list[tuple[int, int]] = []

    class Fake:
        def __init__(self) -> None:
            self.contender = contender

        def ask(self, do: str, faces: int, refine: int | None, times: int) -> list[float]:
            calls.append((faces, times))
            return [0.1 * faces] * times

    settings = [speed.Setting(1, 0), speed.Setting(64, 0)]
    times, _ = speed.take_turns([Fake()], [], settings, [], 3, 3.0)
    assert [len(times[contender, setting]) for setting in settings] == [30, 1]
    assert calls == [(1, 2), (4, 1), (1, 10), (1, 10), (64, 1), (1, 10)]


def test_folder(
    part: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted_nano: Callable[..., str]
) -> None:
    model = converted_nano("onnxruntime", weights=False)  # the three processes need no PyTorch
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: None)  # it would change the process of the tests
    words = ["--model", model, "--backend", "onnxruntime", "--images", 12, "--sample", 2, "--batch-size", 2]
    words += ["--out", tmp_path / "folder.json"]
    monkeypatch.setattr(sys, "argv", ["folder.py", "--data", str(data), *map(str, words)])
    part("folder").main()
    report = json.loads((tmp_path / "folder.json").read_text())
    assert report["faces"] == 12
    assert report["each_face_once_after_kill"] is True
    assert all(rate > 0 for rate in report["align_batch_faces_per_s"])


def test_the_command_beside_a_figure_runs_the_same_evaluation(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `hih-align evaluate` command beside a figure calls `evaluate` with the arguments that were measured."""
    import shlex

    from typer.testing import CliRunner

    from hih_align.cli import evaluate as command_module
    from hih_align.cli.app import app
    from hih_align.data import annotations
    from hih_align.data.records import Record
    from hih_align.evaluation import evaluate as evaluation

    accuracy = part("accuracy")
    records = tuple(Record(Path(f"/faces/images/{i:04d}.jpg"), None, {}) for i in range(1, 304))
    monkeypatch.chdir(accuracy.ROOT)  # paths of split files in commands are relative to this folder
    asked: list[dict[str, Any]] = []

    class AskedError(Exception):
        pass

    def load(model: str, scheme: Any = None, device: Any = None, *rest: Any, decode: Any = None, **more: Any) -> Any:
        asked.append({"model": model, "decode": decode or next((r for r in rest if r in ("argmax",)), None)})
        return type("Aligner", (), {"scheme": model.partition("/")[2]})()

    def read(path: Any, scheme: Any, **more: Any) -> Any:
        asked[-1] |= {"data": Path(path), "scheme": scheme}
        return type("Data", (), {"skipped": (), "name": "dev", "records": records})()

    def evaluate(aligner: Any, dataset: Any, **options: Any) -> Any:
        plain = {"refine": None, "mirror": False, "box": "annotated", "normalizer": None} | options
        plain["subsets"] = list(plain["subsets"])
        plain["keep"] = getattr(plain["keep"], "text", None)
        plain.pop("batch_size", None)
        asked[-1] |= plain
        raise AskedError

    monkeypatch.setattr(FaceAligner, "from_pretrained", load)
    for module, name in ((annotations, "read_dataset"), (command_module, "read_dataset")):
        monkeypatch.setattr(module, name, read)
    for module, name in ((evaluation, "evaluate"), (command_module, "run")):
        monkeypatch.setattr(module, name, evaluate)
    for scheme, figures in accuracy.FIGURES.items():
        for figure in figures:
            asked.clear()
            with pytest.raises(AskedError):
                accuracy.measure(f"HIH_T/{scheme}", figure, Path("/faces"))
            words = shlex.split(figure.command(f"HIH_T/{scheme}", "/faces"))
            assert words[0] == "hih-align"
            assert isinstance(CliRunner().invoke(app, words[1:]).exception, AskedError)
            assert asked[0] == asked[1], words


def test_split_files_divide_the_faces_of_wflw_dev() -> None:
    """Every third face is for choosing settings, the others are for reporting. No face is in both files."""
    choose, report = ((BENCHMARKS / "splits" / f"wflw_dev_{n}.txt").read_text().split() for n in ("choose", "report"))
    assert (len(choose), len(report), len({*choose, *report})) == (101, 202, 303)
    assert all(int(name.removesuffix(".jpg")) % 3 == 0 for name in choose)


def test_figures_that_were_measured_again_replace_the_old_ones(part: Any) -> None:
    accuracy = part("accuracy")
    old = [{"dataset": "a", "metric": m, "value": 1.0} for m in ("NME", "NME, mirrored too")]
    new = [{"dataset": "a", "metric": "NME, mirrored too", "value": 2.0}, {"dataset": "b", "metric": "NME", "value": 3}]
    assert accuracy.merged(old, new) == [old[0], *new]
    named = [figure.name for figure in accuracy.FIGURES["wflw"] if "mirrored" in figure.name]
    assert named == ["NME inter-ocular, mirrored too"]  # what `--only mirrored` measures


def test_tables_beside_the_papers_figures(part: Any) -> None:
    """The row of a trained model is below the paper's row, and an untrained model has no row.

    A figure that was not measured is marked as such.
    """
    accuracy = part("accuracy")
    values = {"nme": 5.123, "fr10": 6.5, "auc10": 0.4321}
    summary = {"full_set": {"estimate": values}, "subsets": dict.fromkeys(accuracy.SUBSETS, values)}
    text = accuracy.tables({}, {"HIH_S/wflw": summary, "HIH_T/300w": {"overall": values}})
    lines = text.splitlines()
    assert "| HIH_T, ours | not measured here | 5.12 | not measured here | not measured here |" in lines
    at = lines.index("| HIH_S, the paper | 4.13 | 7.20 | 4.18 | 4.38 | 3.90 | 4.98 | 4.71 |")
    assert lines[at + 1] == "| HIH_S, ours | " + " | ".join(["5.12"] * 7) + " |"
    assert "| HIH_S, ours | " + " | ".join(["0.432"] * 7) + " |" in lines
    assert "HIH_B, ours" not in text


def test_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table has a row for each network, with its multiplications, parameters, and time in each chosen runtime."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sizes = importlib.import_module("sizes")
    monkeypatch.setattr(sizes, "CANDIDATES", {"HIH_T": sizes.Size(1, width=0.25), "small": sizes.Size(1, width=0.125)})
    words = ["--runtimes", "torch", "--rounds", "1", "--out", str(tmp_path)]
    words += ["--threads", str(torch.get_num_threads())]  # main sets it for the whole process
    monkeypatch.setattr(sys, "argv", ["sizes.py", *words])
    sizes.main()
    results = json.loads((tmp_path / "sizes.json").read_text())
    small = results["networks"]["small"]
    network = sizes.HIHNet(sizes.POINTS, 1, width=0.125)
    assert small["parameters"] == sum(p.numel() for p in network.parameters()) / 1e6
    assert small["gmac"] < results["networks"]["HIH_T"]["gmac"] / 2
    timed = results["runtimes"]["torch"]["small"]
    assert 0 <= timed["outside_ms"] < timed["ms"]
    rows = (tmp_path / "sizes.md").read_text().splitlines()[2:4]
    assert [row.split(" | ")[0] for row in rows] == ["| HIH_T", "| small"]
    assert rows[0].endswith(" 1.0 |")


def test_errors_of_sizes_are_stored_one_by_one(part: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A training that is stopped keeps the errors before it. The next run trains only the others."""
    sizes = part("sizes")
    monkeypatch.setattr(sizes, "CANDIDATES", {name: sizes.Size(1, width=0.125) for name in ("HIH_T", "a", "b")})
    timed = {name: {"ms": 2.0, "outside_ms": 1.0} for name in sizes.CANDIDATES}
    networks = {name: {**sizes.Size(1)._asdict(), "gmac": 1.0, "parameters": 1.0} for name in sizes.CANDIDATES}
    about = {"date": "2026-01-01", "processor": "a CPU", "threads": 2, "rounds": 1}
    sizes.write({**about, "networks": networks, "runtimes": {"torch": timed}}, tmp_path)
    errors = iter([4.125, KeyboardInterrupt(), 5.25])

    def trained(*given: Any) -> float:
        error = next(errors)
        if isinstance(error, BaseException):
            raise error
        return error

    monkeypatch.setattr(sizes, "trained", trained)
    with pytest.raises(KeyboardInterrupt):
        sizes.train_all(tmp_path, tmp_path, 2)
    rows = [row.rsplit(" | ", 1)[1] for row in (tmp_path / "sizes.md").read_text().splitlines()[:5]]
    assert rows == ["NME, epochs: 2 |", "--- |", "- |", "- |", "4.12 |"]
    sizes.train_all(tmp_path, tmp_path, 2)
    assert json.loads((tmp_path / "sizes.json").read_text())["trained"] == {"epochs": 2, "nme": {"b": 4.125, "a": 5.25}}
    assert "5.25 |" in (tmp_path / "sizes.md").read_text()
    with pytest.raises(ValueError, match=r"train is 3, but .* holds runs of 2 epochs"):
        sizes.train_all(tmp_path, tmp_path, 3)


def test_sizes_counts_what_the_network_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sizes = importlib.import_module("sizes")
    gmac, parameters = sizes.work(sizes.SIZES["HIH_T"])
    assert gmac == pytest.approx(6.855, abs=0.001)
    assert parameters == pytest.approx(9.397, abs=0.001)


def test_the_memory_of_a_process_is_not_that_of_its_parent(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux a new process inherits ``ru_maxrss`` from its parent. On macOS it is in bytes."""
    worker, held = part("worker"), np.ones(16 << 20)  # 128 MB
    script = f"import sys; sys.path.append({str(BENCHMARKS)!r}); import worker; print(worker.peak_memory())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 100 < held.nbytes / 1e6 < worker.peak_memory()
    missing = SimpleNamespace(read_text=lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    monkeypatch.setattr(worker, "Path", lambda _: missing)
    monkeypatch.setattr(worker.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 << 20))
    monkeypatch.setattr(worker.sys, "platform", "darwin")
    assert worker.peak_memory() == 3
    monkeypatch.setattr(worker.sys, "platform", "linux")
    assert worker.peak_memory() == 3 << 10


def test_memory_summarizes_several_processes(part: Any) -> None:
    """A row has the shortest times and the largest memory of several processes.

    The test in tests/runtime/test_without_torch.py runs a real process.
    """
    memory = part("memory")
    names = ("import_s", "load_s", "face_s", "first_face_s", "process_s")
    runs = [
        dict.fromkeys(names, seconds) | {"peak_mb": peak, "torch": False, "score": 1.0}
        for seconds, peak in ((0.5, 120.0), (0.25, 110.4), (0.75, 112.0))
    ]
    found = memory.summary(runs)
    assert found == dict.fromkeys(names, 0.25) | {"peak_mb": 120.0, "torch": False}
    about = {"cpu": "a CPU", "cores": 2, "date": "today", "load_before": 0.0, "command": "python memory.py"}
    report = {"model": "HIH_N", "machine": about, "results": {"onnxruntime": found, "torch": found | {"torch": True}}}
    lines = memory.markdown(report).splitlines()
    assert "| onnxruntime | no | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 120 |" in lines
    assert "| torch | yes | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 120 |" in lines
