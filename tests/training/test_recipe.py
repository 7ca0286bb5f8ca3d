from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("yaml")

from hih_align.method.losses import LossSettings
from hih_align.method.network import HIHNet
from hih_align.method.sizes import SIZES, Size
from hih_align.training.augmentation import Augmentation
from hih_align.training.learner import HIH, compiled
from hih_align.training.recipe import (
    Stage,
    load_recipe,
    parse_overrides,
    recipe_from_dict,
    recipe_names,
    write_recipe,
)


def test_packaged_recipes():
    assert {"paper/wflw", "paper/300w", "paper/cofw", "modern/t", "modern/s", "modern/b", "finetune"} <= set(
        recipe_names()
    )
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe_from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(("scheme", "sigma"), [("wflw", 1.5), ("300w", 1.0), ("cofw", 1.5)])
@pytest.mark.parametrize(("size", "alpha"), [("T", 0.1), ("S", 0.05), ("B", 0.05)])
def test_paper_recipes_follow_section_iv_a_3(scheme, sigma, size, alpha):
    recipe = load_recipe(f"paper/{scheme}", size)
    assert recipe.scheme == scheme
    assert recipe.size == size
    assert recipe.losses == LossSettings(integer_sigma=sigma, alpha=alpha)
    assert recipe.losses.temperature == 1  # Eq. 5 as printed in the paper
    assert recipe.augmentation == Augmentation.paper()
    assert recipe.decoder.method == "argmax"
    assert recipe.optimizer == "adam"
    (stage,) = recipe.stages
    assert (stage.epochs, stage.batch, stage.size) == (60, 16, 256)
    steps = 100
    rates = [stage.rate(epoch * steps, steps) for epoch in (0, 29, 30, 49, 50, 59)]
    assert rates == pytest.approx([5e-6, 5e-6, 5e-7, 5e-7, 5e-8, 5e-8])


def test_scheme_and_size_name_a_modern_recipe():
    recipe = load_recipe("300w", "HIH_T")
    assert recipe.scheme == "300w"
    assert recipe.size == "T"
    assert load_recipe("300w") == recipe
    assert load_recipe("wflw", "b").stages == load_recipe("modern/b").stages
    with pytest.raises(ValueError, match="size is 'XL'"):
        load_recipe("300w", "XL")
    with pytest.raises(ValueError, match="recipe is 'nope'"):
        load_recipe("nope")


def test_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("stages: [{epochs: 3, lr: 1e-4}]\naugmentation: {preset: paper, mirror: 0}\nprecision: no\n")
    recipe = load_recipe(str(path))
    assert recipe.stages == (Stage(3, lr=1e-4),)  # YAML reads 1e-4 as text
    assert recipe.augmentation.mirror == 0
    assert recipe.augmentation.rotate == Augmentation.paper().rotate
    assert recipe.precision == "no"
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml"):
        load_recipe(str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [{epochs: 3}]\nlossses: {}", "unknown keys.*lossses"),
        ("stages: [{epochs: 3}]\nlosses: {alfa: 1}", r"losses has unknown keys.*alfa.*alpha"),
        ("stages: [{epochs: three}]", r"stages\.0\.epochs is 'three', expected an integer"),
        ("stages: [{epochs: 2.5}]", r"stages\.0\.epochs is 2\.5, expected an integer"),
        ("stages: [{lr: 1}]", r"stages\.0 lacks \['epochs'\]"),
        ("stages: {epochs: 3}", "stages is .* expected a list"),
        ("stages: []", "stages is empty"),
        ("size: T", "lacks"),
        ("stages: [{epochs: 1, size: 100}]", "size is 100, expected a multiple of 64"),
        ("stages: [{epochs: 1}]\noptimizer: sgd", "optimizer is 'sgd', expected one of"),
        ("stages: [{epochs: 1}]\naugmentation: wilder", "augmentation is 'wilder', expected one of"),
        ("stages: [{epochs: 1}]\naugmentation: {preset: [wild]}", r"augmentation is \[.wild.\], expected one of"),
        ("stages: [{epochs: 1}]\naugmentation: {mirror: 2}", "mirror is 2.0, expected a probability"),
        ("stages: [{epochs: 1}]\nchannels_last: 1", "channels_last is 1, expected true or false"),
        ("- a", "holds list, expected a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_errors_name_the_mistake(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(str(path))


def test_recipes_of_version_0_1():
    """``gradient_scale`` is converted: Adam's eps and ``clip``, divided by it, have the same effect."""
    plain = {"stages": [{"epochs": 1}]}
    for old, eps, clip in (
        ({"gradient_scale": 1000, "clip": 5}, 1e-11, 0.005),
        ({"gradient_scale": 1000.0}, 1e-11, 0.005),
        ({"gradient_scale": 1, "clip": None}, 1e-8, None),
    ):
        recipe = recipe_from_dict(plain | old)
        assert (recipe.eps, recipe.clip) == (eps, clip)
        assert recipe_from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match=r"gradient_scale is 1000: recipes have eps instead"):
        load_recipe("finetune", overrides={"gradient_scale": 1000})


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("paper/")])
def test_measured_recipes_keep_their_values(name):
    assert (load_recipe(name).eps, load_recipe(name).clip) == (1e-11, 0.005)


def test_overrides():
    given = ["losses.alpha=0.07", "stages.1.epochs=2", "lr=2e-4", "augmentation.zoom=[0.9, 1.1]", "clip=null"]
    recipe = load_recipe("300w", "T", parse_overrides(given))
    plain = load_recipe("300w", "T")
    assert recipe.losses.alpha == 0.07
    assert recipe.losses.temperature == plain.losses.temperature
    assert [stage.epochs for stage in recipe.stages] == [plain.stages[0].epochs, 2]
    assert {stage.lr for stage in recipe.stages} == {2e-4}
    assert recipe.augmentation.zoom == (0.9, 1.1)
    assert recipe.augmentation.mirror == plain.augmentation.mirror
    assert recipe.clip is None


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 2, "lr": 3e-3},
        {"stages.0.epochs": 2, "stages.0.lr": 3e-3},
        {"stages": [{"epochs": 2, "batch": 4, "lr": 3e-3}]},
    ],
)
def test_epochs_and_rates_of_stages_are_those_of_few_faces(given):
    """The number of epochs is exact, in whatever form it is given."""
    plain = load_recipe("finetune")
    assert plain.min_steps > 0
    assert plain.few.steps > 0
    recipe = load_recipe("finetune", overrides=given)
    assert (recipe.epochs, recipe.min_steps, recipe.few.steps, recipe.few.lr) == (2, 0, 0, 3e-3)
    kept = load_recipe("finetune", overrides=given | {"few.lr": 1e-4, "min_steps": 50})
    assert (kept.min_steps, kept.few.steps, kept.few.lr) == (50, 50, 1e-4)
    own = load_recipe("finetune", overrides=given | {"few": {"below": 200, "steps": 60, "lr": 1e-4}})
    assert (own.few.steps, own.few.lr) == (60, 1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("losses.alfa=1", "alfa"),
        ("seed=-1", "seed is -1"),
        ("crop_ratio=2.5", r"store_margin is 2, expected at least crop_ratio, which is 2.5, .*store_margin=4"),
        ("stages.7.epochs=1", "index is '7'"),
        ("size.big=1", "expected a mapping or a list"),
        ("alpha", "expected key=value"),
        ("losses.alpha=[", "not YAML"),
    ],
)
def test_wrong_overrides(given, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("300w", "T", parse_overrides([given]))


def test_rates():
    stage = Stage(10, lr=1.0, schedule="cosine", warmup=2, final=0.1)
    rates = [stage.rate(step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[30] == pytest.approx(0.1 + 0.9 * 0.5)  # halfway
    assert 0.1 < rates[-1] < 0.11
    assert Stage(3, lr=0.5, schedule="constant").rate(7, 5) == 0.5


def test_a_recipes_size_takes_precedence_over_the_start_weights() -> None:
    start = Size(2, width=0.25, input_size=128)
    assert load_recipe("modern/n").network(start) == SIZES["HIH_N"]
    assert load_recipe("300w", size="N").network(None) == SIZES["HIH_N"]
    assert load_recipe("finetune").network(start) == start
    assert load_recipe("finetune").network(None) == SIZES["HIH_T"]
    own = load_recipe("finetune", overrides={"width": 0.5, "decimal_size": 4})
    assert own.network(start) == Size(2, 4, 0.5, 384, 128)


def test_compile_takes_the_modes_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value is passed to `torch.compile`. Recording with CUDA graphs refuses steps of several pieces."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: asked.append(how) or module)
    learner = HIH(HIHNet(4, 1, width=0.25, head_channels=8, input_size=128))
    for how in (False, True, "cudagraphs", "reduce-overhead"):
        recipe = load_recipe("300w", overrides={"compile": how})
        assert recipe.compile == how
        assert compiled(learner, recipe.compile) is learner
    assert asked == [{"mode": None}, {"backend": "cudagraphs"}, {"mode": "reduce-overhead"}]
    with pytest.raises(ValueError, match=r"compile is 'fast', expected one of False, True, 'cudagraphs'"):
        load_recipe("300w", overrides={"compile": "fast"})
    with pytest.raises(ValueError, match="accumulate is 2 with compile 'cudagraphs'"):
        load_recipe("300w", overrides={"compile": "cudagraphs", "accumulate": 2})
    assert load_recipe("300w", overrides={"compile": True, "accumulate": 2}).accumulate == 2


@pytest.mark.parametrize("module", ["yaml", "pydantic"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    from hih_align.training import plain

    monkeypatch.setitem(sys.modules, module, None)
    spec = importlib.util.spec_from_file_location("hih_align.training.plain_again", plain.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=rf"pip install 'hih-align\[train\]' .*{module}"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_missing_accelerate_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from hih_align.training.accelerator import make_accelerator

    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"training needs accelerate: pip install 'hih-align\[train\]'"):
        make_accelerator(load_recipe("finetune"), rival=False)


def test_a_size_among_the_changes_brings_its_settings(tmp_path: Path) -> None:
    """`--set size=S` and a size in a file mean the same as the argument."""
    expected = load_recipe("paper/300w", "S")
    assert load_recipe("paper/300w", None, {"size": "s"}) == expected
    assert expected.losses.alpha != load_recipe("paper/300w", "T").losses.alpha
    file = tmp_path / "mine.yaml"
    file.write_text(
        "size: HIH_S\nstages: [{size: 256, epochs: 1, batch: 2, lr: 1.0e-4}]\nby_size: {S: {losses: {alpha: 0.07}}}\n"
    )
    assert load_recipe(str(file)).losses.alpha == 0.07
    for value in ("X", 3):
        with pytest.raises(ValueError, match="size is"):
            load_recipe("paper/300w", None, {"size": value})


@pytest.mark.parametrize("key", ["store_side", "store_margin"])
def test_stored_faces_need_a_size(key: str) -> None:
    with pytest.raises(ValueError, match=r"store_side and store_margin are .*, expected at least 1 pixel"):
        load_recipe("finetune", None, {key: 0})
