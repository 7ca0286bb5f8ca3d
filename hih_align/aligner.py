"""`FaceAligner`: from a photograph and a box to landmarks. The steps are: read, crop, network, decode, map back.

The file has more than 400 lines because `FaceAligner` is one class, and half of the lines are docstrings for users.
"""

from __future__ import annotations

import operator
import os
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import crops, runtime
from .boxes import check_boxes, check_rolls
from .detection.detector import FaceDetector
from .detection.given import Detector, check_detector, detections
from .hub import checkpoints
from .hub.config import CONFIG_FILE, Config, check_out, read_config
from .images import Image, read_image
from .landmarks import Landmarks
from .method.decoder import STRIDE, Decoder
from .method.readout import pick
from .passes import NOTHING, TURN, Face, Rules, align_faces
from .runtime import Backend, Photograph, fork
from .runtime.placement import choose_device, choose_dtype
from .runtime.precision import warn_if_emulated
from .schemes import Scheme, conversion, get_scheme
from .scores import limit_scale
from .stream import pairs, reading

if TYPE_CHECKING:
    import torch

    from .method.network import HIHNet
    from .method.watch import Watch
    from .runtime.pytorch import TorchBackend

#: Largest number of faces that go through the network together.
BATCH_SIZE = 32

#: The same on a GPU, which needs more work at once.
GPU_BATCH_SIZE = 512

#: Largest number of images whose faces go through the network together. They are held in memory until then.
BATCH_IMAGES = 32

#: Number of images that threads read ahead while the network runs.
READ_AHEAD = 8

Decode = Literal["argmax", "expectation"]


@dataclass(frozen=True, repr=False)
class Heatmaps:
    """The network's output for one face.

    Attributes:
        integer: (K, S/4, S/4) float32 integer heatmaps of the network's K heads (`Config.heads`).
        decimal: (K, n, n) float32 decimal heatmaps (logits).
        crop: (S, S, 3) uint8 RGB, the input of the network; S is its ``input_size``.
        transform: the map between image and crop. Crop pixels are 4 times heatmap pixels.
    """

    integer: NDArray[np.float32]
    decimal: NDArray[np.float32]
    crop: NDArray[np.uint8]
    transform: crops.Crop

    def __repr__(self) -> str:
        return f"Heatmaps({len(self.integer)} points, decimal heatmaps of {self.decimal.shape[-1]} cells a side)"


class FaceAligner:
    """Aligns faces. Thread-safe.

    PyTorch is imported only if it is needed. A folder of `hih-align export` that another backend runs needs PyTorch
    only for `network`, `device` and `dtype`.

    The aligner runs a private copy of the network, which is made for speed. The next call makes a new copy if weights
    were changed by PyTorch operations (training, ``load_state_dict``, in-place arithmetic, moves), if parameters,
    buffers or submodules were replaced, or if another network was assigned. Changes that PyTorch does not count are not
    noticed: writes through ``.data`` or NumPy, and plain attributes of modules. Call `refresh` after them. Do not
    change the network while another thread aligns.

    Attributes:
        network: the trainable `HIHNet`, float32, in eval mode on `device`. `save_pretrained` writes it. An exported
            folder has no network, and asking for it raises ValueError.
        config: the config of the checkpoint.
        scheme: the scheme of the resulting landmarks.
        backend: the runtime: "torch", "onnxruntime" or "openvino".
        decoder: the decoder of the heatmaps.
        detector: finds the faces of images without boxes.
    """

    def __init__(
        self,
        network: HIHNet | None,
        config: Config,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        decode: Decode | Decoder | None = None,
        backend: str = "torch",
        exported: str | os.PathLike[str] | None = None,
        detector: Detector | None = None,
    ) -> None:
        """Make an aligner from a network.

        Args:
            network: the network. It is moved to ``device`` and put into eval mode. None if ``exported`` holds the file
                that is run.
            config: the config of the network.
            device, dtype, decode, backend: as in `from_pretrained`.
            exported: a folder of `hih-align export`. If it has a file for ``backend``, this file is run.
            detector: as in `from_pretrained`.
        """
        if detector is not None:
            check_detector(detector)
        self.config = config
        self._device = choose_device(device, backend)
        self.backend = runtime.choose(backend, self._device, None if exported is None else Path(exported))
        self.decoder = _decoder(decode, config)
        self._network = None if network is None else self._fitting(network)
        self._watched = True  # whether others can change the network: the check takes 0.1 ms
        self.scheme = config.resulting
        self.detector: Detector = FaceDetector() if detector is None else detector
        # absolute: it is read again after the working directory may have changed
        self._exported = None if exported is None else Path(exported).absolute()
        self._asked = choose_dtype(dtype, self._device, self.backend)
        self._start()

    def __repr__(self) -> str:
        stacks = self.config.stacks
        return (
            f"FaceAligner({self.config.name or 'unnamed'!r}: {len(self.scheme)} points of {self.scheme.id}, "
            f"{stacks} stack{'s' * (stacks != 1)}, {self.backend} {self._copy[1].dtype} on {self._device}, "
            f"decode {self.decoder.method!r}, refine {self.config.refine})"
        )

    @property
    def device(self) -> torch.device:
        """The device of the private copy."""
        import torch

        return torch.device(self._device)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the private copy; int8 for an exported int8 file."""
        import torch

        dtype: torch.dtype = getattr(torch, self._copy[1].dtype)
        return dtype

    @property
    def network(self) -> HIHNet:
        """The trainable network. If you assign another network, that one is run.

        Of a compiled network, or one wrapped for data parallelism, the inner network is kept.

        Raises:
            ValueError: an exported file is run, whose weights are not here; or the assigned network has another size or
                number of landmarks than `config`.
            TypeError: the assigned object is no `HIHNet`.
        """
        self._watched = True
        return self._held()

    @network.setter
    def network(self, network: HIHNet) -> None:
        self._network = self._fitting(network)
        self._watched = True
        self._start()

    def _held(self) -> HIHNet:
        if self._network is None:
            raise ValueError(
                f"network is not here: {self._exported} was exported for backend {self.backend!r}; load the checkpoint "
                f"that it was exported from{f', {self.config.name}' if self.config.name else ''}"
            )
        return self._network

    def refresh(self) -> None:
        """Make a new private copy of the network now, whether or not a change was noticed."""
        with self._lock:
            self._copy = self._make()

    def _fitting(self, network: Any) -> HIHNet:
        from .method.network import HIHNet

        while not isinstance(network, HIHNet):
            inner = getattr(network, "_orig_mod", None) or getattr(network, "module", None)
            if inner is None:
                raise TypeError(f"network is {type(network).__name__}, expected an HIHNet")
            network = inner
        config = self.config
        has = {"landmarks": network.landmarks, **network.size._asdict()}
        wanted = {"landmarks": config.heads, **config.size._asdict()}
        if has != wanted:
            raise ValueError(f"network has {has}, expected {wanted} as its config says")
        return network.to(self._device).eval()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._copy = self._make()
        dtype = self._copy[1].wanted or self._copy[1].dtype
        warn_if_emulated(dtype, self._device, f"dtype is {dtype!r}", "take dtype='auto'", 5, self.backend)

    def _make(self) -> tuple[Watch | None, Backend]:
        """A private copy that runs, and the `Watch` of the network that it was made from."""
        watch = None
        if self._network is not None:
            from .method.watch import Watch

            watch = Watch(self._network)
        self._shown: TorchBackend | None = None  # for `heatmaps`, if another runtime runs
        config = replace(self.config, decoder=self.decoder)
        return watch, runtime.make(self.backend, self._network, config, self._device, self._asked, self._exported)

    def _runtime(self) -> Backend:
        """The private copy of the network in its present state."""
        watch, running = self._copy
        if self._watched and watch is not None and watch.changed():
            with self._lock:
                watch = self._copy[0]
                if watch is not None and watch.changed():  # no other thread has made the copy meanwhile
                    self._copy = self._make()
                running = self._copy[1]
        return running

    def _torch(self) -> TorchBackend:
        """The private copy if PyTorch runs it; otherwise another copy for PyTorch, kept until the network changes."""
        network = self._held()
        import torch

        from .runtime.pytorch import TorchBackend

        running = self._runtime()
        if isinstance(running, TorchBackend):
            return running
        with self._lock:
            if self._shown is None:
                self._shown = fork.run(TorchBackend, network, self.config, self.device, torch.float32)
            return self._shown

    def __getstate__(self) -> dict[str, Any]:
        # sessions of other runtimes cannot be pickled: the receiver makes a new copy
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_copy", "_shown")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = "HIH_T",
        scheme: str | Scheme | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        backend: str = "torch",
        decode: Decode | Decoder | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        detector: Detector | None = None,
    ) -> FaceAligner:
        """Load a pretrained model.

        Args:
            model: a size ("HIH_T"), a manifest id ("HIH_T/wflw"; `hih-align models` lists them), a folder that
                `save_pretrained` or a training wrote, or a Hub repository ("user/repo").
            scheme: "300w" (68 points; the default of a size), "wflw" (98 points) or "cofw" (29 points, converted from
                98). If ``model`` is not a size, it must be the scheme of the checkpoint, or "cofw" for a WFLW
                checkpoint.
            device: a torch device. None: CUDA if there is a GPU, else the CPU.
            dtype: None: float32, or the precision of an exported file. "auto": bfloat16 on CPUs and float16 on GPUs
                that have instructions for it, else float32. Or a name or a torch.dtype; a precision that the hardware
                must emulate warns. OpenVINO has float32 and bfloat16, and warns if it computes in float32 instead of
                bfloat16. ONNX Runtime has float32.
            backend: "torch", or on the CPU "onnxruntime" or "openvino" (extras ``[onnx]`` and ``[openvino]``), or
                "auto": on a CPU the first that is installed of openvino, onnxruntime and torch, elsewhere torch. The
                network is converted when it is loaded, which takes seconds. A folder that `hih-align export` wrote for
                this runtime is not converted; it runs in the precision of the export.
            decode: None: the decoder of the checkpoint. "argmax" (the paper's Eq. 4) or "expectation" (this package's
                default): this method, with the checkpoint's settings if it has this method. A `Decoder` is used
                unchanged, without the checkpoint's shift, power and so on; to change one value, use
                `dataclasses.replace` on ``config.decoder``. A Decoder that only names a method warns.
            cache_dir, revision, token, local_files_only: as in `huggingface_hub.hf_hub_download`.
            detector: finds the faces of images without boxes. It is a function that gets an RGB image (H, W, 3) uint8
                and returns boxes (N, 4) x1, y1, x2, y2, or (N, 5) with scores. None: `FaceDetector`, whose file is
                searched at the first use.

        Raises:
            ValueError: model, scheme, device, dtype, backend or decoder is unknown; the checkpoint has another scheme;
                or the checkpoint is damaged (`CheckpointError`).
            FileNotFoundError: the folder does not exist, or lacks a file.
            WeightsUnavailableError: the weights are not here and cannot be downloaded (an `OSError`).
            ImportError: the backend is not installed.
        """
        place = choose_device(device, backend)
        here = Path(model) if isinstance(model, (str, os.PathLike)) and os.path.isdir(model) else None
        choose_dtype(dtype, place, runtime.choose(backend, place, here, converts=False))  # raise before a download
        cache = None if cache_dir is None else Path(cache_dir).expanduser().absolute()  # the detector uses it later
        hub: dict[str, Any] = {"cache_dir": cache, "token": token, "local_files_only": local_files_only}
        found = checkpoints.find_checkpoint(model, scheme, revision=revision, **hub)
        network = None
        if found.weights.is_file() or runtime.choose(backend, place, found.folder) not in found.exported:
            network = fork.run(checkpoints.load_network, found)
            found = replace(found, config=checkpoints.load_config(found))
        else:
            backend = runtime.choose(backend, place, found.folder)
        aligner = cls(
            network,
            found.config,
            device=place,
            dtype=dtype,
            decode=decode,
            backend=backend,
            exported=found.folder,
            detector=FaceDetector(hub=hub) if detector is None else detector,
        )
        own = found.config.decoder
        if isinstance(decode, Decoder) and decode != own and decode == Decoder(own.method):
            warnings.warn(
                f"decode is Decoder({own.method!r}), without the other settings of the checkpoint's decoder {own}: to "
                f"use those, pass decode={own.method!r}",
                stacklevel=2,
            )
        aligner._watched = False  # nobody else has the network yet
        return aligner

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities: the checkpoint has a calibration for the decoder's method."""
        return self.decoder.method in self.config.calibration

    @property
    def limit_scale(self) -> float:
        """Factor of the limits of scores, see `scores.limit_scale`. It is 1 for landmarks all over the face."""
        return limit_scale(self.config.calibration.get(self.decoder.method))

    @property
    def exported(self) -> bool:
        """Whether an exported file is run. It has only its own decoder and calibration."""
        return self._copy[1].description is not None

    def align(
        self,
        image: Image,
        bbox: ArrayLike | None = None,
        refine: int | None = None,
        mirror: bool = False,
        roll: ArrayLike | None = None,
    ) -> Landmarks:
        """Find the landmarks of the faces in ``bbox``, or of all faces that the detector finds.

        Args:
            image: a path, an encoded picture (bytes or an open file), a PIL image, an RGB array or tensor; see
                `images.read_image`.
            bbox: (4,) x1, y1, x2, y2 in pixels of ``image``, or (N, 4); N may be 0. A tight box, from brows to chin and
                from jaw to jaw, is best. The box of a detector is possible, too. None: the faces are found first.
            refine: number of further passes, each on the box of the points of the pass before. None: the default of the
                checkpoint, only for faces whose points lie off their box.
            mirror: average with the result of the mirrored face. This doubles the time and lowers the error slightly.
            roll: clockwise rotation of the faces in the picture, in degrees; one number or (N,). The box is then that
                of the face turned upright about the centre of the box. None: any roll is found; an upright face needs
                no further pass for it.

        Returns:
            One face for a (4,) box, several for (N, 4). Without boxes several, with `Landmarks.detection_scores`, the
            largest face first; N may be 0. A detection whose landmarks have very low scores (`passes.NOTHING`) is left
            out. The limit is lower if even clear landmarks have low scores (`limit_scale`).

        Raises:
            ValueError, TypeError, FileNotFoundError: an argument is bad; the message names it.
            WeightsUnavailableError: without boxes, if the detector's file cannot be obtained.
        """
        pixels = read_image(image)
        job = self._job(pixels, bbox, roll)
        rules = self._rules(refine)
        together, _ = self._together(None)
        if len(job.faces) > 1:
            job.faces[0].image.stays = True  # the faces share it
        for start in range(0, len(job.faces), together):
            self._run(job.faces[start : start + together], rules, mirror)
        return self._result(job)

    def align_batch(
        self,
        images: Iterable[Image],
        bboxes: Iterable[ArrayLike | None] | None = None,
        batch_size: int | None = None,
        refine: int | None = None,
        mirror: bool = False,
    ) -> list[Landmarks]:
        """Find the landmarks of many images. Faces of several images share batches.

        Args:
            images: images as in `align`. An iterable is read step by step.
            bboxes: the boxes of each image, as in `align`. None: the faces of all images are found first.
            batch_size: largest number of faces that go through the network together, from at most 32 images. None: 32,
                on a GPU 512.
            refine, mirror: as in `align`.

        Returns:
            For each image the result of `align`.

        Raises:
            ValueError: as `align`; also if the numbers of images and boxes differ.
        """
        return list(self.stream(images, bboxes, batch_size, refine, mirror, READ_AHEAD))

    def stream(
        self,
        images: Iterable[Image],
        bboxes: Iterable[ArrayLike | None] | None = None,
        batch_size: int | None = None,
        refine: int | None = None,
        mirror: bool = False,
        read_ahead: int = 0,
        unreadable: Callable[[int, Exception], None] | None = None,
    ) -> Iterator[Landmarks]:
        """`align_batch` as an iterator, in the order of the images. An image is held only as long as it is needed.

        ``read_ahead`` is the number of following images that other threads read while the network runs. ``images`` is
        then consumed that many images earlier. ``unreadable`` is called with the index of an image that cannot be read
        and with the error; the result of this image has no faces. None: the error is raised.
        """
        most, most_images = self._together(batch_size)
        read_ahead = _whole("read_ahead", read_ahead, 0)
        rules = self._rules(refine)
        waiting: list[Face] = []  # faces that no batch has taken yet
        unfinished: deque[_Job] = deque()  # images in order whose results are not returned yet
        for index, (image, bbox, read) in enumerate(reading(pairs(images, bboxes), read_ahead)):
            try:
                try:
                    pixels = read()
                except (TypeError, ValueError, OSError) as error:
                    if unreadable is None:
                        raise
                    unreadable(index, error)
                    unfinished.append(_Job([], False))
                    continue
                job = self._job(pixels, bbox)
            except (TypeError, ValueError) as error:
                which = repr(os.fspath(image)) if isinstance(image, (str, os.PathLike)) else f"number {index}"
                kind = TypeError if isinstance(error, TypeError) else ValueError  # a subclass may take other arguments
                raise kind(f"{error}; in image {which}") from error
            unfinished.append(job)
            waiting.extend(job.faces)
            while len(waiting) >= most or len({id(face.image) for face in waiting}) >= most_images:
                self._run(waiting[:most], rules, mirror)
                del waiting[:most]
            while unfinished and all(face.done for face in unfinished[0].faces):
                yield self._result(unfinished.popleft())
        self._run(waiting, rules, mirror)
        for job in unfinished:
            yield self._result(job)

    def heatmaps(self, image: Image, bbox: ArrayLike, roll: float = 0.0) -> Heatmaps:
        """The heatmaps of one face (first pass, the network's own scheme).

        PyTorch computes them. With another backend, or an int8 file, they are those of the original network.

        Args:
            image, bbox: as in `align`; ``bbox`` is (4,).
            roll: clockwise rotation of the face in the picture, in degrees. The crop is turned so that the face is
                upright in it; ``bbox`` is then that of the face turned upright about the centre of the box.

        Raises:
            ValueError, TypeError, FileNotFoundError: an argument is bad; the message names it; as `network`.
        """
        pixels = read_image(image)
        boxes, single = check_boxes(bbox, pixels)
        if not single:
            raise ValueError(f"bbox has shape {boxes.shape}, expected (4,): one face")
        turned = float(check_rolls(roll, 1)[0])
        transform = crops.square_crop(boxes[0], self.config.crop_ratio, self.config.input_size, turned)
        crop = crops.warp(pixels, transform.matrix, transform.size)
        integer, decimal = self._torch().heatmaps(crop[None])
        return Heatmaps(integer[0], decimal[0], crop, transform)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` (float32) into ``folder``. `from_pretrained` loads it.

        The config holds the decoder in use. Each file is replaced atomically.

        Raises:
            ValueError: the folder holds a training run; as `network`.
        """
        check_out(folder)
        network = self.network
        import torch

        checkpoints.save_checkpoint(folder, network, replace(self.config, decoder=self.decoder), torch.float32)

    def select(
        self, landmarks: Sequence[int | str], scheme: str | os.PathLike[str] | Scheme | None = None
    ) -> FaceAligner:
        """An aligner for some of the landmarks, in the given order. It runs the same network and reads fewer heads.

        Args:
            landmarks: indices or names in `scheme`; each landmark at most once.
            scheme: the scheme of the chosen landmarks, in the same order, with their own names, parts, mirror pairs and
                so on. None: the remaining part of the aligner's scheme (`Scheme.select`).

        The new aligner shares the network, and has the same device, precision and backend. It can be saved, exported
        and shared like any other. It does not refine, because the relation of boxes to the remaining points is unknown.
        It finds the roll of a face only if the five points (`Scheme.five`) are among the landmarks.

        Raises:
            ValueError, TypeError: the scheme lacks a landmark; ``scheme`` has another number of landmarks; as
                `schemes.get_scheme`; as `network`.
        """
        chosen = [self.scheme.index(landmark) for landmark in landmarks]
        target = self.scheme.select(chosen)
        if scheme is not None:
            target = get_scheme(scheme if isinstance(scheme, Scheme) else os.fspath(scheme))
            if len(target) != len(chosen):
                raise ValueError(f"scheme {target.id!r} has {len(target)} landmarks, landmarks names {len(chosen)}")
        config = self.config
        readout = config.readout or pick(config.heads, range(config.heads))
        if config.output is not None:
            readout = readout.then(conversion(config.scheme, self.scheme))
        config = replace(
            config,
            scheme=target,
            name=f"{config.name.partition('/')[0]}/{target.id}" if config.name else target.id,
            readout=readout.then(np.eye(len(self.scheme))[chosen]),
            output=None,
            box=None,
            refine=0,
            refine_above=None,
        )
        return self.with_config(config)

    def with_config(self, config: Config, decode: Decode | Decoder | None = None) -> FaceAligner:
        """An aligner that shares this one's network and reads it by another config.

        Args:
            config: of a network of the same heads and size.
            decode: the decoder, as in `from_pretrained`. None: this aligner's, whatever the config says.

        Device, precision, runtime and face detector are this aligner's. The private copy of the network is shared, too,
        unless the config needs another one. So another crop ratio or box takes no time.

        Raises:
            ValueError: a config of another network; as `network`.
        """
        result = object.__new__(FaceAligner)
        vars(result).update(vars(self))
        result.config, result.decoder = config, self.decoder if decode is None else _decoder(decode, config)
        result.scheme = config.resulting
        result._network, result._exported, result._watched = result._fitting(self.network), None, True
        if not self.exported and result._program == self._program:
            result._lock = threading.Lock()
        else:
            result._start()
        return result

    @property
    def _program(self) -> tuple[object, ...]:
        """The parts of the config that the private copy contains."""
        config = self.config
        return self.decoder, config.readout, config.correction, config.calibration.get(self.decoder.method)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload with hih-align",
    ) -> str:
        """Upload the files of `save_pretrained` and a model card to a Hub repository.

        The repository is made if it does not exist. The card describes the uploaded model. It replaces the card of an
        earlier upload, but no card that a person wrote or changed.

        Args:
            repo_id: "user/repo".
            private: whether a new repository is private.
            revision: branch that exists; None: the main branch.
            token: as in huggingface_hub; None: the token of `hf auth login`.
            commit_message: message of the commit.

        Returns:
            The address of the commit.

        Raises:
            ValueError: ``repo_id`` is malformed, or ``revision`` is a branch of a repository that does not exist.
            OSError: the Hub refuses the upload or cannot be reached (huggingface_hub's own errors).
        """
        from .hub.publish import CARD_FILE, own_card, upload_folder

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            # the card describes what is loaded later: the decoder in use, and not that of `config`
            card = own_card(read_config(Path(folder, CONFIG_FILE)), repo_id)
            Path(folder, CARD_FILE).write_bytes(card.encode())
            commit = upload_folder(
                folder,
                repo_id,
                message=commit_message,
                revision=revision,
                private=private,
                token=token,
                keep=True,
            )
        return str(commit.commit_url)

    def _rules(self, refine: int | None) -> Rules:
        if refine and not self.config.refits:
            raise ValueError(
                f"refine is {refine}, expected 0: {self.config.name or 'the model'} does not know how its boxes lie "
                "relative to its points (Config.box)"
            )
        scheme = self.config.scheme
        return Rules(
            self.config.crop_ratio,
            self.config.refine if refine is None else _whole("refine", refine, 0, 8),
            self.config.refine_above if refine is None else None,
            # uncalibrated scores do not show whether there is a face
            scheme.five_points if self.calibrated and scheme.five is not None else None,
            self.config.input_size,
            self.config.box,
            self.config.refits,
            self.limit_scale,
        )

    def _job(self, pixels: NDArray[np.uint8], bbox: ArrayLike | None, roll: ArrayLike | None = None) -> _Job:
        """The faces of an image that must be aligned: those in the given boxes, or those that are found."""
        image = Photograph(pixels)
        if bbox is not None:
            boxes, single = check_boxes(bbox, pixels)
            rolls = check_rolls(roll, len(boxes))
            known = roll is not None
            return _Job([Face(image, box, float(r), not known) for box, r in zip(boxes, rolls, strict=True)], single)
        if roll is not None:
            raise ValueError(f"roll is {roll!r} without bbox, expected both or neither: the detector finds both")
        found = detections(self.detector, pixels)
        rolls = np.where(np.abs(found.rolls) > TURN, found.rolls, 0.0)
        boxes = found.boxes.astype(np.float64)
        return _Job([Face(image, box, float(r)) for box, r in zip(boxes, rolls, strict=True)], False, found.scores)

    def _together(self, batch_size: int | None) -> tuple[int, int]:
        """Largest numbers of faces, and of images, that go through the network together."""
        if batch_size is None:
            return GPU_BATCH_SIZE if self._device.startswith("cuda") else BATCH_SIZE, BATCH_IMAGES
        most = _whole("batch_size", batch_size, 1)
        return most, most

    def _run(self, faces: Sequence[Face], rules: Rules, mirror: bool) -> None:
        """Align several faces together, in place."""
        align_faces(faces, partial(self._pass, mirror=mirror), rules)

    def _pass(
        self, images: Sequence[Photograph], transforms: Sequence[crops.Crop], mirror: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """One pass of B faces: points (B, K, 2) in pixels of their images, and scores (B, K)."""
        order = self.config.scheme.permutation if mirror else None
        if mirror and order is None:
            raise ValueError(f"mirror is True, but scheme {self.config.scheme.id!r} has no mirror pairs")
        running = self._runtime()
        points, sure = running.align(images, transforms, mirror)
        if running.dtype == "float16" and not np.isfinite(points).all():
            raise ValueError(
                f"dtype is 'float16', in which {self.config.name or 'the network'} overflows: take dtype='float32' or "
                "'bfloat16'"
            )
        if mirror:
            points, flipped = np.split(points, 2)
            sure, flipped_sure = np.split(sure, 2)
            there = crops.unmirrored(flipped[:, order], self.config.input_size, self.decoder.label_bias * STRIDE)
            points, sure = np.mean((points, there), 0), np.mean((sure, flipped_sure[:, order]), 0)
        return np.stack([t.to_image(p) for t, p in zip(transforms, points, strict=True)]), sure

    def _result(self, job: _Job) -> Landmarks:
        scheme, faces = self.config.scheme, job.faces
        landmarks = Landmarks(
            points=np.array([face.points for face in faces], np.float32).reshape(-1, len(scheme), 2),
            scores=np.array([face.scores for face in faces], np.float32).reshape(-1, len(scheme)),
            scheme=scheme,
            bbox=np.array([face.given for face in faces], np.float32).reshape(-1, 4),
            model=self.config.name,
            calibrated=self.calibrated,
            detection_scores=job.detection_scores,
        )
        if job.detection_scores is not None and self.calibrated:
            landmarks = landmarks[landmarks.score >= NOTHING * self.limit_scale]
        landmarks = landmarks.to(self.scheme)
        return landmarks[0] if job.single else landmarks


@dataclass(frozen=True, eq=False)
class _Job:
    """The faces of an image between the passes; whether ``bbox`` was one box (4,); and the scores of the detector."""

    faces: list[Face]
    single: bool
    detection_scores: NDArray[np.float32] | None = None


def _whole(name: str, value: int, least: int, most: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name} is {value!r}, expected a whole number, {limits}")
    return number


def _decoder(decode: Decode | Decoder | None, config: Config) -> Decoder:
    if decode is None:
        return config.decoder
    if isinstance(decode, Decoder):
        return decode
    if decode == config.decoder.method:
        return config.decoder
    return Decoder(decode, bin_offset=config.bin_offset)
