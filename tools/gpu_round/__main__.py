"""A GPU that is lent for minutes: pack here, run there, collect here.

  pack               cut faces out, make float16 start weights, fetch what the machine lacks, and put them into volumes
                     that fit a transfer: .gpu/volume-1 and so on. Do this before a GPU is asked for.
  lighten, restore   move large weights out of the working tree, which is sent as a whole, and back.
  run SECONDS OUT    on the machine: checks, then training; results lie in OUT at any moment.
  send OUT           on the machine, in a further call: what the last parcel had no room for.
  collect OUT        put the parts together, verify them, and write checkpoint folders.

docs/contributing.md says which calls to make.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import cargo, parcel, rounds

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
PLAN = ROOT / "scripts" / "gpu_plan.yaml"


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    status: int = given.do(given)
    return status


def pack(given: argparse.Namespace) -> int:
    """Everything that a round takes along."""
    from .plan import read_plan

    plan = read_plan(given.plan)
    if not given.only_stow:
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
        print(f"{error}\nThe working tree itself takes {tree / 2**20:.1f} MiB of each transfer.", file=sys.stderr)
        return 1
    print(f"working tree, lightened: {tree / 2**20:.1f} MiB of {cargo.LIMIT / 2**20:.0f}")
    for volume in volumes:
        print(f"{volume.parent.relative_to(given.folder.parent)}: {volume.stat().st_size / 2**20:.1f} MiB")
    heavy = [name for name, size in sizes.items() if size >= cargo.LARGE]
    if heavy:
        print(f"the working tree still holds {', '.join(heavy)}: scripts/gpu_round lighten, before the first call")
    return 0


def lighten(given: argparse.Namespace) -> int:
    """Before the first call."""
    moved = cargo.lighten(ROOT, given.folder / "away")
    print(f"moved away: {', '.join(moved) or 'nothing'}. Commit nothing until scripts/gpu_round restore.")
    return 0


def restore(given: argparse.Namespace) -> int:
    """After the last call."""
    print(f"back again: {', '.join(cargo.restore(ROOT, given.folder / 'away')) or 'nothing'}")
    return 0


def run(given: argparse.Namespace) -> int:
    """On the machine."""
    checks = [] if given.no_checks else rounds.checks(given.folder / "round")
    return rounds.Round(
        ROOT, given.folder, given.plan, given.out, given.seconds, checks, not given.no_train, given.workers
    ).run()


def send(given: argparse.Namespace) -> int:
    """On the machine, later."""
    left = rounds.send(given.folder / "round", given.out, rest=True)
    print(f"no room for {', '.join(left)}: another call" if left else "nothing is left")
    return 0


def collect(given: argparse.Namespace) -> int:
    """Here again."""
    written = parcel.collect(given.outs, given.into)
    for path in written:
        print(path)
    for folder in given.outs:
        if left := parcel.left_out(folder):
            print(f"{folder} had no room for {', '.join(left)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_round", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: object) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.set_defaults(do=do)
        made.add_argument("--plan", type=Path, default=PLAN, help="default: scripts/gpu_plan.yaml")
        made.add_argument("--folder", type=Path, default=FOLDER, help="default: .gpu")
        return made

    made = command("pack", pack)
    made.add_argument("--volumes", type=int, default=1, help="most volumes; each takes a call of its own")
    made.add_argument("--again", action="store_true", help="also packs that are there already")
    made.add_argument("--only-stow", action="store_true", help="make volumes of what lies in the folder")
    command("lighten", lighten)
    command("restore", restore)
    made = command("run", run)
    made.add_argument("seconds", type=float, help="of the whole round, checks included; below the call's limit by 20")
    made.add_argument("out", type=Path, help="$OUT")
    made.add_argument("--no-checks", action="store_true")
    made.add_argument("--no-train", action="store_true")
    made.add_argument("--workers", type=int, default=16, help="threads that decode")
    made = command("send", send)
    made.add_argument("out", type=Path, help="$OUT")
    made = command("collect", collect)
    made.add_argument("outs", type=Path, nargs="+", metavar="OUT", help="folders that came back, in their order")
    made.add_argument("--into", type=Path, required=True, help="folder for the networks' folders")
    return parser


if __name__ == "__main__":
    sys.exit(main())
