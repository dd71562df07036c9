"""Masks of parameters: trees of bools, prefixes of them, or functions to them."""

from collections.abc import Mapping
from typing import Any

import jax
import optax


def mask_tree(mask: Any, like: Any) -> Any:
    """Expands a mask, a prefix of one or a function to one, to one entry per leaf.

    Raises:
        ValueError: If it does not fit the parameters.
    """
    # A function is a leaf; a module that happens to be callable is a tree.
    is_function = callable(mask) and jax.tree_util.all_leaves([mask])
    chosen = mask(like) if is_function else mask
    try:
        return jax.tree.broadcast(chosen, like)
    except ValueError as error:
        # Dicts are fine for anything with names, such as flax.nnx.State.
        by_name = _by_name(chosen, like) if isinstance(chosen, Mapping) else None
        if by_name is None:
            raise ValueError(
                "The mask or labels must have the structure of params, be a prefix of "
                f"it, or a function from params to one: {error}"
            ) from error
        return by_name


def _by_name(mask: Mapping, like: Any) -> Any:
    """Reads nested mappings by the names in the path of each leaf; None if they differ.

    Every leaf must be found, and every entry of the mask must be used.
    """
    used = set()

    def entry(path: tuple, _: Any) -> Any:
        node: Any = mask
        for depth, key in enumerate(path):
            if not isinstance(node, Mapping):
                break
            node = node[getattr(key, "key", getattr(key, "name", None))]
            used.add(path[: depth + 1])
        if isinstance(node, Mapping):
            raise KeyError(path)
        return node

    try:
        tree = jax.tree_util.tree_map_with_path(entry, like)
    except KeyError:
        return None
    return tree if len(used) == _num_entries(mask) else None


def _num_entries(mask: Any) -> int:
    if not isinstance(mask, Mapping):
        return 0
    return sum(1 + _num_entries(node) for node in mask.values())


def select(tree: Any, flags: Any) -> Any:
    """Removes the unmarked leaves; the rest has a structure of its own."""
    return jax.tree.map(lambda x, on: x if on else optax.MaskedNode(), tree, flags)


def fill(selected: Any, flags: Any, other: Any) -> Any:
    """Puts the leaves of another tree where :func:`select` removed them."""
    leaves = iter(jax.tree.leaves(selected))
    return jax.tree.map(lambda on, x: next(leaves) if on else x, flags, other)
