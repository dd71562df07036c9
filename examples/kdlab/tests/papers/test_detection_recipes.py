"""The recipes of detectors: published numbers, cost, and their steps at full size."""

import dataclasses
import re

import pytest
from rich.console import Console

from kdlab.cli import detect
from kdlab.detection.methods import METHODS
from kdlab.papers.recipes import coco
from kdlab.papers.recipes.coco import DETECTION
from kdlab.papers.recipes.listing import print_recipes

pytestmark = pytest.mark.usefixtures("standard")

ROW = re.compile(r"^(\w+) +((?:\d\d\.\d *)+) +(none|base|small)$", re.M)


def test_numbers_are_those_of_the_table_above():
    """The table in the docstring is written apart from the recipes."""
    rows = ROW.findall(coco.__doc__)
    assert len(rows) == 7
    for method, numbers, teacher in rows:
        suffix = "-small_teacher" if teacher == "small" else ""
        sizes = zip(("nano", "tiny", "small"), numbers.split(), strict=False)
        for size, number in sizes:
            recipe = DETECTION[f"coco/{method}/{size}{suffix}"]
            assert recipe.published == float(number)
            assert recipe.config.methods == (method,)
            assert recipe.config.student == f"vidt_{size}"
    assert {recipe.config.methods[0] for recipe in DETECTION.values()} == set(METHODS)


def test_settings_are_those_of_the_notes_of_vidt():
    config = DETECTION["coco/dto_kd/nano"].config
    assert config.steps == 369_600 and config.batch_size == 16
    assert (config.learning_rate, config.min_rate, config.clip) == (1e-4, 1e-7, 0.1)
    assert config.augmentation is not None and config.max_objects == 100


def test_cost_grows_with_students_teachers_and_backward_passes():
    hours = {name: recipe.wall_time for name, recipe in DETECTION.items()}
    order = "labels_only", "vkd", "dto_kd_shared", "dto_kd"
    for size in ("nano", "tiny", "small"):
        found = [hours[f"coco/{method}/{size}"] for method in order]
        assert found == sorted(found) and len(set(found)) == 4
    assert hours["coco/vkd/nano-small_teacher"] < hours["coco/vkd/nano"]
    # 443 billion multiply-adds per image and step
    one = 2 * 443e9 * 118_287 * 50 / coco.FLOPS / 3600
    assert hours["coco/vkd/nano"] == pytest.approx(one, rel=2e-3)


def test_a_recipe_gives_the_defaults_of_all_other_options():
    chosen = detect.parse(["--recipe", "coco/vkd/tiny", "--seeds", "2"], "kdlab detect")
    expected = dataclasses.replace(DETECTION["coco/vkd/tiny"].config, seeds=2)
    assert chosen.config == expected
    with pytest.raises(ValueError, match="closest are coco/vkd/tiny"):
        detect.parse(["--recipe", "coco/vkd/tny"], "kdlab detect")


def test_the_list_shows_all():
    console = Console(width=200, record=True, quiet=False)
    with console.capture() as shown:
        print_recipes(console, "coco/")
    assert all(name in shown.get() for name in DETECTION)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTION)
def test_every_recipe_runs_small(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    detect.run(["--recipe", name, "--smoke"], "kdlab detect", Console(quiet=True))
    (method,) = DETECTION[name].config.methods
    folder = tmp_path / "runs" / "detection" / "smoke" / name / method / "seed0"
    assert (folder / "result.json").exists()
