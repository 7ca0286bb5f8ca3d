"""The published checkpoints: rows of ``weights_manifest.json``, and where their files lie on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..method.network import SIZES
from .config import CONFIG_FILE, Config, config_from_dict, own_folder, write_json

MANIFEST = "weights_manifest.json"
#: Environment variable: a folder with weight files of the manifest.
WEIGHTS_FOLDER = "HIH_ALIGN_WEIGHTS"


@dataclass(frozen=True)
class ManifestRow:
    """One checkpoint of the manifest.

    Attributes:
        id: "SIZE/scheme", such as "HIH_T/300w".
        size, scheme, landmarks: which network, for which points.
        file: name of the float16 safetensors file.
        sha256, bytes: of that file; None while the checkpoint is not trained yet.
        repo_id, revision: on the Hub; None until published.
        license, terms: of the weights, as an SPDX expression and in words.
        training: what it was trained on, how long and on what machine.
        metrics: measured figures, each with dataset, value, command, date and hardware.
        config: see `Config`.
    """

    id: str
    size: str
    scheme: str
    landmarks: int
    file: str
    sha256: str | None
    bytes: int | None
    repo_id: str | None
    revision: str | None
    license: str
    terms: str
    training: str | None
    metrics: tuple[Mapping[str, Any], ...]
    config: Config


def manifest_path() -> Path:
    """The manifest: inside the package in an installed wheel, above it in a checkout or an editable install."""
    package = Path(__file__).parents[1]
    inside = package / MANIFEST
    return inside if inside.is_file() else package.parent / MANIFEST


def read_manifest(path: Path | None = None) -> dict[str, ManifestRow]:
    """The manifest's rows by id.

    Raises:
        FileNotFoundError: the package came without its data.
    """
    data = json.loads(_manifest_text() if path is None else path.read_text("utf-8"))
    rows = {}
    for item in data["checkpoints"]:
        config = config_from_dict(
            {"model": "hih", "name": item["id"], "scheme": item["scheme"]} | item["config"], item["id"]
        )
        known = {key: item[key] for key in ManifestRow.__dataclass_fields__ if key not in ("config", "metrics")}
        rows[item["id"]] = ManifestRow(**known, metrics=tuple(item["metrics"]), config=config)
    return rows


def _manifest_text() -> str:
    try:
        return manifest_path().read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:  # the package may lie in a zip file
        return resources.files(__package__.partition(".")[0]).joinpath(MANIFEST).read_text("utf-8")
    except OSError as error:
        raise FileNotFoundError(
            f"{MANIFEST} is missing: the package came without its data files, so it knows no model by name. A "
            "checkpoint's folder works all the same; PyInstaller takes the data by the hook that the package has"
        ) from error


def known_names() -> list[str]:
    """Sizes and manifest ids, for messages."""
    try:
        return [*SIZES, *read_manifest()]
    except FileNotFoundError:
        return [*SIZES]


def packaged_weights() -> Path:
    """The folder of the weights that the wheel carries."""
    return Path(__file__).parents[1] / "weights"


def weight_folders() -> list[Path]:
    """Where the manifest's files are looked for: the package, ``weights/`` of a checkout, the user's folder."""
    folders = [packaged_weights(), manifest_path().parent / "weights"]
    if Path(MANIFEST).is_file():  # an installed package that is used in a checkout
        folders.append(Path.cwd() / "weights")
    if named := os.environ.get(WEIGHTS_FOLDER):
        folders.append(Path(named))
    return list(dict.fromkeys(folders))


def local_weights(row: ManifestRow) -> Path | None:
    """The row's file on this machine outside the Hub's cache, not verified; None if it is nowhere."""
    return next((path for folder in weight_folders() if (path := folder / row.file).is_file()), None)


def record(model: str, **values: Any) -> Path:
    """Replace values of a checkout's manifest row, such as ``metrics`` or ``revision``; returns the file written.

    Raises:
        ValueError: no such row.
    """
    return _edit(model, lambda row: row.update(values))


def check_writable(model: str) -> None:
    """Refuse to change what `save_config` must not: the manifest of an installed package.

    Raises:
        ValueError: what to do instead.
    """
    path = manifest_path()
    if not (own_folder(Path(model)) / CONFIG_FILE).is_file() and path.parent == Path(__file__).parents[1]:
        raise ValueError(
            f"model is {model!r}, whose config is {path}, a file of the installed package, which is not changed: "
            "`save_pretrained` it into a folder, and name that folder"
        )


def _edit(model: str, change: Callable[[dict[str, Any]], None]) -> Path:
    check_writable(model)
    path = manifest_path()
    data = json.loads(path.read_text("utf-8"))
    row = next((item for item in data["checkpoints"] if item["id"] == model), None)
    if row is None:
        raise ValueError(f"model is {model!r}, expected a folder with {CONFIG_FILE} or one of {list(read_manifest())}")
    change(row)
    write_json(path, data)
    return path
