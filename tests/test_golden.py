"""Golden values and closed forms, in float64: published numbers and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from tests import _samplers

pytestmark = pytest.mark.usefixtures("x64", "standard")

# megvii-research/mdistiller a08d46f, mdistiller/engine/dot.py, run in float64. Rows are
# [s0, s1, t, k] after steps 1, 2, 3; s is shared, t task-only, k distillation-only.
DOT_TRAJECTORIES = {
    (0.0, 0.0): [
        [0.85, -1.5, 0.35, -1.15],
        [0.61375, -0.6525, 0.095, -0.57],
        [0.36840625, 0.3314375, -0.205375, 0.07425],
    ],
    (0.0, 0.1): [
        [0.85, -1.5, 0.35, -1.15],
        [0.625, -0.6915, 0.107, -0.5965],
        [0.3913825, 0.243825, -0.17758, 0.01757],
    ],
    (0.05, 0.0): [
        [0.845, -1.49, 0.3475, -1.15],
        [0.6014, -0.6283, 0.0892625, -0.56525],
        [0.34944925, 0.366314, -0.2126638125, 0.08320625],
    ],
    (0.05, 0.1): [
        [0.845, -1.49, 0.3475, -1.15],
        [0.6129725, -0.667895, 0.10136125, -0.592225],
        [0.3729638862, 0.2780207275, -0.1849097881, 0.0258483125],
    ],
}


def dot_losses(p):
    s, t, k = p["s"], p["t"], p["k"]
    task = 0.5 * jnp.sum(s**2) + s[0] * t + 0.5 * t**2
    distill = 0.25 * jnp.sum((s - 1) ** 2) + s[1] * k + 0.5 * k**2
    return task, distill


@pytest.mark.parametrize(("decay", "dampening"), DOT_TRAJECTORIES)
def test_dot_follows_the_reference(decay, dampening):
    reach = (
        {"s": True, "t": True, "k": False},
        {"s": True, "t": False, "k": True},
    )
    # The reference does not decay a distillation-only parameter on its first step.
    late = optax.inject_hyperparams(optax.add_decayed_weights, static_args=("mask",))(
        lambda count: jnp.where(count == 0, 0.0, decay),
        mask={"s": False, "t": False, "k": True},
    )
    tx = optax.chain(
        kdopt.each(optax.add_decayed_weights(decay, mask=reach[0]), late),
        kdopt.dot(0.9, 0.075, dampening=dampening, reach=reach),
        optax.scale_by_learning_rate(0.1),
    )
    params = {"s": jnp.array([1.0, -2.0]), "t": jnp.array(0.5), "k": jnp.array(-1.5)}
    state, grad_fn = tx.init(params), kdopt.value_and_grads(dot_losses)

    @jax.jit
    def step(params, state):
        values, grads = grad_fn(params)
        updates, state = tx.update(grads, state, params, values=values)
        return optax.apply_updates(params, updates), state

    for row in DOT_TRAJECTORIES[decay, dampening]:
        params, state = step(params, state)
        got = [*params["s"], params["t"], params["k"]]
        np.testing.assert_allclose(got, row, rtol=1e-10, atol=6e-11)


dto_kd_weights = jax.jit(kdopt.dto_kd_weights, static_argnames="simplex")
harm_free_interval = jax.jit(kdopt.harm_free_interval)
lambda_roots = jax.jit(kdopt.lambda_roots)
lambda_vertex = jax.jit(kdopt.lambda_vertex)
loss_decrease = jax.jit(kdopt.loss_decrease)
min_norm_weights = jax.jit(kdopt.min_norm_weights)


def random_grams(count, seed=0):
    """Grams of two gradients whose norms differ by up to 100 and any angle."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = rng.normal(size=(2, 3)) * 10 ** rng.uniform(-1, 1, size=(2, 1))
        yield rows, rows @ rows.T


def test_decrease_is_the_squared_norm_of_the_update():
    for rows, gram in random_grams(20):
        for lam in (0.0, 0.3, 1.0):
            update = (1 - lam) * rows[0] + lam * rows[1]
            got = loss_decrease(gram, lam)
            np.testing.assert_allclose(got, update @ update, rtol=1e-10)


def test_vertex_is_the_least_decrease_and_decreases_both_equally():
    for rows, gram in random_grams(20):
        lam = float(lambda_vertex(gram))
        near = loss_decrease(gram, lam + np.linspace(-1, 1, 201))
        assert np.argmin(near) == 100
        update = (1 - lam) * rows[0] + lam * rows[1]
        falls = rows @ update
        np.testing.assert_allclose(falls[0], falls[1], rtol=1e-8)
        a, b, c = gram[1, 1], gram[0, 0], gram[0, 1]
        least = (a * b - c**2) / (a + b - 2 * c)
        np.testing.assert_allclose(loss_decrease(gram, lam), least, rtol=1e-8)


def test_harm_free_interval_against_brute_force():
    grid = np.linspace(0, 1, 2001)
    for rows, gram in random_grams(40):
        low, high = map(float, harm_free_interval(gram))
        updates = np.outer(1 - grid, rows[0]) + np.outer(grid, rows[1])
        harmless = grid[np.all(updates @ rows.T >= 0, axis=1)]
        assert len(harmless)
        np.testing.assert_allclose([low, high], harmless[[0, -1]], atol=5.1e-4)


def test_roots_reach_the_target():
    for _, gram in random_grams(20):
        vertex = np.asarray(lambda_vertex(gram))
        target = 1.5 * np.asarray(loss_decrease(gram, vertex))
        low, high = lambda_roots(gram, target)
        assert low < vertex < high
        for root in (low, high):
            got = loss_decrease(gram, root)
            np.testing.assert_allclose(got, target, rtol=1e-9)
        assert np.all(np.isnan(lambda_roots(gram, target / 2)))


def test_dto_kd_clips_pi_and_not_lambda():
    """Clipping the ratio of the raw weights would go to the wrong end.

    |g_dist|^2 = 1, |g_task|^2 = 4, inner product 2, losses 1 and 10: pi of the
    distillation loss is -1/4, so its weight must be 0; the ratio is +2.
    """
    gram, values = np.array([[4.0, 2.0], [2.0, 1.0]]), np.array([10.0, 1.0])
    literal = np.asarray(dto_kd_weights(gram, values, simplex=False))
    np.testing.assert_allclose(literal, [1.25 / 10, -0.25], rtol=1e-12)
    np.testing.assert_allclose(literal[1] / np.sum(literal), 2, rtol=1e-12)
    clipped = dto_kd_weights(gram, values)
    np.testing.assert_allclose(clipped, [0.1, 0.0], rtol=1e-12)


@pytest.mark.parametrize("simplex", [True, False])
def test_only_the_literal_theorem_stalls_on_parallel_gradients(simplex):
    rows = np.array([[2.0, 0.0], [4.0, 0.0]])
    gram, values = rows @ rows.T, np.ones(2)
    weights = np.asarray(dto_kd_weights(gram, values, simplex=simplex))
    update = weights @ rows
    if simplex:
        np.testing.assert_allclose(weights, [1, 0], atol=1e-12)
        np.testing.assert_allclose(update, rows[0], rtol=1e-12)
    else:
        np.testing.assert_allclose(weights, [2, -1], rtol=1e-12)
        np.testing.assert_allclose(update, 0, atol=1e-12)


def test_bounds_on_the_length_of_the_min_norm_point():
    """No longer than the shorter gradient; without conflict at least 1/sqrt(2) of it.

    The lower bound, which the paper's Corollary 3.4 states for all gradients, fails
    under conflict: two unit vectors at 120 degrees have a min-norm point of length 1/2.
    """
    for rows, gram in random_grams(40):
        length = np.linalg.norm(np.asarray(min_norm_weights(gram)) @ rows)
        shorter = np.min(np.linalg.norm(rows, axis=1))
        assert length <= shorter * (1 + 1e-12)
        if gram[0, 1] >= 0:
            assert length >= shorter / np.sqrt(2) * (1 - 1e-12)
    for degrees, expected in ((120, 0.5), (150, 0.2588190451), (175, 0.0436193874)):
        angle = np.deg2rad(degrees)
        rows = np.array([[1, 0], [np.cos(angle), np.sin(angle)]])
        update = np.asarray(min_norm_weights(rows @ rows.T)) @ rows
        np.testing.assert_allclose(np.linalg.norm(update), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [3, 4])
def test_min_norm_beats_every_feasible_point(k):
    points = np.random.default_rng(0).dirichlet(np.full(k, 0.5), size=4000)
    points = np.vstack([points, np.eye(k)])
    for kind in ("generic", "conflicting", "parallel", "opposite", "rank_deficient"):
        for seed in range(4):
            rows = _samplers.KINDS[kind](seed, k)
            best = np.linalg.norm(np.asarray(min_norm_weights(rows @ rows.T)) @ rows)
            others = np.linalg.norm(points @ rows, axis=1)
            assert best <= np.min(others) + 1e-9, kind


def test_min_norm_of_three_by_a_fine_grid():
    i, j = np.meshgrid(np.arange(201), np.arange(201))
    grid = np.stack([i, j, 200 - i - j], axis=-1).reshape(-1, 3) / 200
    grid = grid[grid[:, 2] >= 0]
    for seed in range(4):
        rows = _samplers.generic(seed, 3)
        weights = min_norm_weights(rows @ rows.T)
        nearest = grid[np.argmin(np.linalg.norm(grid @ rows, axis=1))]
        np.testing.assert_allclose(weights, nearest, atol=0.011)
