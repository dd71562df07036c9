"""What the three gradient calls share: their arguments, losses and pullbacks."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdopt._typing import Mask

HOW_TO_SPLIT = (
    "Differentiate only the trainable leaves: with flax.nnx pass the module to "
    "kdopt.nnx, or nnx.split(model, nnx.Param, ...) and nnx.merge(..., copy=True); "
    "with Equinox eqx.partition(model, eqx.is_inexact_array); otherwise pass the "
    "rest in another argument."
)


def check_differentiable(params: Any) -> None:
    """Checks that every leaf can be differentiated; the error names the leaf.

    Raises:
        TypeError: If it is or holds a ``flax.nnx.Module``, whose statistics and keys
            would change in a copy that is thrown away, or has a leaf that is not an
            array of real or complex numbers.
    """
    nnx = sys.modules.get("flax.nnx")
    modules = () if nnx is None else (nnx.Module,)

    def is_module(node: Any) -> bool:
        return isinstance(node, modules)

    for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_module):
        where = f"the leaf {jax.tree_util.keystr(path)}" if path else "an argument"
        if is_module(leaf):
            raise TypeError(
                f"Cannot differentiate {where}, a flax.nnx module: what the forward "
                "pass changes in it (BatchNorm statistics, dropout keys) would be "
                "lost. Call the function of the same name in kdopt.nnx, which takes "
                "modules, or pass nnx.split(model, nnx.Param, ...) and merge with "
                "copy=True."
            )
        try:
            dtype = jnp.result_type(leaf)
        except TypeError:
            dtype = type(leaf).__name__
        else:
            if jnp.issubdtype(dtype, jnp.inexact):
                continue
        raise TypeError(
            f"Cannot differentiate {where} of dtype {dtype}: gradients are taken with "
            f"respect to real or complex numbers. {HOW_TO_SPLIT}"
        )


def close_over(
    fn: Callable[..., Any], argnums: int | Sequence[int], args: tuple, kwargs: dict
) -> tuple[Callable[..., Any], tuple, bool]:
    """Closes a function over the arguments that are not differentiated.

    Returns:
        The function of the differentiated arguments, these arguments, and whether
        ``argnums`` is a single number.
    """
    single = isinstance(argnums, int)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if any(not -len(args) <= n < len(args) for n in numbers):
        raise ValueError(
            f"argnums={argnums} is out of range: the function was called with "
            f"{len(args)} positional arguments."
        )
    primals = tuple(args[n] for n in numbers)
    for primal in primals:
        check_differentiable(primal)

    def partial(*primals: Any) -> Any:
        full = list(args)
        for n, primal in zip(numbers, primals, strict=True):
            full[n] = primal
        return fn(*full, **kwargs)

    return partial, primals, single


def split_aux(out: Any, name: str = "losses_fn") -> tuple[Any, Any]:
    """Splits what a function returned with ``has_aux`` into result and aux.

    Raises:
        ValueError: If it did not return a pair.
    """
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ValueError(
            f"With has_aux=True {name} must return a pair (result, aux), with several "
            f"losses in a tuple of their own, ((loss, loss), aux); got "
            f"{_describe(out)}."
        )
    return out[0], out[1]


def split_losses(out: Any, has_aux: bool) -> tuple[tuple[jax.Array, ...], Any]:
    """Splits what ``losses_fn`` returned into K scalar losses and aux.

    Raises:
        ValueError: If the function returned anything else; the message says what.
    """
    losses, aux = split_aux(out) if has_aux else (out, None)
    if isinstance(losses, (tuple, list)):
        if not losses or any(_shapes(losses)):
            raise ValueError(
                f"losses_fn must return K scalar losses, got shapes {_shapes(losses)}. "
                "Reduce each over the batch; return (losses, aux) only with "
                "has_aux=True."
            )
        return _as_floats(losses), aux
    if getattr(losses, "ndim", None) != 1 or not len(losses):
        hint = " With has_aux=True the losses are a tuple of their own." * has_aux
        raise ValueError(
            "losses_fn must return a tuple of K scalars or an array of shape (k,), got "
            f"{_describe(losses)}.{hint}"
        )
    return _as_floats(losses), aux


def _as_floats(losses: Any) -> tuple[jax.Array, ...]:
    """Converts integer losses to floats, such as 0 for a task without examples."""
    arrays = [jnp.asarray(loss) for loss in losses]
    dtypes = [a.dtype for a in arrays if jnp.issubdtype(a.dtype, jnp.inexact)]
    for dtype in dtypes:
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"losses_fn must return real losses, got one of dtype {dtype}: take "
                "its real part or its absolute value."
            )
    floats = dtypes[0] if dtypes else jnp.result_type(float)
    return tuple(a if a.dtype in dtypes else a.astype(floats) for a in arrays)


def _describe(out: Any) -> str:
    kind = type(out).__name__
    if isinstance(out, (tuple, list)):
        return f"a {kind} of shapes {_shapes(out)}"
    return f"{kind} of shape {getattr(out, 'shape', None)}"


def _shapes(parts: Sequence[Any]) -> list[Any]:
    """Returns shapes of numbers and arrays, type names of anything else."""
    return [
        jnp.shape(part) if jax.tree_util.all_leaves([part]) else type(part).__name__
        for part in parts
    ]


def present_share(mask: Mask | None, axis_name: str | None) -> jax.Array | None:
    """Returns factors that turn a mean over replicas into one over those with the loss.

    Args:
        mask: Which losses this replica has, ``[k]``.
        axis_name: Mesh axis of the replicas, if there are any.

    Returns:
        ``[k]``: 0 where a loss is absent; None if all are present.
    """
    if mask is None or axis_name is None:
        return mask
    here = mask.astype(jnp.float32)
    return here / jnp.maximum(jax.lax.pmean(here, axis_name), jnp.finfo("float32").tiny)


def keep_present(
    losses: tuple[jax.Array, ...], mask: Mask | None, share: jax.Array | None
) -> tuple[jax.Array, ...]:
    """Replaces absent losses by 0, and scales the others by their share."""
    if mask is None or share is None:
        return losses
    return tuple(
        jnp.where(mask[i], loss, jnp.zeros_like(loss)) * share[i].astype(loss.dtype)
        for i, loss in enumerate(losses)
    )
