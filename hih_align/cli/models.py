"""`hih-align models`."""

from __future__ import annotations

from pathlib import Path

import typer

from ..hub.manifest import WEIGHTS_FOLDER, ManifestRow, local_weights, packaged_weights, read_manifest
from .options import commands

app = commands()


@app.command()
def models() -> None:
    """List the pretrained models."""
    header = ("id", "scheme", "points", "MB", "license", "where", "measured")
    manifest = read_manifest().values()
    rows = [header, *(_row(row) for row in manifest)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    away = [row.file for row in manifest if row.sha256 and not row.repo_id and local_weights(row) is None]
    if away:
        typer.echo(
            f"Not found: {', '.join(away)}. If you have these files, set the environment variable {WEIGHTS_FOLDER} to "
            "their folder."
        )


def _row(row: ManifestRow) -> tuple[str, ...]:
    where = row.repo_id or ("not trained yet" if row.sha256 is None else "not published")
    if (path := local_weights(row)) is not None:
        where = path.name if path.parent == packaged_weights() else _short(path)
    measured = "; ".join(f"{m['metric']} {m['value']:g} on {m['dataset']}" for m in row.metrics[:1])
    size = f"{row.bytes / 1e6:.1f}" if row.bytes else "-"
    return row.id, row.scheme, str(row.landmarks), size, row.license, where, measured or "-"


def _short(path: Path) -> str:
    """The path as a user would type it: relative to the current folder or to the home folder."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.absolute().is_relative_to(base):
            return f"{prefix}{path.absolute().relative_to(base)}"
    return str(path)
