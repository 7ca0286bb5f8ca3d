"""Train on a GPU machine that is available for minutes: pack here, run on the machine, collect here.

  pack               cut out faces, convert start weights to float16, download Python packages that the machine lacks,
                     and put all of them into volumes that fit into a transfer (.gpu/volume-1, ...). Do this before you
                     request the machine.
  lighten, restore   move large weights out of the working tree, and back. The whole working tree is transferred.
  run SECONDS OUT    on the machine: run the checks, then train. OUT always contains complete results.
  send OUT           on the machine, in another call: send the results for which the last parcel had no room.
  collect OUT        join the parts, verify them, and write checkpoint folders.

docs/contributing.md describes the calls.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import cargo, parcel, rounds

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
PLAN = ROOT / "scripts" / "gpu_plan.yaml"


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        status: int = given.do(given)
    except (OSError, ValueError) as error:  # the user can mend these
        print(f"scripts/gpu_round: {error}", file=sys.stderr)
        return 1
    return status


def pack(given: argparse.Namespace) -> int:
    """Pack all input files of a round."""
    from .plan import read_plan

    plan = read_plan(given.plan)
    if not given.only_stow:
        if (given.folder / "away").is_dir():
            raise ValueError(f"weights are in {given.folder / 'away'}: run scripts/gpu_round restore before pack")
        cargo.make_packs(plan, ROOT, given.folder, given.again)
        cargo.make_starts(plan, ROOT, given.folder)
        cargo.make_kept(plan.keep, ROOT, given.folder)
        cargo.fetch_wheels(given.folder)
    sizes = cargo.tracked(ROOT)
    tree = sum(size for size in sizes.values() if size < cargo.LARGE)
    room = cargo.LIMIT - cargo.SLACK - tree
    try:
        volumes = cargo.stow(given.folder, [room] * given.volumes)
    except cargo.TooLargeError as error:
        print(f"{error}\nThe working tree takes {tree / 2**20:.1f} MiB of each transfer.", file=sys.stderr)
        return 1
    print(f"working tree without large files: {tree / 2**20:.1f} MiB of {cargo.LIMIT / 2**20:.0f}")
    for volume in volumes:
        print(f"{volume.parent.relative_to(given.folder.parent)}: {volume.stat().st_size / 2**20:.1f} MiB")
    heavy = [name for name, size in sizes.items() if size >= cargo.LARGE]
    if heavy:
        print(f"the working tree contains {', '.join(heavy)}: run scripts/gpu_round lighten before the first call")
    return 0


def lighten(given: argparse.Namespace) -> int:
    """Move large files out of the working tree, before the first call."""
    moved = cargo.lighten(ROOT, given.folder / "away")
    print(f"moved out: {', '.join(moved) or 'no file'}. Do not commit before scripts/gpu_round restore.")
    return 0


def restore(given: argparse.Namespace) -> int:
    """Move large files back into the working tree, after the last call."""
    print(f"moved back: {', '.join(cargo.restore(ROOT, given.folder / 'away')) or 'no file'}")
    return 0


def run(given: argparse.Namespace) -> int:
    """Run a round. To be called on the machine."""
    checks = [] if given.no_checks or given.device == "cpu" else rounds.checks(given.folder / "round")
    how = {"train": not given.no_train, "workers": given.workers, "device": given.device}
    return rounds.Round(ROOT, given.folder, given.plan, given.out, given.seconds, checks, **how).run()


def send(given: argparse.Namespace) -> int:
    """Send the remaining results. To be called on the machine."""
    parcel.require_empty(given.out)
    left = rounds.send(given.folder / "round", given.out, rest=True)
    print(f"no room for {', '.join(left)}: another call is needed" if left else "all results are sent")
    return 0


def collect(given: argparse.Namespace) -> int:
    """Write the results that came back to checkpoint folders."""
    written = parcel.collect(given.outs, given.into)
    for path in written:
        print(path)
    for folder in given.outs:
        if left := [path for path in parcel.left_out(folder) if not (given.into / path).is_file()]:
            print(f"{folder} had no room for {', '.join(left)}", file=sys.stderr)
    return 0


def _path(text: str) -> Path:
    return Path(os.environ.get("GPU_ROUND_FROM", ""), text).absolute()  # the script changes the folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_round", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: object) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.set_defaults(do=do)
        made.add_argument("--plan", type=_path, default=PLAN, help="default: scripts/gpu_plan.yaml")
        made.add_argument("--folder", type=_path, default=FOLDER, help="default: .gpu")
        return made

    made = command("pack", pack)
    made.add_argument("--volumes", type=int, default=1, help="largest number of volumes; each volume needs a call")
    made.add_argument("--again", action="store_true", help="make existing packs again")
    made.add_argument("--only-stow", action="store_true", help="only make volumes of the files in the folder")
    command("lighten", lighten)
    command("restore", restore)
    made = command("run", run)
    made.add_argument("seconds", type=float, help="time of the round with its checks; 20 less than the call's limit")
    made.add_argument("out", type=_path, help="$OUT")
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: try a round without a GPU")
    made.add_argument("--no-checks", action="store_true", help="they need a GPU; with --device cpu there are none")
    made.add_argument("--no-train", action="store_true")
    made.add_argument("--workers", type=int, default=16, help="number of threads that decode pictures")
    made = command("send", send)
    made.add_argument("out", type=_path, help="$OUT")
    made = command("collect", collect)
    made.add_argument("outs", type=_path, nargs="+", metavar="OUT", help="folders that came back, in their order")
    made.add_argument("--into", type=_path, required=True, help="folder for the checkpoint folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
