"""The description inside an exported file, so that it can be run and verified without its checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hub.checkpoints import EXPORTED_FILES
from ..hub.config import CheckpointError, Config
from ..method.decoder import Decoder
from .backend import Runtime

if TYPE_CHECKING:
    from ..method.network import HIHNet

#: The key of the description in the metadata of a file.
KEY = "hih_align"

#: Names of an exported graph's input and outputs.
INPUT, OUTPUTS = "crops", ("points", "scores")

#: The file of each runtime in an exported folder.
FILES: dict[Runtime, str] = {
    "openvino": EXPORTED_FILES["openvino"],
    "onnxruntime": EXPORTED_FILES["onnxruntime"],
}

#: The name of the dtype for each name of a precision in files and on the command line.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


def describe(network: HIHNet, config: Config, precision: str) -> str:
    """The description as JSON: config of the checkpoint, input and outputs, precision, and a hash of the weights."""
    points = len(config.scheme)
    return json.dumps(
        {
            "config": config.to_dict(),
            "precision": precision,
            "input": {
                "name": INPUT,
                "shape": ["batch", config.input_size, config.input_size, 3],
                "dtype": "uint8",
                "content": "RGB crops, as hih_align.crops makes them; not normalised",
            },
            "outputs": [
                {
                    "name": OUTPUTS[0],
                    "shape": ["batch", points, 2],
                    "dtype": "float32",
                    "content": "x, y in crop pixels, 0 at the centre of the first",
                },
                {"name": OUTPUTS[1], "shape": ["batch", points], "dtype": "float32", "content": "scores, 0 to 1"},
            ],
            "weights": fingerprint(network, config),
        }
    )


def fingerprint(network: HIHNet, config: Config) -> str:
    """SHA-256 of the weights in float32, and of the correction."""
    from ..method.network import plain_name

    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(plain_name(name).encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    if config.correction is not None:
        digest.update(config.correction.parts.tobytes())
    return digest.hexdigest()


def parse(text: str, source: Path) -> Mapping[str, Any]:
    """Read the description in ``source``.

    Raises:
        CheckpointError: the text is no description.
    """
    try:
        data = json.loads(text)
        if data["precision"] not in DTYPES:
            raise ValueError(f"precision is {data['precision']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source} was not written by hih-align export: {error!r}") from error
    return data


def check(description: Mapping[str, Any], source: Path, network: HIHNet | None, config: Config) -> None:
    """Refuse an exported file that does not fit the request. ``network`` is None if its weights are not here.

    Raises:
        ValueError: the file has other weights, another decoder or another calibration.
    """
    method = config.decoder.method
    held = description["config"]
    own = config.to_dict()
    wanted = {"decoder": config.decoder, "calibration": own["calibration"].get(method), "readout": own.get("readout")}
    found = {
        "decoder": Decoder(**held["decoder"]),
        "calibration": held["calibration"].get(method),
        "readout": held.get("readout"),
    }
    for name, value in wanted.items():
        if found[name] != value:
            how = "another readout" if name == "readout" else f"{name} {found[name]}, expected {value}"
            raise ValueError(f"{source} was exported with {how}: export it again")
    if network is not None and description["weights"] != fingerprint(network, config):
        raise ValueError(f"{source} was exported from other weights than those beside it: export it again")
