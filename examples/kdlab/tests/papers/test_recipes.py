"""Recipes as data, on the command line, and run at sizes of seconds."""

import json
import re
from functools import partial
from pathlib import Path

import jax
import pytest
from rich.console import Console

from kdlab.cli import distill as command
from kdlab.cli.main import main
from kdlab.experiment import run as experiment
from kdlab.experiment.make import make_config
from kdlab.models import find as find_model
from kdlab.models import summary
from kdlab.papers.recipes import (
    RECIPES,
    _cost,
    cifar100_dot,
    cifar100_dto,
    find,
    imagenet,
    imagenet_deit,
    smoke,
    tiny_imagenet_dot,
)
from kdlab.papers.recipes.listing import to_markdown
from kdlab.runs.claim import claim
from kdlab.settings.config import flatten

pytestmark = pytest.mark.usefixtures("standard")

COLUMNS = {
    "KD": "kd",
    "CRD": "crd",
    "DIST": "dist",
    "ReviewKD": "reviewkd",
    "DKD": "dkd",
    "ReviewKD++": "reviewkd_pp",
    "DTO-KD": "dto_kd",
    "KD+DOT": "dot",
    "DKD+DOT": "dkd_dot",
    "none": "labels_only",
    "hard": "deit_hard",
    "VkD": "vkd",
}


@pytest.mark.parametrize(
    "module",
    [cifar100_dot, cifar100_dto, tiny_imagenet_dot, imagenet, imagenet_deit],
)
def test_table_on_top_of_a_file_says_what_its_recipes_say(module):
    folder = next(iter(module.RECIPES)).split("/")[0]
    lines = module.__doc__.splitlines()
    head, *rows = [x for x in lines if re.match(r"pair |\w+-\w+ +\d", x)]
    head = head.replace("+ DOT", "+").replace("DeiT hard", "hard")
    labels = [COLUMNS.get(word) for word in head.split()[1:]]
    labels = [b or f"{a}_dot" for a, b in zip([None, *labels], labels, strict=False)]
    labels = ["dot" if label == "kd_dot" else label for label in labels]
    for row in rows:
        pair, *numbers = row.split()
        for label, number in zip(labels, numbers, strict=True):
            assert RECIPES[f"{folder}/{label}/{pair}"].published == float(number)


def test_every_recipe_names_itself_its_networks_and_its_teacher():
    for name, recipe in RECIPES.items():
        config = recipe.config
        assert config.name == name
        assert recipe.source
        find_model(config.networks.student)
        if config.networks.teacher is None:
            assert recipe.teacher is None
        else:
            trains = RECIPES[recipe.teacher].config
            assert trains.networks.student == config.networks.teacher
            assert trains.data.dataset == config.data.dataset


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cifar100/dot/resnet32x4-shufflenet_v2",
            {"learning_rate": 0.01, "delta": 0.075, "alpha": 0.9, "temperature": 4.0},
        ),
        ("cifar100/dkd/resnet56-resnet20", {"loss_beta": 2.0, "loss_warmup": 20.0}),
        (
            "tiny_imagenet/dot/resnet18-mobilenet_v2",
            {"batch_size": 256, "learning_rate": 0.2, "batch_norm_group": 64},
        ),
        (
            "imagenet/dot/resnet50-mobilenet_v1",
            {"delta": 0.09, "alpha": 0.5, "temperature": 1.0, "weight_decay": 1e-4},
        ),
        ("cifar100/reviewkd_pp/resnet50-mobilenet_v2", {"loss_weights": (1.0, 2.0)}),
        (
            "imagenet/deit_hard/regnety160-deit_ti",
            {"batch_size": 1024, "learning_rate": 1e-3, "repeats": 3, "drop_path": 0.1},
        ),
        (
            "imagenet/vkd/regnety160-deit_s",
            {"batch_size": 512, "learning_rate": 5e-4, "last_rate": 5e-6, "repeats": 1},
        ),
        (
            "imagenet/dto_kd/regnety160-deit_s",
            {"batch_size": 1024, "augment": "three_augment", "loss": "vkd_tokens"},
        ),
        ("cifar100/sweeps/task_weight/0.25", {"alpha": 0.75, "methods": ("kd",)}),
        ("cifar100/sweeps/delta/-0.09", {"delta": -0.09, "methods": ("dot",)}),
    ],
)
def test_settings_of_the_references(name, expected):
    config = RECIPES[name].config
    assert {key: flatten(config)[key] for key in expected} == expected


def test_computed_hours():
    """DOT: two backward passes of 177.1 M, one forward of 1083.0 M of the teacher."""
    recipe = RECIPES["cifar100/dot/resnet32x4-resnet8x4"]
    flops = 2 * (5 * 177.1e6 + 1083.0e6) * 50_000 * 240
    assert recipe.wall_time == pytest.approx(flops / (0.3 * 156e12) / 3600)
    assert all(r.wall_time > 0 for r in RECIPES.values())
    assert RECIPES["imagenet/kd/resnet34-resnet18"].wall_time > 10


def test_computed_hours_of_three_losses():
    """Three backward passes: seven times the student, and the teacher once."""
    recipe = RECIPES["imagenet/dto_kd/regnety160-deit_ti"]
    flops = 2 * (7 * 2429.1e6 + 15911.5e6) * 1_281_167 * 300
    assert recipe.wall_time == pytest.approx(flops / (0.3 * 156e12) / 3600)


def test_multiply_adds_are_those_of_the_models():
    for network, side in [("vgg8", 32), ("resnet18", 64), ("mobilenet_v1", 224)]:
        classes = {32: 100, 64: 200, 224: 1000}[side]
        shape = side, side, 3
        counts = summary(network, num_classes=classes, image_shape=shape)
        millions = _cost.MULTIPLY_ADDS[network, side]
        assert counts.multiply_adds / 1e6 == pytest.approx(millions, abs=0.06)


def test_unknown_name_gets_the_closest():
    with pytest.raises(ValueError, match=r"closest are .*cifar100/dot/resnet32x4-res"):
        find("cifar100/dot/resnet32x4-resnet8")


def test_beginning_of_a_name_is_all_of_them(capsys):
    assert [r.published for r in find("cifar100/sweeps/delta")][:2] == [61.58, 68.88]


def test_list_of_recipes(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.argv", ["kdlab", "recipes"])
    assert main() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES)
    assert re.search(
        r"cifar100/dot/vgg13-vgg8 +│ +73\.77 │ +0\.11 │ DOT, table 3 \(a", shown
    )


def test_documentation_has_this_table():
    page = Path("docs/recipes.md").read_text()
    shown = page.split("<!-- recipes:begin -->\n")[1].split("\n<!-- recipes:end")[0]
    assert shown.splitlines() == list(to_markdown())
    assert f"lists {len(RECIPES)} experiments" in Path("README.md").read_text()


def parsed(*arguments):
    return [config for _, config in command.parse(arguments, "distill")]


def test_any_field_is_overridden():
    (config,) = parsed(
        *("--recipe", "cifar100/dot/vgg13-vgg8", "--delta", "0.05", "--seeds", "1")
    )
    expected = make_config(
        RECIPES["cifar100/dot/vgg13-vgg8"].config, delta=0.05, seeds=1
    )
    assert config == expected
    assert len(parsed("--recipe", "cifar100/sweeps/momentum/", "--seeds", "1")) == 9


def test_smaller_batch_is_accumulated_where_the_paper_has_a_larger_one():
    name = "imagenet/dto_kd/regnety160-deit_ti"
    (config,) = parsed("--recipe", name, "--batch-size", "256")
    assert (config.training.batch_size, config.training.accumulate) == (1024, 4)
    assert config.training.learning_rate == 1e-3
    (larger,) = parsed("--recipe", name, "--batch-size", "2048")
    assert (larger.training.batch_size, larger.training.accumulate) == (2048, 1)
    other = "imagenet/dot/resnet34-resnet18"
    (config,) = parsed("--recipe", other, "--batch-size", "256")
    assert (config.training.batch_size, config.training.accumulate) == (256, 1)
    with pytest.raises(ValueError, match="--batch-size 300 does not divide"):
        parsed("--recipe", name, "--batch-size", "300")


def test_help_shows_the_values_of_the_recipe(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        parsed("--recipe", "imagenet/dot/resnet34-resnet18", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: 0.09)" in shown
    assert "(default: 30 60 90)" in shown


def test_shell_completion_knows_the_recipes(capsys):
    with pytest.raises(SystemExit):
        parsed("--tyro-print-completion", "bash")
    shown = capsys.readouterr().out
    assert "cifar100/dot/resnet32x4-resnet8x4" in shown
    assert "'--decay-epochs'" in shown


def test_missing_teacher_says_how_to_get_it(tmp_path):
    arguments = "--recipe", "cifar100/dot/vgg13-vgg8", "--runs", str(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"(?s)--recipe cifar100/teachers/vgg13"
    ):
        command.run(arguments, "distill", Console(quiet=True))
    (tmp_path / "cifar100/teachers/vgg13/weights").mkdir(parents=True)
    recipe = RECIPES["cifar100/dot/vgg13-vgg8"]
    config = command.with_teacher(recipe, make_config(recipe.config, runs=tmp_path))
    path = tmp_path / "cifar100/teachers/vgg13/weights"
    assert config.networks.teacher_weights == path


def test_smoke_keeps_networks_losses_and_method():
    for recipe in RECIPES.values():
        config = smoke.shrink(recipe.config)
        kept = "teacher", "student", "methods", "loss", "augment", "schedule"
        kept += "alpha", "loss_weights"
        for key in kept:
            assert flatten(config)[key] == flatten(recipe.config)[key]
        assert config.training.epochs * smoke.IMAGES // config.training.batch_size == 2
        assert config.networks.max_blocks == 1


def test_smoke_clears_no_other_run(tmp_path):
    config = smoke.shrink(RECIPES["cifar100/dot/vgg13-vgg8"].config)
    config = make_config(config, runs=tmp_path, name="mine")
    claim(config)
    smoke.remove_earlier(config)
    assert config.directory.exists()


def run_smoke(name, folder, *others):
    """Returns the metrics of each epoch."""
    arguments = "--recipe", name, "--smoke", "--runs", str(folder), *others
    with jax.default_prng_impl("rbg"):  # as the command line does
        command.run(arguments, "distill", Console(quiet=True))
    (file,) = (folder / smoke.FOLDER / name).glob("*/seed0/result.json")
    result = json.loads(file.read_text())
    assert "diverged" not in result
    assert 0 <= result["accuracy/last"] <= 1
    lines = file.with_name("metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# One, two and shared backward passes.
DIVIDED = (
    "cifar100/kd/vgg13-vgg8",
    "cifar100/dot/vgg13-vgg8",
    "cifar100/dto_kd_shared/resnet32x4-resnet8x4",
    "imagenet/dto_kd/regnety160-deit_ti",
)


@pytest.fixture
def only_training(monkeypatch):
    """Without the diagnoses and figures after it."""
    quick = partial(experiment.train_students, diagnose=False)
    monkeypatch.setattr(experiment, "train_students", quick)
    monkeypatch.setattr(experiment.plot, "draw_figures", lambda _: ())


PARTS = "loss", "methods", "augment", "dataset"


def features(recipe):
    """Returns what the smoke run of a recipe exercises beside its networks."""
    values = flatten(recipe.config)
    return {(x, values[x]) for x in PARTS}


# The networks of the others take long to compile.
CONVOLUTIONAL = [x for x in RECIPES.values() if x.name not in imagenet_deit.RECIPES]


def covering():
    """Names of a few recipes that have together what all of them have.

    Among equals it takes the student that compiles fastest, a ResNet.
    """
    todo, chosen = set().union(*map(features, CONVOLUTIONAL)), []

    def merit(recipe):
        resnet = recipe.config.networks.student.startswith("resnet")
        return len(features(recipe) & todo), resnet, -recipe.wall_time

    while todo:
        most = max(CONVOLUTIONAL, key=merit)
        chosen.append(most.name)
        todo -= features(most)
    return chosen


COVERING = covering()
DIAGNOSED = "cifar100/dto_kd/resnet56-resnet20"  # one of them
TRAINED_ALONE = {*COVERING} - {DIAGNOSED}


def test_default_suite_covers_losses_methods_and_data():
    there = [flatten(recipe.config) for recipe in CONVOLUTIONAL]
    here = [flatten(RECIPES[name].config) for name in COVERING]
    for part in PARTS:
        assert {x[part] for x in here} == {x[part] for x in there}
    assert DIAGNOSED in COVERING and len(COVERING) < 12


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in TRAINED_ALONE else pytest.mark.slow)
        for name in RECIPES
    ],
)
def test_smoke_run(name, tmp_path, only_training):
    run_smoke(name, tmp_path)
    weights = tmp_path / smoke.FOLDER / name / "weights"
    assert weights.is_dir() == (RECIPES[name].config.networks.teacher is None)


def test_smoke_run_with_diagnoses_and_figures(tmp_path):
    run_smoke(DIAGNOSED, tmp_path)
    assert list((tmp_path / smoke.FOLDER / DIAGNOSED / "figures").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("name", DIVIDED)
def test_smoke_run_on_eight_devices_loses_the_same(
    name, tmp_path, only_training, monkeypatch
):
    """Normalised across the devices; random crops and flips by the seed.

    Teacher and student are fresh, so that their divergence is a small difference of
    logarithms of size one, whose rounding it keeps.
    """
    monkeypatch.setattr("kdlab.devices.mesh.list_devices", jax.devices)
    # The sums of bfloat16 depend on their order.
    options = "--dtype", "float32", "--devices"
    one, eight = (run_smoke(name, tmp_path / n, *options, n) for n in ("1", "8"))
    for alone, divided in zip(one, eight, strict=True):
        for key in ("train/loss/task", "train/loss/distill"):
            assert divided[key] == pytest.approx(alone[key], rel=1e-5, abs=1e-5), key
