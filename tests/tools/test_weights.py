"""Model cards and publishing: the real huggingface_hub client talks to the server in loopback_hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from loopback_hub import LoopbackHub
from typer.testing import CliRunner

from hih_align import CheckpointError, FaceAligner, HIHNet, WeightsUnavailableError
from hih_align.hub.checkpoints import find_checkpoint, load_config, load_network, save_checkpoint
from hih_align.hub.manifest import MANIFEST, ManifestRow, local_weights, manifest_path, read_manifest, record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from weights import app, mean, publish, row_card, ship  # type: ignore[attr-defined]  # noqa: E402  # a script, in no package

REPO = "user/hih-t-300w"
REPORT = "## HIH_T/300w on some faces\n\n| faces | NME |\n| --- | --- |\n| all | 3.20 |\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture
def row() -> ManifestRow:
    return read_manifest()["HIH_T/300w"]


@pytest.mark.parametrize("name", read_manifest())
def test_card_has_the_content_of_the_manifest(name: str) -> None:
    row = read_manifest()[name]
    card = huggingface_hub.ModelCard(row_card(row, [REPORT], "user/repo"))
    assert (card.data.license, card.data.license_name) == ("other", row.license)  # type: ignore[attr-defined]
    assert card.data.library_name == "hih-align"  # type: ignore[attr-defined]
    assert [result.metric_value for result in card.data.eval_results or []] == [m["value"] for m in row.metrics]  # type: ignore[attr-defined]
    assert f"# {row.id}" in card.text
    assert row.terms in card.text
    assert (row.training or "Not trained yet.") in card.text
    assert 'from_pretrained("user/repo")' in card.text
    assert "\n### HIH_T/300w on some faces" in card.text
    for metric in row.metrics:
        assert f"| `{metric['dataset']}` | {metric['metric']} | {metric['value']:g} | {metric['date']} |" in card.text
        assert metric["command"] in card.text


def test_a_published_checkpoint_is_found_by_its_row(
    hub: LoopbackHub, row: ManifestRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    for name in (MANIFEST, "LICENSE-WEIGHTS"):
        shutil.copy(manifest_path().parent / name, tmp_path / "package" / name)
    monkeypatch.setattr("hih_align.hub.manifest.manifest_path", lambda: tmp_path / "package" / MANIFEST)
    (tmp_path / "report.md").write_text(REPORT)
    words = ["publish", row.id, "--repo", REPO, "--report", str(tmp_path / "report.md"), "--tag", "v1", "--tag", "v1.0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    revision = hub.commit_id(REPO)
    assert revision in result.output
    files = {".gitattributes", "README.md", "LICENSE-WEIGHTS", "config.json", "model.safetensors"}
    assert set(hub.list_files(REPO)) == files
    path = local_weights(row)
    assert path is not None
    assert hub.read(REPO, "model.safetensors") == path.read_bytes()
    assert json.loads(hub.read(REPO, "config.json")) == row.config.to_dict()
    assert hub.read(REPO, "README.md").decode() == row_card(row, [REPORT], REPO)
    refs = huggingface_hub.HfApi().list_repo_refs(REPO)
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": revision, "v1.0": revision}

    # a user with this manifest and without the file downloads the file from the repository
    written = read_manifest(tmp_path / "package" / MANIFEST)
    assert (written[row.id].repo_id, written[row.id].revision) == (REPO, revision)
    others = {name: other for name, other in read_manifest().items() if name != row.id}
    assert {name: other for name, other in written.items() if name != row.id} == others
    monkeypatch.setattr("hih_align.hub.manifest.local_weights", lambda row: None)
    assert find_checkpoint(row.id).weights.read_bytes() == path.read_bytes()
    assert FaceAligner.from_pretrained(REPO, device="cpu").config.name == row.id


def test_weights_that_cannot_be_published(hub: LoopbackHub, row: ManifestRow) -> None:
    untrained = replace(row, sha256=None)
    with pytest.raises(WeightsUnavailableError, match="HIH_T/300w are not on this machine"):
        publish(untrained, REPO)
    with pytest.raises(CheckpointError, match="SHA-256"):
        publish(replace(row, sha256="0" * 64), REPO)
    with pytest.raises(OSError, match="401"):
        publish(row, REPO, token="hf_wrong")
    result = CliRunner().invoke(app, ["publish", "HIH_X/300w", "--repo", REPO])
    assert result.exit_code == 1
    assert "model is 'HIH_X/300w', expected one of" in result.output
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        huggingface_hub.HfApi().model_info(REPO)


def test_card_command(row: ManifestRow, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["card", row.id])
    assert result.exit_code == 0
    assert result.output.strip() == row_card(row).strip()
    assert CliRunner().invoke(app, ["card", row.id, "--out", str(tmp_path / "card.md")]).exit_code == 0
    assert (tmp_path / "card.md").read_text() == row_card(row)


def test_a_trained_network_becomes_a_row(row: ManifestRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float16 weights are where the manifest looks for them.

    The old network's figures and its repository on the Hub are removed from the row.
    """
    shutil.copy(manifest_path(), tmp_path / MANIFEST)
    monkeypatch.setattr("hih_align.hub.manifest.manifest_path", lambda: tmp_path / MANIFEST)
    monkeypatch.setattr("hih_align.hub.manifest.packaged_weights", lambda: tmp_path / "package")
    network = HIHNet(98, 2)
    network.requires_grad_(False)
    config = replace(read_manifest()["HIH_S/wflw"].config, refine=0, name="run")
    record("HIH_S/wflw", metrics=[{"value": 1.0}], repo_id="user/old", revision="abc")
    save_checkpoint(tmp_path / "run" / "best", network, config)
    result = CliRunner().invoke(app, ["ship", str(tmp_path / "run"), "--as", "HIH_S/wflw", "--training", "An hour."])
    assert result.exit_code == 0, result.output
    new = read_manifest()["HIH_S/wflw"]
    assert (new.training, new.metrics, new.repo_id, new.revision) == ("An hour.", (), None, None)
    assert (new.config.refine, new.config.name) == (0, "HIH_S/wflw")
    path = tmp_path / "weights" / new.file
    assert new.bytes == path.stat().st_size < 31e6
    loaded = load_network(find_checkpoint("HIH_S", "wflw")).state_dict()  # verifies the hash
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded[name].float(), value.float(), rtol=1e-3, atol=1e-4)


def test_the_users_command_line_has_no_maintainer_commands() -> None:
    from hih_align.cli.app import COMMANDS

    assert not {"card", "ship", "publish"} & set(COMMANDS)


def test_the_script(row: ManifestRow, tmp_path: Path) -> None:
    """The script runs as a maintainer starts it, and an error is one line."""
    words = [sys.executable, str(ROOT / "tools" / "weights.py"), "card"]
    done = subprocess.run([*words, row.id], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == row_card(row)
    bad = subprocess.run([*words, "HIH_X"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert bad.returncode == 1
    assert bad.stderr.startswith("hih-align: model is 'HIH_X', expected one of")
    assert bad.stderr.count("\n") == 1


def test_record_refuses_an_unknown_row() -> None:
    before = manifest_path().read_bytes()
    with pytest.raises(ValueError, match=r"HIH_X/wflw"):
        record("HIH_X/wflw", metrics=[])
    assert manifest_path().read_bytes() == before


def test_the_mean_of_two_checkpoints(tmp_path: Path) -> None:
    nano = read_manifest()["HIH_N/300w"].config
    networks = [HIHNet(nano.heads, *nano.size) for _ in range(2)]
    for name, network in zip("ab", networks, strict=True):
        save_checkpoint(tmp_path / name, network, nano)
    words = ["mean", str(tmp_path / "a"), str(tmp_path / "b"), "--share", "0.25", "--out", str(tmp_path / "c")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    first, second, made = (one.state_dict() for one in (*networks, load_network(find_checkpoint(tmp_path / "c"))))
    for name, value in made.items():
        expected = 0.75 * first[name] + 0.25 * second[name] if value.is_floating_point() else first[name]
        torch.testing.assert_close(value, expected)
    assert load_config(find_checkpoint("HIH_N/300w")).correction is not None
    mean("HIH_N/300w", "HIH_N/300w", 0.5, tmp_path / "same")
    assert load_config(find_checkpoint(tmp_path / "same")).correction is None
    with pytest.raises(ValueError, match=r"share is 1\.5, expected a number in \[0, 1\]"):
        mean("HIH_N/300w", "HIH_N/300w", 1.5, tmp_path / "d")
    with pytest.raises(ValueError, match=r"other is 'HIH_N/wflw' of the kind \('wflw', 98, .* expected \('300w', 68, "):
        mean("HIH_N/300w", "HIH_N/wflw", 0.5, tmp_path / "d")


def test_ship_refuses_another_shape(row: ManifestRow) -> None:
    with pytest.raises(ValueError, match=r"landmarks and size"):
        ship("HIH_S/wflw", HIHNet(98, 1), row.config, "")
    with pytest.raises(ValueError, match=r"HIH_X/wflw"):
        ship("HIH_X/wflw", HIHNet(98, 1), row.config, "")
