"""The training process of a round. It decodes the faces immediately, and trains the networks when the GPU is free.

It writes a folder for each network below the folder of the round. It ends after its time, or after a signal.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hih_align.training.recipe import Recipe
    from hih_align.training.sampling import Source

#: Seconds for the end of a network, in addition to its training. The first validation may be the last one, and then no
#: time is reserved for it.
BESIDE = 4.0

#: A network with less time than this, in seconds, is not started.
LEAST = 5.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the unpacked volumes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--end", type=float, required=True, help="time.time() at which the training must end")
    parser.add_argument("--go", type=Path, required=True, help="this file exists as soon as the GPU is free")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    train_all(**vars(arguments))


def train_all(plan: Path, folder: Path, out: Path, end: float, go: Path, workers: int, device: str = "cuda") -> None:
    """Decode the faces, wait for the file ``go``, and train one network after the other until ``end``."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopped.append(number))
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA GPU here, so nothing is trained. --device cpu tries a round without a GPU")

    from gpu_round.plan import read_plan
    from hih_align.data.annotations import read_dataset
    from hih_align.training.recipe import load_recipe
    from hih_align.training.sampling import Source
    from hih_align.training.supply import Stores

    began = time.time()
    out.mkdir(parents=True, exist_ok=True)
    read = read_plan(plan)
    datasets = {name: read_dataset(folder / "packs" / name, pack.scheme) for name, pack in read.packs.items()}
    recipes, stores = {}, Stores()
    for network in read.networks:
        # the plan sets the stage; the time is set when it is known
        fixed = {"calibrate": "no", "seconds": 1.0, **network.set}
        recipes[network.name] = recipe = load_recipe(network.recipe, network.size, fixed)
        how: dict[str, Any] = {"device": torch.device(device), "workers": workers, "skip_bad": False, "progress": False}
        sides = {"side": recipe.store_side, "margin": recipe.store_margin}
        stores.build([datasets[name] for name in network.data], **sides, **how)
        if stopped:
            return
    print(f"decoded in {time.time() - began:.1f} s", flush=True)
    while not go.exists():
        if stopped:
            return
        time.sleep(0.1)
    left = list(read.networks)
    while left and not stopped:
        network = left.pop(0)
        share = network.share / (network.share + sum(other.share for other in left))
        until = time.time() + (end - time.time()) * share
        sources = [Source(datasets[name], weight) for name, weight in network.data.items()]
        start = folder / "starts" / network.name
        val = datasets[network.val or read.val]
        how = {"val": val, "init": start if start.is_dir() else None, "workers": workers, "stores": stores}
        faster = _faster(out, network.size)
        for extra in [faster, {}] if faster else [{}]:  # the faster way may fail on these faces
            seconds = until - time.time() - BESIDE
            if seconds < LEAST:
                print(f"{network.name}: not trained, no time is left", flush=True)
                break
            overrides = {"calibrate": "no", **extra, **network.set, "seconds": max(seconds, 1.0)}
            print(f"{network.name}: {seconds:.0f} s, {_set(overrides)}", flush=True)
            try:
                recipe = load_recipe(network.recipe, network.size, overrides)
                if not _train(out / network.name, recipe, sources, how, until - BESIDE, stopped):
                    return
                break
            except Exception:  # the other networks are trained anyway
                with (out / f"{network.name}-error.txt").open("a", encoding="utf-8") as file:
                    file.write(traceback.format_exc())
                traceback.print_exc()
                if (out / network.name / "best").exists():  # this way works, so another one would fail, too
                    break
                if extra:
                    shutil.rmtree(out / network.name, ignore_errors=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def _train(
    run: Path, recipe: Recipe, sources: list[Source], how: dict[str, Any], end: float, stopped: list[int]
) -> bool:
    """Train a network until ``end``. Returns False if a signal stopped it. Then ``last`` has its last network."""
    from hih_align.training.outcome import keep_network
    from hih_align.training.trainer import Trainer

    trainer = Trainer(recipe, sources, run, progress=False, **how)
    if stopped:  # from now on the trainer handles signals
        return False
    trainer.limit(seconds := max(end - time.time(), 1.0))
    result = trainer.run()
    if not result.completed and trainer.progress.steps:
        keep_network(run / "last", trainer.averaged, trainer.config)
    note = {"nme": result.nme, "steps": result.steps, "completed": result.completed, "seconds": seconds}
    (run / "result.json").write_text(json.dumps(note) + "\n", "utf-8")
    print(f"{run.name}: {note}", flush=True)
    return result.completed


def _faster(out: Path, size: str | None) -> dict[str, Any]:
    """The keys of the recipe that `benchmarks/gpu_training.py` measured to be the fastest. {} if it did not run."""
    path = out / "checks" / "training" / "gpu_training.json"
    if size is None or not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8")).get("fastest", {}).get(f"HIH_{size}", {})
    return found


def _set(overrides: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in overrides.items() if key not in ("seconds", "calibrate"))


if __name__ == "__main__":
    main()
