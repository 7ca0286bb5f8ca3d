"""The process of one contender. It answers `speed.py`: one line of JSON for each line of JSON.

Another interpreter than the driver's may run this file, without torch and hih_align. So it imports only what the
contender needs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competitors import COMPETITORS

PLAIN = "plain"
MATMUL = "matmul"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": None}


@dataclass(frozen=True)
class Contender:
    """What one process runs.

    Attributes:
        model: a size or an exported folder; for a competitor its title.
        backend: a runtime, "plain", the name of a competitor, or "matmul" (the yardstick).
        precision: "fp32", "bf16" or "int8".
        threads: number of threads.
    """

    model: str
    backend: str
    precision: str
    threads: int

    @property
    def ours(self) -> bool:
        return self.backend not in (*COMPETITORS, MATMUL)

    @property
    def name(self) -> str:
        theirs = self.backend in COMPETITORS
        what = self.model if theirs else f"{Path(self.model).name} {self.backend} {self.precision}"
        return f"{what}, {self.threads} thread{'s' * (self.threads > 1)}"


class Ours:
    """`FaceAligner.align`, optimised or plain."""

    def __init__(self, contender: Contender, photograph: Path) -> None:
        begun = time.perf_counter()
        torch_there, exported = begun, Path(contender.model).is_dir()
        if not exported:  # which needs no torch, and takes its number of threads from the environment
            import torch

            torch_there = time.perf_counter()
            torch.set_num_threads(contender.threads)
        import hih_align

        there = time.perf_counter()
        assert hih_align.__version__
        self.random = False
        self.aligner = self.load(contender)
        loaded = time.perf_counter()
        self.image, self.box = read(photograph)
        drawn = time.perf_counter()
        self.aligner.align(self.image, self.box, refine=0)
        first = time.perf_counter() - drawn
        self.started = {
            "size": self.aligner.config.name.partition("/")[0],
            "import_s": there - begun,
            "import_torch_s": torch_there - begun,
            "load_s": loaded - there,
            "first_result_s": loaded - begun + first,
            "gflop_per_face": None if exported else flops(self.aligner.config) / 1e9,
            "random_weights": self.random,
        }

    def load(self, contender: Contender) -> Any:
        from hih_align import FaceAligner, HIHNet, WeightsUnavailableError
        from hih_align.hub.manifest import read_manifest
        from hih_align.method.sizes import SIZES

        plainly = contender.backend == PLAIN
        kind = plain_aligner() if plainly else FaceAligner
        backend = "torch" if plainly else contender.backend
        options: dict[str, Any] = {"device": "cpu", "dtype": DTYPES[contender.precision], "backend": backend}
        try:
            return kind.from_pretrained(contender.model, **options)
        except WeightsUnavailableError:
            self.random = True
            config = read_manifest()[f"{contender.model}/300w"].config
            return kind(HIHNet(68, *SIZES[contender.model]), config, **options)

    def time(self, faces: int, refine: int | None, times: int) -> list[float]:
        boxes = moved(self.box, faces)
        seconds = []
        for _ in range(times):
            begun = time.perf_counter()
            self.aligner.align(self.image, boxes[0] if faces == 1 else boxes, refine=refine)
            seconds.append(time.perf_counter() - begun)
        return seconds

    def outside(self, times: int) -> dict[str, float]:
        """The time of `align` outside the network, for one face and one pass: median milliseconds and share.

        For PyTorch this is the time of crop, normalisation, decoder and result. The graphs of the other runtimes
        include normalisation and decoder, so for them it is the time of crop and result.
        """
        runtime = self.aligner._runtime()
        holder, name = (runtime._model.network, "predict") if runtime.name == "torch" else (runtime, "run")
        function, inside = getattr(holder, name), []

        def timed(given: Any) -> Any:
            begun = time.perf_counter()
            found = function(given)
            inside.append(time.perf_counter() - begun)
            return found

        setattr(holder, name, timed)
        try:
            whole = self.time(1, 0, times)
        finally:
            delattr(holder, name)
        assert len(inside) == times
        left = [(call - part, 1 - part / call) for part, call in zip(inside, whole, strict=True)]
        ms, share = (sorted(values)[times // 2] for values in zip(*left, strict=True))
        return {"ms": 1e3 * ms, "share": share}

    def measure(self, data: str, refine: int | None) -> dict[str, float]:
        """NME in percent of the inter-ocular distance, with annotated boxes."""
        from hih_align.data.annotations import read_dataset
        from hih_align.evaluation.evaluate import evaluate

        report = evaluate(self.aligner, read_dataset(data, "300w"), refine=refine, progress=False)
        return {"nme": report.overall.nme, "found": report.overall.measured, "faces": report.overall.measured}


class Theirs:
    """A competitor."""

    def __init__(self, contender: Contender, photograph: Path) -> None:
        self.contender = contender
        self.image, self.box = read(photograph)  # imports NumPy, as all competitors do
        begun = time.perf_counter()
        self.find = COMPETITORS[contender.backend].start(contender.threads)
        loaded = time.perf_counter()
        self.find(self.image, self.box[None])
        first = time.perf_counter() - begun
        random = COMPETITORS[contender.backend].time_only
        # the import of a competitor counts as loading
        self.started = {"load_s": loaded - begun, "first_result_s": first, "random_weights": random}

    def time(self, faces: int, refine: int | None, times: int) -> list[float]:
        boxes = moved(self.box, faces)
        seconds = []
        for _ in range(times):
            begun = time.perf_counter()
            self.find(self.image, boxes)
            seconds.append(time.perf_counter() - begun)
        return seconds

    def landmarks(self, faces: list[tuple[str, list[float]]]) -> list[Any]:
        """The points (68, 2), or None, for each pair of an image and a box."""
        import numpy as np
        from PIL import Image

        found = []
        for path, box in faces:
            with Image.open(path) as image:
                (points,) = self.find(np.array(image.convert("RGB")), np.array([box]))
            found.append(None if points is None else points.tolist())
        return found

    def follow(self, frames: str) -> dict[str, Any]:
        """Of a video, (F, H, W, 3) uint8 in a .npy file: points (68, 2) of each frame, or None, and milliseconds."""
        import numpy as np

        start = COMPETITORS[self.contender.backend].follow
        assert start is not None, self.contender
        follow = start()
        points, ms = [], []
        for frame in np.load(frames, mmap_mode="r"):
            image = np.ascontiguousarray(frame)
            begun = time.perf_counter()
            found = follow(image)
            ms.append(1000 * (time.perf_counter() - begun))
            points.append(None if found is None else found.tolist())
        return {"points": points, "ms": ms}


class Products:
    """Matrix products by torch, which show how fast the machine can be."""

    def __init__(self, contender: Contender, photograph: Path) -> None:
        import torch

        torch.set_num_threads(contender.threads)
        self.dtype = getattr(torch, str(DTYPES[contender.precision]))
        self.started: dict[str, Any] = {}

    def time(self, side: int, times: int) -> list[float]:
        import torch

        a = torch.randn(2, side, side, dtype=self.dtype)
        seconds = []
        with torch.inference_mode():
            for _ in range(times):
                begun = time.perf_counter()
                a[0] @ a[1]
                seconds.append(time.perf_counter() - begun)
        return seconds


def plain_aligner() -> Any:
    """The same `align` with the network as it was released."""
    import torch

    from hih_align import FaceAligner
    from hih_align.method import heatmaps
    from hih_align.method.decoder import STRIDE
    from hih_align.method.network import MEAN, STD
    from hih_align.runtime.backend import Backend

    class Plain(FaceAligner):
        def _make(self) -> Any:
            network = self.network
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

            class Run(Backend):
                name, dtype = "torch", "float32"

                def __call__(self, crops: Any) -> tuple[Any, Any]:
                    with torch.no_grad():
                        images = torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous().float() / 255
                        integer, decimal = network((images - mean) / std)
                        points = heatmaps.decode(integer[:, -1], decimal) * STRIDE
                        return points.numpy(), integer[:, -1].amax((-2, -1)).clamp(0, 1).numpy()

            return None, Run()

        def _runtime(self) -> Any:
            return self._copy[1]

    return Plain


def flops(config: Any) -> float:
    """Operations of a config's network for one face; a multiplication and an addition count as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hih_align import HIHNet

    with torch.device("meta"):
        network = HIHNet(config.heads, *config.size).eval()
        images = torch.empty(1, 3, config.input_size, config.input_size)
    with FlopCounterMode(display=False) as counter:
        network.predict(images)
    return float(counter.get_total_flops())


def read(photograph: Path) -> tuple[Any, Any]:
    """The driver's image, and the box (4,) of the face in it."""
    import numpy as np

    with np.load(photograph) as file:
        return file["image"], file["box"]


def moved(box: Any, faces: int) -> Any:
    """(faces, 4): the box, shifted by a few pixels for each face."""
    import numpy as np

    return box + np.random.default_rng(0).uniform(-8, 8, (faces, 1))


def peak_memory() -> float:
    """Largest resident set of this process in MB."""
    try:  # VmHWM counts only this program; ru_maxrss starts with the memory of the parent
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # macOS reports bytes, others kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def answers(contender: Contender, photograph: Path, requests: Iterable[str]) -> Iterator[str]:
    """Start a contender, and yield what it says of its start. Then yield its answer to each request."""
    kind: Any = Ours if contender.ours else Products if contender.backend == MATMUL else Theirs
    runner = kind(contender, photograph)
    yield json.dumps(runner.started)
    for line in requests:
        request = json.loads(line)
        found = getattr(runner, request.pop("do"))(**request)
        yield json.dumps({"found": found, "peak_mb": peak_memory()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", help="a Contender as JSON")
    parser.add_argument("photograph", type=Path)
    arguments = parser.parse_args()
    contender = Contender(**json.loads(arguments.contender))
    for answer in answers(contender, arguments.photograph, sys.stdin):
        print(answer, flush=True)


if __name__ == "__main__":
    main()
