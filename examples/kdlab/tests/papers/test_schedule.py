"""DOT at the schedule of its paper: the recipe's settings, and the comparison."""

import dataclasses

import numpy as np
import pytest

from kdlab.papers.claims.schedule import (
    RATES,
    RECIPE,
    Row,
    ScheduleConfig,
    compare,
    make_arms,
    to_markdown,
)
from kdlab.papers.recipes import find


def make_row(name, rate, accuracies):
    """Makes a row; a seed without accuracy diverged."""
    losses = {"train/loss/task": 0.5, "train/loss/distill": 0.5}
    results = [
        {"diverged": 2, "accuracy/last": 0.99}  # of the epoch before
        if np.isnan(x)
        else {"accuracy/last": x / 100, **losses}
        for x in accuracies
    ]
    return Row(name, rate, results)


def test_all_but_data_and_networks_is_the_recipe_of_the_paper():
    ours, theirs = ScheduleConfig().base(), find(RECIPE)[0].config
    assert ours.training == dataclasses.replace(
        theirs.training, epochs=24, decay_epochs=(15, 18, 21)
    )
    assert ours.distillation == theirs.distillation
    assert ScheduleConfig(epochs=80).base().training.decay_epochs == (50, 60, 70)


def test_each_arm_has_every_rate():
    rates = {}
    for name, arm in make_arms().items():
        rates.setdefault(name.rpartition("-")[0], []).append(arm.rate)
    assert rates == {key: list(RATES) for key in ("kd", "dot", "gain_matched")}


def test_arms_are_compared_at_their_best_rates():
    rows = [
        make_row("kd", 0.1, [70.0, 72.0]),
        make_row("kd", 0.2, [80.0, 82.0]),
        make_row("dot", 0.1, [83.0, 85.0]),
        make_row("dot", 0.2, [10.0, np.nan]),
    ]
    assert compare(rows) == ["dot - kd +3.00 ± 0.00 points"]
    table = to_markdown(rows)
    assert "| dot | 0.2 | diverged (1 of 2) | diverged (1 of 2) |" in table
    assert "| kd | 0.2 | 81.00 ± 1.41 | 0.500 ± 0.000 | 0.500 ± 0.000 |" in table


@pytest.mark.parametrize("epochs", [8, 24])
def test_short_runs_keep_the_proportions_of_the_schedule(epochs):
    falls = ScheduleConfig(epochs=epochs).base().training.decay_epochs
    np.testing.assert_allclose(falls, np.array([150, 180, 210]) * epochs / 240)
