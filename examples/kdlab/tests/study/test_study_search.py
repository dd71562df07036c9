"""The searches on response surfaces whose optimum is known."""

import numpy as np
import pytest

from kdlab.study.trials import search
from kdlab.study.trials.space import (
    BALANCERS,
    DISTANCES,
    RECOMMENDED,
    SPACE,
    canonicalize,
    check,
    deduplicate,
    key,
    list_settings,
)

WORTH = {
    "alpha": {0.0: 0, 0.5: 3, 0.75: 5, 0.9: 4, 1.0: 1},
    "distance": {"ce": 0, "mse": 2},
    "tau_teacher": {1.0: 0, 2.0: 1, 4.0: 0.5},
    "tau_student": {1.0: 0, 2.0: 0.2, 4.0: 0.4},
    "teacher": {"t_hs": 0.7, "t_ll": 0},
    "balancer": {"fixed": 0},
}


def additive(setting):
    known = canonicalize(setting)
    return sum(WORTH[knob][value] for knob, value in known.items())


def counted(surface):
    """Returns the surface, and the list of evaluated settings."""
    asked = []

    def evaluate(settings):
        asked.extend(key(setting) for setting in settings)
        return [surface(setting) for setting in settings]

    return evaluate, asked


def best_of(surface):
    return max(surface(setting) for setting in list_settings(SPACE))


def test_greedy_finds_the_optimum_of_an_additive_surface_with_few_trials():
    evaluate, asked = counted(additive)
    found = search.search(search.greedy(SPACE, RECOMMENDED), evaluate)
    assert found.complete
    assert found.score == best_of(additive)
    assert len(asked) == len(set(asked)) == len(found.trials)
    assert len(asked) <= 0.3 * len(deduplicate(list_settings(SPACE)))


def test_greedy_misses_an_optimum_that_takes_two_changes_at_once():
    def interaction(setting):
        both = setting["distance"] == "mse", setting["teacher"] == "t_hs"
        return {0: 1.0, 1: 0.0, 2: 3.0}[sum(both)] - abs(setting["alpha"] - 0.9)

    evaluate, _ = counted(interaction)
    found = search.search(search.greedy(SPACE, RECOMMENDED), evaluate)
    assert found.complete
    assert found.score == 1.0
    whole = search.search(search.grid(SPACE), evaluate)
    assert whole.score == 3.0
    assert (whole.setting["distance"], whole.setting["teacher"]) == ("mse", "t_hs")


def test_greedy_repeats_its_passes_until_no_knob_improves():
    """Alpha helps only at a distance that is searched after it."""

    def surface(setting):
        mse = setting["distance"] == "mse"
        return (1 if mse else 0) + (setting["alpha"] == 0.5 and mse)

    evaluate, _ = counted(surface)
    found = search.search(search.greedy(SPACE, RECOMMENDED), evaluate)
    assert (found.setting["alpha"], found.setting["distance"]) == (0.5, "mse")


def test_greedy_keeps_the_start_among_equals():
    found = search.search(
        search.greedy(SPACE, RECOMMENDED), lambda settings: [1.0] * len(settings)
    )
    assert found.setting == RECOMMENDED


def test_the_grid_asks_for_every_training_once():
    evaluate, asked = counted(additive)
    found = search.search(search.grid(SPACE), evaluate)
    assert len(asked) == len(set(asked)) == len({key(p) for p in list_settings(SPACE)})
    assert found.score == best_of(additive)


@pytest.mark.parametrize("method", [search.random, search.tpe])
def test_samplers_stop_at_the_budget_and_repeat_themselves(method):
    runs = []
    for _ in range(2):
        evaluate, asked = counted(additive)
        found = search.search(method(SPACE, 0), evaluate, trials=20)
        assert len(found.trials) == 20
        assert not found.complete
        assert len(asked) == 20
        runs.append(asked)
    assert runs[0] == runs[1]


def test_tpe_learns_the_surface():
    scores = {
        method: np.mean(
            [
                search.search(
                    method(SPACE, seed), counted(additive)[0], trials=40
                ).score
                for seed in range(3)
            ]
        )
        for method in (search.random, search.tpe)
    }
    assert scores[search.tpe] > scores[search.random]


def test_a_sampler_ends_when_it_has_seen_all():
    space = SPACE | {"alpha": (0.5, 1.0), "tau_teacher": (1.0,), "tau_student": (1.0,)}
    found = search.search(search.random(space, 0), counted(additive)[0])
    assert found.complete
    assert len(found.trials) == len(deduplicate(list_settings(space))) == 8


def test_what_was_scored_before_the_budget_ended_is_kept():
    done = {key(RECOMMENDED): 1.0}

    def evaluate(settings):
        raise search.BudgetSpent(done)

    found = search.search(search.grid(SPACE), evaluate)
    assert found.trials == done
    assert not found.complete
    assert key(found.setting) == key(RECOMMENDED)


def test_a_canonical_setting_stays_as_it_is():
    spaces = [
        SPACE | {"balancer": (name,), "distance": DISTANCES} for name in BALANCERS
    ]
    for point in (point for space in spaces for point in list_settings(space)):
        assert canonicalize(canonicalize(point)) == canonicalize(point)


def test_equal_trainings_have_one_name():
    def same(a, b):
        return key(RECOMMENDED | a) == key(RECOMMENDED | b)

    assert same({"distance": "kl"}, {"distance": "ce"})
    assert same({"alpha": 0.0, "teacher": "t_hs"}, {"alpha": 0.0})
    assert same({"tau_student": "tied"}, {"tau_student": 1.0})
    dto_kd = {"balancer": "dto_kd"}
    assert same(dto_kd | {"alpha": 0.1}, dto_kd)
    assert not same(dto_kd | {"distance": "kl"}, dto_kd)
    assert not same({"balancer": "dynamic_lambda", "alpha": 0.0}, {"alpha": 0.0})
    tied = {"distance": "mse", "tau_student": "tied"}
    assert same(tied | {"tau_teacher": 4.0}, tied)
    assert not same({"tau_teacher": 4.0}, {"tau_teacher": 2.0})


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("distance", "l1", "choose ce, kl, mse"),
        ("teacher", "best", "choose t_hs, t_ll"),
        ("balancer", "sum", "choose fixed, dynamic_lambda, min_norm, dto_kd, dot"),
        ("alpha", 1.5, "must lie in"),
        ("tau_student", "free", "or 'tied'"),
        ("tau_teacher", 0.0, "positive"),
    ],
)
def test_wrong_values_are_named_with_the_right_ones(knob, value, message):
    with pytest.raises(ValueError, match=message):
        check(SPACE | {knob: (value,)})


def test_a_knob_needs_values():
    with pytest.raises(ValueError, match="--tau-teacher needs"):
        check(SPACE | {"tau_teacher": ()})
