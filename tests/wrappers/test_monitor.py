"""monitor: averages without bias."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt

PARAMS = {"head": jnp.zeros(2), "trunk": jnp.zeros((2, 2))}


def _grads(seed, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    return tuple(
        {
            "head": jax.random.normal(keys[i], (2,), dtype),
            "trunk": jax.random.normal(keys[i + 2], (2, 2), dtype),
        }
        for i in range(2)
    )


def test_monitor_averages_without_bias():
    tx = kdopt.monitor(kdopt.min_norm(), names=("task", "kd"), decay=0.9)
    state, rows = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for seed in range(5):
        grads = _grads(seed)
        _, state = update(grads, state, PARAMS)
        matrix = kdopt.gram(grads)
        rows.append((matrix[0, 1] < 0, matrix[1, 1] > matrix[0, 0], matrix[0, 0]))
    shares = 0.9 ** np.arange(4, -1, -1)
    shares /= shares.sum()
    conflict, dominance, squares = (np.array(x, float) for x in zip(*rows, strict=True))
    metrics = state.metrics
    np.testing.assert_allclose(metrics["conflict/kd"], shares @ conflict, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["dominance_rate/kd"], shares @ dominance, rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics["norm/task"], shares @ np.sqrt(squares), rtol=1e-5
    )
    bad = jax.tree.map(lambda x: x * jnp.nan, grads)
    _, after = tx.update(bad, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, after.metrics, metrics)


def test_monitor_around_dot_has_no_weights():
    tx = kdopt.monitor(kdopt.dot())
    _, state = tx.update(_grads(0), tx.init(PARAMS), PARAMS)
    assert "weight/task" not in state.metrics
    assert state.metrics["norm/distill"] > 0
    assert optax.tree.get((state, ()), "metrics") is state.metrics


def test_monitor_counts_steps_on_which_a_loss_is_dropped():
    """Of two parallel gradients the least-norm point takes the shorter one alone."""
    tx = kdopt.monitor(kdopt.min_norm(), decay=0.5)
    short, long = {"w": jnp.ones(2)}, {"w": 3 * jnp.ones(2)}
    _, state = tx.update((short, long), tx.init(short))
    _, state = tx.update((long, short), state)
    np.testing.assert_allclose(state.metrics["dropped_rate/distill"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(state.metrics["dropped_rate/task"], 2 / 3, rtol=1e-6)


def test_monitor_of_five_losses():
    tx = kdopt.monitor(kdopt.min_norm(num_losses=5), num_losses=5)
    grads = tuple({"w": jnp.arange(i, i + 3.0)} for i in range(5))
    _, state = tx.update(grads, tx.init(grads[0]))
    assert state.metrics["norm/distill_4"] > 0


def test_monitor_leaves_out_what_is_undefined_without_a_loss():
    tx = kdopt.monitor(kdopt.min_norm(), decay=0.5)
    grads = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, -3.0])}
    _, before = tx.update(grads, tx.init(grads[0]))
    broken = grads[0], {"w": jnp.full(2, jnp.nan)}
    _, after = tx.update(broken, before, present=[True, False])
    for key in ("conflict/distill", "norm/distill", "weight/distill", "stationarity"):
        assert after.metrics[key] == before.metrics[key]
        assert after.counts[key] == 1
    assert after.counts["norm/task"] == 2
    assert np.isfinite(list(after.metrics.values())).all()
