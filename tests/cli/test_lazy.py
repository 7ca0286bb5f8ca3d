"""A command loads the modules that it needs, and no other command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import preloaded

from hih_align.cli.app import COMMANDS

SCRIPT = """
import json, sys
{work}
print(json.dumps(sorted(name for name in sys.modules if name.startswith("hih_align"))), file=sys.stderr)
"""

CALL = """
from hih_align.cli.app import app
try:
    app({words!r})
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded(work: str) -> set[str]:
    done = preloaded.run(exec, SCRIPT.format(work=work), {})
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_align_loads_no_training_code(tmp_path: Path) -> None:
    """Of data, evaluation and training, the command loads only modules that `import hih_align` loads, too."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("a.png,10,10,90,90\n")
    package = loaded("import hih_align")
    folder = ["align", str(tmp_path), "--boxes", str(tmp_path / "boxes.csv"), "--json", str(tmp_path / "a.jsonl")]
    words = [*folder, "--device", "cpu", "--out", str(tmp_path / "drawn"), "--model", "HIH_N"]
    found = loaded(CALL.format(words=words))
    assert (tmp_path / "drawn" / "a.png").is_file()
    rooms = ("training", "evaluation", "data", "reproduction")
    above = {name for name in found if name.split(".")[1:2] and name.split(".")[1] in rooms}
    assert not any(name.startswith("hih_align.training") for name in found)
    assert above <= package
    assert {name for name in found if name.startswith("hih_align.cli.")} == {
        f"hih_align.cli.{name}" for name in ("app", "align", "coco", "folder", "options")
    }


def test_a_command_loads_no_other(tmp_path: Path) -> None:
    for name in ("models", "convert", "train"):
        found = loaded(CALL.format(words=[name, "--help"]))
        commands = {f"hih_align.cli.{other}" for other in COMMANDS}
        assert found & commands == {f"hih_align.cli.{name}"}
    # the help of train needs no training code
    assert not any(name.startswith("hih_align.training.") for name in found)
