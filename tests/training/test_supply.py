"""Decoded faces that several training runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from made_faces import small

from hih_align.data.annotations import Dataset
from hih_align.data.faces import FaceStore
from hih_align.training.sampling import Source
from hih_align.training.supply import Stores
from hih_align.training.trainer import Trainer


def test_runs_share_decoded_faces(
    faces: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later run decodes faces only if no earlier run has decoded the same data at the same size."""
    built: list[int] = []

    class Counted(FaceStore):
        @classmethod
        def build(cls, datasets, *, side, **how):  # type: ignore[no-untyped-def, override]
            built.append(side)
            return FaceStore.build(datasets, side=side, **how)

    monkeypatch.setattr("hih_align.training.supply.FaceStore", Counted)
    stores = Stores()

    def trainer(name: str, dataset: Dataset = faces[0], **changes: object) -> Trainer:
        how = {"val": faces[1], "progress": False, "stores": stores}
        return Trainer(small(**changes), [Source(dataset)], tmp_path / name, **how)

    first, second = trainer("first"), trainer("second", seed=4)
    assert built == [96, 128]
    assert second.faces._faces is first.faces._faces
    assert second.val.faces._faces is first.val.faces._faces
    trainer("third", store_side=112)
    assert built == [96, 128, 112]
    trainer("fourth", dataset=faces[0].where(lambda record: True))
    assert built == [96, 128, 112, 96]
