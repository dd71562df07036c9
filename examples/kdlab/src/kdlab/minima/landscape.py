"""Loss landscapes along random directions, comparable between networks."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Losses = Callable[[Any, Any], jax.Array]
"""Maps parameters and one batch to the mean losses of the batch, ``[m]``."""

Batches = Sequence[tuple[float, Any]]
"""Batches with their fractions of the images, which sum to 1."""


def draw_direction(key: jax.Array, params: Any) -> Any:
    r"""Draws a direction whose filters have the norms of those of the parameters.

    .. math:: d_{ij} \leftarrow
        \frac{d_{ij}}{\lVert d_{ij} \rVert + 10^{-10}} \lVert \theta_{ij} \rVert,
        \qquad d \sim N(0, 1)

    for the j-th filter (the last axis) of the i-th layer. The directions of biases and
    of the scales of normalisation layers are 0.

    Args:
        key: Random key.
        params: Parameters; leaves with fewer than two axes are not filters.

    Returns:
        A tree with the structure of the parameters.

    References:
        Li et al., `Visualizing the loss landscape of neural nets
        <https://arxiv.org/abs/1712.09913>`_, NeurIPS 2018, section 4
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def leaf(key: jax.Array, theta: jax.Array) -> jax.Array:
        if theta.ndim < 2:
            return jnp.zeros_like(theta)
        axes = tuple(range(theta.ndim - 1))
        drawn = jax.random.normal(key, theta.shape, theta.dtype)

        def length(x: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True))

        return drawn / (length(drawn) + 1e-10) * length(theta)

    return jax.tree.unflatten(structure, map(leaf, keys, leaves))


def move(params: Any, directions: Sequence[Any], steps: jax.Array) -> Any:
    """Moves parameters by steps ``[n]`` along n directions."""

    def leaf(theta: jax.Array, *along: jax.Array) -> jax.Array:
        parts = zip(steps, along, strict=True)
        return theta + sum(step.astype(theta.dtype) * d for step, d in parts)

    return jax.tree.map(leaf, params, *directions)


def evaluate(
    losses: Losses,
    params: Any,
    directions: Sequence[Any],
    points: np.ndarray,
    batches: Batches,
) -> np.ndarray:
    """Evaluates the mean losses at points around the parameters.

    Each device evaluates one point at a time; ``vmap`` over the weights would be
    several times slower on a CPU.

    Args:
        losses: The losses of one batch.
        params: Parameters at the centre.
        directions: Trees with the structure of the parameters.
        points: Steps along the directions, ``[p, n]``.
        batches: The data; at least one batch.

    Returns:
        Losses, ``[p, m]``.
    """
    count = len(points)
    mesh = _mesh(min(jax.local_device_count(), count))
    everywhere = NamedSharding(mesh, P())
    params, directions = jax.device_put((params, tuple(directions)), everywhere)
    batches = [(share, jax.device_put(batch, everywhere)) for share, batch in batches]
    at_once = _compile(losses, mesh)
    rows = []
    for group in _group(points, mesh.size):
        parts = [
            share * np.asarray(at_once(group, params, directions, batch))
            for share, batch in batches
        ]
        rows.append(np.sum(parts, axis=0))
    return np.concatenate(rows)[:count]


def _mesh(devices: int) -> Mesh:
    return jax.make_mesh(
        (devices,),
        ("points",),
        axis_types=(AxisType.Auto,),
        devices=jax.local_devices()[:devices],
    )


@functools.cache
def _compile(losses: Losses, mesh: Mesh) -> Callable[..., jax.Array]:
    """Compiles the evaluation once for all networks that share their losses."""

    def one(point: Any, params: Any, directions: Any, batch: Any) -> jax.Array:
        return losses(move(params, directions, point[0]), batch)[None]

    return jax.jit(
        jax.shard_map(
            one,
            mesh=mesh,
            in_specs=(P("points"), P(), P(), P()),
            out_specs=P("points"),
            check_vma=False,
        )
    )


def _group(points: np.ndarray, devices: int) -> np.ndarray:
    """Groups points by the number of devices; the last group repeats a point."""
    missing = -len(points) % devices
    padded = np.concatenate([points, np.repeat(points[-1:], missing, axis=0)])
    return padded.astype(np.float32).reshape(-1, devices, points.shape[1])
