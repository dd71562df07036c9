"""Students of a few thousand weights, made in a second, for tests of the trainer."""

import functools

from flax import nnx

from kdlab.data import batches, load
from kdlab.experiment.make import make_config
from kdlab.experiment.networks import make_model
from kdlab.experiment.students import Students, Teacher
from kdlab.models.network import Network
from kdlab.train.fit import fit

SETTINGS = {
    "dataset": "digits",
    "augment": "shift",
    "teacher": "mlp",
    "student": "mlp",
    "labels": 60,
    "batch_size": 16,  # so that the last batch of an epoch is padded
    "epochs": 2,
    "learning_rate": 0.1,
    "timing_rounds": 0,
}


@functools.cache
def teacher():
    """Makes up a teacher's outputs: what it teaches does not matter here."""
    dataset = load("digits")
    return Teacher(Network.of(make_model("mlp", dataset, nnx.Rngs(7))), dataset)


def students(**settings):
    return Students(make_config(**(SETTINGS | settings)), teacher())


def train(students, method="kd", steps=3, seed=0):
    """Returns the state after some steps, and the metrics of each."""
    plan, problem = students.plan(method), students.problem
    step, state = compiled(students, method), students.state(plan, seed)
    data = problem.layout.replicate(students.data(seed))
    metrics = []
    for _, batch in zip(range(steps), order(students, seed), strict=False):
        state, seen = step(state, data, problem.teacher, *batch)
        metrics.append({name: float(value) for name, value in seen.items()})
    return state, metrics


def order(students, seed):
    """Returns the batches of the first epoch."""
    size = students.data(seed).size
    return batches(size, students.config.training.batch_size, seed=seed)


@functools.cache
def compiled(students, method):
    return students.step(students.plan(method))


def fitted(students, directory, method="kd", *, wrap=lambda step: step):
    """Trains to the end, or until the wrapped step fails; returns the records."""
    run = students.run(method, 0)._replace(directory=directory)
    state = students.state(students.plan(method), 0)
    step = wrap(compiled(students, method))
    return list(fit(run, students.problem, step, state))
