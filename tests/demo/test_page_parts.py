"""Modules of the static page in Node.js, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from browsers import WEB, lacking


def run(code: str, *values: Any) -> Any:
    """What the body of an async JavaScript function returns. ``values`` are its argument ``given``."""
    program = shutil.which("node")
    if program is None:
        lacking("needs Node.js, which is not here")
    call = f"await (async (given) => {{ {code} }})({json.dumps(values)})"
    words = [program, "--input-type=module", "--eval", f"console.log(JSON.stringify({call}))"]
    done = subprocess.run(words, cwd=WEB, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_missing_files_are_named_with_the_program_that_makes_them() -> None:
    told = run(
        """
        const { Aligner } = await import("./aligner.js");
        globalThis.fetch = async (path) => new Response("<!DOCTYPE html>", { status: 404 });
        return Aligner.load({}, "models").catch((error) => error.message);
        """
    )
    assert told == 'models/model.json is not there: run "python examples/web/prepare.py" first'
