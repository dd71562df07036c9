"""The numbers behind the figures, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kdopt
from kdlab.minima import kim
from kdlab.minima.landscape import draw_direction, evaluate, move
from kdlab.minima.sharpness import largest_eigenvalues

pytestmark = pytest.mark.usefixtures("standard")


@pytest.fixture(scope="module")
def net():
    """Makes a 2 x 3 x 3 network, its losses and ten examples in two batches."""
    keys = jax.random.split(jax.random.key(0), 6)
    params = {
        "conv": jax.random.normal(keys[0], (1, 1, 2, 3)),
        "bias": jnp.ones(3),
        "dense": jax.random.normal(keys[1], (3, 3)),
    }

    def losses(params, batch):
        x, labels, teacher = batch
        hidden = jnp.tanh(jnp.einsum("nd,abdh->nh", x, params["conv"]) + params["bias"])
        logits = hidden @ params["dense"]
        task = kdopt.losses.cross_entropy(logits, labels)
        return jnp.stack([task, kdopt.losses.kd(logits, teacher, temperature=4.0)])

    x = jax.random.normal(keys[2], (10, 2))
    labels = jnp.arange(10) % 3
    teacher = 4 * jax.random.normal(keys[3], (10, 3))
    data = x, labels, teacher
    batches = [
        (0.6, jax.tree.map(lambda a: a[:6], data)),
        (0.4, jax.tree.map(lambda a: a[6:], data)),
    ]
    return params, losses, data, batches


def test_filters_of_a_direction_are_as_long_as_those_of_the_network(net):
    params = net[0]
    direction = draw_direction(jax.random.key(1), params)
    for name in ("conv", "dense"):
        np.testing.assert_allclose(
            jnp.linalg.norm(direction[name].reshape(-1, 3), axis=0),
            jnp.linalg.norm(params[name].reshape(-1, 3), axis=0),
            rtol=1e-5,
        )
    assert not direction["bias"].any()


def test_landscape_at_the_origin_is_the_loss(net):
    params, losses, data, batches = net
    directions = [draw_direction(jax.random.key(i), params) for i in range(2)]
    points = np.array([[0.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
    got = evaluate(losses, params, directions, points, batches)
    assert got.shape == (3, 2)
    np.testing.assert_allclose(got[0], losses(params, data), rtol=1e-5)
    there = move(params, directions, jnp.array([0.5, -1.0]))
    np.testing.assert_allclose(got[1], losses(there, data), rtol=1e-5)


def test_points_beyond_the_number_of_devices_are_evaluated_in_groups(net):
    params, losses, _, batches = net
    direction = [draw_direction(jax.random.key(0), params)]
    points = np.linspace(-1, 1, 2 * jax.local_device_count() + 3)[:, None]
    got = evaluate(losses, params, direction, points, batches)
    ends = evaluate(losses, params, direction, points[[0, -1]], batches)
    assert got.shape == (len(points), 2)
    np.testing.assert_allclose(got[[0, -1]], ends, rtol=1e-5)


def test_lanczos_against_the_dense_hessian(net):
    params, losses, data, batches = net
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.jit(jax.hessian(lambda x: losses(unravel(x), data)[0]))(flat)
    expected = np.linalg.eigvalsh(np.asarray(dense, np.float64))[::-1][:2]
    got = largest_eigenvalues(
        lambda params, batch: losses(params, batch)[0], params, batches, count=2
    )
    np.testing.assert_allclose(got, expected, rtol=2e-3)


def test_sampled_gradients_have_the_lengths_and_angles_that_were_drawn():
    grams, angles = kim.sample_grams(jax.random.key(0), 1000, kim.OBTUSE)
    norms = jnp.sqrt(jnp.diagonal(grams, axis1=1, axis2=2))
    assert norms.min() >= kim.SHORTEST and norms.max() <= kim.LONGEST
    cosines = grams[:, 0, 1] / norms[:, 0] / norms[:, 1]
    np.testing.assert_allclose(cosines, jnp.cos(angles), atol=1e-5)
    assert np.pi / 2 <= angles.min() and angles.max() <= np.pi


@pytest.mark.parametrize(("angles", "share"), [(kim.ACUTE, 0.364), (kim.OBTUSE, 1.0)])
def test_share_of_interior_vertices(angles, share):
    count = 20_000
    grams, _ = kim.sample_grams(jax.random.key(0), count, angles)
    error = np.sqrt(share * (1 - share) / count)
    assert abs(kim.interior_share(grams) - share) <= 4 * error + 5e-4  # .364 is rounded


def test_decreases_are_squared_lengths_of_the_combination():
    grams, _ = kim.sample_grams(jax.random.key(0), 3, kim.ACUTE)
    got = kim.decreases(grams, np.array([0.0, 0.25, 1.0]))
    w = np.array([0.75, 0.25])
    np.testing.assert_allclose(got[:, 0], grams[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(got[:, 1], [w @ g @ w for g in np.asarray(grams)], 1e-5)
    np.testing.assert_allclose(got[:, 2], grams[:, 1, 1], rtol=1e-5)
