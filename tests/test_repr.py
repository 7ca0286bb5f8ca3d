"""The repr of each public object is one short line, not the object's content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.data.annotations import Dataset, Labels, Record
from hih_align.evaluation.evaluate import evaluate


def test_repr(astronaut: NDArray[np.uint8], astronaut_box: tuple[float, ...], tmp_path: Path) -> None:
    import PIL.Image

    aligner = FaceAligner.from_pretrained("HIH_N/wflw", scheme="cofw", device="cpu", decode="argmax")
    assert repr(aligner) == (
        "FaceAligner('HIH_N/wflw': 29 points of cofw, 1 stack, torch float32 on cpu, decode 'argmax', "
        f"refine {aligner.config.refine})"
    )
    own = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    assert "68 points of 300w" in repr(own)
    PIL.Image.fromarray(astronaut).save(tmp_path / "a.png")
    face = own.align(astronaut, astronaut_box)
    record = Record(
        tmp_path / "a.png",
        Labels(face.points.astype(float), np.ones(68)),
        {"annotated": np.array(astronaut_box, float)},
        key="a.json#7",
    )
    dataset = Dataset("mine", own.scheme, (record,) * 2, tmp_path)
    report = evaluate(own, dataset, progress=False)
    assert repr(record) == "Record('a.json#7', 68 points labelled, boxes ['annotated'])"
    assert repr(dataset) == "Dataset('mine', 2 faces, 68 points of 300w)"
    assert repr(report) == f"Report('HIH_N/300w' on 'mine', 2 faces, NME {report.overall.nme:.3f} %)"
    assert len(repr(own.heatmaps(astronaut, astronaut_box))) < 100
    for text in map(repr, (aligner, own, own.config, record, dataset, report)):
        assert "\n" not in text
        assert "array" not in text
        assert len(text) < 700
