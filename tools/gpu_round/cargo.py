"""The input files of a round: packed faces, start weights and Python packages, in volumes that fit into a transfer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
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

#: Packages that training imports and the machine lacks (`/work/.library/device/KINDS.md` lists the packages it has).
LACKING = ("pydantic", "pydantic_core", "annotated_types")

#: The version and platform of the machine's Python, as pip names them.
PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

VOLUME = "cargo.zip"


class TooLargeError(ValueError):
    """The input files of a round do not fit into the allowed transfers."""


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
    """Move large tracked files out of the working tree to ``away``. Returns their paths."""
    moved = [name for name, size in tracked(root).items() if size >= LARGE]
    for name in moved:
        (away / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / name, away / name)
    return moved


def restore(root: Path, away: Path) -> list[str]:
    """Move the files in ``away`` back to the working tree. Returns their paths. Existing files are not replaced."""
    moved = []
    for path in sorted(away.rglob("*")) if away.is_dir() else ():
        if path.is_file():
            name = path.relative_to(away).as_posix()
            if not (root / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, root / name)
                moved.append(name)
    if away.is_dir():
        shutil.rmtree(away)
    return moved


def make_packs(plan: object, root: Path, folder: Path, again: bool) -> None:
    """Cut out the faces of a plan to ``folder/packs``. A pack of the same files is not made again."""
    from gpu_round.plan import Plan
    from hih_align.data.annotations import read_dataset
    from hih_align.data.pack import pack
    from hih_align.evaluation.subsets import chosen_by

    assert isinstance(plan, Plan)
    for name, source in plan.packs.items():
        out, path = folder / "packs" / name, root / source.data
        file = path / "annotations.json" if path.is_dir() else path
        made = {"source": vars(source), "changed": file.stat().st_mtime}
        note = out / "pack.json"
        if not again and note.is_file() and json.loads(note.read_text("utf-8")) == made:
            continue
        shutil.rmtree(out, ignore_errors=True)
        dataset = read_dataset(path, source.scheme)
        if source.where is not None:
            split = root / source.where
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
    from hih_align.hub.checkpoints import find_checkpoint, load_correction, load_network, save_checkpoint

    assert isinstance(plan, Plan)
    shutil.rmtree(folder / "starts", ignore_errors=True)
    for network in plan.networks:
        if network.init is None:
            continue
        path = root / network.init
        found = find_checkpoint(path if path.is_dir() else network.init)
        save_checkpoint(folder / "starts" / network.name, load_network(found), load_correction(found), torch.float16)


def make_kept(keep: Iterable[str], root: Path, folder: Path) -> None:
    """Copy files to ``folder/kept`` that `lighten` moves out of the working tree but that the machine needs."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    for name in keep:
        source = next(path for path in (root / name, folder / "away" / name) if path.is_file())
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
    subprocess.run(command, check=True)
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
    # files that all later steps need come first, and the annotations of packs come before the pictures
    order = [path for name in ("wheels", "kept", "starts", "packs") for path in sorted((folder / name).rglob("*"))]
    files = sorted((path for path in order if path.is_file()), key=lambda path: path.suffix == ".jpg")
    volumes: list[Path] = []
    archive: zipfile.ZipFile | None = None
    free = 0
    try:
        for path in files:
            packed = path.suffix == ".json"
            # an upper bound of the compressed size: compressed JSON takes about a third
            size = path.stat().st_size // (2 if packed else 1) + 300
            if archive is None or size > free:
                if archive is not None:
                    archive.close()
                if len(volumes) == len(room) or size > room[len(volumes)]:
                    raise TooLargeError(_too_large(files, room))
                free = room[len(volumes)]
                volumes.append(folder / f"volume-{len(volumes) + 1}" / VOLUME)
                volumes[-1].parent.mkdir(parents=True)
                archive = zipfile.ZipFile(volumes[-1], "w")
            free -= size
            how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            archive.write(path, path.relative_to(folder).as_posix(), how)
    except TooLargeError:
        for volume in volumes:
            shutil.rmtree(volume.parent)
        raise
    finally:
        if archive is not None:
            archive.close()
    return volumes


def unstow(folder: Path, root: Path) -> None:
    """Unpack the volumes in ``folder`` and remove them. Kept files are moved into the checkout."""
    for volume in sorted(folder.glob(f"volume-*/{VOLUME}")):
        with zipfile.ZipFile(volume) as archive:
            archive.extractall(folder)
        volume.unlink()
    restore(root, folder / "kept")


def _too_large(files: Sequence[Path], room: Sequence[int]) -> str:
    sizes: dict[str, int] = {}
    for path in files:
        name = path.parts[-3] if path.suffix == ".jpg" else path.parts[-2]
        sizes[name] = sizes.get(name, 0) + path.stat().st_size
    parts = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1]))
    return (
        f"the cargo takes {sum(sizes.values()) / 2**20:.1f} MiB ({parts}), but {len(room)} volumes have room for "
        f"{sum(room) / 2**20:.1f}: take fewer faces, a lower side or quality, or more volumes (each needs another call)"
    )
