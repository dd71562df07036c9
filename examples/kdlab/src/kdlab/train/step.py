"""The training step of a method."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import kdopt
from kdlab.data.split import Examples, Split
from kdlab.devices.mesh import Layout
from kdlab.models.network import Network
from kdlab.train.evaluate import Metrics, name_losses
from kdlab.train.gradients import compute_gradients, split_batch
from kdlab.train.methods import Plan
from kdlab.train.observe import seen_in
from kdlab.train.problem import Problem
from kdlab.train.state import TrainState

Step = Callable[
    [TrainState, Split | Examples, Any, Any, Any], tuple[TrainState, Metrics]
]


def train_step(
    problem: Problem,
    plan: Plan,
    *,
    accumulate: int = 1,
    ema: float | None = None,
    skip_nonfinite: bool = False,
) -> Step:
    """Returns the training step of a method, a pure function that serves every seed.

    Args:
        problem: The losses and the placement of arrays.
        plan: How gradients are combined and applied.
        accumulate: Number of micro-batches; see
            :mod:`kdlab.train.gradients`.
        ema: Decay of the averaged parameters, which the state must then hold.
        skip_nonfinite: Whether a step whose losses or update are not finite only
            advances the step count.

    Returns:
        ``step(state, data, teacher, indices, sample_weights)``. The metric ``finite``
        is 1 if losses and update were finite, else 0.
    """

    def step(
        state: TrainState,
        data: Split | Examples,
        teacher: Any,
        indices: Any,
        weights: Any,
    ) -> tuple[TrainState, Metrics]:
        batch = problem.load(state, data, None, indices, weights)
        parts = split_batch(problem, batch, teacher, accumulate)
        values, rest, grads, balancer, used = compute_gradients(
            problem, plan, state, parts
        )
        updates, opt_state = plan.tx.update(
            grads, state.opt_state, state.params, values=values
        )
        if used is None and plan.reports_weights:
            used = kdopt.loss_weights(opt_state)
        finite = jnp.isfinite(values).all() & jnp.isfinite(optax.tree.norm(updates))
        names = problem.names
        metrics = name_losses("loss", values, names)
        metrics["finite"] = finite.astype(jnp.float32)
        if used is not None:
            metrics |= name_losses("weight", used, names)
        metrics |= seen_in(opt_state, balancer, values, names)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema
        if ema is not None:
            averaged = optax.incremental_update(params, averaged, 1 - ema)
        after = TrainState(
            params, rest, opt_state, balancer, averaged, state.step + 1, state.seed
        )
        if skip_nonfinite:
            before = state._replace(step=after.step)
            after = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, before)
        return constrain_state(problem.layout, after), metrics

    return step


def make_step(problem: Problem, plan: Plan, **options: Any) -> Step:
    """Compiles :func:`train_step`, donating the state."""
    return jax.jit(train_step(problem, plan, **options), donate_argnums=0)


def make_seeds_step(
    problem: Problem, plan: Plan, *, same_data: bool = False, **options: Any
) -> Step:
    """Compiles a step that trains several students at once, one per seed.

    The result equals that of separate runs up to rounding with JAX's default random
    generator; with ``rbg`` the augmentations differ. It pays for students that leave a
    device idle, but not for convolutions on CPU: with one kernel per student they take
    several times as long as one student after the other.

    Args:
        problem: The losses, on one device.
        plan: How gradients are combined and applied.
        same_data: Whether all seeds see the same data set; otherwise images and labels
            have a leading axis for the seeds as well.
        **options: See :func:`train_step`.

    Returns:
        A step whose state, indices, sample weights and metrics have a leading axis for
        the seeds, see :func:`stack`. The state is donated.
    """
    step = train_step(problem, plan, **options)
    axes = 0, None if same_data else 0, None, 0, 0
    return jax.jit(jax.vmap(step, in_axes=axes), donate_argnums=0)


def stack(trees: Sequence[Any]) -> Any:
    """Stacks the states, data sets or batches of several seeds into one tree."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def make_state(
    network: Network, plan: Plan, seed: int, layout: Layout, *, ema: bool = False
) -> TrainState:
    """Makes the state before the first step.

    Args:
        network: A pupil.
        plan: How it is trained.
        seed: Seed of the augmentations.
        layout: Placement of the arrays.
        ema: Whether parameters are averaged.
    """
    params, balancer = network.params, plan.balancer
    state = TrainState(
        params=params,
        rest=network.rest,
        opt_state=plan.tx.init(params),
        balancer=() if balancer is None else balancer.init(params),
        # A copy: a step donates the buffers of both.
        ema=jax.tree.map(jnp.copy, params) if ema else (),
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.int32),
    )
    return place_state(layout, state)


def place_state(layout: Layout, state: TrainState) -> TrainState:
    """Puts a state on the devices."""
    whole = layout.replicate(state._replace(params=(), opt_state=(), ema=()))
    return whole._replace(
        params=layout.place(state.params),
        opt_state=layout.place(state.opt_state),
        ema=layout.place(state.ema),
    )


def constrain_state(layout: Layout, state: TrainState) -> TrainState:
    """Inside a step: keeps a state where :func:`place_state` put it."""
    whole = layout.replicate_inside(state._replace(params=(), opt_state=(), ema=()))
    return whole._replace(
        params=layout.constrain_params(state.params),
        opt_state=layout.constrain_params(state.opt_state),
        ema=layout.constrain_params(state.ema),
    )
