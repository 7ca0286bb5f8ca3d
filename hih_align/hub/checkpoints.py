"""Finding, loading and saving checkpoints: from a model's name to a network with its weights.

A checkpoint is a file of weights (safetensors) and a `Config`. The published checkpoints are rows of
``weights_manifest.json``. A user's checkpoint is a folder, or a Hub repository, with ``config.json`` and
``model.safetensors``. Only reading and writing weights imports PyTorch: an exported folder is found without it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..method.readout import Readout, from_parts
from ..method.sizes import SIZES
from ..schemes import SCHEMES, Scheme, get_scheme
from .config import CONFIG_FILE, CheckpointError, Config, own_folder, read_config, write_config
from .download import WeightsUnavailableError, download, download_verified, verified
from .manifest import WEIGHTS_FOLDER, ManifestRow, _edit, known_names, local_weights, read_manifest, weight_folders

if TYPE_CHECKING:
    import torch

    from ..method.network import HIHNet

WEIGHTS_FILE = "model.safetensors"
#: The tensor of `Config.correction` in a file of weights, `Readout.parts`.
CORRECTION = "correction"
#: The files that `hih-align export` writes, by the backend that runs them. A folder with such a file needs no weights.
EXPORTED_FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx"}
#: Names as those of the published checkpoints. A mistyped one is an error here, and is not looked for on the Hub.
OURS = re.compile(rf"HIH_\w/({'|'.join(SCHEMES)})")


@dataclass(frozen=True)
class Checkpoint:
    """The place and the config of a checkpoint.

    Attributes:
        config: the config of the network.
        weights: the file of weights. It may not exist in an exported folder (`EXPORTED_FILES`).
        folder: the folder of the checkpoint. Its exported files belong to the checkpoint. None: a row of the manifest,
            whose weights may lie among the files of other models.
    """

    config: Config
    weights: Path
    folder: Path | None = None

    @property
    def exported(self) -> list[str]:
        """The backends whose exported file belongs to the checkpoint."""
        return [] if self.folder is None else exported_for(self.folder)


def find_checkpoint(
    name: str | os.PathLike[str],
    scheme: str | Scheme | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find a checkpoint, and download it if this is necessary.

    Args:
        name: one of these, tried in this order: a size ("HIH_T", whose scheme is ``scheme`` or 300w); a manifest id
            ("HIH_T/300w"); a folder that `save_checkpoint`, a training run or an export wrote; a Hub repository
            ("user/repo") with the files of such a folder.
            Where "user" is a folder here, "user/repo" is a path.
        scheme: the wanted scheme. It must be the scheme of the checkpoint, or "cofw" for a WFLW checkpoint, whose
            points are then converted.
        cache_dir, revision, token, local_files_only: as in `huggingface_hub.hf_hub_download`.

    The file of a manifest row is searched in the package, in ``weights/`` of a checkout, in the folder that the
    environment variable ``HIH_ALIGN_WEIGHTS`` names, in the Hub's cache and on the Hub. Its SHA-256 is verified.

    Raises:
        TypeError: ``name`` is neither a name nor a path.
        ValueError: the name or scheme is unknown, or the checkpoint has another scheme.
        FileNotFoundError: the path does not exist, or the folder lacks one of its two files.
        CheckpointError: the content of a file is wrong.
        WeightsUnavailableError: the weights are not here and cannot be downloaded.
    """
    hub = {"cache_dir": cache_dir, "revision": revision, "token": token, "local_files_only": local_files_only}
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"model is {type(name).__name__}, expected a name or a folder")
    could_be_repository = isinstance(name, str)
    name = os.fspath(name)
    wanted = None if scheme is None else get_scheme(scheme)
    ours = name.split("/")[0] in SIZES or OURS.fullmatch(name) is not None
    rows = read_manifest() if ours else {}  # read only for these names: a bundled program may lack the manifest
    if name in SIZES:
        trained_on = "300w" if wanted is None else "wflw" if wanted.id == "cofw" else wanted.id
        row = rows.get(f"{name}/{trained_on}")
        if row is None:
            known = sorted({row.scheme for row in rows.values() if row.size == name} | {"cofw"})
            raise ValueError(f"scheme is {trained_on!r}, expected one of {known} for {name}")
        found = Checkpoint(row.config, _find_weights(row, hub))
    elif name in rows:
        config = _with_scheme(rows[name].config, wanted, name)  # before a download
        found = Checkpoint(config, _find_weights(rows[name], hub))
    elif name and Path(name).is_dir():
        found = _folder(Path(name))
    elif os.path.lexists(name):  # an existing file is never taken for a Hub repository
        beside = Path(name).parent / CONFIG_FILE
        what = (
            f"its folder, {str(Path(name).parent)!r}"
            if beside.is_file()
            else f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; `hih-align convert` makes one of a released .pth"
        )
        raise ValueError(f"model is the file {name!r}, expected {what}")
    elif ours:
        raise ValueError(f"model is {name!r}, expected one of {known_names()}")
    elif could_be_repository and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "~")):
        if (folder := Path(name).parent).is_dir():  # the path of a run that has not begun, or a wrong one
            raise FileNotFoundError(
                f"model: {str(folder)!r} is a folder here, and has no {Path(name).name!r}; for the Hub repository "
                f"{name!r}, work in a folder without {str(folder)!r}"
            )
        found = _repository(name, wanted, hub)
    elif re.search(r"[/\\]", name) or name.startswith((".", "~")) or not could_be_repository:
        raise FileNotFoundError(f"model: no such folder: {name}")
    else:
        raise ValueError(
            f"model is {name!r}, expected one of {known_names()}, a folder that exists, or a Hub repository (user/name)"
        )
    return replace(found, config=_with_scheme(found.config, wanted, name))


def _with_scheme(config: Config, wanted: Scheme | None, name: str) -> Config:
    if wanted is None or wanted == config.output:
        return config
    if wanted == config.scheme:
        return replace(config, output=None)
    if wanted == "cofw" and config.scheme == "wflw":
        return replace(config, output="cofw")
    other = " with other content" if wanted.id == config.scheme.id else ""
    raise ValueError(f"scheme is {wanted.id!r}, but {name} was trained for {config.scheme.id!r}{other}")


def _find_weights(row: ManifestRow, hub: dict[str, Any]) -> Path:
    if row.sha256 is not None:
        if (path := local_weights(row)) is not None:
            if row.repo_id is None:  # nothing would download it
                return verified(path, row.sha256, "install hih-align again, or put the published file there")
            return verified(path, row.sha256)
        if row.repo_id is not None:
            revision = hub["revision"] or row.revision
            return download_verified(row.repo_id, WEIGHTS_FILE, row.sha256, {**hub, "revision": revision})
    raise WeightsUnavailableError(
        f"{row.id} is not published{'' if row.sha256 else ' (not trained yet)'}: expected the file {row.file} in "
        f"{', '.join(map(str, weight_folders()))} or in the folder that {WEIGHTS_FOLDER} names"
    )


def _folder(folder: Path) -> Checkpoint:
    folder = own_folder(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file() and not (name == WEIGHTS_FILE and exported_for(folder)):
            raise FileNotFoundError(f"model: {folder} has no {name}")
    return Checkpoint(read_config(folder / CONFIG_FILE), folder / WEIGHTS_FILE, folder)


def exported_for(folder: Path) -> list[str]:
    """The backends whose exported file lies in ``folder``."""
    return [backend for backend, name in EXPORTED_FILES.items() if (folder / name).is_file()]


def _repository(repo_id: str, wanted: Scheme | None, hub: dict[str, Any]) -> Checkpoint:
    path = download(repo_id, CONFIG_FILE, hub)
    config = _with_scheme(read_config(path), wanted, repo_id)
    try:
        weights = download(repo_id, WEIGHTS_FILE, hub)
    except WeightsUnavailableError:
        if not exported_for(path.parent):  # else an earlier call has downloaded them
            raise
    except ValueError:  # the repository has none: it may hold an exported folder
        for name in ("model.bin", *EXPORTED_FILES.values()):
            with suppress(ValueError):
                download(repo_id, name, hub)
        if not exported_for(path.parent):
            raise
    else:
        return Checkpoint(config, weights, weights.parent)
    return Checkpoint(config, path.parent / WEIGHTS_FILE, path.parent)


def load_network(checkpoint: Checkpoint) -> HIHNet:
    """The network of a checkpoint with its weights: float32, on the CPU, in eval mode.

    Raises:
        CheckpointError: the file is damaged, holds NaN or infinity, or its tensors are not those of the config.
        FileNotFoundError: the folder was exported and holds no weights. The message says which backend to pass.
    """
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    from ..method.network import check_finite
    from ..method.unloaded import unloaded

    config, path = checkpoint.config, checkpoint.weights
    if not path.is_file() and (backends := checkpoint.exported):
        held = " and ".join(f"{EXPORTED_FILES[backend]} for backend {backend!r}" for backend in backends)
        raise FileNotFoundError(
            f"model: {path.parent} was exported: it holds {held}, and no {path.name}. Pass backend={backends[0]!r}, or "
            f"load the checkpoint that it was exported from{f', {config.name}' if config.name else ''}"
        )
    try:
        network = unloaded(config.heads, *config.size)
    except ValueError as error:
        raise CheckpointError(f"the config of {path} is wrong: {error}") from error
    try:
        state = safetensors.torch.load_file(path, device="cpu")
        state.pop(CORRECTION, None)  # see `load_config`
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise CheckpointError(f"{path} lacks the tensor {name}, which the network of its config has")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)} by its config"
            )
    if surplus := sorted(set(state) - set(wanted)):
        raise CheckpointError(f"{path} holds the tensor {surplus[0]}, which the network of its config does not have")
    try:
        check_finite(state, path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    with torch.inference_mode(False):  # copy the tensors: the file behind them may change later
        network.load_state_dict({n: value.to(wanted[n].dtype, copy=True) for n, value in state.items()}, assign=True)
    return network.eval()


def load_config(checkpoint: Checkpoint) -> Config:
    """The config of a checkpoint, with the correction that its file of weights holds, if there is one.

    Raises:
        CheckpointError: the file is damaged, or its correction does not fit the config.
    """
    from safetensors import SafetensorError, safe_open

    path = checkpoint.weights
    try:
        with safe_open(path, framework="np") as file:
            if CORRECTION not in file.keys():  # noqa: SIM118  # the file is no dictionary
                return checkpoint.config
            parts = file.get_tensor(CORRECTION)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        return replace(checkpoint.config, correction=from_parts(parts))
    except (ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path}: the tensor {CORRECTION} does not fit its config: {error}") from error


def save_weights(
    network: HIHNet, path: Path, dtype: torch.dtype | None = None, correction: Readout | None = None
) -> None:
    """Write weights as safetensors, atomically, with the correction of a config.

    Floating-point tensors of the network get ``dtype``; None keeps their dtypes. The correction is float32.
    """
    import safetensors.torch
    import torch

    from ..method.network import plain_name

    state = {
        plain_name(name): (value.to(dtype) if dtype and value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    state |= {name: torch.from_numpy(value) for name, value in _tensor(correction).items()}
    with files.replacing(path) as temporary:
        # not `save_file`, which reports a full disk as SafetensorError
        temporary.write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))


def save_checkpoint(
    folder: str | os.PathLike[str], network: HIHNet, config: Config, dtype: torch.dtype | None = None
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into ``folder``, each atomically. Missing folders are made."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_weights(network, path / WEIGHTS_FILE, dtype, config.correction)
    write_config(path, config)


def save_config(model: str, config: Config) -> Path:
    """Replace the config of a folder or, in a checkout, of a manifest row. Return the file that was written.

    Its correction replaces the one in the file of weights, if they differ.

    Raises:
        ValueError: ``model`` is neither such a folder nor a manifest id.
    """
    folder = own_folder(Path(model))
    if (folder / CONFIG_FILE).is_file():
        _save_correction(Checkpoint(config, folder / WEIGHTS_FILE))
        write_config(folder, config)
        return folder / CONFIG_FILE
    values = config.to_dict()
    own: dict[str, Any] = {}
    if (row := read_manifest().get(model)) is not None and (path := local_weights(row)) is not None:
        _save_correction(Checkpoint(config, path))
        own = {"sha256": files.sha256(path), "bytes": path.stat().st_size}
    return _edit(
        model,
        lambda row: row.update(config={key: value for key, value in values.items() if key in row["config"]}, **own),
    )


def _save_correction(checkpoint: Checkpoint) -> None:
    """Write the correction of the config into the file of weights, unless the file holds the same one."""
    config, path = checkpoint.config, checkpoint.weights
    if not path.is_file() or load_config(replace(checkpoint, config=replace(config, correction=None))) == config:
        return
    import safetensors.numpy

    state = {n: value for n, value in safetensors.numpy.load_file(path).items() if n != CORRECTION}
    with files.replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(state | _tensor(config.correction), metadata={"format": "pt"}))


def _tensor(correction: Readout | None) -> dict[str, Any]:
    """The correction as it lies in a file of weights: empty, or one NumPy array."""
    return {} if correction is None else {CORRECTION: correction.parts}
