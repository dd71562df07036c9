"""How kdopt works with the rest of Optax and the ways to hold a state.

Every row of the table in docs/compatibility.md is a function here: its docstring is the
advice, its body the proof. ``python -m tests.test_compatibility`` writes the page.
"""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdopt
from kdopt._transform import check_num_losses

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "compatibility.md"
PARAMS = {"b": jnp.array([0.5]), "w": jnp.array([1.0, -2.0])}
MASK = {"b": False, "w": True}
WORKS, INSTEAD, ERROR = "works", "use kdopt's", "clear error"
ROWS: list[tuple[str, str, Callable[[], None]]] = []


def row(what: str, verdict: str) -> Callable:
    def add(check: Callable[[], None]) -> Callable[[], None]:
        ROWS.append((what, verdict, check))
        return check

    return add


def _losses(params):
    task = jnp.sum((params["w"] - 1) ** 2) + jnp.sum(params["b"] ** 2)
    return task, 3 * jnp.sum((params["w"] + params["b"]) ** 2)


def _value(params):
    return sum(_losses(params))


def _both(params):
    _, grads = kdopt.value_and_grads(_losses)(params)
    return grads


def _balanced(params):
    grads = _both(params)
    return kdopt.combine(grads, kdopt.min_norm_weights(kdopt.gram(grads)))


def _train(tx, gradients, steps=4, extra=lambda params: {}):
    @jax.jit
    def step(params, state):
        updates, state = tx.update(gradients(params), state, params, **extra(params))
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def _close(x, y):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), x, y)


def _same(tx, plain, **options):
    """`tx` on two gradients does what `plain` does on the balanced one."""
    trained = _train(tx, _both, **options)
    _close(trained, _train(plain, _balanced, **options))
    assert not np.allclose(trained["w"], PARAMS["w"])


def _refused(tx, match=None):
    """Checks that it raises, and does not continue with something else."""
    with pytest.raises((ValueError, TypeError, AttributeError), match=match):
        _train(tx, _both, steps=2)


B = kdopt.min_norm()


@row("`chain(balancer, tx)`, `named_chain`", WORKS)
def check_chain():
    """The balancer comes first; what follows sees one tree."""
    _same(optax.chain(B, optax.adam(0.1)), optax.adam(0.1))
    named = optax.named_chain(("balance", B), ("adam", optax.adam(0.1)))
    _same(named, optax.adam(0.1))


@row("`inject_hyperparams(kdopt.dot)(momentum=schedule)`", WORKS)
def check_inject():
    """`num_losses` sets shapes: name it in `static_args`."""

    def schedule(count):
        return 0.5 + 0.1 * count

    injected = optax.inject_hyperparams(kdopt.dot)(momentum=schedule, delta=0.1)
    lr = optax.scale_by_learning_rate(0.02)
    expected = _train(optax.chain(kdopt.dot(schedule, 0.1), lr), _both)
    _close(_train(optax.chain(injected, lr), _both), expected)
    _refused(optax.inject_hyperparams(kdopt.min_norm)(num_losses=2))
    with pytest.raises(ValueError, match="static_args"):
        check_num_losses(jnp.asarray(2))
    static = optax.inject_hyperparams(kdopt.min_norm, static_args=("num_losses",))
    _same(optax.chain(static(num_losses=2), optax.sgd(0.1)), optax.sgd(0.1))


@row("`masked(balancer, mask)`", INSTEAD)
def check_masked():
    """`kdopt.restrict(balancer, mask)`; `masked` after the balancer works."""
    _refused(optax.masked(B, MASK))
    decay = optax.masked(optax.add_decayed_weights(0.1), MASK)
    lr = optax.sgd(0.1)
    _same(optax.chain(B, decay, lr), optax.chain(decay, lr))

    def restricted(params):
        grads = _both(params)
        summed = jax.tree.map(jnp.add, *grads)
        trunk = tuple(g["w"] for g in grads)
        weights = kdopt.min_norm_weights(kdopt.gram(trunk))
        return summed | {"w": kdopt.combine(trunk, weights)}

    tx = optax.chain(kdopt.restrict(B, MASK), lr)
    _close(_train(tx, _both), _train(lr, restricted))


@row(
    "`partition`, `multi_transform` of balancers, `({...: balancer}, labels)`", INSTEAD
)
def check_partition():
    """`kdopt.partition` or `kdopt.per_layer`; `partition` after the balancer works."""
    labels = {"b": "slow", "w": "fast"}
    for grouped in (optax.partition, optax.multi_transform):
        _refused(grouped({"slow": B, "fast": B}, labels))
        _refused(grouped({"slow": B, "fast": B}, lambda params: labels))
        rates = grouped({"slow": optax.sgd(0.01), "fast": optax.sgd(0.1)}, labels)
        _same(optax.chain(B, rates), rates)
    tx = kdopt.partition({"slow": kdopt.linear([1.0, 0.0]), "fast": B}, labels)
    assert not np.allclose(_train(tx, _both)["b"], PARAMS["b"])


@row("`kdopt.guard(chain(balancer, tx))`", WORKS)
def check_guard():
    """Around the chain with its learning rate; inside `kdopt.accumulate`."""
    chain = optax.chain(B, optax.adam(0.1))
    guarded, extra = kdopt.guard(chain), {"values": jnp.ones(2)}
    grads, state = _both(PARAMS), guarded.init(PARAMS)
    update, state = jax.jit(guarded.update)(grads, state, PARAMS, **extra)
    for grad in grads:
        assert optax.tree.vdot(grad, update) <= 1e-6
    summed = kdopt.accumulate(guarded, 1)
    again = jax.jit(summed.update)
    update_2, _ = again(grads, summed.init(PARAMS), PARAMS, **extra)
    _close(update, update_2)
    outer = optax.chain(guarded, optax.add_decayed_weights(-0.1))
    _train(outer, _both)


@row("`MultiSteps(chain(balancer, tx), k)`", INSTEAD)
def check_multi_steps():
    """`kdopt.accumulate(chain(balancer, tx), k)`; after the balancer it works."""
    _refused(optax.MultiSteps(optax.chain(B, optax.sgd(0.1)), 2))
    behind = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    _same(optax.chain(B, behind), behind)
    tx = kdopt.accumulate(optax.chain(B, optax.sgd(0.1)), 2)
    _close(_train(tx, _both, steps=4), _train(optax.sgd(0.1), _balanced, steps=2))


@row("`apply_if_finite(chain(balancer, tx), n)`", INSTEAD)
def check_apply_if_finite():
    """`kdopt.skip_nonfinite(chain(balancer, tx), n)`; after the balancer it works."""
    _refused(optax.apply_if_finite(optax.chain(B, optax.sgd(0.1)), 3))
    behind = optax.apply_if_finite(optax.adam(0.1), 3)
    _same(optax.chain(B, behind), behind)
    tx = kdopt.skip_nonfinite(optax.chain(B, optax.adam(0.1)), 3)
    _same(tx, optax.adam(0.1))


@row("`conditionally_transform`, `conditionally_mask` around a balancer", INSTEAD)
def check_conditionally():
    """`kdopt.every(balancer, n)` for every n-th step; after the balancer they work."""

    def even(step):
        return step % 2 == 0

    _refused(optax.conditionally_transform(B, even))
    _refused(optax.conditionally_mask(optax.chain(B, optax.sgd(0.1)), even))
    for wrapper in (optax.conditionally_transform, optax.conditionally_mask):
        behind = wrapper(optax.sgd(0.1), even)
        _same(optax.chain(B, behind), behind)
    _same(optax.chain(kdopt.every(B, 1), optax.sgd(0.1)), optax.sgd(0.1))


@row("`flatten(balancer)`", INSTEAD)
def check_flatten():
    """Nothing: balancers make no flat copy. `flatten` after the balancer works."""
    _refused(optax.flatten(B))
    _same(optax.chain(B, optax.flatten(optax.adam(0.1))), optax.adam(0.1))


@row("`contrib.schedule_free(chain(balancer, tx), lr)`", WORKS)
def check_schedule_free():
    """Around the chain."""

    def around(tx):
        return optax.contrib.schedule_free(tx, 0.1)

    _same(around(optax.chain(B, optax.sgd(0.1))), around(optax.sgd(0.1)))


@row("`lookahead(chain(balancer, tx), ...)`", WORKS)
def check_lookahead():
    """Around the chain, for balancers that need no `values`: it does not pass them."""

    def trained(tx, gradients):
        tx = optax.lookahead(tx, sync_period=2, slow_step_size=0.5)
        params = optax.LookaheadParams.init_synced(PARAMS)
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(gradients(params.fast), state, params)
            params = optax.apply_updates(params, updates)
        return params

    chained = trained(optax.chain(B, optax.sgd(0.1)), _both)
    _close(chained, trained(optax.sgd(0.1), _balanced))
    with pytest.raises(TypeError, match="values"):
        tx = optax.lookahead(optax.chain(kdopt.dto_kd(), optax.sgd(0.1)), 2, 0.5)
        params = optax.LookaheadParams.init_synced(PARAMS)
        tx.update(_both(PARAMS), tx.init(params), params, values=(1.0, 2.0))


@row("`contrib.sam(chain(balancer, tx), chain(balancer, adversary))`", WORKS)
def check_sam():
    """Both optimisers begin with a balancer that needs no `values`."""
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))

    def around(*first):
        one = optax.chain(*first, optax.sgd(0.1))
        return optax.contrib.sam(one, optax.chain(*first, adversary))

    _same(around(B), around())
    _refused(optax.contrib.sam(optax.chain(B, optax.sgd(0.1)), adversary))


@row("`freeze(mask)`, `selective_transform`", WORKS)
def check_freeze():
    """After the balancer, which includes what is frozen; `kdopt.restrict` does not."""
    mask = {"b": True, "w": False}
    frozen = optax.freeze(mask)
    selective = optax.selective_transform(optax.sgd(0.1), freeze_mask=mask)
    for tx, plain in (
        (optax.chain(B, optax.sgd(0.1), frozen), optax.chain(optax.sgd(0.1), frozen)),
        (optax.chain(B, selective), selective),
    ):
        _same(tx, plain)
        np.testing.assert_array_equal(_train(tx, _both)["b"], PARAMS["b"])
    _refused(optax.chain(frozen, B))
    grads = _both(PARAMS)

    def weights(balancer):
        tx = optax.chain(balancer, optax.freeze({"b": False, "w": True}))
        return kdopt.loss_weights(tx.update(grads, tx.init(PARAMS), PARAMS)[1])

    counted, trained = kdopt.gram(grads), kdopt.gram(tuple(g["b"] for g in grads))
    restricted = weights(kdopt.restrict(kdopt.imtl_g(), {"b": True, "w": False}))
    _close(weights(kdopt.imtl_g()), kdopt.imtl_g_weights(counted))
    _close(restricted, kdopt.imtl_g_weights(trained))
    assert np.abs(weights(kdopt.imtl_g()) - restricted).max() > 0.01


@row("`ema(decay)`", WORKS)
def check_ema():
    """After the balancer; each gradient: `kdopt.each`; the weights: `kdopt.ema`."""
    average = optax.ema(0.9)
    _same(optax.chain(B, average, optax.sgd(0.1)), optax.chain(average, optax.sgd(0.1)))
    _refused(optax.chain(average, B))
    each = optax.chain(kdopt.each(average, average), B, optax.sgd(0.1))
    grads = _both(PARAMS)
    update, _ = each.update(grads, each.init(PARAMS), PARAMS)
    # The first average is the gradient itself, as Optax corrects its bias.
    _close(update, jax.tree.map(lambda x: -0.1 * x, _balanced(PARAMS)))


@row("`contrib.reduce_on_plateau`", WORKS)
def check_plateau():
    """After the balancer; pass `value=`, the number to watch."""
    plateau = optax.contrib.reduce_on_plateau(patience=1, rtol=1.0)
    tx = optax.chain(B, optax.sgd(0.1), plateau)
    plain = optax.chain(optax.sgd(0.1), plateau)
    _same(tx, plain, extra=lambda params: {"value": _value(params)})


@row("`scale_by_backtracking_linesearch`, `scale_by_zoom_linesearch`", WORKS)
def check_line_search():
    """After the balancer; `value`, `grad`, `value_fn` belong to a sum you choose."""

    def extra(params):
        value, grad = jax.value_and_grad(_value)(params)
        return {"value": value, "grad": grad, "value_fn": _value}

    for search in (
        optax.scale_by_backtracking_linesearch(3),
        optax.scale_by_zoom_linesearch(3),
    ):
        tx = optax.chain(B, optax.sgd(1.0), search)
        _same(tx, optax.chain(optax.sgd(1.0), search), extra=extra, steps=1)


@row("`optax.tree.map_params`", WORKS)
def check_map_params():
    """Each buffer of a stream is shaped like params: sharding rules apply to it."""
    tx = optax.chain(kdopt.dot(), optax.adam(0.1))
    state = optax.tree.map_params(tx, lambda x: x + 7, tx.init(PARAMS))
    for buffer in (*state[0].traces, state[1][0].mu, state[1][0].nu):
        _close(buffer, jax.tree.map(lambda x: jnp.full_like(x, 7), PARAMS))
    assert state[0].count == 0
    balanced = optax.tree.map_params(B, lambda x: x + 7, B.init(PARAMS))
    _close(balanced.loss_weights, jnp.full(2, 0.5))


@row("`clip_by_global_norm(c)` before a balancer", WORKS)
def check_clip_before():
    """One factor for all gradients, of their joint norm; one per loss: `kdopt.each`."""
    joint = optax.chain(optax.clip_by_global_norm(1.0), B)
    grads = _both(PARAMS)
    update, _ = joint.update(grads, joint.init(PARAMS), PARAMS)
    factor = 1 / jnp.sqrt(jnp.trace(kdopt.gram(grads)))
    _close(update, jax.tree.map(lambda x: factor * x, _balanced(PARAMS)))
    clip = optax.clip_by_global_norm(1.0)
    single = optax.chain(kdopt.each(clip, clip), B)
    update, state = single.update(grads, single.init(PARAMS), PARAMS)
    np.testing.assert_allclose(jnp.diagonal(state[1].gram), 1.0, rtol=1e-5)


@row("`add_decayed_weights`, `trace`, `scale_by_adam` before a balancer", INSTEAD)
def check_before():
    """`kdopt.each(tx, tx)` for one per loss; `kdopt.streams` for momenta."""
    for tx in (optax.add_decayed_weights(0.1), optax.trace(0.9), optax.adam(0.1)):
        _refused(optax.chain(tx, B))
        each = optax.chain(kdopt.each(tx, tx), B)
        assert np.all(np.isfinite(_train(each, _both)["w"]))


@row("`zero_nans` before a balancer", INSTEAD)
def check_zero_nans():
    """`kdopt.each(zero_nans(), zero_nans())`: Optax's changes its state in `scan`."""
    grads = _both(PARAMS)

    def scanned(tx):
        def step(state, _):
            return tx.update(grads, state, PARAMS)[1], None

        return jax.lax.scan(step, tx.init(PARAMS), length=2)

    with pytest.raises(TypeError, match="carry"):
        scanned(optax.chain(optax.zero_nans(), B))
    scanned(optax.chain(kdopt.each(optax.zero_nans(), optax.zero_nans()), B))


@row("`snapshot`, `monitor` before a balancer", INSTEAD)
def check_snapshot():
    """`kdopt.monitor(balancer)`, whose state keeps its structure under `scan`."""

    def norm(grads):
        return jnp.sqrt(jnp.trace(kdopt.gram(grads)))

    with pytest.raises((TypeError, ValueError, AttributeError)):
        optax.chain(optax.snapshot("norm", norm), B).init(PARAMS)
    tx = kdopt.monitor(optax.chain(B, optax.sgd(0.1)))
    _same(tx, optax.sgd(0.1))


@row("One gradient tree, or a second balancer", ERROR)
def check_one_tree():
    """Use `kdopt.value_and_grads`; one balancer, first in its chain."""
    with pytest.raises(ValueError, match=r"kdopt.value_and_grads"):
        B.update(PARAMS, B.init(PARAMS), PARAMS)
    _refused(optax.chain(B, kdopt.min_norm()), "first in its optax.chain")


@row("Parameters that are a tuple themselves", ERROR)
def check_tuple_params():
    """Plain gradients of them are refused; the K gradients of them work."""
    params = (jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="its parts are not losses"):
        B.update(params, B.init(params), params)
    update, _ = B.update((params, params), B.init(params), params)
    _close(update, params)


@row("`flax.nnx.Optimizer`", WORKS)
def check_nnx():
    """With `kdopt.nnx`: `optimizer.update(model, grads, values=values)`."""
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.b = nnx.Param(PARAMS["b"])
            self.w = nnx.Param(PARAMS["w"])

    model = Model()
    tx = optax.chain(kdopt.dto_kd(), optax.sgd(0.01))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grad_fn = kdopt.nnx.value_and_grads(
            lambda model: _losses({"b": model.b[...], "w": model.w[...]})
        )
        values, grads = grad_fn(model)
        optimizer.update(model, grads, values=values)

    for _ in range(3):
        step(model, optimizer)
    expected = _train(
        tx,
        _both,
        steps=3,
        extra=lambda params: {"values": jnp.stack(_losses(params))},
    )
    _close({"b": model.b[...], "w": model.w[...]}, expected)


@row("A Flax NNX module, integers or random keys as parameters", ERROR)
def check_differentiable():
    """`kdopt.nnx` takes modules; otherwise differentiate only the real numbers."""
    from flax import nnx

    def losses(params):
        return 1.0, 2.0

    module = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    for params, match in (
        (module, r"kdopt\.nnx"),
        (PARAMS | {"step": jnp.array(3)}, "eqx.is_inexact_array"),
        (PARAMS | {"key": jax.random.key(0)}, "in another argument"),
    ):
        with pytest.raises(TypeError, match=match):
            kdopt.value_and_grads(losses)(params)


@row("Complex parameters", ERROR)
def check_complex():
    """Keep real and imaginary parts separate and join them in the forward pass."""
    params = {"w": jnp.array([1.0 + 2.0j])}
    with pytest.raises(TypeError, match=r"jax\.lax\.complex"):
        B.update((params, params), B.init({"w": jnp.ones(1)}))
    with pytest.raises(TypeError, match=r"jax\.lax\.complex"):
        B.init(params)


@row("Linen `TrainState.apply_gradients(grads=grads)`", WORKS)
def check_train_state():
    """For balancers that need no `values`; with them call `state.tx.update`."""
    from flax.training import train_state

    tx = optax.chain(B, optax.adam(0.1))
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    for _ in range(3):
        state = state.apply_gradients(grads=_both(state.params))
    _close(state.params, _train(optax.adam(0.1), _balanced, steps=3))
    tx = optax.chain(kdopt.dto_kd(), optax.adam(0.1))
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    with pytest.raises(ValueError, match="pass them by name"):
        state.apply_gradients(grads=_both(state.params))


@row("Filtered trees with `None` leaves (Equinox)", WORKS)
def check_filtered():
    """`None` is not a leaf, for Optax and kdopt alike."""
    params = {**PARAMS, "activation": None}

    def losses(p):
        return _losses({"b": p["b"], "w": p["w"]})

    _, grads = kdopt.value_and_grads(losses)(params)
    mask = {**MASK, "activation": None}
    for tx in (B, kdopt.dot(), kdopt.restrict(B, mask), kdopt.per_layer(B)):
        update, _ = tx.update(grads, tx.init(params), params)
        assert update["activation"] is None
        bare = {key: value for key, value in update.items() if value is not None}
        assert jax.tree.structure(bare) == jax.tree.structure(PARAMS)
    update, _ = B.update(grads, B.init(params), params)
    _close(update["w"], _balanced(PARAMS)["w"])


def table() -> str:
    lines = [
        "# Compatibility",
        "",
        "A balancer takes a tuple of K gradient trees where Optax expects one. Each",
        "row is a test in `tests/test_compatibility.py`, which writes this page. Where",
        "Optax cannot take the tuple it raises an error; nothing is silently wrong.",
        "Scalarizers take one tree and work wherever an Optax transform does.",
        "",
        "| What | | How |",
        "|---|---|---|",
    ]
    for what, verdict, check in ROWS:
        advice = " ".join((check.__doc__ or "").split())
        lines.append(f"| {what} | {verdict} | {advice} |")
    return "\n".join(lines) + "\n"


CHECKS = [check for _, _, check in ROWS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
def test_row(check, standard):
    check()


def test_the_page_is_current():
    assert PAGE.read_text() == table(), "run python -m tests.test_compatibility"


if __name__ == "__main__":
    PAGE.write_text(table())
