"""Queries about meshes and devices."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def explicit_sharding(x: Any) -> NamedSharding | None:
    """Returns the sharding of an array if it is part of its type, else None."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def is_local(x: jax.Array) -> bool:
    """Tells whether an array certainly lies on one device; False if unknown."""
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty:
        return jax.device_count() == 1
    return mesh.size == 1 or all(kind == AxisType.Manual for kind in mesh.axis_types)


def product_sharding(x: jax.Array, num_batch: int) -> NamedSharding | None:
    """Returns the sharding of a product of ``x`` with itself, if its mesh needs one.

    The leading batch axes stay where they are; sums run over all devices.
    """
    sharding = explicit_sharding(jax.typeof(x))
    if sharding is None:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:num_batch]))
