"""Export of a model, with its decoder, to the file of another runtime. The file maps crops to points and scores.

`export` writes a folder with the config and the runtime's file: ``model.onnx``, ``model.xml`` and ``model.bin``, or
``model.pt2``. `FaceAligner.from_pretrained` accepts this folder, and runs the file if the backend is the file's
runtime. Other programs need only the file. Its metadata describe its input and its outputs
(`runtime.metadata.describe`).
"""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from . import crops, files, runtime
from .aligner import FaceAligner
from .hub.checkpoints import save_checkpoint
from .hub.config import CONFIG_FILE, write_config
from .images import read_image
from .runtime.backend import Runtime
from .runtime.inference import InferenceNet, program
from .runtime.metadata import DTYPES, FILES, INPUT, KEY, describe
from .runtime.placement import choose_dtype
from .runtime.precision import warn_if_emulated

if TYPE_CHECKING:
    from .data.annotations import Dataset

Format = Literal["onnx", "openvino", "torch"]

#: The precisions that each format supports.
PRECISIONS: dict[Format, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "torch": ("fp32", "bf16", "fp16"),
}

#: The increase of the validation NME by int8 must be smaller than this, in percentage points.
WORSE = 0.05

#: Number of faces with which the value ranges of an int8 network are measured.
CALIBRATION_FACES = 300

_RUNTIMES: dict[Format, Runtime] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


class AccuracyError(ValueError):
    """The int8 network is too inaccurate."""


@dataclass(frozen=True)
class Export:
    """The result of `export`.

    Attributes:
        folder: the folder that was written.
        file: the runtime's file in the folder.
        precision: the precision of the file, one of `PRECISIONS`.
        before, after: validation NME in percent, of the network and of its int8 copy. None for other precisions.
        normalizer: the distance that the NME is a percentage of, see `normalizers.choose_normalizer`. None for other
            precisions.
    """

    folder: Path
    file: Path
    precision: str
    before: float | None = None
    after: float | None = None
    normalizer: str | None = None


def export(
    aligner: FaceAligner,
    out: str | os.PathLike[str],
    format: Format,
    precision: str = "fp32",
    *,
    calibration: Dataset | None = None,
    validation: Dataset | None = None,
) -> Export:
    """Write a model for another runtime.

    Args:
        aligner: the model, with its decoder.
        out: the folder to write. It must not exist, or must be empty. An empty folder stays the same folder, with its
            mode. After an error nothing is written.
        format: "onnx", "openvino" or "torch" (a `torch.export` program).
        precision: "fp32", "bf16", "fp16" or "int8", see `PRECISIONS`. For OpenVINO, bf16 is the precision of the
            computation, and fp16 is the precision of the stored weights. Pixels and points keep full precision in all
            of them. "auto" means bf16 if the format supports it and this CPU has it in hardware, else fp32. A warning
            tells if this CPU lacks the precision.
        calibration: training faces for int8. `CALIBRATION_FACES` of them are used.
        validation: other faces for int8. The increase of their NME must be smaller than `WORSE`.

    Raises:
        ValueError: the format or the precision is unknown, a dataset is missing, or the folder is not empty.
        FileNotFoundError: the parent of the folder does not exist.
        ImportError: the runtime is not installed. The message names the extra.
        AccuracyError: the int8 network is too inaccurate. Nothing is written.
    """
    if format not in get_args(Format):
        raise ValueError(f"format is {format!r}, expected one of {list(get_args(Format))}")
    if precision not in ("auto", *PRECISIONS[format]):
        raise ValueError(f"precision is {precision!r}, expected one of {['auto', *PRECISIONS[format]]} for {format}")
    runtime.choose(_RUNTIMES[format], "cpu")
    target = Path(out)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"out: {target} is in a folder that does not exist")
    if target.exists() and not target.is_dir():
        raise ValueError(f"out: {target} is a file, expected a new folder")
    if target.exists() and (name := files.holds(target)):
        raise ValueError(f"out: {target} holds {name}, expected a new folder, or one without files, hidden ones too")
    if precision == "int8" and (calibration is None or validation is None):
        raise ValueError("precision is 'int8', which needs calibration and validation faces")
    if precision == "auto":
        precision = "bf16" if choose_dtype("auto", "cpu", _RUNTIMES[format]) == "bfloat16" else "fp32"
    elif (format, precision) != ("openvino", "fp16"):
        other = "take 'auto' or 'fp32', unless another machine will run the file"
        warn_if_emulated(DTYPES[precision], "cpu", f"precision is {precision!r}", other, runtime=_RUNTIMES[format])
    config = replace(aligner.config, decoder=aligner.decoder)
    half = precision in ("bf16", "fp16") and format != "openvino"
    dtype: torch.dtype = getattr(torch, DTYPES[precision]) if half else torch.float32
    model = InferenceNet(aligner.network, config, dtype).cpu()
    about = describe(aligner.network, config, precision)
    with files.making(target, last=CONFIG_FILE) as temporary:  # without its config no folder is loaded
        if format == "torch":
            file = temporary / "model.pt2"
            content = io.BytesIO()  # on a full disk, PyTorch's own writing ends the process
            torch.export.save(program(model), content, extra_files={KEY: about})
            file.write_bytes(content.getbuffer())
        else:
            file = temporary / FILES[_RUNTIMES[format]]
            faces = None if calibration is None or precision != "int8" else calibration_crops(aligner, calibration)
            (_write_onnx if format == "onnx" else _write_openvino)(model, file, precision, about, faces)
        if format == "torch":  # `FaceAligner` does not run the exported program, so it needs the weights
            save_checkpoint(temporary, aligner.network, config, torch.float32)
        else:
            write_config(temporary, config)
        before, after, normalizer = None, None, None
        if validation is not None and precision == "int8":
            from .evaluation.normalizers import normalizer_text

            before, normalizer = _nme(aligner, validation)
            after = _nme_of(temporary, _RUNTIMES[format], validation)
            if not after - before < WORSE:
                raise AccuracyError(
                    f"precision is 'int8', which increases the NME on {validation.name} from {before:.3f} to "
                    f"{after:.3f} percent of the {normalizer_text(normalizer)}. The increase must be smaller than "
                    f"{WORSE}. Nothing is written"
                )
    return Export(target, target / file.name, precision, before, after, normalizer)


def calibration_crops(aligner: FaceAligner, dataset: Dataset, count: int = CALIBRATION_FACES) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 crops of at most ``count`` faces, which are spread evenly over the dataset."""
    from .data.records import spread

    chosen = spread(len(dataset), count)
    side = aligner.config.input_size
    result = np.empty((len(chosen), side, side, 3), np.uint8)
    for index, crop in zip(chosen, result, strict=True):
        record = dataset.records[index]
        where = crops.square_crop(record.box, aligner.config.crop_ratio, side)
        crops.warp(read_image(record.image), where.matrix, where.size, out=crop)
    return result


def _nme(aligner: FaceAligner, dataset: Dataset) -> tuple[float, str]:
    """Mean NME in percent, and the name of its normalizer."""
    from .evaluation.evaluate import evaluate

    report = evaluate(aligner, dataset, progress=False)
    return report.overall.nme, report.settings.normalizer


def _nme_of(folder: Path, backend: Runtime, dataset: Dataset) -> float:
    """Mean NME of an exported folder. Its files are closed at the end, else Windows would not rename the folder."""
    return _nme(FaceAligner.from_pretrained(folder, device="cpu", backend=backend), dataset)[0]


def _write_onnx(model: InferenceNet, path: Path, precision: str, about: str, faces: NDArray[np.uint8] | None) -> None:
    import onnx

    from .runtime.convert import to_onnx

    graph = onnx.load_model_from_string(to_onnx(model))
    if faces is not None:
        graph = _quantize_onnx(graph, path, faces)
    onnx.helper.set_model_props(graph, {KEY: about})
    onnx.save(graph, path)


def _quantize_onnx(graph: Any, path: Path, faces: NDArray[np.uint8]) -> Any:
    """Quantize the convolutions to int8. All other operations stay float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Faces(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.rest = iter(faces)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            crop = next(self.rest, None)
            return None if crop is None else {INPUT: crop[None]}

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        onnx.save(graph, Path(folder) / "float.onnx")
        quantize_static(
            Path(folder) / "float.onnx",
            Path(folder) / "int8.onnx",
            Faces(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(Path(folder) / "int8.onnx")


def _write_openvino(
    model: InferenceNet, path: Path, precision: str, about: str, faces: NDArray[np.uint8] | None
) -> None:
    import openvino as ov

    from .runtime.convert import to_openvino

    graph = to_openvino(model)
    if faces is not None:
        graph = _quantize_openvino(graph, faces)
    graph.set_rt_info(about, KEY)
    with files.disk_errors(path):
        ov.save_model(graph, path, compress_to_fp16=precision == "fp16")


def _quantize_openvino(graph: Any, faces: NDArray[np.uint8]) -> Any:
    """Quantize from the first to the last convolutions to int8. Normalisation and decoder stay float32."""
    try:
        import nncf
    except ImportError as error:
        raise ImportError("precision is 'int8', which needs nncf: pip install 'hih-align[int8]'") from error
    return nncf.quantize(
        graph,
        nncf.Dataset([crop[None] for crop in faces]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(faces),
        ignored_scope=nncf.IgnoredScope(names=_around(graph)),
    )


def _around(graph: Any) -> list[str]:
    """Names of the operations after the last convolutions. These operations are the decoder."""
    names: dict[str, None] = {}
    waiting = list(graph.get_results())
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Convolution" or node.get_friendly_name() in names:
            continue
        if node.get_type_name() not in ("Result", "Constant", "Parameter"):
            names[node.get_friendly_name()] = None
        waiting.extend(value.get_node() for value in node.input_values())
    return list(names)
