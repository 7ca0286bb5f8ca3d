"""`runtime.cuda`: batches are padded, split and joined, and CUDA graphs do not change the results.

Most tests run without a GPU: they call the function that a graph would capture. The other tests are skipped with a
message.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hih_align import SCHEMES, Config, FaceAligner, HIHNet, runtime
from hih_align.crops import Crop, square_crop, warp
from hih_align.method.network import DecimalHead, Residual, StackedHourglass, Unit
from hih_align.runtime import cuda as cuda_module
from hih_align.runtime import device_crops
from hih_align.runtime.backend import Photograph
from hih_align.runtime.cuda import GRAPH_SIZES, CudaBackend, CudaGraphs

Array = NDArray[Any]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
#: The astronaut's face in three boxes; and a box without a face that is large enough to be reduced before the warp.
#: Largest difference of a score. OpenCV before 5 interpolates at rounded positions, so the crops differ more.
SCORE = 1e-3 if int(cv2.__version__.split(".")[0]) >= 5 else 5e-3
FACES = np.array([(177.0, 80, 275, 200), (150, 60, 300, 230), (190, 90, 270, 190)])
BOXES = np.vstack((FACES, (20, 20, 480, 470)))


class Called:
    """A recorder whose graphs are ordinary calls. A later replay overwrites the result, as with real graphs."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []
        self.inside = False
        self.fails_at = -1
        self.found: list[Tensor] = []

    @contextmanager
    def aside(self) -> Iterator[None]:
        assert not self.inside  # only one thread at a time
        self.inside = True
        try:
            yield
        finally:
            self.inside = False

    def record(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
        assert self.inside
        if len(self.recorded) == self.fails_at:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.recorded.append(len(pixels))

        def replay() -> Tensor:
            assert self.inside
            self.replayed.append(len(pixels))
            for old in self.found:
                old.fill_(-1)
            found = function(pixels).clone()
            self.found.append(found)
            return found

        return replay


def double(batch: Tensor) -> Tensor:
    return 2 * batch.float().flatten(1)[:, :3]


def batch(count: int) -> Tensor:
    return torch.arange(3.0 * count).view(count, 3, 1)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [1]),
        (2, [2]),
        (3, [4]),
        (5, [8]),
        (33, [64]),
        (64, [64]),
        (65, [64, 1]),
        (512, [64] * 8),
        (150, [64, 64, 32]),
    ],
)
def test_batches_are_padded_and_split(count: int, expected: list[int]) -> None:
    recorder = Called()
    graphs = CudaGraphs(double, recorder)
    for _ in range(2):  # first with newly captured graphs, then with the same graphs
        torch.testing.assert_close(graphs(batch(count)), double(batch(count)))
    assert recorder.replayed == expected * 2
    assert sorted(recorder.recorded) == sorted(set(expected))  # each graph is captured once


def test_a_smaller_batch_does_not_contain_the_one_before() -> None:
    graphs = CudaGraphs(double, Called())
    first = graphs(batch(8) + 5)
    second = graphs(batch(5))
    torch.testing.assert_close(second, double(batch(5)))
    torch.testing.assert_close(first, double(batch(8) + 5))  # the first result is not overwritten


@pytest.mark.parametrize("fails_at", [0, 1])
def test_plain_calls_replace_graphs_that_cannot_be_captured(fails_at: int) -> None:
    """There is one warning, the failure is remembered, and the results are the same.

    The first capture fails, or a later one.
    """
    recorder = Called()
    recorder.fails_at = fails_at
    graphs = CudaGraphs(double, recorder)
    with pytest.warns(RuntimeWarning, match=r"CUDA graphs cannot be used.*not permitted") as said:
        found = graphs(batch(65))
    assert len(said) == 1
    torch.testing.assert_close(found, double(batch(65)))
    assert recorder.recorded == [64][:fails_at]
    assert recorder.replayed == [64][:fails_at]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for count in (65, 5):
            torch.testing.assert_close(graphs(batch(count)), double(batch(count)))


def test_an_error_that_also_occurs_without_graphs_is_raised() -> None:
    def broken(pixels: Tensor) -> Tensor:
        raise ValueError("no such layer")

    class Recording(Called):
        def record(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
            function(pixels)
            raise AssertionError

    graphs = CudaGraphs(broken, Recording())
    with pytest.warns(RuntimeWarning, match="no such layer"), pytest.raises(ValueError, match="no such layer"):
        graphs(batch(2))


def test_graphs_in_eight_threads() -> None:
    recorder = Called()
    graphs = CudaGraphs(double, recorder)
    start, wrong = threading.Barrier(8), []

    def work(number: int) -> None:
        start.wait()
        for turn in range(30):
            given = batch(1 + (number + turn) % 9) + number
            if not torch.equal(graphs(given), double(given)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(recorder.replayed) == 8 * 30
    assert sorted(recorder.recorded) == [1, 2, 4, 8, 16]


# faces on the device, with a backend that uses the CPU in place of a GPU


def small_aligner(device: str = "cpu") -> FaceAligner:
    """The parts of HIHNet, narrow and untrained: the network is fast, and its result depends on every pixel."""
    torch.manual_seed(0)
    network = HIHNet(68, 1)
    network.trunk = StackedHourglass(68, 1, channels=16)
    network.trunk.stem = nn.Sequential(Unit(3, 16, 7, stride=4), Residual(16, 16))
    network.decimal_head = DecimalHead(68, 8, channels=16, width=16)
    return FaceAligner(network, Config(SCHEMES["300w"], stacks=1, name="small", refine=1), device=device)


def pretending(aligner: FaceAligner, recorder: Called) -> FaceAligner:
    state, _ = aligner._copy
    backend = CudaBackend(aligner.network, aligner.config, CPU, torch.float32, recorder)
    aligner._copy = state, backend
    return aligner


@pytest.fixture(scope="module")
def plain() -> FaceAligner:
    return small_aligner()


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.mark.parametrize("options", [{"refine": 1}, {"refine": 0, "mirror": True}])
def test_faces_on_the_device(w300: FaceAligner, astronaut: Array, options: dict[str, Any]) -> None:
    """The points agree with those of the CPU runtime. A few pixels of the crops differ by one grey level."""
    recorder = Called()
    aligner = pretending(FaceAligner.from_pretrained("HIH_N", device="cpu"), recorder)
    expected, found = (a.align(astronaut, FACES, **options) for a in (w300, aligner))
    assert np.linalg.norm(found.points - expected.points, axis=-1).max() < 0.05
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE)
    np.testing.assert_array_equal(found.bbox, expected.bbox)
    # one replay for each pass; a mirrored pass has both views in one batch
    assert recorder.replayed == ([8] if "mirror" in options else [4, 4])


def test_a_large_face_on_the_device(w300: FaceAligner, astronaut: Array) -> None:
    image = cv2.resize(astronaut, (2048, 2048), interpolation=cv2.INTER_CUBIC)
    aligner = pretending(FaceAligner.from_pretrained("HIH_N", device="cpu"), Called())
    expected, found = (a.align(image, 4 * FACES[0], refine=0) for a in (w300, aligner))
    assert np.linalg.norm(found.points - expected.points, axis=-1).max() < 4 * 0.05


def test_one_face_takes_one_transfer_and_one_graph(
    plain: FaceAligner, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single face has a graph of its own, which cuts out the crop. Other faces are cut out before the graph."""
    recorder = Called()
    aligner = pretending(small_aligner(), recorder)
    cut: list[int] = []
    monkeypatch.setattr(cuda_module, "warp", lambda *given: cut.append(len(given[0])) or device_crops.warp(*given))
    for box in (FACES[0], FACES[2]):
        expected, found = (a.align(astronaut, box, refine=1) for a in (plain, aligner))
        assert np.linalg.norm(found.points - expected.points, axis=-1).max() < (
            0.05 if SCORE == 1e-3 else 3
        )  # random weights enlarge differences of the crop
        np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE)
    assert cut == []
    assert recorder.recorded == [1]
    assert recorder.replayed == [1] * 4  # two passes for each face
    there = aligner.align(astronaut, BOXES[3], refine=0)  # this face is reduced before the warp
    assert cut == [1]
    assert np.linalg.norm(there.points - plain.align(astronaut, BOXES[3], refine=0).points, axis=-1).max() < 0.5
    aligner.align(astronaut, FACES[0], refine=0, mirror=True)
    assert cut == [1, 1]
    assert recorder.recorded == [1, 1, 2]  # graphs for crops: one face, and one face with its mirrored view


def test_graphs_that_share_a_recorder_take_turns() -> None:
    """Graphs with one recorder share its memory, so no graph may run while the result of another is read."""
    recorder, lock = Called(), threading.Lock()
    both = CudaGraphs(double, recorder, lock), CudaGraphs(double, recorder, lock)
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(50):
            given = batch(1 + turn % 4) + number
            if not torch.equal(both[number % 2](given), double(given)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_faces_of_many_images_share_batches(w300: FaceAligner, astronaut: Array) -> None:
    """Each face's result is at its own position, also if an image between others has no faces."""
    recorder = Called()
    aligner = pretending(FaceAligner.from_pretrained("HIH_N", device="cpu"), recorder)
    images = [np.roll(astronaut, 20 * n, 1) for n in range(4)]
    boxes = [FACES, FACES[0] + np.array((20, 0, 20, 0)), np.zeros((0, 4)), FACES[:1] + np.array((60, 0, 60, 0))]
    several = aligner.align_batch(images, boxes, batch_size=3, refine=0)
    assert recorder.replayed == [4, 2]  # batches of 3 faces and of the last 2 faces
    for found, expected in zip(several, w300.align_batch(images, boxes, refine=0), strict=True):
        assert (found.several, found.points.shape) == (expected.several, expected.points.shape)
        assert not found.points.size or np.abs(found.points - expected.points).max() < 0.05


def test_crops_of_the_caller_and_heatmaps(plain: FaceAligner, astronaut: Array) -> None:
    """A direct call of the backend with crops; and heatmaps, which do not use graphs."""
    backend = CudaBackend(plain.network, plain.config, CPU, torch.float32, Called())
    transforms = [square_crop(box) for box in BOXES]
    crops = np.stack([warp(astronaut, t.matrix, t.size) for t in transforms])
    for got, expected in zip(backend(crops), plain._runtime()(crops), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-3)
    for got, expected in zip(backend.heatmaps(crops), plain._runtime().heatmaps(crops), strict=True):  # type: ignore[attr-defined]
        np.testing.assert_allclose(got, expected, atol=1e-4)
    with torch.autocast("cpu"):  # a graph would record the autocast
        inside = backend.align([Photograph(astronaut)] * 4, transforms)
    np.testing.assert_array_equal(inside[0], backend.align([Photograph(astronaut)] * 4, transforms)[0])


def test_only_cuda_devices_get_this_backend(plain: FaceAligner, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(plain._runtime(), CudaBackend)
    made = []
    monkeypatch.setattr("hih_align.runtime.cuda.CudaBackend", lambda *given: made.append(given))
    runtime.make("torch", plain.network, plain.config, "cuda", None)
    assert made[0][2:] == (torch.device("cuda"), torch.float32)


def test_the_benchmark_says_that_it_needs_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="needs a CUDA GPU"):
        runpy.run_path(str(script), run_name="__main__")
    assert not (tmp_path / "out").exists()


def test_the_benchmark_counts_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts that work without a GPU: all numbers of a row, measured with a small network on the CPU."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    benchmark = importlib.import_module("gpu")
    monkeypatch.setattr(benchmark, "DEVICE", "cpu")
    monkeypatch.setattr(benchmark, "MATRICES", (64,))
    monkeypatch.setattr(benchmark, "load", lambda size, dtype, kernels: (pretending(small_aligner(), Called()), True))
    monkeypatch.setattr(benchmark, "flops", lambda config: 1e6)
    about = {"gpu": "none", "memory_gb": 1, "cuda": "13", "torch": "2", "date": "today", "command": "python"}
    monkeypatch.setattr(benchmark, "machine", lambda: about)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    options = "--sizes HIH_T --dtypes float16 --batches 1 3 --rounds 1 --seconds 0"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options.split(), "--out", str(tmp_path)])
    benchmark.main()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [(row["size"], row["dtype"], row["batch"]) for row in report["results"]] == [
        ("HIH_T", "float16", 1),
        ("HIH_T", "float16", 3),
    ]
    for row in report["results"]:
        for name in ("align", "network"):
            rate = row[name]["faces_per_second"]
            assert rate == pytest.approx(row["batch"] / row[name]["ms"] * 1e3)
            assert row[name]["share_of_peak"] == pytest.approx(rate * 1e6 / (report["peak_tflops"] * 1e12))
    text = (tmp_path / "gpu.md").read_text()
    assert "| HIH_T float16 plain (random weights) | 3 |" in text
    assert text in capsys.readouterr().out


# with a GPU


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32, not in TF32, which has errors of up to 1e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.cuda
def test_graphs_give_the_result_of_the_network(astronaut: Array, exact: None) -> None:
    backend = FaceAligner.from_pretrained("HIH_T", device="cuda")._runtime()
    assert isinstance(backend, CudaBackend)
    boxes = FACES[0] + np.random.default_rng(0).uniform(-8, 8, (GRAPH_SIZES[-1] + 3, 1))
    with torch.inference_mode():
        crops = device_crops.warp([Photograph(astronaut)] * len(boxes), [square_crop(b) for b in boxes], CUDA)
        for count in (1, 2, 3, 33, len(crops), 1):
            found = backend._graphs(crops[:count])
            # other batch sizes may use other kernels, which sum in another order
            torch.testing.assert_close(found, backend._find(crops[:count]), rtol=0, atol=0.02)
    assert backend._graphs._usable


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 0.05), ("float16", 1.0), ("bfloat16", 2.0)])
def test_cuda_agrees_with_the_cpu(astronaut: Array, exact: None, dtype: str, limit: float) -> None:
    """In float32, points agree to 0.05 px. Every graph was captured."""
    expected = FaceAligner.from_pretrained("HIH_N", device="cpu")
    aligner = FaceAligner.from_pretrained("HIH_T", device="cuda", dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"refine": 0}, {"refine": 1, "mirror": True}):
            found, there = (a.align(astronaut, FACES, **options) for a in (aligner, expected))
            assert np.linalg.norm(found.points - there.points, axis=-1).max() < limit
            one = aligner.align(astronaut, FACES[0], **options)
            assert np.linalg.norm(one.points - there.points[0], axis=-1).max() < limit
        many = aligner.align_batch([astronaut] * 40, [FACES] * 40, batch_size=70, refine=0)
        first = aligner.align(astronaut, FACES, refine=0)
        assert all(np.abs(each.points - first.points).max() < limit for each in many)


@pytest.mark.cuda
def test_eight_threads_on_cuda(astronaut: Array, exact: None) -> None:
    """With a new aligner, graphs are captured while other threads send faces and read results."""
    aligner = FaceAligner.from_pretrained("HIH_T", device="cuda")
    expected = FaceAligner.from_pretrained("HIH_T", device="cuda").align(astronaut, FACES, refine=0).points
    wrong: list[float] = []

    def work(number: int) -> None:
        stream = torch.cuda.Stream() if number % 2 else torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            for turn in range(10):
                count = 1 + (number + turn) % 3
                found = aligner.align(astronaut, FACES[:count], refine=0).points
                wrong.append(float(np.abs(found - expected[:count]).max()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert max(wrong) < 0.05
    assert aligner._runtime()._graphs._usable  # type: ignore[attr-defined]


@pytest.mark.cuda
@pytest.mark.parametrize("side", [60, 250, 700])
def test_crops_on_cuda(astronaut: Array, side: float) -> None:
    transform = Crop(200.3, 260.8, side)
    got = device_crops.warp([Photograph(astronaut)] * 2, [transform] * 2, CUDA).cpu().numpy().astype(int)
    assert np.abs(got - warp(astronaut, transform.matrix, transform.size)).max() <= 2
