"""monitor: averages without bias."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import kdopt
from tests.balancers._inputs import first_step
from tests.wrappers._trees import PARAMS, draw


def test_monitor_averages_without_bias():
    tx = kdopt.monitor(kdopt.min_norm(), names=("task", "kd"), decay=0.9)
    state, rows = jax.jit(tx.init)(PARAMS), []
    update, gram = jax.jit(tx.update), jax.jit(kdopt.gram)
    for seed in range(5):
        grads = draw(seed)
        _, state = update(grads, state, PARAMS)
        matrix = np.asarray(gram(grads))
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
    bad = jax.tree.map(lambda x: x * np.float32(np.nan), grads)
    _, after = update(bad, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, after.metrics, metrics)


def test_monitor_around_dot_has_no_weights():
    tx = kdopt.monitor(kdopt.dot())
    _, state = jax.jit(tx.update)(draw(0), jax.jit(tx.init)(PARAMS), PARAMS)
    assert "weight/task" not in state.metrics
    assert state.metrics["norm/distill"] > 0
    assert optax.tree.get((state, ()), "metrics") is state.metrics


def test_monitor_counts_steps_on_which_a_loss_is_dropped():
    """Of two parallel gradients the least-norm point takes the shorter one alone."""
    tx = kdopt.monitor(kdopt.min_norm(), decay=0.5)
    short, long = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([3.0, 3.0])}
    update = jax.jit(tx.update)
    _, state = update((short, long), jax.jit(tx.init)(short))
    _, state = update((long, short), state)
    np.testing.assert_allclose(state.metrics["dropped_rate/distill"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(state.metrics["dropped_rate/task"], 2 / 3, rtol=1e-6)


def test_monitor_of_five_losses():
    tx = kdopt.monitor(kdopt.min_norm(num_losses=5), num_losses=5)
    grads = tuple({"w": np.arange(i, i + 3, dtype=np.float32)} for i in range(5))
    _, state = first_step(tx, grads)
    assert state.metrics["norm/distill_4"] > 0


def test_monitor_leaves_out_what_is_undefined_without_a_loss():
    tx = kdopt.monitor(kdopt.min_norm(), decay=0.5)
    update = jax.jit(tx.update)
    grads = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([1.0, -3.0])}
    _, before = update(grads, jax.jit(tx.init)(grads[0]))
    broken = grads[0], {"w": jnp.array([jnp.nan, jnp.nan])}
    _, after = update(broken, before, present=[True, False])
    for key in ("conflict/distill", "norm/distill", "weight/distill", "stationarity"):
        assert after.metrics[key] == before.metrics[key]
        assert after.counts[key] == 1
    assert after.counts["norm/task"] == 2
    assert np.isfinite(list(after.metrics.values())).all()
