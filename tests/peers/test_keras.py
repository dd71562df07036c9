"""Inside Keras's distiller: the example, and Keras's own loss for fixed weights."""

import os
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import kdopt

os.environ.setdefault("KERAS_BACKEND", "jax")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", "3.12")
    from keras.distillation import Distiller

    from examples import keras_distiller as example

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("standard"),
]


class Fixed(example.BalancedDistiller):
    """Weights of 0.3 and 0.7 by the way of the balanced scalar."""

    balancer = kdopt.from_weights(lambda gram: jnp.array([0.3, 0.7], gram.dtype))


def test_training_is_that_of_keras_where_weights_are_fixed():
    teacher = example.train_teacher()
    before = teacher.get_weights()
    ours = example.distil(Fixed, teacher)
    theirs = example.distil(Distiller, teacher, student_loss_weight=0.3)
    for one, other in zip(
        ours.student.get_weights(), theirs.student.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    ours, theirs = (
        distiller.evaluate(*example.draw(64, 3), verbose=0, return_dict=True)
        for distiller in (ours, theirs)
    )
    for name in ("student_loss", "distillation_loss", "total_loss"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_balanced_training_lowers_both_losses():
    teacher, data = example.train_teacher(), example.draw(256, 1)
    losses = [
        example.distil(example.BalancedDistiller, teacher, epochs=epochs).evaluate(
            *data, verbose=0, return_dict=True
        )
        for epochs in (1, 20)
    ]
    for name in ("student_loss", "distillation_loss"):
        assert losses[1][name] < 0.9 * losses[0][name]
