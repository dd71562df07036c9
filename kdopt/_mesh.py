"""What code must know of meshes and devices."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def explicit_sharding(x: Any) -> NamedSharding | None:
    """The sharding of an abstract array where it is part of its type, else None."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def is_local(x: jax.Array) -> bool:
    """Whether an array certainly lies on one device, as far as the tracer can tell."""
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty:
        return jax.device_count() == 1
    return mesh.size == 1 or all(kind == AxisType.Manual for kind in mesh.axis_types)


def product_sharding(x: jax.Array, num_batch: int) -> NamedSharding | None:
    """The sharding of a product of ``x`` with itself, if its mesh wants to be told.

    Batch axes, the first ones, stay where they are; what is summed is summed over all
    devices.
    """
    sharding = explicit_sharding(jax.typeof(x))
    if sharding is None:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:num_batch]))
