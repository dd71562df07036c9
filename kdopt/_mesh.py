"""What code must say on meshes with Explicit axes, and nowhere else."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def product_sharding(x: jax.Array, num_batch: int) -> NamedSharding | None:
    """The sharding of a product of ``x`` with itself, if its mesh wants to be told.

    Batch axes, the first ones, stay where they are; what is summed is summed over all
    devices.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:num_batch]))
