"""A teacher's cached outputs are what it would compute every time."""

import jax
import numpy as np
import pytest

from _students import order, students
from kdlab.experiment.cached_logits import can_cache
from kdlab.experiment.make import make_config
from kdlab.losses.table import LOSSES

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture
def still(tmp_path):
    """Makes students whose images are not augmented."""

    def make(**settings):
        return students(augment="none", runs=tmp_path, **settings)

    return make


def test_a_step_is_the_same(still):
    metrics = []
    for cached in (True, False):
        pupils = still(cache_teacher=cached)
        job, plan = pupils.run("kd", 0), pupils.plan("kd")
        assert (job.cached_logits is not None) == cached
        teacher = job.cached_logits or pupils.problem.teacher
        data = pupils.problem.layout.replicate(job.train)
        state, batch = pupils.state(plan, 0), next(order(pupils, 0))
        after, seen = pupils.step(plan)(state, data, teacher, *batch)
        metrics.append((seen, after.params))
    close = dict(rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **close), *metrics)


def test_what_it_said_is_read_again(still, monkeypatch):
    first = still().run("kd", 0).cached_logits.logits
    monkeypatch.setattr(
        "kdlab.experiment.cached_logits.iterate_once", None
    )  # so it cannot ask
    np.testing.assert_array_equal(still().run("kd", 0).cached_logits.logits, first)
    with pytest.raises(TypeError):
        still().run("kd", 1)  # with other images


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"augment": "shift"}, False),
        ({"loss": "at"}, False),
        ({"loss": "ctkd"}, True),
        ({"cache_teacher": False}, False),
        ({"dataset": "stream:tiny_imagenet", "labels": None, "noise": 0}, False),
        ({"mixup": 0.8}, False),
        ({"erasing": 0.25}, False),
        ({"smoothing": 0.1}, True),
        ({"loss": "masked_kd"}, False),
    ],
)
def test_when_it_is_valid(still, change, valid):
    assert can_cache(make_config(still().config, **change)) is valid


ON_LOGITS = [k for k, v in LOSSES.items() if v.on_logits and not v.asks_teacher]


@pytest.mark.parametrize("loss", ON_LOGITS)
def test_losses_on_logits_look_at_nothing_else_of_the_teacher(loss, still):
    pupils = still(loss=loss)
    job, plan = pupils.run("kd", 0), pupils.plan("kd")
    arguments = (
        pupils.state(plan, 0),
        job.train,
        job.cached_logits,
        *next(order(pupils, 0)),
    )
    jax.eval_shape(pupils.step(plan), *arguments)
