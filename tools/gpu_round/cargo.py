"""The input files of a round: packed faces, start weights and Python packages, in volumes that fit into a transfer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from filecmp import cmp
from importlib.metadata import version
from pathlib import Path

import numpy as np

#: Largest number of bytes of a transfer: the working tree and a volume.
LIMIT = 64 << 20

#: Number of bytes that are left free for the overhead of the transfer.
SLACK = 1 << 20

#: Tracked files of at least this size are weights. They are moved out of the working tree. Those that a plan keeps are
#: packed.
LARGE = 1 << 20

#: Packages that training imports and the machine lacks (`/work/.library/device/KINDS.md` lists what it has). All
#: packages that they need are here, too, because the machine's versions of those may be too old.
LACKING = ("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions")

#: The version and platform of the machine's Python, as pip names them.
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

VOLUME = "cargo.zip"

#: Number of bytes that the archive takes for a file besides its content and two times its name; and in the end.
ENTRY, END = 80, 300

#: Folder with an empty file for each volume, such as "2-of-3". It shows whether all volumes arrived.
ARRIVED = "arrived"


class TooLargeError(ValueError):
    """The input files of a round do not fit into the allowed transfers."""


class MissingError(ValueError):
    """Input files of a round did not arrive on the machine."""


def tracked(root: Path) -> dict[str, int]:
    """Sizes in bytes of the files of the working tree that are transferred: existing tracked files, and new files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = {name: root / name for name in listed.split("\0") if name}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}


def lighten(root: Path, away: Path) -> list[str]:
    """Move large tracked files out of the working tree to ``away``. Returns their paths.

    Raises:
        ValueError: ``away`` has another file of that name, which would be lost. No file was moved.
    """
    moved = [name for name, size in tracked(root).items() if size >= LARGE]
    if other := [name for name in moved if (away / name).is_file() and not cmp(root / name, away / name, False)]:
        raise ValueError(f"{away / other[0]} differs from {root / other[0]}: move one of them to another place")
    for name in moved:
        (away / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / name, away / name)
    return moved


def restore(root: Path, away: Path) -> list[str]:
    """Move the files in ``away`` back to the working tree. Returns their paths. Existing files are not replaced.

    Raises:
        ValueError: the working tree has another file of that name. That file and the one in ``away`` stay; all others
            are moved back.
    """
    moved, other = [], []
    for path in sorted(away.rglob("*")) if away.is_dir() else ():
        if path.is_file():
            name = path.relative_to(away).as_posix()
            if not (root / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, root / name)
                moved.append(name)
            elif cmp(path, root / name, False):
                path.unlink()
            else:
                other.append(name)
    if other:
        raise ValueError(f"{away / other[0]} differs from {root / other[0]}: move one of them to another place")
    if away.is_dir():
        shutil.rmtree(away)
    return moved


def make_packs(plan: object, root: Path, folder: Path, again: bool) -> None:
    """Cut out the faces of a plan to ``folder/packs``. A pack of the same files is not made again.

    Packs that are not in the plan are removed.
    """
    from gpu_round.plan import Plan
    from hih_align.data.annotations import read_dataset
    from hih_align.data.pack import pack
    from hih_align.evaluation.subsets import chosen_by

    assert isinstance(plan, Plan)
    for old in (folder / "packs").glob("*"):
        if old.name not in plan.packs:
            shutil.rmtree(old)
    for name, source in plan.packs.items():
        out, path = folder / "packs" / name, root / source.data
        file = path / "annotations.json" if path.is_dir() else path
        split = None if source.where is None else root / source.where
        read = [file, *([split] if split is not None and split.is_file() else [])]
        made = {"source": vars(source), "changed": [path.stat().st_mtime for path in read]}
        note = out / "pack.json"
        if not again and note.is_file() and json.loads(note.read_text("utf-8")) == made:
            continue
        shutil.rmtree(out, ignore_errors=True)
        dataset = read_dataset(path, source.scheme)
        if source.where is not None and split is not None:
            dataset = dataset.where(chosen_by([str(split) if split.is_file() else source.where], dataset))
        if source.faces is not None and source.faces < len(dataset.records):
            some = np.linspace(0, len(dataset.records) - 1, source.faces).round().astype(int)
            chosen = {id(dataset.records[i]) for i in some}
            dataset = dataset.where(lambda record, chosen=chosen: id(record) in chosen)  # type: ignore[misc]
        pack(dataset, out, side=source.side, margin=source.margin, quality=source.quality)
        note.write_text(json.dumps(made), "utf-8")


def make_starts(plan: object, root: Path, folder: Path) -> None:
    """Write the start weights of each network in float16 to a checkpoint folder in ``folder/starts``."""
    import torch

    from gpu_round.plan import Plan
    from hih_align.hub.checkpoints import find_checkpoint, load_config, load_network, save_checkpoint

    assert isinstance(plan, Plan)
    shutil.rmtree(folder / "starts", ignore_errors=True)
    for network in plan.networks:
        if network.init is None:
            continue
        path = root / network.init
        found = find_checkpoint(path if path.is_dir() else network.init)
        save_checkpoint(folder / "starts" / network.name, load_network(found), load_config(found), torch.float16)


def make_kept(keep: Iterable[str], root: Path, folder: Path) -> None:
    """Copy files to ``folder/kept`` that `lighten` moves out of the working tree but that the machine needs."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    for name in keep:
        source = next((path for path in (root / name, folder / "away" / name) if path.is_file()), None)
        if source is None:
            raise FileNotFoundError(f"keep names {name}, which the checkout does not have")
        (folder / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / "kept" / name)


def fetch_wheels(folder: Path) -> None:
    """Download the packages that the machine lacks to ``folder/wheels``, in the versions that are installed here."""
    wanted = [f"{name}=={version(name)}" for name in LACKING]
    note = folder / "wheels" / "wanted.json"
    if note.is_file() and json.loads(note.read_text("utf-8")) == wanted:
        return
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "-q", *options, "-d", str(folder / "wheels"), *wanted]
    if subprocess.run(command, check=False).returncode:
        raise OSError(f"pip cannot download {', '.join(wanted)} for Python {PYTHON}: see above")
    note.write_text(json.dumps(wanted), "utf-8")


def stow(folder: Path, room: Sequence[int]) -> list[Path]:
    """Put packs, start weights and wheels into volumes: ``folder/volume-1/cargo.zip``, ... Old volumes are removed.

    Args:
        folder: the folder of the files.
        room: largest number of bytes of each volume.

    Returns:
        paths of the volumes.

    Raises:
        TooLargeError: the files do not fit.
    """
    for old in folder.glob("volume-*"):
        shutil.rmtree(old)
    names = ("wheels", "kept", "starts", "packs")
    found = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    files = {path: _size(path) + ENTRY + 2 * len(path.relative_to(folder).as_posix().encode()) for path in found}
    contents: list[list[Path]] = []
    free: list[int] = []
    for path in sorted(files, key=lambda path: (-files[path], path)):  # large files first, each where it fits
        fits = [number for number, bytes_ in enumerate(free) if bytes_ >= files[path]]
        if not fits:
            if len(free) == len(room) or files[path] > room[len(free)] - END:
                raise TooLargeError(_too_large(files, room))
            fits = [len(free)]
            free.append(room[len(free)] - END)
            contents.append([])
        contents[fits[0]].append(path)
        free[fits[0]] -= files[path]
    volumes = []
    for number, paths in enumerate(contents, 1):
        volumes.append(folder / f"volume-{number}" / VOLUME)
        volumes[-1].parent.mkdir(parents=True)
        with zipfile.ZipFile(volumes[-1], "w") as archive:
            for path in paths:
                how = zipfile.ZIP_DEFLATED if path.suffix == ".json" else zipfile.ZIP_STORED
                archive.write(path, path.relative_to(folder).as_posix(), how)
            archive.writestr(f"{ARRIVED}/{number}-of-{len(contents)}", b"")
    return volumes


def unstow(folder: Path, root: Path) -> None:
    """Unpack the volumes in ``folder`` and remove them. Kept files are copied into the checkout.

    Raises:
        MissingError: a volume did not arrive.
    """
    for volume in sorted(folder.glob(f"volume-*/{VOLUME}")):
        with zipfile.ZipFile(volume) as archive:
            count = next(name for name in archive.namelist() if name.startswith(ARRIVED)).partition("-of-")[2]
            for old in (folder / ARRIVED).glob("*"):  # of another `pack`
                if not old.name.endswith(f"-of-{count}"):
                    old.unlink()
            # files of an earlier call are not written again: to overwrite thousands of them can take 20 seconds
            archive.extractall(folder, [info for info in archive.infolist() if not _same(folder / info.filename, info)])
        volume.unlink()
    arrived = {path.name for path in (folder / ARRIVED).glob("*")}
    if not arrived:
        raise MissingError(f"no volume is in {folder}: carry {folder.name}/volume-1")
    count = next(iter(arrived)).partition("-of-")[2]
    for number in range(1, int(count) + 1):
        if f"{number}-of-{count}" not in arrived:
            raise MissingError(f"volume {number} of {count} is not in {folder}: carry {folder.name}/volume-{number}")
    for path in (folder / "kept").rglob("*"):  # copied, because a further call may remove them from the checkout
        target = root / path.relative_to(folder / "kept")
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _same(path: Path, info: zipfile.ZipInfo) -> bool:
    """Whether a file has the content of a file in an archive."""
    return path.is_file() and path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC


def _size(path: Path) -> int:
    """Number of bytes that a file takes in a volume. Only JSON is compressed."""
    return len(zlib.compress(path.read_bytes())) if path.suffix == ".json" else path.stat().st_size


def _too_large(files: Mapping[Path, int], room: Sequence[int]) -> str:
    sizes: dict[str, int] = {}
    for path, size in files.items():
        name = path.parts[-3] if path.suffix == ".jpg" else path.parts[-2]
        sizes[name] = sizes.get(name, 0) + size
    parts = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1]))
    return (
        f"the cargo takes {sum(sizes.values()) / 2**20:.1f} MiB ({parts}), expected at most {sum(room) / 2**20:.1f} in "
        f"{len(room)} volume{'s' if len(room) > 1 else ''}: take fewer faces, a lower side or quality, or more volumes "
        "(each needs another call)"
    )
