"""COCO keypoint JSON, also as annotation tools write it.

The format is described at https://cocodataset.org/#format-data (text: github.com/cocodataset/cocodataset.github.io,
dataset/format-data.htm). ``keypoints`` holds x, y, v for each keypoint of the category; x and y are 0-based pixels.
v = 0: not labelled (x = y = 0); v = 1: labelled but not visible; v = 2: labelled and visible. ``bbox`` is x, y, width,
height.

Files of annotation tools differ:

- CVAT (https://docs.cvat.ai/docs/manual/advanced/formats/coco-keypoints/): the file lies in ``annotations/``. The
  images lie beside that folder, in ``images/`` or ``images/<subset>/``. ``attributes`` are arbitrary. A point marked
  "outside" has v = 0 but keeps its coordinates. Only skeletons are exported; their joints are further categories
  without keypoints.
- Label Studio (label_studio_sdk/converter/keypoints.py and converter.py in github.com/HumanSignal/label-studio-sdk):
  the file is ``result.json``. File names look like ``images/a.jpg``, or have backslashes if they come from Windows. Ids
  start at 0. All points of an image are one annotation, without ``area``. Rectangles are further annotations, without
  ``keypoints``. Sizes may be null.
- Roboflow (https://roboflow.com/formats/coco-keypoint): ``_annotations.coco.json`` lies among the images. Category 0 is
  a placeholder without keypoints.
- This package's `write`: an annotation may hold ``spread`` (one number per point), an image ``rect`` (x1, y1, x2, y2)
  and ``attributes``. ``keypoints`` are all 0 for a face that has only a box.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import files
from ...progress import warn
from ...schemes import Scheme
from .face import Attribute, Entry, RawFace, find_image, numbers, read_text

if TYPE_CHECKING:
    from ..records import Record

#: Above this spread a machine-made point is written as not labelled (v = 0), above half of it as not visible (v = 1).
UNKNOWN = 0.04

_OF_THE_FORMAT = {"id", "file_name", "width", "height", "license", "flickr_url", "coco_url", "date_captured"}


def read(path: Path, scheme: Scheme) -> Iterator[Entry]:
    """Yield the faces of a COCO file: the annotations of the category that has the keypoints of the scheme.

    Crowd annotations are left out. If the category names all landmarks of the scheme, the keypoints are put into the
    order of the scheme. Keypoints that have numbers in the place of names are taken to be in that order already. So are
    keypoints of other names, and a warning says so. Attributes of a face are the annotation's ``id`` and
    ``attributes``, and the fields of the image that COCO does not define.

    Raises:
        ValueError: the file is not a COCO file, an id occurs twice, or some keypoints have names of the scheme but
            stand in another place.
    """
    data = _load(path)
    images = _by_id(path, data, "images")
    _by_id(path, data, "annotations")
    categories = _by_id(path, data, "categories")
    with_points = {i for i, c in categories.items() if c.get("keypoints")}
    fitting = {i for i in with_points if _order(categories[i], scheme) is not None}
    for names in {tuple(_names(categories[i])) for i in sorted(fitting, key=str)}:
        _check_names(path, names, scheme)
    folders = [path.parent, path.parent / "images"]
    folders += [up / sub for up in (path.parent.parent,) for sub in ("", "images")]
    subset = path.stem.rpartition("keypoints_")[2]
    folders += [path.parent.parent / "images" / subset, path.parent.parent / subset]
    faces = [a for a in data["annotations"] if a.get("keypoints") and not a.get("iscrowd")]
    # without names of keypoints all are taken by place
    unknown = {a.get("category_id") for a in faces} - {*categories} if with_points else set()
    stand_in = next(iter(with_points)) if len(with_points) == 1 else None
    if unknown and stand_in is not None:
        warn(
            f"{path}: category_id is {', '.join(sorted(map(repr, unknown)))}, which the file does not define: taken as "
            f"{stand_in!r}, the only category with keypoints"
        )
    for n, annotation in enumerate(data["annotations"]):
        if annotation.get("iscrowd"):
            continue
        category = annotation.get("category_id")
        key = f"{path}#{annotation.get('id', n)}"
        if category in unknown and annotation.get("keypoints"):
            if stand_in is None:
                yield key, partial(_undefined, category, sorted(categories, key=str))
                continue
            category = stand_in
        # boxes and joints, which tools export beside the faces
        if with_points and category not in (fitting or with_points) and not annotation.get("keypoints"):
            continue
        if fitting and category in with_points - fitting:
            continue
        yield key, partial(_face, annotation, images, categories.get(category, {}), folders, scheme)


def _undefined(category: object, known: Sequence[object]) -> RawFace:
    raise ValueError(f"category_id is {category!r}, expected one of {known}")


def scheme_of(path: Path) -> Scheme:
    """A scheme of the landmark names in a COCO file. It has no mirror pairs.

    Args:
        path: the file, or a folder that holds one; see `readers.detect`.

    Raises:
        ValueError: the file is not a COCO file, or its categories name no set of keypoints, or more than one.
    """
    from . import detect

    format, file = detect(path)
    if format != "coco":
        raise ValueError(f"scheme is missing: {path} is no COCO file, which would name its landmarks")
    data = _load(file)
    named = {tuple(map(str, c["keypoints"])) for c in _by_id(file, data, "categories").values() if c.get("keypoints")}
    if len(named) != 1:
        raise ValueError(f"scheme is missing: {file} names {len(named)} sets of landmarks, expected 1")
    folder = file.resolve().parent
    folder = folder.parent if folder.name == "annotations" else folder
    name = folder.name if file.stem in ("annotations", "_annotations.coco", "person_keypoints_default") else file.stem
    return Scheme((name or "own").lower(), named.pop())


def write(records: Sequence[Record], scheme: Scheme, path: Path) -> None:
    """Write a COCO file of faces, atomically.

    It holds ``rect`` if a detector's box is known, and ``spread`` if the labels are machine-made. Image names are
    relative to the folder of the file; see `file_name`.
    """
    names = [file_name(record.image, path) for record in records]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    annotations = []
    for n, (record, name) in enumerate(zip(records, names, strict=True)):
        x1, y1, x2, y2 = (float(v) for v in record.box)
        annotation: dict[str, Any] = {"id": n, "image_id": numbers[name], "category_id": 1}
        annotation |= {"bbox": _rounded((x1, y1, x2 - x1, y2 - y1)), "attributes": dict(record.attributes)}
        if "rect" in record.boxes:
            annotation["rect"] = _rounded(record.boxes["rect"])
        if (labels := record.labels) is not None:
            seen = np.where(labels.known, 2, 0)
            if labels.spread is not None:
                sure = np.where(labels.spread > UNKNOWN / 2, 1, 2)
                seen = np.where(labels.spread > UNKNOWN, 0, np.minimum(seen, sure))
                annotation["spread"] = [round(float(v), 5) for v in np.nan_to_num(labels.spread)]
            rows = np.column_stack((np.where(seen[:, None] > 0, labels.points, 0.0), seen))
            annotation |= {"keypoints": _rounded(rows.ravel()), "num_keypoints": int((seen > 0).sum())}
        annotations.append(annotation)
    images = [{"id": n, "file_name": name} for name, n in numbers.items()]
    category = {"id": 1, "name": "face", "keypoints": list(scheme.names)}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(data), "utf-8")


def file_name(image: Path, file: Path) -> str:
    """The name of an image in a COCO file: its path relative to the folder of the file, with slashes.

    In a stream the path is relative to the current folder. On another drive of Windows it is the full path. Symbolic
    links of folders are followed, because ``..`` leads out of the folder that a link names. An image that is a link
    keeps the name of the link.
    """
    folder = Path.cwd() if files.is_stream(file) else file.parent
    return relative(image.parent.resolve() / image.name, folder.resolve())


def relative(image: PurePath, folder: PurePath) -> str:
    """The way from a folder to an image, both full paths, with slashes on Windows, too: other systems read it."""
    if image.anchor != folder.anchor:  # Windows: there is no way from one drive to another
        return image.as_posix()
    common = 0
    for a, b in zip(image.parts, folder.parts, strict=False):
        if a != b:
            break
        common += 1
    return PurePosixPath(*[".."] * (len(folder.parts) - common), *image.parts[common:]).as_posix()


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 2) for value in values]


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in ("images", "annotations")):
        held = sorted(data) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise ValueError(
            f"{path} holds {held}, expected COCO's 'images' and 'annotations'; export it as COCO keypoints"
        )
    return data


def _by_id(path: Path, data: Mapping[str, Any], name: str) -> dict[Any, dict[str, Any]]:
    items = data.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path}: {name!r} is not a list of objects")
    found: dict[Any, dict[str, Any]] = {}
    for n, item in enumerate(items):
        if item.get("id", ("missing", n)) in found:
            raise ValueError(f"{path}: {name!r} holds id {item['id']} twice")
        found[item.get("id", ("missing", n))] = item
    return found


def _order(category: Mapping[str, Any], scheme: Scheme) -> NDArray[np.intp] | None:
    """For each landmark of the scheme its place in the category; None if the category lacks one."""
    names = _names(category)
    if set(scheme.names) <= set(names):
        return np.array([names.index(name) for name in scheme.names])
    return np.arange(len(scheme)) if len(names) == len(scheme) else None


def _names(category: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in category.get("keypoints") or ()]


def _check_names(path: Path, names: Sequence[str], scheme: Scheme) -> None:
    """Raise a ValueError if the names have another order than in the scheme. Warn if they are others, or more."""
    if set(scheme.names) < set(names):
        more = [name for name in names if name not in scheme.names]
        listed = ", ".join(map(repr, more[:3])) + (", ..." if len(more) > 3 else "")
        warn(f"{path}: {listed}: scheme {scheme.id!r} lacks {len(more)} keypoints of the file")
    if set(scheme.names) <= set(names) or any(
        [*names] == [str(n + first) for n in range(len(names))] for first in (0, 1)
    ):
        return  # keypoints are sorted by name, or have numbers as names
    other = next(n for n, (theirs, ours) in enumerate(zip(names, scheme.names, strict=True)) if theirs != ours)
    difference = f"{path}: keypoint {other} is named {names[other]!r}, in scheme {scheme.id!r} {scheme.names[other]!r}"
    moved = [name for n, name in enumerate(scheme.names) if name in names and names[n] != name]
    if moved:
        raise ValueError(
            f"{difference}, and {moved[0]!r} stands in another place than in the scheme. The names do not say the "
            "order: give file and scheme the same names"
        )
    warn(f"{difference}: the keypoints are taken by their place, not by name")


def _face(
    annotation: Mapping[str, Any],
    images: Mapping[Any, dict[str, Any]],
    category: Mapping[str, Any],
    folders: list[Path],
    scheme: Scheme,
) -> RawFace:
    image = images.get(annotation.get("image_id"))
    if image is None or not image.get("file_name"):
        raise ValueError(
            f"image_id is {annotation.get('image_id')!r}, expected the id of an image that has a file_name"
        )
    order = _order(category, scheme)
    named = order is not None
    order = np.arange(len(scheme)) if order is None else order
    points = labelled = spread = None
    if annotation.get("keypoints"):
        values = numbers(annotation["keypoints"], None, "keypoints")
        # without the scheme's names in the category, the first of more keypoints would be other landmarks
        count = len(category.get("keypoints") or scheme) if named else len(scheme)
        if len(values) % 3 or len(values) // 3 <= order.max() or len(values) // 3 not in (count, len(scheme)):
            raise ValueError(_other_count(len(values), category, scheme))
        x, y, v = values.reshape(-1, 3)[order].T
        if not (v >= 0).all():
            raise ValueError(f"keypoints has the visibility {v[~(v >= 0)][0]:g}, expected 0, 1 or 2")
        points, labelled = np.stack((x, y), -1), v > 0
        if annotation.get("spread"):
            spread = numbers(annotation["spread"], len(values) // 3, "spread")[order]
    boxes = {}
    if annotation.get("bbox"):
        left, top, width, height = numbers(annotation["bbox"], 4, "bbox")
        if not (width <= 0 or height <= 0):  # Label Studio writes zeros for "no box"; NaN is checked later
            boxes["annotated"] = np.array([left, top, left + width, top + height])
    rect = annotation.get("rect") or image.get("rect")
    if rect:
        boxes["rect"] = numbers(rect, 4, "rect")
    size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
    return RawFace(
        image=find_image(str(image["file_name"]), folders),
        points=points,
        labelled=labelled,
        boxes=boxes,
        attributes=_attributes(annotation, image),
        spread=spread,
        size=size,
    )


def _other_count(numbers: int, category: Mapping[str, Any], scheme: Scheme) -> str:
    text = f"keypoints has {numbers} numbers, expected 3 for each of {len(scheme)} landmarks of scheme {scheme.id!r}"
    names = [str(name) for name in category.get("keypoints") or ()]
    if numbers % 3 or numbers // 3 == len(scheme):
        return text
    known = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if len(names) == numbers // 3 else ""
    return f"{text}; the data have {numbers // 3} landmarks{known}: name their scheme (on the command line by --scheme)"


def _attributes(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Attribute]:
    extra = {k: v for k, v in image.items() if k not in _OF_THE_FORMAT}
    found = {"id": annotation.get("id")}
    for source in (extra, extra.get("attributes"), annotation.get("attributes")):
        found |= source if isinstance(source, dict) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, (bool, int, float, str))}
