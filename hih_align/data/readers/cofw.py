"""COFW's ``.mat`` files (https://data.caltech.edu/records/20099), which also hold the images.

``COFW_train_color.mat`` has ``IsTr`` (N x 1 cells of images), ``phisTr`` (N x 87) and ``bboxesTr`` (N x 4).
``COFW_test_color.mat`` has ``IsT``, ``phisT`` and ``bboxesT``. A row of phis is 29 x, 29 y and 29 occlusion flags; the
authors' ``shapeGt`` reads it so (``occl = phis(n, nfids*2+1 : nfids*3)``). Coordinates are MATLAB's 1-based pixels, so
1 is subtracted. A box is left, top, width, height. Files of version 7.3 (HDF5) store arrays transposed. mmpose's
``tools/dataset_converters/parse_cofw_dataset.py`` (github.com/open-mmlab/mmpose) does the same two conversions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...images import write_image
from ...schemes import Scheme
from .face import Entry, RawFace, finite

_SPLITS = ("Tr", "T")


def read(path: Path, scheme: Scheme) -> Iterator[Entry]:
    """Yield the faces of a COFW file.

    The boxes of the file simulate a detector and become "rect". The attribute ``occlusion`` is the share of occluded
    landmarks. The images are written as PNG into ``assets/hih-align/cofw`` in the folder ``HF_HOME``, unless they are
    there already. The folder of the file is not changed and may be read-only.

    Raises:
        ValueError: the file is not a COFW file; scipy, or h5py for version 7.3, is missing; or the number of landmarks
            is not that of the scheme.
    """
    image_of, phis, boxes = _load(path)
    if phis.ndim != 2 or phis.shape[1] != 3 * len(scheme):
        raise ValueError(f"{path}: phis has shape {phis.shape}, expected 3 columns for each of {len(scheme)} landmarks")
    if boxes is not None and boxes.shape != (len(phis), 4):
        raise ValueError(f"{path}: bboxes has shape {boxes.shape}, expected ({len(phis)}, 4)")
    folder = _folder(path)
    for n, row in enumerate(phis):
        target = folder / f"{n + 1:05d}.png"
        box = None if boxes is None else boxes[n]
        yield f"{path}#{n + 1}", partial(_face, target, partial(image_of, n), row, box)


def _folder(path: Path) -> Path:
    """The folder that keeps the images of this version of the file."""
    from huggingface_hub import cached_assets_path

    about = path.stat()
    which = hashlib.sha256(f"{path.resolve()}\n{about.st_size}\n{about.st_mtime_ns}".encode()).hexdigest()[:16]
    return cached_assets_path("hih-align", "cofw", f"{path.stem}-{which}")


def _face(target: Path, image: Callable[[], Any], phi: NDArray[np.float64], box: NDArray[np.float64] | None) -> RawFace:
    if not target.is_file():
        pixels = np.asarray(image())
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.size == 0:
            raise ValueError(f"image has shape {pixels.shape}, {pixels.dtype}, expected (H, W) or (H, W, 3), uint8")
        write_image(target, np.stack([pixels] * 3, -1) if pixels.ndim == 2 else np.ascontiguousarray(pixels))
    x, y, occluded = phi.reshape(3, -1)
    points = np.stack((x, y), -1) - 1
    boxes = {} if box is None else {"rect": np.concatenate((box[:2], box[:2] + box[2:])) - 1}
    return RawFace(target, points, finite(points), boxes, {"occlusion": float((occluded > 0).mean())})


def _load(path: Path) -> tuple[Callable[[int], Any], NDArray[np.float64], NDArray[np.float64] | None]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError(f"{path}: .mat files need scipy: pip install 'hih-align[train]'") from error
    try:
        data: Any = loadmat(path)
    except NotImplementedError:  # a file of version 7.3
        return _load_hdf5(path)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    split = _split(path, data)
    images = data[f"Is{split}"].ravel()
    boxes = data.get(f"bboxes{split}")
    return images.__getitem__, data[f"phis{split}"].astype(np.float64), None if boxes is None else boxes.astype(float)


def _load_hdf5(path: Path) -> tuple[Callable[[int], Any], NDArray[np.float64], NDArray[np.float64] | None]:
    try:
        h5py = import_module("h5py")
    except ImportError as error:
        raise ValueError(f"{path}: .mat files of version 7.3 need h5py: pip install h5py") from error
    data = h5py.File(path, "r")
    split = _split(path, data)
    references = data[f"Is{split}"][()].ravel()
    boxes = data[f"bboxes{split}"][()].T.astype(float) if f"bboxes{split}" in data else None
    return lambda n: data[references[n]][()].T, data[f"phis{split}"][()].T.astype(np.float64), boxes


def _split(path: Path, data: Any) -> str:
    for split in _SPLITS:
        if f"Is{split}" in data and f"phis{split}" in data:
            return split
    raise ValueError(
        f"{path} holds {sorted(k for k in data if k[0] != '_')}, expected IsTr and phisTr, or IsT and phisT"
    )
