"""Batch normalisation in float32, by replica or over a whole batch."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


def widen(dtype: DTypeLike) -> jnp.dtype:
    """Returns the dtype of sums: float32, or a wider dtype itself.

    Examples:
        >>> widen(jnp.bfloat16), widen(jnp.float64)
        (dtype('float32'), dtype('float64'))
    """
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


class Statistic(nnx.BatchStat):
    """A running statistic that is replaced without comparing placements.

    Flax's own assignment compares them, which during tracing takes a time quadratic in
    the size of the program: half of the tracing time of a deep network.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replaces the statistic, or a part of it."""
        if key is ...:
            self.set_value(value)
        else:
            super().__setitem__(key, value)


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation in float32 or wider, whatever the dtype of the computation.

    Flax rounds the running statistics to that dtype; here only the result is rounded.
    They have the dtype of the parameters if that is wider than float32.

    Args:
        *args: Arguments of ``nnx.BatchNorm``.
        group: Number of adjacent images that share their statistics, as a replica with
            that batch size would compute them, on any number of devices. The running
            statistics are updated with the mean over groups. None: the whole batch.
        **kwargs: Keyword arguments of ``nnx.BatchNorm``.

    Notes:
        Flax's running variance is biased, PyTorch's is unbiased: they differ by the
        factor n / (n - 1), n = b h w.
    """

    def __init__(self, *args: Any, group: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        wide = widen(self.param_dtype)
        own: list[nnx.BatchStat] = [
            Statistic(x[...].astype(wide)) for x in (self.mean, self.var)
        ]
        self.mean, self.var = own
        self.group = group

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises ``[b, h, w, d]`` over all axes except the last.

        Raises:
            ValueError: If the groups do not divide the batch.
        """
        wide = x.astype(widen(x.dtype))
        trained = not (
            self.use_running_average
            if use_running_average is None
            else use_running_average
        )
        if self.group is not None and trained:
            return self._by_group(wide, self.group).astype(x.dtype)
        return super().__call__(wide, use_running_average, mask=mask).astype(x.dtype)

    def _by_group(self, x: jax.Array, size: int) -> jax.Array:
        if len(x) % size:
            raise ValueError(
                f"BatchNorm in groups of {size} images cannot divide a batch of "
                f"{len(x)}: choose a multiple of the group as batch size, or a divisor "
                "of the batch size as group."
            )
        groups = x.reshape(-1, size, *x.shape[1:])
        axes = tuple(range(1, groups.ndim - 1))
        mean, square = jnp.mean(groups, axes), jnp.mean(jnp.square(groups), axes)
        # Rounding may make it negative.
        var = jnp.maximum(square - jnp.square(mean), 0)
        for running, seen in ((self.mean, mean), (self.var, var)):
            moved = self.momentum * running[...]
            moved += (1 - self.momentum) * jnp.mean(seen, 0)
            running[...] = jax.lax.stop_gradient(moved)
        shape = len(groups), *[1] * (x.ndim - 1), x.shape[-1]
        factor = jax.lax.rsqrt(var + self.epsilon).reshape(shape)
        normal = (groups - mean.reshape(shape)) * factor
        if self.scale is not None:
            normal *= self.scale[...]
        if self.bias is not None:
            normal += self.bias[...]
        return normal.reshape(x.shape)
