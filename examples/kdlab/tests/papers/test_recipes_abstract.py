"""Every recipe's training step at its real sizes: traced, neither compiled nor run."""

import jax
import jax.numpy as jnp
import pytest

import _abstract
from kdlab.experiment.make import make_config
from kdlab.losses.table import LOSSES
from kdlab.papers.recipes import RECIPES, Recipe

pytestmark = pytest.mark.usefixtures("standard")

NUMBERS = ("delta", "momentum", "alpha", "learning_rate", "loss_beta", "weight_decay")


def program(recipe: Recipe) -> tuple:
    """What of a recipe decides its program: all but the values of some numbers."""
    settings = make_config(
        recipe.config, name="", **{"momentum": 0.9, "delta": 0.0}
    ).settings()
    chosen = {key: settings[key] for key in settings if key not in NUMBERS}
    return (*recipe.config.methods, *(str(value) for value in chosen.values()))


PROGRAMS: dict[tuple, Recipe] = {}
for _recipe in RECIPES.values():
    PROGRAMS.setdefault(program(_recipe), _recipe)


# By default each data set once, and one transformer; smoke runs cover the rest.
FIRSTS = {"vkd": "imagenet/vkd/regnety160-deit_ti"}
for _recipe in PROGRAMS.values():
    FIRSTS.setdefault(_recipe.config.data.dataset, _recipe.name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            r.name, marks=() if r.name in FIRSTS.values() else pytest.mark.slow
        )
        for r in PROGRAMS.values()
    ],
)
def test_step_is_traced_at_real_sizes(name):
    config = RECIPES[name].config
    before, after, metrics = _abstract.step(config)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    taught = config.networks.teacher is not None
    losses = 1 + taught * len(LOSSES[config.distillation.loss].names)
    named = [key for key in metrics if key.startswith("loss/")]
    assert len(named) == losses
    assert all(metrics[key].shape == () for key in named)
    assert all(metrics[key].dtype == jnp.float32 for key in named)


def test_every_recipe_has_a_traced_program():
    assert {program(recipe) for recipe in RECIPES.values()} == set(PROGRAMS)
    assert len(PROGRAMS) < len(RECIPES)  # sweeps share theirs
