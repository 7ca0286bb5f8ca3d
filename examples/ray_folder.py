"""Align the faces of a folder or a bucket on all machines of a Ray cluster, or on this machine without a cluster.

    pip install "hih-align[ray]"
    python examples/ray_folder.py photos/ boxes.csv faces/ --actors 2
    python examples/ray_folder.py s3://bucket/photos boxes.json s3://bucket/faces --actors 16 --gpus 1

The script writes a row for each face, with the fields of `hih-align align FOLDER`: file, index, bbox, points, scores,
scheme, model. The rows are Parquet or JSON Lines, in several files. Each actor loads the aligner once, and reads images
while its network runs. RAY_ADDRESS names a cluster. Its machines need hih-align, too.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import ray
from numpy.typing import NDArray
from pyarrow.fs import FileSelector, FileSystem

from hih_align import FaceAligner
from hih_align.boxes import read_boxes
from hih_align.images import read_image

#: The fields of the rows. They are stated because a batch may have no face.
FIELDS = pa.schema(
    {
        "file": pa.string(),
        "index": pa.int32(),
        "bbox": pa.list_(pa.float32()),
        "scheme": pa.string(),
        "points": pa.list_(pa.list_(pa.float32())),
        "scores": pa.list_(pa.float32()),
        "model": pa.string(),
    }
)


class Align:
    """An actor, which turns batches of image names and boxes into rows of faces.

    Args:
        images: a folder, or its URI in a form that pyarrow knows (s3://, gs://, hdfs://, ...).
        threads: threads of the network on a CPU.
        refine: as in `FaceAligner.align`.
        options: arguments of `FaceAligner.from_pretrained`.
    """

    def __init__(self, images: str, threads: int, refine: int | None, options: Mapping[str, Any]) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # the runtimes read it when they are loaded, which is now
        self.files, self.folder = open_folder(images)
        self.aligner = FaceAligner.from_pretrained(**options)
        self.refine = refine

    def __call__(self, batch: Mapping[str, Any]) -> pa.Table:
        names = list(batch["file"])
        boxes = [np.array(flat, np.float64).reshape(-1, 4) for flat in batch["boxes"]]
        with ThreadPoolExecutor(4) as pool:
            found = self.aligner.align_batch(pool.map(self.read, names), boxes, refine=self.refine)
        rows = [
            {"file": name, "index": index} | face.to_dict()
            for name, faces in zip(names, found, strict=True)
            for index, face in enumerate(faces)
        ]
        return pa.Table.from_pylist(rows, FIELDS)

    def read(self, name: str) -> NDArray[np.uint8]:
        with self.files.open_input_stream(f"{self.folder}/{name}") as stream:
            data = stream.read()
        try:
            with PIL.Image.open(io.BytesIO(data)) as image:
                return read_image(image)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error


def open_folder(place: str) -> tuple[FileSystem, str]:
    """The file system and the folder of a path or a URI."""
    files, folder = FileSystem.from_uri(place if "://" in place else Path(place).resolve().as_uri())
    return files, folder.rstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder, or its URI")
    parser.add_argument("boxes", type=Path, help="COCO JSON, or CSV file,x1,y1,x2,y2")
    parser.add_argument("out", help="folder to write, or its URI")
    parser.add_argument("--format", choices=("parquet", "json"), default="parquet")
    parser.add_argument("--actors", type=int, default=1, help="number of aligners that run at the same time")
    parser.add_argument("--threads", type=int, default=1, help="CPUs of each aligner")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each aligner, such as 0.5")
    parser.add_argument("--batch-size", type=int, default=64, help="number of images that an actor takes at once")
    parser.add_argument("--model", default="HIH_T", help="a size, manifest id, folder or Hub repository")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    parser.add_argument("--backend", default="torch", help="torch, openvino, onnxruntime or auto")
    parser.add_argument("--refine", type=int, help="number of refining passes")
    arguments = parser.parse_args()

    files, folder = open_folder(arguments.out)
    if files.get_file_info(FileSelector(folder, allow_not_found=True)):
        parser.error(f"out: {arguments.out} is not empty, but the rows of two runs must not mix")
    items = [
        {"file": name, "boxes": boxes.ravel().tolist()}
        for name, boxes in read_boxes(arguments.boxes).items()
        if len(boxes)
    ]
    options = {
        "device": "cuda" if arguments.gpus else "cpu",
        "dtype": arguments.dtype,
        "backend": arguments.backend,
    }
    # an actor on another machine, or of a running cluster, has another working directory
    images, model = arguments.images, arguments.model
    images = images if "://" in images else str(Path(images).resolve())
    options["model"] = str(Path(model).resolve()) if Path(model).is_dir() else model
    faces = ray.data.from_items(items).map_batches(
        Align,
        fn_constructor_args=(images, arguments.threads, arguments.refine, options),
        compute=ray.data.ActorPoolStrategy(size=arguments.actors),
        batch_size=arguments.batch_size,
        num_cpus=arguments.threads,
        num_gpus=arguments.gpus,
    )
    # writing asks for no CPU, because the aligners may hold all CPUs
    where: dict[str, Any] = {"filesystem": files, "ray_remote_args": {"num_cpus": 0}}
    if arguments.format == "parquet":
        faces.write_parquet(folder, **where)
    else:
        faces.write_json(folder, **where, double_precision=15)  # pandas' default would round small scores


if __name__ == "__main__":
    main()
