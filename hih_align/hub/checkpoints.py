"""Name -> manifest -> file -> network.

A checkpoint is weights (safetensors) and a `Config`. Published ones are rows of ``weights_manifest.json``; a user's
own is a folder, or a Hub repository, that holds ``config.json`` and ``model.safetensors``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from .. import files
from ..method.heatmaps import Decoder, Rounding
from ..method.network import SIZES, HIHNet, Size, check_finite, plain_name
from ..method.readout import Readout, readout_from_dict
from ..method.settings import built
from ..schemes import SCHEMES, Scheme, conversion, get_scheme, scheme_from_dict
from ..scores import Calibration

MANIFEST = "weights_manifest.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: What `hih-align export` writes, by the backend that runs it: such a folder needs no weights.
EXPORTED_FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx"}
#: In a training run's folder, that of its best checkpoint.
BEST = "best"
#: Environment variable: a folder with weight files of the manifest.
WEIGHTS_FOLDER = "HIH_ALIGN_WEIGHTS"


class CheckpointError(ValueError):
    """A checkpoint's content is not what it should be: truncated, tampered with, or of another layout."""


class WeightsUnavailableError(OSError):
    """Weights that are known, or may be, cannot be had: no network and not in the cache, not authorised, or not
    published yet."""


@dataclass(frozen=True)
class Config:
    """What a network is and how its output is read; ``config.json`` beside the weights.

    Attributes:
        scheme: the landmarks that come out of it: those of its heads, or of ``readout``.
        stacks: number of stacked hourglasses.
        decimal_size, width, head_channels, input_size: see `Size`.
        name: what the model calls itself in results, such as "HIH_T/300w".
        crop_ratio: crop side over the box's longer side.
        rounding: how decimal labels were put on their grid in training.
        decoder: the default decoder.
        refine: default number of refining passes.
        refine_above: of the faces only those are refined whose points lie off their box by more than this
            (`passes.off`); None: all.
        calibration: logistic parameters of the scores by decoder method; missing: uncalibrated.
        output: id of the scheme that results are converted to, where it is not the network's own.
        readout: how ``scheme``'s landmarks are read from the network's heads; None: they are the heads' points.
        box: how far the boxes that the network expects reach beyond the tight box of its landmarks, left, top, right
            and bottom, as shares of the tight box's longer side (`crops.extended`). None: they are the tight boxes, or
            with a ``readout`` not known, and then no pass makes a new box.
    """

    scheme: Scheme
    stacks: int
    decimal_size: int = 8
    width: float = 1.0
    head_channels: int = 384
    input_size: int = 256
    name: str = ""
    crop_ratio: float = 1.25
    rounding: Rounding = "round"
    decoder: Decoder = field(default_factory=Decoder)
    refine: int = 0
    refine_above: float | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    output: str | None = None
    readout: Readout | None = None
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not self.crop_ratio > 0:
            raise ValueError(f"crop_ratio is {self.crop_ratio}, expected a positive ratio")
        if self.rounding not in ("round", "floor"):
            raise ValueError(f"rounding is {self.rounding!r}, expected 'round' or 'floor'")
        if not 0 <= self.refine <= 8:
            raise ValueError(f"refine is {self.refine}, expected 0 to 8 passes")
        if self.refine_above is not None and not self.refine_above >= 0:
            raise ValueError(f"refine_above is {self.refine_above}, expected None or a share of the box, at least 0")
        if self.readout is not None and len(self.readout) != len(self.scheme):
            raise ValueError(f"readout has {len(self.readout)} landmarks, scheme {self.scheme.id!r} {len(self.scheme)}")
        if self.box is not None and not (
            len(self.box) == 4 and np.isfinite(self.box).all() and min(np.add(self.box[:2], self.box[2:])) > -1
        ):
            raise ValueError(f"box is {self.box}, expected four finite shares of a box of more than no size")
        if self.output is not None:
            conversion(self.scheme, get_scheme(self.output))  # raises where none is known

    @property
    def size(self) -> Size:
        """The network's numbers: it is ``HIHNet(config.heads, *config.size)``."""
        return Size(self.stacks, self.decimal_size, self.width, self.head_channels, self.input_size)

    @property
    def heads(self) -> int:
        """Number of landmarks that the network itself has."""
        return len(self.scheme) if self.readout is None else self.readout.heads

    @property
    def refits(self) -> bool:
        """Whether a box can be made of the landmarks, for further passes."""
        return self.readout is None or self.box is not None

    @property
    def bin_offset(self) -> float:
        """`Decoder.bin_offset` that fits the labels: floored ones stand for their cell's centre."""
        return 0.5 if self.rounding == "floor" else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in ``config.json``; a built-in scheme by its id."""
        built_in = SCHEMES.get(self.scheme.id) == self.scheme
        own: dict[str, Any] = {} if self.readout is None else {"readout": self.readout.to_dict()}
        own |= {} if self.box is None else {"box": list(self.box)}
        return {
            "model": "hih",
            "name": self.name,
            "scheme": self.scheme.id if built_in else self.scheme.to_dict(),
            **self.size._asdict(),
            "crop_ratio": self.crop_ratio,
            "rounding": self.rounding,
            "decoder": {**asdict(self.decoder), "shift": list(self.decoder.shift)},
            "refine": self.refine,
            "refine_above": self.refine_above,
            "calibration": {method: asdict(c) for method, c in self.calibration.items()},
            "output": self.output,
            **own,
        }


def config_from_dict(data: Any, source: str) -> Config:
    """A `Config` from plain data; ``source`` names it in errors.

    Raises:
        CheckpointError: if something is missing or of the wrong form.
    """
    try:
        if data["model"] != "hih":
            raise ValueError(f"model is {data['model']!r}, expected 'hih'")
        scheme = data["scheme"]
        return Config(
            scheme=SCHEMES[scheme] if isinstance(scheme, str) else scheme_from_dict(scheme),
            stacks=int(data["stacks"]),
            decimal_size=int(data["decimal_size"]),
            width=float(data.get("width", 1.0)),
            head_channels=int(data.get("head_channels", 384)),
            input_size=int(data.get("input_size", 256)),
            name=str(data.get("name") or ""),
            crop_ratio=float(data["crop_ratio"]),
            rounding=data.get("rounding", "round"),
            decoder=Decoder(**data["decoder"]),
            refine=int(data.get("refine", 0)),
            refine_above=None if data.get("refine_above") is None else float(data["refine_above"]),
            calibration={
                m: Calibration(float(c["slope"]), float(c["bias"])) for m, c in (data.get("calibration") or {}).items()
            },
            output=data.get("output"),
            readout=None if data.get("readout") is None else readout_from_dict(data["readout"]),
            box=None if data.get("box") is None else tuple(map(float, data["box"])),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{source} is not a hih-align config: {what}") from error


@dataclass(frozen=True)
class Row:
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


def read_manifest(path: Path | None = None) -> dict[str, Row]:
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
        known = {key: item[key] for key in Row.__dataclass_fields__ if key not in ("config", "metrics")}
        rows[item["id"]] = Row(**known, metrics=tuple(item["metrics"]), config=config)
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


def _known() -> list[str]:
    """Sizes and manifest ids, for messages."""
    try:
        return [*SIZES, *read_manifest()]
    except FileNotFoundError:
        return [*SIZES]


@dataclass(frozen=True)
class Checkpoint:
    """Where weights lie and what they are.

    Attributes:
        config: of the network.
        weights: the file of weights; in an exported folder (`EXPORTED_FILES`) it may not exist.
    """

    config: Config
    weights: Path


def find_checkpoint(
    name: str | os.PathLike[str],
    scheme: str | Scheme | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find, and where needed download, a checkpoint.

    Args:
        name: a size ("HIH_T"; its scheme is ``scheme``, or 300w), a manifest id ("HIH_T/300w"), a folder written by
            `save_checkpoint` or by a training run, or a Hub repository ("user/repo"), tried in this order.
        scheme: the landmarks wanted; must be the checkpoint's own, or "cofw" for a WFLW checkpoint, whose points are
            then converted.
        cache_dir, revision, token, local_files_only: as in `huggingface_hub.hf_hub_download`.

    Manifest rows are looked up in the package, in ``weights/`` beside a checkout's manifest, in the folder that
    ``HIH_ALIGN_WEIGHTS`` names, then in the Hub's cache and on the Hub; their SHA-256 is verified.

    Raises:
        ValueError: unknown name or scheme, or a scheme that is not the checkpoint's.
        FileNotFoundError: a path that does not exist, or a folder without its two files.
        CheckpointError: content that is not what it should be.
        WeightsUnavailableError: the weights cannot be had.
    """
    hub = {"cache_dir": cache_dir, "revision": revision, "token": token, "local_files_only": local_files_only}
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"model is {type(name).__name__}, expected a name or a folder")
    could_be_repository = isinstance(name, str)
    name = os.fspath(name)
    wanted = None if scheme is None else get_scheme(scheme)
    ours = name.split("/")[0] in SIZES
    rows = read_manifest() if ours else {}  # read when it is needed: a program may have been bundled without it
    if name in SIZES:
        trained_on = "300w" if wanted is None else "wflw" if wanted.id == "cofw" else wanted.id
        row = rows.get(f"{name}/{trained_on}")
        if row is None:
            known = sorted({row.scheme for row in rows.values() if row.size == name} | {"cofw"})
            raise ValueError(f"scheme is {trained_on!r}, {name} has {known}")
        found = Checkpoint(row.config, _find_weights(row, hub))
    elif name in rows:
        config = _with_scheme(rows[name].config, wanted, name)  # before a download
        found = Checkpoint(config, _find_weights(rows[name], hub))
    elif name and Path(name).is_dir():
        found = _folder(Path(name))
    elif os.path.lexists(name):  # never looked for on the Hub
        beside = Path(name).parent / CONFIG_FILE
        what = f"that folder, {str(Path(name).parent)!r}" if beside.is_file() else f"a folder with {CONFIG_FILE}"
        raise ValueError(
            f"model is the file {name!r}, expected {what} and {WEIGHTS_FILE}; "
            "`hih-align convert` makes one of a released .pth"
        )
    elif ours:
        raise ValueError(f"model is {name!r}, expected one of {_known()}")
    elif could_be_repository and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "~")):
        found = _repository(name, wanted, hub)
    elif os.sep in name or name.startswith((".", "~")) or not could_be_repository:
        raise FileNotFoundError(f"model: no such folder: {name}")
    else:
        raise ValueError(f"model is {name!r}, expected one of {_known()}, a folder, or a Hub repository")
    return replace(found, config=_with_scheme(found.config, wanted, name))


def _with_scheme(config: Config, wanted: Scheme | None, name: str) -> Config:
    if wanted is None or wanted == config.output:
        return config
    if wanted == config.scheme:
        return replace(config, output=None)
    if wanted == "cofw" and config.scheme == "wflw":
        return replace(config, output="cofw")
    other = " of another content" if wanted.id == config.scheme.id else ""
    raise ValueError(f"scheme is {wanted.id!r}, but {name} was trained for {config.scheme.id!r}{other}")


def packaged_weights() -> Path:
    """The folder of the weights that the wheel carries."""
    return Path(__file__).parents[1] / "weights"


def _folders() -> list[Path]:
    """Where the manifest's files are looked for: the package, ``weights/`` of a checkout, the user's folder."""
    folders = [packaged_weights(), manifest_path().parent / "weights"]
    if Path(MANIFEST).is_file():  # an installed package that is used in a checkout
        folders.append(Path.cwd() / "weights")
    if named := os.environ.get(WEIGHTS_FOLDER):
        folders.append(Path(named))
    return list(dict.fromkeys(folders))


def local_weights(row: Row) -> Path | None:
    """The row's file on this machine outside the Hub's cache, not verified; None if it is nowhere."""
    return next((path for folder in _folders() if (path := folder / row.file).is_file()), None)


def _find_weights(row: Row, hub: dict[str, Any]) -> Path:
    if row.sha256 is not None:
        if (path := local_weights(row)) is not None:
            return verified(path, row.sha256)
        if row.repo_id is not None:
            revision = hub["revision"] or row.revision
            return download_verified(row.repo_id, WEIGHTS_FILE, row.sha256, {**hub, "revision": revision})
    raise WeightsUnavailableError(
        f"{row.id} is not published{'' if row.sha256 else ' (not trained yet)'}: wanted {row.file} in "
        f"{', '.join(map(str, _folders()))} or the folder that {WEIGHTS_FOLDER} names"
    )


def download_verified(repo_id: str, filename: str, sha256: str, hub: dict[str, Any], what: str = "model") -> Path:
    """`download` a file of a known SHA-256.

    Raises:
        CheckpointError: a file of another one.
        ValueError, WeightsUnavailableError: as `download`.
    """
    path = download(repo_id, filename, hub, what)
    if files.sha256(path) != sha256 and not hub["local_files_only"]:
        # the Hub's client keeps what came without checking it: fetch once more before giving up
        path = download(repo_id, filename, {**hub, "force_download": True}, what)
    return verified(path, sha256)


def verified(path: Path, sha256: str) -> Path:
    """``path``, if the file has that SHA-256.

    Raises:
        CheckpointError: if not.
    """
    if (found := files.sha256(path)) != sha256:
        raise CheckpointError(
            f"{path} is damaged or not the published file: its SHA-256 is {found}, expected {sha256}; "
            "delete it to fetch it again"
        )
    return path


def _own(folder: Path) -> Path:
    """The folder, or a training run's best checkpoint."""
    best = folder / BEST
    return best if (best / CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file() else folder


def _folder(folder: Path) -> Checkpoint:
    folder = _own(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file() and not (name == WEIGHTS_FILE and exported_for(folder)):
            raise FileNotFoundError(f"model: {folder} has no {name}")
    return Checkpoint(read_config(folder / CONFIG_FILE), folder / WEIGHTS_FILE)


def exported_for(folder: Path) -> list[str]:
    """The backends for which ``folder`` holds an exported file."""
    return [backend for backend, name in EXPORTED_FILES.items() if (folder / name).is_file()]


def _repository(repo_id: str, wanted: Scheme | None, hub: dict[str, Any]) -> Checkpoint:
    config = _with_scheme(read_config(download(repo_id, CONFIG_FILE, hub)), wanted, repo_id)
    return Checkpoint(config, download(repo_id, WEIGHTS_FILE, hub))


def download(repo_id: str, filename: str, hub: dict[str, Any], what: str = "model") -> Path:
    """A file of a Hub repository, from the cache or downloaded (huggingface_hub shows its progress and resumes).

    Args:
        repo_id, filename: "user/repo", and a file in it.
        hub: further arguments of `huggingface_hub.hf_hub_download`.
        what: the argument that errors name.

    Raises:
        ValueError: no such repository, revision or file.
        WeightsUnavailableError: it cannot be had.
    """
    import huggingface_hub  # slow to import, and not needed where the weights are here
    from huggingface_hub import errors as hub_errors

    at = f" at revision {hub['revision']!r}" if hub["revision"] else ""
    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename, library_name="hih-align", **hub))
    except hub_errors.LocalEntryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{what}: {repo_id!r}{at} is neither a folder here nor in the Hub's cache, and the Hub cannot be reached "
            f"(or local_files_only or HF_HUB_OFFLINE forbids it) to fetch {filename}"
        ) from error
    except hub_errors.GatedRepoError as error:
        raise WeightsUnavailableError(f"{what}: {repo_id!r} is gated: accept its terms, then pass token") from error
    except hub_errors.RevisionNotFoundError as error:
        raise ValueError(f"revision is {hub['revision']!r}, which {repo_id!r} does not have on the Hub") from error
    except hub_errors.EntryNotFoundError as error:
        raise ValueError(f"{what}: {repo_id!r}{at} on the Hub has no {filename}; not a hih-align repository") from error
    except hub_errors.RepositoryNotFoundError as error:
        if error.response.status_code in (401, 403):
            raise WeightsUnavailableError(
                f"{what}: {repo_id!r} is not on the Hub, or private: pass token or run `hf auth login`"
            ) from error
        raise ValueError(f"{what} is {repo_id!r}: no such folder here, and no such repository on the Hub") from error
    except hub_errors.HFValidationError as error:
        raise ValueError(f"{what} is {repo_id!r}: {error}") from error
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = ": the token is not valid" if status == 401 else ""
        raise WeightsUnavailableError(f"{what}: the Hub answers {status} for {repo_id!r}{at}{hint}") from error
    except (ValueError, TypeError):
        raise
    except Exception as error:  # a broken transfer, a full disk; huggingface_hub's HTTP library has errors of its own
        raise WeightsUnavailableError(f"{what}: {filename} of {repo_id!r}{at} cannot be fetched: {error}") from error


def read_config(path: Path) -> Config:
    """A ``config.json``. Raises `CheckpointError` if it is not one."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    return config_from_dict(data, str(path))


def load_network(checkpoint: Checkpoint) -> HIHNet:
    """The network with its weights, float32, on the CPU, in eval mode.

    Raises:
        CheckpointError: if the file is damaged, or holds other weights than the config says, NaN or infinity.
        FileNotFoundError: an exported folder, which holds a runtime's file instead of weights; it says what to do.
    """
    config, path = checkpoint.config, checkpoint.weights
    if not path.is_file() and (backends := exported_for(path.parent)):
        held = " and ".join(f"{EXPORTED_FILES[backend]} for backend {backend!r}" for backend in backends)
        raise FileNotFoundError(
            f"model: {path.parent} was exported: it holds {held}, and no {path.name}. Pass backend={backends[0]!r}, or "
            f"load the checkpoint that it was exported from{f', {config.name}' if config.name else ''}"
        )
    try:
        network = built(lambda: HIHNet(config.heads, *config.size))
    except ValueError as error:
        raise CheckpointError(f"the config of {path} is wrong: {error}") from error
    try:
        state = safetensors.torch.load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise CheckpointError(f"{path} lacks {name}, which a network of its config has")
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, its config asks for {tuple(tensor.shape)}"
            )
    if surplus := sorted(set(state) - set(wanted)):
        raise CheckpointError(f"{path} holds {surplus[0]}, which a network of its config does not have")
    try:
        check_finite(state, path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    with torch.inference_mode(False):  # copies: the file's own pages may change later
        network.load_state_dict({n: value.to(wanted[n].dtype, copy=True) for n, value in state.items()}, assign=True)
    return network.eval()


def save_weights(network: HIHNet, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write weights as safetensors, atomically; floating point in ``dtype``, as they are by default."""
    state = {
        plain_name(name): (value.to(dtype) if dtype and value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    with files.replacing(path) as temporary:
        # not save_file, which hides a full disk in a SafetensorError
        temporary.write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))


def save_checkpoint(
    folder: str | os.PathLike[str], network: HIHNet, config: Config, dtype: torch.dtype | None = None
) -> None:
    """Write ``config.json`` and ``model.safetensors``, each atomically, into ``folder``, made if need be."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_weights(network, path / WEIGHTS_FILE, dtype)
    write_config(path, config)


def write_config(folder: Path, config: Config) -> None:
    """Write ``config.json``, atomically."""
    _write_json(folder / CONFIG_FILE, config.to_dict())


def save_config(model: str, config: Config) -> Path:
    """Replace the config of a folder or, in a checkout, of a manifest row; returns the file written.

    Raises:
        ValueError: neither.
    """
    folder = _own(Path(model))
    if (folder / CONFIG_FILE).is_file():
        write_config(folder, config)
        return folder / CONFIG_FILE
    values = config.to_dict()
    return _edit(
        model, lambda row: row.update(config={key: value for key, value in values.items() if key in row["config"]})
    )


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
    if not (_own(Path(model)) / CONFIG_FILE).is_file() and path.parent == Path(__file__).parents[1]:
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
    _write_json(path, data)
    return path


def _write_json(path: Path, data: Any) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
