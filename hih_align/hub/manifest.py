"""The manifest of published checkpoints (``weights_manifest.json``), and the places of their files on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..method.sizes import SIZES
from .config import CONFIG_FILE, Config, config_from_dict, own_folder, write_json

MANIFEST = "weights_manifest.json"
#: Environment variable that names a folder with weight files of the manifest.
WEIGHTS_FOLDER = "HIH_ALIGN_WEIGHTS"


@dataclass(frozen=True)
class ManifestRow:
    """One checkpoint of the manifest.

    Attributes:
        id: "SIZE/scheme", such as "HIH_T/300w".
        size, scheme, landmarks: the size of the network, the id of its scheme, and the number of landmarks.
        file: name of the float16 safetensors file.
        sha256, bytes: of that file; None if the checkpoint is not trained yet.
        repo_id, revision: on the Hub; None if the checkpoint is not published.
        license, terms: licence of the weights, as an SPDX expression and in words.
        training: training data, duration and machine.
        metrics: measured figures, each with data set, value, command, date and hardware.
        config: the config of the network.
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
    """The path of the manifest: in the package of an installed wheel, in the root folder of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / MANIFEST
    return inside if inside.is_file() else package.parent / MANIFEST


def read_manifest(path: Path | None = None) -> dict[str, ManifestRow]:
    """The rows of the manifest, by id.

    Raises:
        FileNotFoundError: the package was installed or bundled without its data files.
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
            f"{MANIFEST} is missing: the package has no data files, so it knows no model by name. The folder of a "
            "checkpoint can still be loaded. PyInstaller bundles the data files by the hook that the package provides"
        ) from error


def known_names() -> list[str]:
    """The sizes and manifest ids, for messages."""
    try:
        return [*SIZES, *read_manifest()]
    except FileNotFoundError:
        return [*SIZES]


def packaged_weights() -> Path:
    """The folder of the weights that the wheel carries."""
    return Path(__file__).parents[1] / "weights"


def weight_folders() -> list[Path]:
    """The folders that may hold files of the manifest: the package, ``weights/`` of a checkout, the user's folder."""
    folders = [packaged_weights(), manifest_path().parent / "weights"]
    if Path(MANIFEST).is_file():  # an installed package, used from inside a checkout
        folders.append(Path.cwd() / "weights")
    if named := os.environ.get(WEIGHTS_FOLDER):
        folders.append(Path(named))
    return list(dict.fromkeys(folders))


def local_weights(row: ManifestRow) -> Path | None:
    """The weight file of a row on this machine, outside the Hub's cache and not verified; None if it is not there."""
    return next((path for folder in weight_folders() if (path := folder / row.file).is_file()), None)


def record(model: str, **values: Any) -> Path:
    """Replace values of a manifest row in a checkout, such as ``metrics`` or ``revision``. Return the written file.

    Raises:
        ValueError: the manifest has no such row.
    """
    return _edit(model, lambda row: row.update(values))


def check_writable(model: str) -> None:
    """Raise if `save_config` cannot write the config of a model, or would change the manifest of an installed package.

    Raises:
        ValueError: so it is; the message says what to do instead.
    """
    if (own_folder(Path(model)) / CONFIG_FILE).is_file():
        return
    path = manifest_path()
    if model not in read_manifest():
        raise _unknown(model)
    if path.parent == Path(__file__).parents[1]:
        raise ValueError(
            f"model is {model!r}, whose config is in {path}, a file of the installed package, which is not changed: "
            "write the model to a folder with `save_pretrained`, and give that folder"
        )


def _edit(model: str, change: Callable[[dict[str, Any]], None]) -> Path:
    check_writable(model)
    path = manifest_path()
    data = json.loads(path.read_text("utf-8"))
    row = next((item for item in data["checkpoints"] if item["id"] == model), None)
    if row is None:
        raise _unknown(model)
    change(row)
    write_json(path, data)
    return path


def _unknown(model: str) -> ValueError:
    return ValueError(f"model is {model!r}, expected a folder with {CONFIG_FILE} or one of {list(read_manifest())}")
